"""Training data on disk: folders of dark and bright pictures of the same scenes, and folders of bright ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lumen_cli.errors import UsageError
from lumen_cli.files.find import find_pictures

LOW_NAMES = ("low", "Low", "input")
HIGH_NAMES = ("high", "High", "Normal", "normal", "gt")


@dataclass(frozen=True)
class Pair:
    """One scene, dark and bright; the two files bear the same name up to the suffix."""

    low: Path
    high: Path

    def require_one_size(self, low: Sequence[int], high: Sequence[int]) -> None:
        """UsageError where its two pictures, of these shapes, differ in size."""
        if low != high:
            raise UsageError(f"{self.low} and {self.high} differ in size")


@dataclass(frozen=True)
class TrainingFiles:
    """What a list of folders holds: aligned pairs, and bright pictures to be darkened."""

    pairs: tuple[Pair, ...]
    bright: tuple[Path, ...]

    def require_some(self) -> None:
        """UsageError where there is nothing to train on."""
        if not self.pairs and not self.bright:
            raise UsageError("no training pictures: name folders with low/ and high/, or folders of bright pictures")


def find_pairs(folder: Path) -> tuple[Pair, ...]:
    """Pairs below a folder with `low/` and `high/` sub-folders (LOL's layout), matched by stem.

    Raises UsageError where a picture has no partner: a pair lost in silence would falsify every figure.
    """
    low_dir = next((folder / name for name in LOW_NAMES if (folder / name).is_dir()), None)
    high_dir = next((folder / name for name in HIGH_NAMES if (folder / name).is_dir()), None)
    if low_dir is None or high_dir is None:
        raise UsageError(f"{folder}: expected the sub-folders low/ and high/ with pictures of the same names")
    low, high = _by_stem(low_dir), _by_stem(high_dir)
    alone = sorted(low.keys() ^ high.keys())
    if alone:
        names = ", ".join(alone[:5]) + (" …" if len(alone) > 5 else "")
        raise UsageError(f"{folder}: {len(alone)} pictures have no partner of the same name: {names}")
    return tuple(Pair(low[stem], high[stem]) for stem in sorted(low))


def find_training_files(folders: list[Path]) -> TrainingFiles:
    """Sort folders into pairs (those with `low/` and `high/`) and bright pictures (all others, recursively)."""
    pairs: list[Pair] = []
    bright: list[Path] = []
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"{folder}: no such folder")
        if any((folder / name).is_dir() for name in LOW_NAMES):
            pairs += find_pairs(folder)
        else:
            bright += [source.path for source in find_pictures([str(folder)])]
    return TrainingFiles(tuple(pairs), tuple(bright))


def _by_stem(folder: Path) -> dict[str, Path]:
    return {source.path.stem: source.path for source in find_pictures([str(folder)])}
