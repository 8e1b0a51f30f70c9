"""Where `lumen benchmark` writes: reports and the models' pictures, beside nothing and over nothing unasked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lumen_cli.errors import UsageError

if TYPE_CHECKING:
    from lumen_cli.benchmark.quality import Save
    from lumen_cli.benchmark.quality_entrants import Entrant
    from lumen_cli.benchmark.quality_samples import Samples


def image_targets(folder: Path | None, samples: Samples, entrants: Sequence[Entrant]) -> dict[tuple[str, str], Path]:
    """The file of each row's result for each picture; none where no folder is given."""
    if folder is None:
        return {}
    return {
        (entrant.name, sample.name): _image_target(folder, entrant.name, sample.name)
        for entrant in entrants
        for sample in samples.items
    }


def _image_target(folder: Path, row: str, name: str) -> Path:
    return folder / row / f"{name}.png"


def saver(folder: Path) -> Save:
    """What writes a row's result: a PNG, complete or not at all."""
    from lumen_cli.files.atomic import replacing
    from lumen_cli.imaging.picture import Picture
    from lumen_cli.imaging.write import write_picture

    def save(row: str, name: str, picture: Picture) -> None:
        target = _image_target(folder, row, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as temporary:
            write_picture(picture, temporary, format="png")

    return save


def check_targets(targets: Sequence[Path], samples: Samples, overwrite: bool) -> None:
    """Before any work: every file can be written, none is a picture measured on, and none exists unless `overwrite`.

    Raises:
        UsageError: the first that cannot be.
    """
    from lumen_cli.files.outputs import check_writable

    sources = {path.resolve() for path in samples.files}
    for target in targets:
        if target.resolve() in sources:
            raise UsageError(f"{target} is one of the pictures measured on; write somewhere else")
        if target.exists() and not overwrite:
            raise UsageError(f"{target} exists; --overwrite replaces it")
    for folder in dict.fromkeys(target.parent for target in targets):
        check_writable(folder)
    doubled = len(targets) - len({target.resolve() for target in targets})
    if doubled:
        raise UsageError("two results would be written to one file: two models, or two reports, of one name")


def write_text(path: Path, text: str) -> None:
    """A report, complete or not at all; UsageError where it cannot be written."""
    from lumen_cli.files.atomic import replacing

    try:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror or error})") from None
