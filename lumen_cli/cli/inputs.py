"""From a checked request to pictures on the disk: searching, reading lists, and the two standard streams."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from lumen_cli.cli.streams import OutputError
from lumen_cli.errors import LumenError, UsageError
from lumen_cli.imaging.formats import MAXIMUM_PIXELS
from lumen_cli.limits import DEFAULT_TIMEOUT

if TYPE_CHECKING:
    from lumen_cli.files.find import Found, Source
    from lumen_cli.run.existing import Existing

STANDARD = "-"
"""Standard input as INPUT, standard output as --output."""


@dataclass(frozen=True)
class Request:
    """Where pictures come from and go to, and how the run speaks. The fields are the options of the same name."""

    inputs: tuple[str, ...]
    output: str | None
    from_file: str | None = None
    null: bool = False
    follow_links: bool = False
    include_outputs: bool = False
    watch: bool = False
    dry_run: bool = False
    overwrite: bool = False
    skip_existing: bool = False
    jobs: int | None = None
    as_json: bool = False
    quiet: bool = False
    stats: bool = False
    preserve_times: bool = False
    max_pixels: int = MAXIMUM_PIXELS
    timeout: float = DEFAULT_TIMEOUT

    @property
    def from_stdin(self) -> bool:
        """Whether the one picture comes on standard input."""
        return STANDARD in self.inputs

    @property
    def to_stdout(self) -> bool:
        """Whether the one picture goes to standard output."""
        return self.output == STANDARD

    @property
    def existing(self) -> Existing:
        """What happens to outputs that are there."""
        from lumen_cli.run.existing import Existing

        return Existing.OVERWRITE if self.overwrite else Existing.SKIP if self.skip_existing else Existing.RESUME


def checked(request: Request, resume: bool = False) -> Request:
    """The request, where its parts go together.

    Raises:
        UsageError: they do not.
    """
    asked = {"--overwrite": request.overwrite, "--skip-existing": request.skip_existing, "--resume": resume}
    chosen = [name for name, wanted in asked.items() if wanted]
    if len(chosen) > 1:
        raise UsageError(f"{' and '.join(chosen)} cannot be combined; choose one")
    if not request.inputs and request.from_file is None:
        raise UsageError("no input given: name pictures, folders or patterns, or a list of them with --from-file")
    if request.null and request.from_file is None:
        raise UsageError("--null is about --from-file, and there is none")
    if request.from_stdin:
        if len(request.inputs) > 1 or request.from_file is not None:
            raise UsageError("- stands for one picture on standard input, and for it alone (a file of that name: ./-)")
        _refuse_together("- as INPUT", {"--watch": request.watch, "--dry-run": request.dry_run})
    if request.to_stdout:
        _refuse_together("-o -", {"--watch": request.watch, "--dry-run": request.dry_run, "--json": request.as_json})
    if request.watch:
        _refuse_together("--watch", {"--dry-run": request.dry_run})
    return request


def _refuse_together(what: str, others: dict[str, bool]) -> None:
    for name, wanted in others.items():
        if wanted:
            raise UsageError(f"{what} and {name} cannot be combined")


_MOST_NAMED = 3


@dataclass(frozen=True)
class Gathered:
    """found: the pictures; output: where they go; again: looks once more; deliver: is given each finished output."""

    found: Found
    output: str | None
    again: Callable[[], Found]
    deliver: Callable[[Path], None] = lambda finished: None


@contextmanager
def gathered(request: Request) -> Iterator[Gathered]:
    """The pictures that a request means; inside, what came on standard input is a file.

    With `-o -` whatever is printed on standard output inside goes to standard error instead, and `deliver` writes the
    result's bytes.

    Raises:
        UsageError: as `search`; or a stream that is needed is a terminal.
    """
    import tempfile

    from lumen_cli.files.find import Found, read_list, search
    from lumen_cli.run.own_outputs import OwnOutputs, describe

    if (request.to_stdout and sys.stdout is None) or (request.from_stdin and sys.stdin is None):
        raise UsageError("- stands for a standard stream, and it is closed")
    if request.to_stdout and sys.stdout.isatty():
        raise UsageError(
            "standard output is a terminal, and a picture is no text; add > bright.jpg, or | and a program"
        )
    if request.from_stdin and sys.stdin.isatty():
        raise UsageError("standard input is a terminal; add < night.jpg, or name the picture")
    listed = [] if request.from_file is None else read_list(request.from_file, request.null)
    outputs = OwnOutputs()
    left_out: tuple[Path, ...] = ()

    def look() -> Found:
        nonlocal left_out
        found = search(
            request.inputs,
            listed,
            follow_links=request.follow_links,
            may_be_none=request.watch and bool(request.inputs),
        )
        if request.include_outputs:
            return found
        others, left_out = outputs.without(found)
        if left_out and not others.sources and not others.troubles and not request.watch:
            raise UsageError(f"{describe(left_out)}: written by lumen; add --include-outputs to process it again")
        return others

    if not request.from_stdin and not request.to_stdout:
        found = look()
        if not request.quiet:
            _tell_outside(found)
            _tell_left_out(left_out)
        yield Gathered(found, request.output, look)
        return
    with tempfile.TemporaryDirectory(prefix="lumen-") as place:
        found = Found((_standard_input(Path(place)),)) if request.from_stdin else look()
        if not request.to_stdout:
            yield Gathered(found, request.output, look)
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

            yield Gathered(found, f"{Path(place) / 'out'}{os.sep}", look, deliver)


def _standard_input(place: Path) -> Source:
    """The picture on standard input, as a file whose ending says what it is."""
    from lumen_cli.files.find import Source
    from lumen_cli.imaging.formats import recognise

    arrived = place / "arrived"
    try:
        with arrived.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        with arrived.open("rb") as file:
            format = recognise(file)
    except OSError as error:
        raise LumenError(f"standard input cannot be kept in {place} ({error.strerror or error})") from None
    path = arrived.rename(place / f"stdin{format.suffix if format is not None and format.encode else ''}")
    return Source(path, None, Path(path.name), STANDARD)


@contextmanager
def _standard_output() -> Iterator[int]:
    """A descriptor of standard output; inside, nothing else gets there, whatever prints."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield kept
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def _tell_left_out(own: tuple[Path, ...]) -> None:
    """Say that outputs of lumen were not taken for inputs; one line."""
    from lumen_cli.run.own_outputs import describe
    from lumen_cli.text import count

    if own:
        said = f"{count(len(own), 'picture')} that lumen wrote left out: {describe(own)}"
        typer.echo(f"lumen: {said}; --include-outputs takes them too", err=True)


def _tell_outside(found: Found) -> None:
    """Say that links were not followed; one line."""
    from lumen_cli.text import count, short_path

    if found.outside:
        names = ", ".join(short_path(path) for path in found.outside[:_MOST_NAMED])
        more = ", …" if len(found.outside) > _MOST_NAMED else ""
        said = f"{count(len(found.outside), 'link')} out of the input folders not followed: {names}{more}"
        typer.echo(f"lumen: {said}; --follow-links follows them", err=True)
