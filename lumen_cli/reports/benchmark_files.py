"""The quality benchmark as JSON, CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lumen_cli.atomic import atomic_file
from lumen_cli.errors import UsageError
from lumen_cli.reports.jsonlines import LeakLine, QualityLine, strict
from lumen_cli.reports.quality import Cell, Column, make_grid, title
from lumen_cli.text import printable

if TYPE_CHECKING:
    from lumen_cli.benchmark.plan import QualityReport
    from lumen_cli.benchmark.quality import Row
    from lumen_cli.benchmark.samples import LeakReport

_STEERING = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, direction marks, and surrogates, which no file can hold."""


def quality_lines(report: QualityReport) -> Iterator[str]:
    """A JSON line per row."""
    for row in report.rows:
        yield QualityLine(**_about(report), **_row(report, row)).line()


def leak_lines(report: LeakReport) -> Iterator[str]:
    """A JSON line per test picture."""
    for each in report.likenesses:
        yield LeakLine(
            test=each.name,
            train=str(each.train),
            side=each.side,
            score=each.score,
            correlation=each.correlation,
            gradients=each.gradients,
            mirrored=each.mirrored,
            verdict=each.verdict or None,
        ).line()


def dumps(value: Any, indent: int | None = None) -> str:
    """Strict JSON: NaN and infinity become null; characters that control a terminal become escapes."""
    text = json.dumps(strict(value), indent=indent, ensure_ascii=False, allow_nan=False)
    return _STEERING.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def as_json(report: QualityReport) -> str:
    """The whole report as one object."""
    metrics = [
        {"name": m.name, "title": m.title, "unit": m.unit, "better": m.better or None, "library": m.library}
        for m in report.metrics
    ]
    rows = [_row(report, row) for row in report.rows]
    refused = [{"path": str(each.path), "reason": each.reason} for each in report.samples.problems]
    whole = _about(report) | {"metrics": metrics, "unavailable": report.unavailable, "notes": list(report.notes)}
    return dumps(whole | {"refused": refused, "rows": rows}, indent=2) + "\n"


def as_csv(report: QualityReport) -> str:
    """Lines of scope "mean" (with intervals) and "picture"; a missing figure is an empty field."""
    names = [metric.name for metric in report.metrics]
    bounds = [f"{name}_{end}" for name in names for end in ("lower", "upper")]
    buffer = io.StringIO()
    fields = ["scope", "model", "kind", "picture", "n", *names, *bounds, "width", "height", "seconds", "reason"]
    writer = csv.DictWriter(buffer, fields, restval="", lineterminator="\n")
    writer.writeheader()
    for row in report.rows:
        head = {"model": _field(row.entrant.name), "kind": row.entrant.kind}
        means = {name: mean.value for name, mean in row.means.items()}
        ends = {f"{name}_lower": mean.lower for name, mean in row.means.items()}
        ends |= {f"{name}_upper": mean.upper for name, mean in row.means.items()}
        writer.writerow(head | {"scope": "mean", "n": row.count} | _format(means | ends))
        for score in row.scores:
            facts = {"width": score.width or "", "height": score.height or "", "seconds": f"{score.seconds:.6f}"}
            own = {"scope": "picture", "picture": _field(score.name), "reason": _field(score.reason or "")}
            writer.writerow(head | own | facts | _format(score.values))
    return buffer.getvalue()


def as_markdown(report: QualityReport) -> str:
    """The table with sources, notes and settings; the best of each column bold."""
    grid = make_grid(report)

    def cell(each: Cell) -> str:
        text = f"**{each.value}**" if each.best else each.value
        text += f"<sup>{each.source}</sup>" if each.source else ""
        return text + (f" [{each.interval}]" if each.interval else "")

    heads = ["model", "n", *map(_heading, grid.columns)]
    lines = [f"## {title(report)}", "", _pipes(heads), _pipes(["---", *["---:"] * (len(heads) - 1)])]
    lines += (_pipes([_md(line.name), str(line.count), *map(cell, line.cells)]) for line in grid.lines)
    lines += ["", *(f"<sup>{place}</sup> {source}  " for place, source in enumerate(grid.sources, start=1)), ""]
    lines += (f"* {_md(note)}" for note in (*report.notes, *report.unavailable.values()))
    lines += (f"* {_md(row.entrant.name)}: {_md(row.entrant.about)}" for row in report.rows)
    lines += (f"* {name}: {_md(value)}" for name, value in report.machine.items())
    lines += (f"* refused: {_md(each.path.name)}: {_md(each.reason)}" for each in report.samples.problems)
    for name, score in report.failures:
        lines.append(f"* failed: {_md(score.name)}{f' ({name})' if name else ''}: {_md(score.reason or '')}")
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


def as_latex(report: QualityReport) -> str:
    """A booktabs table; the best of each column bold, sources as notes below it."""
    grid = make_grid(report)

    def cell(each: Cell) -> str:
        text = rf"\textbf{{{_tex(each.value)}}}" if each.best else _tex(each.value)
        return text + (rf"\textsuperscript{{{each.source}}}" if each.source else "")

    columns = "lr" + "r" * len(grid.columns)
    rows = [" & ".join([_tex(line.name), str(line.count), *map(cell, line.cells)]) + r" \\" for line in grid.lines]
    heads = " & ".join(["model", "$n$", *(_tex(_heading(column)) for column in grid.columns)]) + r" \\"
    shown = [f"{place}: {source}" for place, source in enumerate(grid.sources, start=1)]
    shown += (note for note in report.notes if "in brackets" not in note)
    shown += (f"{row.entrant.name}: {row.entrant.about}" for row in report.rows)
    body = [r"\toprule", heads, r"\midrule", *rows, r"\bottomrule"]
    notes = [rf"\\ \footnotesize {_tex(note)}" for note in shown]
    return "\n".join(
        [
            "% needs \\usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_tex(title(report))}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            *body,
            r"\end{tabular}",
            *notes,
            r"\end{table}",
            "",
        ]
    )


WRITERS: dict[str, Callable[[QualityReport], str]] = {
    ".json": as_json,
    ".csv": as_csv,
    ".md": as_markdown,
    ".tex": as_latex,
}


def writer_for(path: Path) -> Callable[[QualityReport], str]:
    """The writer for a file name's suffix; UsageError for any other suffix."""
    if path.suffix.lower() not in WRITERS:
        raise UsageError(f"{path}: a report's name ends in {', '.join(WRITERS)}")
    return WRITERS[path.suffix.lower()]


def write_report(report: QualityReport, path: Path) -> None:
    """Write the report atomically; UsageError where that fails."""
    text = writer_for(path)(report)
    try:
        with atomic_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror or error})") from None


def _about(report: QualityReport) -> dict[str, Any]:
    samples = report.samples
    dataset = {
        "name": samples.dataset,
        "split": samples.split or None,
        "pictures": len(samples.items),
        "paired": samples.paired,
        "synthetic": samples.synthetic,
        "refused": len(samples.problems),
    }
    return {"dataset": dataset, "machine": report.machine}


def _row(report: QualityReport, row: Row) -> dict[str, Any]:
    figures = {}
    for metric in report.metrics:
        mean, stated = row.means.get(metric.name), report.published(row, metric)
        figures[metric.name] = {
            "mean": None if mean is None else mean.value,
            "lower": None if mean is None else mean.lower,
            "upper": None if mean is None else mean.upper,
            "n": 0 if mean is None else mean.count,
            "best": row.entrant.name in report.best(metric),
            "published": None if stated is None else stated.value,
            "source": None if stated is None else stated.source,
        }
    pictures = [
        {
            "name": score.name,
            "width": score.width or None,
            "height": score.height or None,
            "seconds": score.seconds,
            "reason": score.reason,
            **score.values,
        }
        for score in row.scores
    ]
    return {
        "model": row.entrant.name,
        "kind": row.entrant.kind,
        "architecture": row.entrant.architecture or None,
        "settings": dict(row.entrant.settings),
        "n": row.count,
        "figures": figures,
        "pictures": pictures,
    }


def _format(values: dict[str, float] | dict[str, float | None]) -> dict[str, str]:
    return {
        name: "" if value is None or math.isnan(value) else "inf" if math.isinf(value) else f"{value:.6f}"
        for name, value in values.items()
    }


def _heading(column: Column) -> str:
    unit = f"({column.unit})" if column.unit and not column.published else ""
    return " ".join(filter(None, (column.heading, unit, column.arrow)))


def _pipes(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _field(text: str) -> str:
    """A text in CSV, with an apostrophe where a spreadsheet would read a formula."""
    shown = printable(text)
    read = unicodedata.normalize("NFKC", shown).lstrip()  # some spreadsheets treat wide characters as narrow ones
    return f"'{shown}" if read.startswith(("=", "+", "-", "@")) else shown


def _md(text: str) -> str:
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", printable(text)).replace("&", "&amp;").replace("<", "&lt;")


def _tex(text: str) -> str:
    plain = {"\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    signs = {"–": "--", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "∞": r"$\infty$", "≈": r"$\approx$", "·": r"$\cdot$"}
    table = plain | signs | {sign: f"\\{sign}" for sign in "&%$#_"}
    return "".join(table.get(character, character) for character in printable(text))
