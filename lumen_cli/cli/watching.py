"""`--watch`: pass after pass over the inputs, each time for the pictures that are new or changed, and whole."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from lumen_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lumen_cli.cli.running import Planner, Session
    from lumen_cli.files.contents import FileState
    from lumen_cli.files.find import Found, Trouble

SETTLED_SECONDS = 2.0
"""How long a file has to have stayed as it is to count as whole."""
_PAUSE = 1.0
"""Seconds between two looks, at least; a look that takes long makes the pauses longer."""
_SHARE = 10.0
"""Of the time, looking takes one part in this many."""


class Settling:
    """Which files are whole, and which of those were not taken yet in this state."""

    def __init__(self, seconds: float = SETTLED_SECONDS) -> None:
        self._seconds = seconds
        self._seen: dict[Path, tuple[FileState, float]] = {}
        self._taken: dict[Path, FileState] = {}

    def ready(self, paths: Iterable[Path]) -> set[Path]:
        """The files that are whole and that nobody took as they are now; files that cannot be seen are not.

        One that was last touched a while ago, by the file system's own clock, is whole at once; any other when it has
        stayed the same that long.
        """
        from lumen_cli.files.contents import state_of

        ready: set[Path] = set()
        seen: dict[Path, tuple[FileState, float]] = {}
        for path in paths:
            try:
                state = state_of(path)
            except OSError:
                continue
            now = time.monotonic()
            before = self._seen.get(path)
            since = before[1] if before and before[0] == state else now
            seen[path] = state, since
            age = time.time() - max(state.mtime_ns, state.ctime_ns) / 1e9
            if self._taken.get(path) != state and max(age, now - since) >= self._seconds:
                ready.add(path)
        self._seen = seen
        return ready

    def take(self, paths: Iterable[Path]) -> None:
        """From now on these count as seen to, until they change."""
        self._taken.update({path: self._seen[path][0] for path in paths if path in self._seen})


def watch(session: Session, planner: Planner) -> int:
    """Go on until Ctrl-C or SIGTERM; 0, or their exit code where that left pictures unmade.

    What an input stands for is looked up anew each time, and names are planned for all pictures together: the outputs
    are those of one run over what is there in the end.

    Raises:
        UsageError: already the first pass cannot be planned; later ones only say so.
    """
    from lumen_cli.run.interrupt import interruptible

    settling = Settling()
    told: set[Trouble] = set()
    found, complaint, first = session.pictures.found, "", True
    with interruptible([]) as interruption:
        while not interruption.stop.is_set():
            started = time.monotonic()
            try:
                found = found if first else session.pictures.again()
                ready = settling.ready(source.path for source in found.sources)
                looking = time.monotonic() - started
                troubles = [trouble for trouble in found.troubles if trouble not in told]
                told.update(troubles)
                code = _pass(session, planner, found, ready, troubles) if ready or troubles else 0
                settling.take(ready)
                if code:
                    return code if session.summary.missing else 0
                complaint = ""
            except UsageError as error:  # a folder that is away, two pictures for one name: it may mend
                if first:
                    raise
                looking = time.monotonic() - started
                if str(error) != complaint:
                    complaint = str(error)
                    _say(session, f"{complaint}; waiting for that to change", "yellow")
            if first:
                _say(session, "watching for new and changed pictures; Ctrl-C ends it", "dim")
            first = False
            interruption.stop.wait(max(_PAUSE, _SHARE * looking))
    return 0


def _pass(session: Session, planner: Planner, found: Found, ready: set[Path], troubles: Sequence[Trouble]) -> int:
    """Make what is ready; says in a line what became of it, and what failed. 0, or the code of an interruption."""
    from lumen_cli.text import count, printable

    summary = session.summary
    done, failed, left = summary.done, len(summary.failures), len(summary.left)
    code = session.make(planner, found.sources, troubles, lambda source: source.path in ready)
    if summary.done > done:
        _say(session, f"{time.strftime('%H:%M:%S')} {count(summary.done - done, 'picture')} {summary.word}", "green")
    for line in (*summary.failures[failed:], *summary.left[left:]):
        _say(session, f"✗ {line.name}: {printable(line.reason)}", "red")
    return code


def _say(session: Session, text: str, style: str) -> None:
    session.console.print(text, style=style, markup=False, soft_wrap=True)
