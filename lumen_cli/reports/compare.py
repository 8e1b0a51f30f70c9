"""A comparison as a table of means, and as JSON lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.table import Table
from rich.text import Text

from lumen_cli.reports.jsonlines import ComparedLine, MeansLine, Version
from lumen_cli.reports.progress import NARROW, failure_line, plain_table
from lumen_cli.text import count, printable

if TYPE_CHECKING:
    from lumen_cli.compare.matching import Matched, Problem
    from lumen_cli.compare.rows import Mean, Measured
    from lumen_cli.metrics import Metric


def means_title(matched: Matched, measured: Sequence[Measured]) -> Text:
    """The heading of the table, on one line."""
    reference = printable(matched.labels[matched.reference])
    return Text(f"means of {count(len(measured), 'picture')}, measured against {reference}", "dim")


def means_table(
    matched: Matched, measured: Sequence[Measured], metrics: Sequence[Metric], columns: Sequence[dict[str, Mean]]
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
    matched: Matched, pictures: int, columns: Sequence[dict[str, Mean]], page: Path | None, sheet: Path | None
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
