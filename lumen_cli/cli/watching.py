"""`--watch`: repeated passes over the inputs, each for the pictures that are new or changed, and complete."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from lumen_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lumen_cli.cli.session import Session
    from lumen_cli.files.contents import FileState
    from lumen_cli.files.find import Found, Trouble

SETTLED_SECONDS = 2.0
"""A file that has not changed for this long counts as complete."""
_PAUSE = 1.0
"""Seconds between two passes, at least; a pass that takes long makes the pauses longer."""
_SHARE = 10.0
"""Looking takes at most one part in this many of the time."""


class Settling:
    """Which files are complete, and which of those were not taken yet in their present state."""

    def __init__(self, seconds: float = SETTLED_SECONDS) -> None:
        self._seconds = seconds
        self._seen: dict[Path, tuple[FileState, float]] = {}
        self._taken: dict[Path, FileState] = {}

    def ready(self, paths: Iterable[Path]) -> set[Path]:
        """The files that are complete and were not taken in their present state.

        A file whose last change is old enough by the file system's clock is complete at once; any other when it has
        stayed the same for that long.
        """
        from lumen_cli.files.contents import read_state

        ready: set[Path] = set()
        seen: dict[Path, tuple[FileState, float]] = {}
        for path in paths:
            try:
                state = read_state(path)
            except OSError:
                continue
            now = time.monotonic()
            before = self._seen.get(path)
            since = before[1] if before and before[0] == state else now
            seen[path] = state, since
            age = time.time() - max(state.mtime_ns, state.ctime_ns or 0) / 1e9
            if self._taken.get(path) != state and max(age, now - since) >= self._seconds:
                ready.add(path)
        self._seen = seen
        return ready

    def take(self, paths: Iterable[Path]) -> None:
        """From now on these count as taken, until they change."""
        self._taken.update({path: self._seen[path][0] for path in paths if path in self._seen})


def watch(session: Session) -> int:
    """Watch until Ctrl-C or SIGTERM; 0, or their exit code where pictures remain.

    Each pass searches the inputs again and names all pictures together: the outputs are those of one run over the
    final inputs.

    Raises:
        UsageError: the first pass cannot be planned; a later one prints the reason and waits.
    """
    from lumen_cli.cli.interrupt import interruptible
    from lumen_cli.text import with_options

    settling = Settling()
    reported: set[Trouble] = set()
    found, complaint, first = session.pictures.found, "", True
    with interruptible([]) as interruption:
        while not interruption.stop.is_set():
            started = time.monotonic()
            try:
                found = found if first else session.pictures.again()
                ready = settling.ready(source.path for source in found.sources)
                looking = time.monotonic() - started
                troubles = [trouble for trouble in found.troubles if trouble not in reported]
                reported.update(troubles)
                code = _pass(session, found, ready, troubles) if ready or troubles else 0
                settling.take(ready)
                if code:
                    return code if session.summary.missing else 0
                complaint = ""
            except UsageError as error:  # a missing folder or two pictures with one name: the user may correct it
                if first:
                    raise
                looking = time.monotonic() - started
                message = with_options(error.message, error.remedy)
                if message != complaint:
                    complaint = message
                    _print(session, f"{complaint}; waiting until this changes", "yellow")
            if first:
                _print(session, "watching for new and changed pictures; stop with Ctrl-C", "dim")
            first = False
            interruption.stop.wait(max(_PAUSE, _SHARE * looking))
    return 0


def _pass(session: Session, found: Found, ready: set[Path], troubles: Sequence[Trouble]) -> int:
    """Make what is ready and print the outcome; 0, or the exit code of an interruption."""
    from lumen_cli.text import count, printable

    summary = session.summary
    done, failed, left = summary.done, len(summary.failures), len(summary.left)
    code = session.make(found.sources, troubles, lambda source: source.path in ready)
    if summary.done > done:
        _print(session, f"{time.strftime('%H:%M:%S')} {count(summary.done - done, 'picture')} {summary.word}", "green")
    for line in (*summary.failures[failed:], *summary.left[left:]):
        _print(session, f"✗ {line.name}: {printable(line.reason)}", "red")
    return code


def _print(session: Session, text: str, style: str) -> None:
    session.console.print(text, style=style, markup=False, soft_wrap=True)
