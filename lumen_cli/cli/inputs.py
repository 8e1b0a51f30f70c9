"""From options to pictures on the disk: searching, reading lists, the two standard streams, and `--watch`.

`--watch` makes repeated passes over the inputs, each for the pictures that are new or changed, and complete.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from lumen_cli.cli import OutputError, interruptible
from lumen_cli.cli.options import EngineChoice
from lumen_cli.cli.picture_options import STANDARD, PictureOptions, refuse_together
from lumen_cli.errors import LumenError, UsageError

if TYPE_CHECKING:
    from lumen_cli.cli.session import Session
    from lumen_cli.files import Source
    from lumen_cli.files.contents import FileState
    from lumen_cli.files.find import Found, Trouble
    from lumen_cli.run.existing import OwnOutputs


_TAR = ".t"
"""In all names of tar files, compressed ones too."""


@dataclass(frozen=True)
class Inputs:
    """found: the pictures; output: where they go; again: searches again; deliver: takes each finished output.

    own: where they are planned in pieces, tells which are lumen's outputs; otherwise these are left out already.
    """

    found: Found
    output: str | None
    again: Callable[[], Found]
    deliver: Callable[[Path], None] = lambda finished: None
    own: OwnOutputs | None = None


@contextmanager
def gather(options: PictureOptions, clips: bool = False, pieces: bool = False) -> Iterator[Inputs]:
    """The pictures, and with `clips` clips, that the options name; inside, a picture from standard input is a file.

    With `-o -` whatever is printed on standard output inside goes to standard error instead, and `deliver` writes the
    result's bytes. pieces: whether very many pictures may be planned in pieces.

    Raises:
        UsageError: as `search`; or a stream that is needed is a terminal.
    """
    import tempfile

    from lumen_cli.files.find import Found
    from lumen_cli.run.plan import wants_pieces

    _check_streams(options)
    others = (options.watch, options.dry_run, options.include_outputs, options.retry_failed, options.to_stdout)
    in_pieces = pieces and not any(others) and options.engine is EngineChoice.local
    search, outputs = _searcher(options, clips, in_pieces)
    if not options.from_stdin and not options.to_stdout:
        found = search()
        yield Inputs(found, options.output, search, own=outputs if in_pieces and wants_pieces(found.sources) else None)
        return
    with tempfile.TemporaryDirectory(prefix="lumen-") as place:
        found = Found((_standard_input(Path(place)),)) if options.from_stdin else search()
        if not options.to_stdout:
            yield Inputs(found, options.output, search)
            return
        if len(found.sources) != 1 or found.sources[0].root is not None:
            raise UsageError(f"-o -: standard output takes one picture, and there are {len(found.sources)}")
        with _standard_output() as stream:

            def deliver(finished: Path) -> None:
                try:
                    with finished.open("rb") as file, os.fdopen(os.dup(stream), "wb") as out:
                        shutil.copyfileobj(file, out)
                except OSError as error:
                    raise OutputError(error) from None

            yield Inputs(found, f"{Path(place) / 'out'}{os.sep}", search, deliver)


def _check_streams(options: PictureOptions) -> None:
    if (options.to_stdout and sys.stdout is None) or (options.from_stdin and sys.stdin is None):
        raise UsageError("- stands for a standard stream, and it is closed")
    if options.to_stdout and sys.stdout.isatty():
        raise UsageError("standard output is a terminal; add > bright.jpg, or | and a program that takes a picture")
    if options.from_stdin and sys.stdin.isatty():
        raise UsageError("standard input is a terminal; add < night.jpg, or name the picture")


def _searcher(options: PictureOptions, clips: bool, in_pieces: bool) -> tuple[Callable[[], Found], OwnOutputs]:
    """A function that searches the inputs, without lumen's own outputs; its first call reports what it leaves out."""
    from lumen_cli.files.find import Found, read_list, search
    from lumen_cli.run.existing import OwnOutputs
    from lumen_cli.run.plan import wants_pieces

    local = options.engine is EngineChoice.local
    listed = [] if options.from_file is None else read_list(options.from_file, options.null)
    inputs = options.inputs or []
    tars: list[list[str]] = [[], []]
    if clips and any(_TAR in name.lower() for name in (*inputs, *listed)):
        from lumen_cli.files.tars import split_tars

        inputs, tars[0] = split_tars(inputs)
        listed, tars[1] = split_tars(listed, braces=False)
    if any(tars):
        others = {"--watch": options.watch, "-o -": options.to_stdout, "--engine ray": not local}
        refuse_together("a tar file", others)
    outputs = OwnOutputs(remember=options.watch)
    silent = options.quiet or options.from_stdin or options.to_stdout

    def look() -> Found:
        nonlocal silent
        may_be_none = options.watch and bool(inputs)
        found = Found(())
        if inputs or listed or not any(tars):
            found = search(inputs, listed, follow_links=options.follow_links, may_be_none=may_be_none, clips=clips)
        if any(tars):
            shards = search(*tars, follow_links=options.follow_links, tars=True)
            troubles = found.troubles + shards.troubles
            found = replace(found, sources=found.sources + shards.sources, troubles=troubles)
        if not silent:
            _report(found.outside, "link", "out of the input folders not followed", "--follow-links follows them")
        if not options.include_outputs and not (in_pieces and wants_pieces(found.sources)):
            found, own = outputs.without(found)
            if own and not found.sources and not found.troubles and not options.watch:
                raise UsageError(f"{_names(own)}: written by lumen; add --include-outputs to process it again")
            if not silent:
                report_own(own)
        silent = True
        return found

    return look, outputs


def report_own(paths: Sequence[Path]) -> None:
    """Print which of lumen's outputs are not taken as inputs; one line."""
    _report(paths, "picture", "that lumen wrote left out", "--include-outputs takes them too")


def _names(paths: Sequence[Path]) -> str:
    """The names of the first few."""
    from lumen_cli.text import join_first, short_path

    return join_first([short_path(path) for path in paths])


def _report(paths: Sequence[Path], what: str, why: str, remedy: str) -> None:
    """Print which files are not taken as inputs; one line."""
    from lumen_cli.text import count

    if paths:
        typer.echo(f"lumen: {count(len(paths), what)} {why}: {_names(paths)}; {remedy}", err=True)


def _standard_input(place: Path) -> Source:
    """The picture on standard input, as a file whose suffix fits its content."""
    from lumen_cli.files import Source
    from lumen_cli.imaging.formats import PIPED_CLIPS, recognise

    arrived = place / "arrived"
    try:
        with arrived.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        with arrived.open("rb") as file:
            format = recognise(file)
            file.seek(0)
            start = file.read(max(map(len, PIPED_CLIPS)))
    except OSError as error:
        raise LumenError(f"standard input cannot be kept in {place} ({error.strerror or error})") from None
    suffix = next((suffix for begin, suffix in PIPED_CLIPS.items() if start.startswith(begin)), "")
    path = arrived.rename(place / f"stdin{format.suffix if format is not None and format.encode else suffix}")
    return Source(path, None, Path(path.name), STANDARD)


@contextmanager
def _standard_output() -> Iterator[int]:
    """A descriptor of standard output; inside, whatever is printed goes to standard error."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield kept
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


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
