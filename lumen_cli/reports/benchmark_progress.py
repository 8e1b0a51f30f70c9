"""The progress line of a benchmark: which model, which picture of how many, time left."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import TextColumn
from rich.table import Column

from lumen_cli.reports.progress import transient_line


@contextmanager
def steps_line(
    console: Console, total: int, stop: threading.Event, doing: str = ""
) -> Iterator[tuple[Callable[[str], None], Callable[[int], None]]]:
    """Show progress inside: the first value counts a step and says what is going on, the second sets the total anew.

    Shows nothing where the console is no terminal.
    """
    line = transient_line(console, TextColumn("[bold]{task.description}", table_column=Column(no_wrap=True)))
    task = line.add_task(doing, total=total)

    def advance(now: str) -> None:
        line.update(task, advance=1, description="stopping (Ctrl-C: at once)" if stop.is_set() else now)

    with line:
        yield advance, lambda number: line.update(task, total=number)
