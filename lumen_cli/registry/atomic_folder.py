"""Model folders that appear whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lumen_cli.atomic import sweep_temporaries, temporary_beside
from lumen_cli.errors import ModelError, UsageError
from lumen_cli.registry.card import read_card
from lumen_cli.registry.config_file import CARD_FILE, CONFIG_FILE, GRADING_FILE, NETWORK_FILE


def holds_model(target: Path) -> bool:
    """Whether the target is a model folder that may be replaced; False if it does not exist or is an empty folder.

    Raises:
        UsageError: the target is something else, or a folder that holds more than a model.
    """
    if not target.exists() and not target.is_symlink():
        return False
    if not target.is_dir():
        raise UsageError(f"{target} exists and is not a folder")
    present = {entry.name for entry in target.iterdir()}
    if not present:
        return False
    foreign = sorted(present - _own_files(target))
    if CONFIG_FILE not in present or foreign:
        held = f" (it holds {foreign[0]})" if foreign else ""
        raise UsageError(f"{target} exists and is not a model folder and nothing else{held}: choose another")
    return True


def _own_files(folder: Path) -> set[str]:
    """The files that lumen may have written into a model folder."""
    try:
        weights = {file.file for file in read_card(folder).files.values()}
    except ModelError:
        weights = set()
    return {CONFIG_FILE, CARD_FILE, NETWORK_FILE, GRADING_FILE, "model.safetensors", *weights}


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield an empty temporary folder; at the end it replaces the target, after an error it is removed.

    Raises:
        ModelError: the target cannot be written.
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
    """Rename; an earlier folder is moved away first, and back if the rename fails."""
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
