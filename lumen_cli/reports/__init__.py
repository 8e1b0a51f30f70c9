"""What the terminal shows of several commands: progress of runs and trainings, tables, grids of facts, failures."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column, Table
from rich.text import Text

from lumen_cli.text import printable

if TYPE_CHECKING:
    from lumen_cli.run import Result
    from lumen_cli.training.loop import Report


NARROW = (0, 1, 0, 0)
"""Padding of tables with many columns."""


def plain_table(*columns: str, padding: tuple[int, int, int, int] = (0, 1, 0, 1), **options: Any) -> Table:
    """A table without frame. columns: headings, "<" before one that is aligned left, otherwise right and unwrapped."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=padding, **options)
    for heading in columns:
        if heading.startswith("<"):
            table.add_column(heading[1:], overflow="fold")
        else:
            table.add_column(heading, justify="right", no_wrap=True)
    return table


def facts_grid(facts: Mapping[str, str | Text]) -> Table:
    """Names and values, which may have several lines; empty values are left out."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in facts.items():
        if value:
            grid.add_row(name, Text("\n".join(map(printable, value.split("\n")))) if isinstance(value, str) else value)
    return grid


def failure_line(name: str, reason: str, separator: str = ": ") -> Text:
    """A failure and its reason. Print it without wrapping, so that names can be copied."""
    return Text.assemble(("✗ ", "bold red"), (name, "bold"), f"{separator}{printable(reason)}")


_MOST_NAME = 28
"""Characters of the current activity, with a picture's name."""


class _StateColumn(ProgressColumn):
    """The current activity; a requested stop shows at once, before the current picture is finished."""

    max_refresh = None

    def __init__(self, stop: threading.Event) -> None:
        super().__init__(table_column=Column(no_wrap=True))
        self.stop = stop

    def render(self, task: Task) -> Text:
        if self.stop.is_set():
            return Text("stopping (Ctrl-C: at once)", style="yellow")
        doing = printable(task.description)
        return Text(doing if len(doing) <= _MOST_NAME else f"{doing[: _MOST_NAME - 8]}…{doing[-7:]}", style="bold")


class _LeftColumn(TimeRemainingColumn):
    """The time left; nothing once a stop is requested."""

    def __init__(self, stop: threading.Event) -> None:
        super().__init__(compact=True)
        self.stop = stop

    def render(self, task: Task) -> Text:
        return Text("") if self.stop.is_set() else Text.assemble(("left ", "dim"), super().render(task))


class _PixelRateColumn(ProgressColumn):
    """Finished megapixels per second since the start."""

    def render(self, task: Task) -> Text:
        elapsed = task.elapsed or 0.0
        rate = task.fields["megapixels"] / elapsed if elapsed else 0.0
        return Text(f"{rate:.2f} MP/s" if rate else "– MP/s", style="cyan")


def is_watched(console: Console) -> bool:
    """Whether a line that is drawn again and again makes sense: not in a file, even if FORCE_COLOR asks for colours."""
    return console.is_terminal and not (os.environ.get("FORCE_COLOR") and not console.file.isatty())


def transient_line(
    console: Console, *columns: ProgressColumn, left: bool = True, counted: ProgressColumn | None = None
) -> Progress:
    """A progress line that disappears at the end; hidden where the console is no terminal.

    columns: the current activity, then the columns after bar and count; left: whether the time left comes last;
    counted: the progress, where it is not a number of items.
    """
    now, *more = columns
    ending = (TextColumn("[dim]left"), TimeRemainingColumn(compact=True)) if left else ()
    return Progress(
        now,
        BarColumn(bar_width=None),
        counted or MofNCompleteColumn(),
        *more,
        *ending,
        console=console,
        transient=True,
        expand=True,
        disable=not is_watched(console) or console.quiet,
        refresh_per_second=5,
        get_time=time.monotonic,
    )


class RunLine:
    """The line of a run."""

    def __init__(self, line: Progress, total: int) -> None:
        self._line, self._task = line, line.add_task("", total=total, megapixels=0.0)
        self._done, self._megapixels = 0, 0.0

    def now(self, doing: str) -> None:
        """Show the current activity: "enhancing night.jpg"."""
        self._line.update(self._task, description=doing)

    def share(self, part: float) -> None:
        """Show the part of the clip under way that is done, 0 to 1."""
        self._line.update(self._task, completed=self._done + part)

    def advance(self, result: Result) -> None:
        """Count a picture; those of a tar file are its parts, which `share` shows."""
        self._done += not result.member
        self._megapixels += (result.width or 0) * (result.height or 0) / 1e6
        self._line.update(self._task, megapixels=self._megapixels)
        if not result.member:
            self._line.update(self._task, completed=self._done)


@contextmanager
def progress_line(console: Console, total: int, stop: threading.Event) -> Iterator[RunLine]:
    """Show progress inside. Shows nothing where the console is no terminal, or there is nothing to do."""
    line = transient_line(console, _StateColumn(stop), _PixelRateColumn(), _LeftColumn(stop), left=False)
    line.disable = line.disable or total == 0
    run = RunLine(line, total)
    with line:
        yield run


@contextmanager
def download_line(console: Console) -> Iterator[Callable[[str, int, int | None], None]]:
    """Show bytes, speed and time left inside; yields a function of name, received bytes and total bytes."""
    columns = TextColumn("[bold]{task.description}"), TransferSpeedColumn()
    line = transient_line(console, *columns, counted=DownloadColumn())
    task = line.add_task("", total=None)

    def advance(what: str, received: int, total: int | None) -> None:
        line.update(task, description=escape(printable(what)), completed=received, total=total)

    with line:
        yield advance


@contextmanager
def steps_line(
    console: Console, total: int, stop: threading.Event, doing: str = ""
) -> Iterator[tuple[Callable[[str], None], Callable[[int], None]]]:
    """Show progress inside; yields a function that counts a step and shows the activity, and one to set the total."""
    line = transient_line(console, TextColumn("[bold]{task.description}", table_column=Column(no_wrap=True)))
    task = line.add_task(doing, total=total)

    def advance(now: str) -> None:
        line.update(task, advance=1, description="stopping (Ctrl-C: at once)" if stop.is_set() else now)

    with line:
        yield advance, lambda number: line.update(task, total=number)


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
