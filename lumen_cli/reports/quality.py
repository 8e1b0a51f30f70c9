"""Metrics of pictures as tables: a comparison's means, also as JSON lines, and the quality benchmark.

A table has as many blocks of columns as the terminal's width needs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from lumen_cli.reports import NARROW, facts_grid, failure_line, plain_table
from lumen_cli.reports.jsonlines import ComparedLine, MeansLine, Version
from lumen_cli.text import count, printable, short_path

if TYPE_CHECKING:
    from lumen_cli.benchmark.plan import QualityReport
    from lumen_cli.benchmark.quality import Mean
    from lumen_cli.benchmark.samples import LeakReport
    from lumen_cli.compare import Matched, Problem, rows
    from lumen_cli.compare.rows import Measured
    from lumen_cli.metrics import Metric


def means_title(matched: Matched, measured: Sequence[Measured]) -> Text:
    """The heading of the table, on one line."""
    reference = printable(matched.labels[matched.reference])
    return Text(f"means of {count(len(measured), 'picture')}, measured against {reference}", "dim")


def means_table(
    matched: Matched, measured: Sequence[Measured], metrics: Sequence[Metric], columns: Sequence[dict[str, rows.Mean]]
) -> Table:
    """A row for each version, a column for each metric; the best is marked where there is one."""
    from lumen_cli.compare.rows import best, format_value, heading

    table = plain_table("<version", padding=NARROW)
    for metric in metrics:
        named = heading(metric).removesuffix(f" ({metric.unit})")
        table.add_column(
            Text(f"{named}\n{metric.unit}".rstrip()), justify="right", min_width=max(map(len, named.split()))
        )
    firsts = {
        metric.name: best([column[metric.name].value for column in columns], metric, matched) for metric in metrics
    }
    for index, column in enumerate(columns):
        label = Text(printable(matched.labels[index]))
        cells = []
        for metric in metrics:
            mean = column[metric.name]
            first = index in firsts[metric.name]
            cell = Text(format_value(mean.value, metric), "bold green" if first else "")
            cell.append("*" if first else " " if firsts[metric.name] else "")
            if 0 < mean.count < len(measured):
                cell.append(f"\nof {mean.count}", "dim")
            cells.append(cell)
        table.add_row(label, *cells)
    if any(firsts.values()):
        table.caption, table.caption_justify = Text("* best", "dim"), "left"
    return table


def problem_lines(problems: Sequence[Problem]) -> Text:
    """What was left out and why, one line each. Print it without wrapping."""
    return Text("\n").join(failure_line(printable(problem.name), problem.reason) for problem in problems)


def compared_line(matched: Matched, measured: Measured) -> str:
    """One picture as a JSON line."""
    versions = [
        Version(version=label, file=str(file), metrics={name: _number(value) for name, value in values.items()})
        for label, file, values in zip(matched.labels, measured.row.files, measured.values, strict=True)
    ]
    return ComparedLine(
        status="compared",
        picture=measured.row.name,
        width=measured.width,
        height=measured.height,
        versions=versions,
    ).line()


def problem_line(problem: Problem) -> str:
    """One picture that was left out, as a JSON line."""
    return ComparedLine(status="failed", picture=problem.name, reason=problem.reason, versions=[]).line()


def means_line(
    matched: Matched, pictures: int, columns: Sequence[dict[str, rows.Mean]], page: Path | None, sheet: Path | None
) -> str:
    """The means of all versions, and the files that were written, as a JSON line."""
    versions = [
        Version(version=label, metrics={name: _number(mean.value) for name, mean in column.items()})
        for label, column in zip(matched.labels, columns, strict=True)
    ]
    return MeansLine(
        pictures=pictures,
        reference=matched.labels[matched.reference],
        versions=versions,
        page=None if page is None else str(page),
        sheet=None if sheet is None else str(sheet),
    ).line()


def _number(value: float) -> float | Literal["inf", "-inf"] | None:
    if math.isnan(value):
        return None
    return value if math.isfinite(value) else "inf" if value > 0 else "-inf"


NOTHING = "–"
_ARROWS = {"higher": "↑", "lower": "↓", "": ""}


@dataclass(frozen=True)
class Column:
    """arrow: "↑" where higher is better; published: the column holds figures of papers."""

    heading: str
    unit: str = ""
    arrow: str = ""
    published: bool = False


@dataclass(frozen=True)
class Cell:
    """The mean of a metric."""

    value: str
    interval: str = ""
    """For example "18.90–20.41"."""
    best: bool = False
    """Whether it is the best of its column."""
    source: int = 0
    """Number of the footnote, 0 for none."""


@dataclass(frozen=True)
class Line:
    """One row. kind: "model", …; count: pictures with figures."""

    name: str
    kind: str
    count: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Grid:
    """The table without its notes. sources: footnotes, numbered from 1."""

    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    sources: tuple[str, ...]


def make_grid(report: QualityReport) -> Grid:
    """A column for each metric, and beside it a column of published figures where a paper states some."""
    sources = report.sources
    columns: list[Column] = []
    cells: list[list[Cell]] = [[] for _ in report.rows]
    for metric in report.metrics:
        columns.append(Column(metric.title, metric.unit, _ARROWS[metric.better]))
        best = report.best(metric)
        for row, line in zip(report.rows, cells, strict=True):
            line.append(_make_cell(row.means.get(metric.name), metric, row.entrant.name in best))
        stated = [report.published(row, metric) for row in report.rows]
        if any(stated):
            columns.append(Column("published", metric.unit, published=True))
            for each, line in zip(stated, cells, strict=True):
                if each is None:
                    line.append(Cell(""))
                else:
                    value = f"{'≈ ' if each.about else ''}{each.stated}"
                    line.append(Cell(value, source=sources.index(each.source) + 1))
    lines = tuple(
        Line(row.entrant.name, row.entrant.kind, row.count, tuple(line))
        for row, line in zip(report.rows, cells, strict=True)
    )
    return Grid(tuple(columns), lines, sources)


def title(report: QualityReport) -> str:
    """The measured set, on one line."""
    pictures = len(report.samples.items)
    kind = "pairs" if report.samples.paired else "pictures without reference"
    return f"Quality on {report.samples.title}" + ("" if report.samples.synthetic else f" ({pictures} {kind})")


def number(value: float, digits: int) -> str:
    """A figure with this many digits after the point; "–" for NaN, "∞" for infinity."""
    return NOTHING if math.isnan(value) else "∞" if math.isinf(value) else f"{value:.{digits}f}"


def _make_cell(mean: Mean | None, metric: Metric, best: bool) -> Cell:
    if mean is None:
        return Cell("")
    interval = ""
    if mean.lower is not None and mean.upper is not None:
        interval = f"{number(mean.lower, metric.digits)}–{number(mean.upper, metric.digits)}"
    return Cell(number(mean.value, metric.digits), interval, best)


_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_MARK = "★"
_MOST_LINES = 20
_GAP = 2
"""Characters between two columns."""


def print_quality(report: QualityReport, console: Console) -> None:
    """Print table, sources, notes and settings, then refused and failed pictures."""
    grid = make_grid(report)
    console.print(Text(title(report), "bold"), soft_wrap=True)
    for table in quality_tables(grid, console.width):
        console.print(table)
    for place, source in enumerate(grid.sources, start=1):
        console.print(Text(f"{_superscript(place)} {source}", "dim"))
    marked = any(cell.best for line in grid.lines for cell in line.cells)
    for note in ((f"{_MARK} best in its column",) if marked else ()) + report.notes:
        console.print(Text(note, "dim"))
    for reason in report.unavailable.values():
        console.print(Text(printable(reason), "yellow"))
    console.print(facts_grid({row.entrant.name: row.entrant.about for row in report.rows} | report.machine))
    for problem in report.samples.problems:
        console.print(failure_line(short_path(problem.path), f"refused: {problem.reason}"), soft_wrap=True)
    for name, score in report.failures:
        where = f" ({name})" if name else ""
        console.print(failure_line(f"{printable(score.name)}{where}", score.reason or ""), soft_wrap=True)


def quality_tables(grid: Grid, width: int) -> Iterator[RenderableType]:
    """Tables that fit the width, each with the rows' names; published columns follow their measured ones."""
    name_width = max([len("model"), *(len(line.name) for line in grid.lines)])
    counts = {line.count for line in grid.lines}
    marked = _find_marked(grid)
    room = width - name_width - _GAP - max(len("n"), *(len(str(number)) for number in counts)) - 2
    for block in _blocks(grid, room):
        table = plain_table(padding=NARROW)
        table.add_column("model", no_wrap=True)
        table.add_column("n", justify="right", no_wrap=True)
        for index in block:
            column = grid.columns[index]
            style = "dim" if column.published else ""
            table.add_column(_heading(column), justify="right", no_wrap=True, style=style)
        for line in grid.lines:
            name = Text(line.name, "bold cyan" if line.kind == "model" else "dim")
            odd = "" if len(counts) == 1 else "yellow"
            table.add_row(
                name, Text(str(line.count), odd), *(_render(line.cells[index], index in marked) for index in block)
            )
        yield table


def leak_table(report: LeakReport) -> Table:
    """The test pictures that are most similar to a training picture, with verdicts."""
    table = plain_table("<test picture", "<most like", "score", "ranks", "gradients", "<", padding=NARROW)
    shown = [each for each in report.likenesses if each.verdict] or list(report.likenesses[:1])
    for each in shown[:_MOST_LINES]:
        style = "bold red" if each.verdict == "near-duplicate" else "yellow"
        verdict = Text(each.verdict + (" (mirrored)" if each.mirrored and each.verdict else ""), style)
        figures = (f"{value:.2f}" for value in (each.score, each.correlation, each.gradients))
        table.add_row(Text(printable(each.name)), Text(_below(report, each.train)), *figures, verdict)
    if len(shown) > _MOST_LINES:
        table.add_row(Text(f"… and {len(shown) - _MOST_LINES} more", "dim"))
    return table


def leak_headline(report: LeakReport) -> str:
    """One line: how many test pictures are in the training data."""
    duplicates, alike = len(report.of("near-duplicate")), len(report.of("alike"))
    tested = len(report.likenesses)
    text = f"{duplicates} of {count(tested, 'test picture')} {'has' if duplicates == 1 else 'have'} a near-duplicate"
    among = count(report.trained, "training pair" if report.paired else "training picture")
    return f"{text} among {among}" + (f"; {alike} more look alike" if alike else "")


def _below(report: LeakReport, path: object) -> str:
    text = printable(str(path))
    return text.removeprefix(printable(str(report.train)) + "/")


def _blocks(grid: Grid, room: int) -> Iterator[list[int]]:
    block: list[int] = []
    used = 0
    for index in range(len(grid.columns)):
        needed = _width(grid, index)
        pair = needed
        if index + 1 < len(grid.columns) and grid.columns[index + 1].published:
            pair += _width(grid, index + 1)
        if block and used + pair > room and not grid.columns[index].published:
            yield block
            block, used = [], 0
        block.append(index)
        used += needed
    if block:
        yield block


def _width(grid: Grid, index: int) -> int:
    texts = [_heading(grid.columns[index]), *(_render(line.cells[index], True) for line in grid.lines)]
    return _GAP + max(len(part) for text in texts for part in text.plain.split("\n"))


def _heading(column: Column) -> Text:
    words = column.heading.rsplit(" ", 1)
    below = " ".join(filter(None, (column.unit, column.arrow)))
    return Text("\n".join([*words, below] if len(words) > 1 else [words[0], below]).rstrip("\n"))


def _find_marked(grid: Grid) -> set[int]:
    """Columns with a best figure. Their other figures leave room for its mark, so that digits stay aligned."""
    return {index for index in range(len(grid.columns)) if any(line.cells[index].best for line in grid.lines)}


def _render(cell: Cell, marked: bool) -> Text:
    source = _superscript(cell.source) if cell.source else ""
    mark = f" {_MARK}" if cell.best else "  " if marked and cell.value else ""
    text = Text.assemble((cell.value, "bold green" if cell.best else ""), source, mark)
    if cell.interval:
        text.append(f"\n[{cell.interval}]", "dim")
    return text


def _superscript(place: int) -> str:
    return str(place).translate(_SUPERSCRIPTS)
