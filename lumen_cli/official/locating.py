"""What a user names → the checkpoint files that are meant."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lumen_cli.errors import ModelError
from lumen_cli.official.tensorflow import bundle_prefix, data_file

_ENDINGS = (".ckpt", ".pth", ".pt", ".pth.tar", ".safetensors")
_DEEPEST = 4
_LARGEST_NOTE = 1 << 20
_LATEST = re.compile(r'^model_checkpoint_path:\s*"(.+)"', re.MULTILINE)


@dataclass(frozen=True)
class Source:
    """One checkpoint: its file, or the prefix of a TensorFlow bundle."""

    path: Path
    bundle: bool = False

    @property
    def file(self) -> Path:
        """The file that holds the weights."""
        return data_file(self.path) if self.bundle else self.path


def find_checkpoints(paths: Sequence[Path], *, several: bool) -> list[Source]:
    """The checkpoints that files, TensorFlow prefixes and folders stand for, in their order.

    A folder is searched four levels deep. One may hold several for a model that is published in parts (`several`), of
    those in one folder the latest by TensorFlow's own note; of any other model a folder has to hold just one.

    Raises:
        ModelError: a path does not exist, or a folder holds none or too many.
    """
    found: dict[Source, None] = {}
    for path in paths:
        if path.is_dir():
            found |= dict.fromkeys(_in_folder(path, several))
        elif (prefix := bundle_prefix(path)) is not None:
            found[Source(prefix, bundle=True)] = None
        elif path.is_file():
            found[Source(path)] = None
        elif path.exists():
            raise ModelError(f"{path} is no regular file")
        else:
            raise ModelError(f"there is no file {path}")
    return list(found)


def _in_folder(folder: Path, several: bool) -> list[Source]:
    found: list[Source] = []
    for files in _folders(folder):
        plain = [Source(file) for file in files if file.name.endswith(_ENDINGS) and file.is_file()]
        prefixes = dict.fromkeys(prefix for file in files if (prefix := bundle_prefix(file)) is not None)
        bundles = [Source(prefix, bundle=True) for prefix in prefixes]
        found += plain + (_latest(bundles) if several else bundles)
    if not found:
        raise ModelError(f"{folder} holds no checkpoint (a file that ends in {', '.join(_ENDINGS)} or .index)")
    if len(found) > 1 and not several:
        names = ", ".join(str(source.path.relative_to(folder)) for source in found[:4])
        raise ModelError(f"{folder} holds {len(found)} checkpoints ({names}): name the one to import")
    return found


def _folders(folder: Path) -> Iterator[list[Path]]:
    """The files of a folder and of those below it, sorted, a list each; hidden ones left out."""
    for root, folders, files in os.walk(folder):
        here = Path(root)
        deep = len(here.relative_to(folder).parts) >= _DEEPEST
        folders[:] = [] if deep else sorted(name for name in folders if not name.startswith("."))
        yield [here / name for name in sorted(files) if not name.startswith(".")]


def _latest(bundles: list[Source]) -> list[Source]:
    if len(bundles) < 2:
        return bundles
    folder = bundles[0].path.parent
    try:
        note = folder / "checkpoint"
        small = note.is_file() and note.stat().st_size <= _LARGEST_NOTE
        noted = _LATEST.search(note.read_text(encoding="utf-8")) if small else None
    except (OSError, UnicodeDecodeError):
        noted = None
    latest = [source for source in bundles if noted and source.path.name == re.split(r"[\\/]", noted[1])[-1]]
    if not latest:
        names = ", ".join(source.path.name for source in bundles[:4])
        raise ModelError(f"{folder} holds {len(bundles)} checkpoints ({names}): name the one to import")
    return latest
