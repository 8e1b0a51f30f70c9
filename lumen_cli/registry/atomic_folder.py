"""Model folders that appear whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lumen_cli.atomic import sweep_temporaries, temporary_beside
from lumen_cli.errors import ModelError, UsageError
from lumen_cli.registry.card import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE, read_card


def holds_model(target: Path) -> bool:
    """Whether a model folder is there that may be replaced; False where nothing is, or an empty folder.

    Raises:
        UsageError: something else is there, or the folder holds more than a model.
    """
    if not target.exists() and not target.is_symlink():
        return False
    if not target.is_dir():
        raise UsageError(f"{target} exists and is no folder")
    present = {entry.name for entry in target.iterdir()}
    if not present:
        return False
    foreign = sorted(present - _own_files(target))
    if CONFIG_FILE not in present or foreign:
        held = f" (it holds {foreign[0]})" if foreign else ""
        raise UsageError(f"{target} exists and is not a model folder and nothing else{held}: choose another")
    return True


def _own_files(folder: Path) -> set[str]:
    """What lumen may have put into a model folder."""
    try:
        weights = read_card(folder).weights_file
    except ModelError:
        weights = ""
    return {CONFIG_FILE, CARD_FILE, weights or WEIGHTS_FILE}


@contextmanager
def placing(target: Path) -> Iterator[Path]:
    """An empty temporary folder beside the target: at the end it takes the target's place, after an error it is gone.

    Raises:
        ModelError: the place cannot be written.
    """
    temporary = temporary_beside(target)
    try:
        sweep_temporaries([target.parent], whole_folders=True)
        temporary.mkdir(parents=True)
        yield temporary
        _put_in_place(temporary, target)
    except OSError as error:
        raise ModelError(f"{target} cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _put_in_place(temporary: Path, target: Path) -> None:
    """Rename, with the former folder out of the way first and put back if that fails."""
    if not target.is_dir():
        temporary.rename(target)
        return
    former = temporary_beside(target)
    try:
        target.rename(former)
        temporary.rename(target)
    finally:  # Ctrl-C between the two included
        if former.exists() and not target.exists():
            former.rename(target)
    if former.is_symlink():
        former.unlink()
    else:
        shutil.rmtree(former, ignore_errors=True)
