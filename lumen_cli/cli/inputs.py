"""From options to pictures on the disk: searching, reading lists, and the two standard streams."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from lumen_cli.cli.engines import EngineChoice
from lumen_cli.cli.picture_options import STANDARD, PictureOptions, refuse_together
from lumen_cli.cli.streams import OutputError
from lumen_cli.errors import LumenError, UsageError

if TYPE_CHECKING:
    from lumen_cli.files.find import Found
    from lumen_cli.files.source import Source
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
    from lumen_cli.files.source import Source
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
