"""The progress of a training: a live table on a terminal, elsewhere a line for each report."""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from lumen_cli.reports.progress import is_watched

if TYPE_CHECKING:
    from lumen_cli.training.loop import Report

_ROWS = 12


class TrainingWatch:
    """Receives the loop's reports. A context manager, so that the terminal is restored at the end."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.reports: deque[Report] = deque(maxlen=_ROWS)
        self.validations: list[Report] = []
        self.live = Live(console=console, auto_refresh=False) if is_watched(console) else None

    def __enter__(self) -> TrainingWatch:
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live is not None:
            self.live.stop()

    def __call__(self, report: Report) -> None:
        """Show one report of the loop."""
        if report.validation is not None:
            self.validations.append(report)
        elif self.reports and self.reports[-1].stage != report.stage:
            self.reports.clear()  # another stage has other terms
        if report.validation is None:
            self.reports.append(report)
        if self.live is not None:
            self.live.update(Group(self.table(), self._show_validation()), refresh=True)
        else:
            self.console.print(_line(report), markup=False)

    def table(self) -> Table:
        """The last reports, one row each."""
        table = Table(box=None, pad_edge=False)
        terms = list(self.reports[-1].losses) if self.reports else []
        for name in ("stage", "step", "done", "pictures/s", "left", *terms):
            table.add_column(name, justify="left" if name == "stage" else "right", overflow="fold")
        for report in self.reports:
            table.add_row(
                report.stage,
                str(report.step),
                f"{report.fraction:.0%}",
                f"{report.pictures_per_second:.1f}",
                _left(report),
                *(f"{report.losses.get(term, float('nan')):.4f}" for term in terms),
            )
        return table

    def _show_validation(self) -> str:
        if not self.validations:
            return ""
        best = max(self.validations, key=lambda report: (report.validation or {}).get("psnr", 0.0))
        return f"validation: {_scores(self.validations[-1])}; best so far: {_scores(best)}"


def _scores(report: Report) -> str:
    scores = ", ".join(f"{name.upper()} {value:.3f}" for name, value in (report.validation or {}).items())
    return f"{scores} ({report.stage} {report.step})"


def _left(report: Report) -> str:
    """Time to the end of the stage."""
    minutes = report.seconds * (1.0 - report.fraction) / max(report.fraction, 1e-6) / 60.0
    return f"{minutes / 60.0:.1f} h" if minutes >= 100.0 else f"{minutes:.1f} min"


def _line(report: Report) -> str:
    if report.validation is not None:
        return f"validation  {_scores(report)}"
    terms = "  ".join(f"{name} {value:.4f}" for name, value in report.losses.items())
    return f"{report.stage} {report.step:>6}  {report.pictures_per_second:6.1f}/s  {_left(report)} left  {terms}"
