"""The benchmark's table as texts: the same cells for the terminal, Markdown and LaTeX."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lumen_cli.benchmark.quality_report import QualityReport
    from lumen_cli.benchmark.statistics import Mean
    from lumen_cli.metrics.registry import Metric

NOTHING = "–"
_ARROWS = {"higher": "↑", "lower": "↓", "": ""}


@dataclass(frozen=True)
class Column:
    """heading, unit, arrow ("↑" where higher is better); published: for the figures of papers."""

    heading: str
    unit: str = ""
    arrow: str = ""
    published: bool = False


@dataclass(frozen=True)
class Cell:
    """value: the mean; interval: "18.90–20.41" or ""; best: leads its column; source: its footnote, 0 for none."""

    value: str
    interval: str = ""
    best: bool = False
    source: int = 0


@dataclass(frozen=True)
class Line:
    """One row: its name, its kind ("model", …), pictures counted, its cells."""

    name: str
    kind: str
    count: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Grid:
    """The whole table without its notes. sources: footnotes, numbered from 1."""

    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    sources: tuple[str, ...]


def make_grid(report: QualityReport) -> Grid:
    """Columns of figures, and beside each that a paper states a column of published ones."""
    sources = report.sources
    columns: list[Column] = []
    cells: list[list[Cell]] = [[] for _ in report.rows]
    for metric in report.metrics:
        columns.append(Column(metric.title, metric.unit, _ARROWS[metric.better]))
        best = report.best(metric)
        for row, line in zip(report.rows, cells, strict=True):
            line.append(_measured(row.means.get(metric.name), metric, row.entrant.name in best))
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
    """What was measured on, in one line."""
    pictures = len(report.samples.items)
    kind = "pairs" if report.samples.paired else "pictures without reference"
    return f"Quality on {report.samples.title}" + ("" if report.samples.synthetic else f" ({pictures} {kind})")


def number(value: float, digits: int) -> str:
    """A figure with so many digits after the point; "–" for NaN, "∞" for infinity."""
    return NOTHING if math.isnan(value) else "∞" if math.isinf(value) else f"{value:.{digits}f}"


def _measured(mean: Mean | None, metric: Metric, best: bool) -> Cell:
    if mean is None:
        return Cell("")
    interval = ""
    if mean.lower is not None and mean.upper is not None:
        interval = f"{number(mean.lower, metric.digits)}–{number(mean.upper, metric.digits)}"
    return Cell(number(mean.value, metric.digits), interval, best)
