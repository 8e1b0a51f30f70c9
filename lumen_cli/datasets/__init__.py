"""Pairs of dark and bright pictures on disk, and folders of bright ones."""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lumen_cli.errors import UsageError
from lumen_cli.files import natural_key
from lumen_cli.files.find import find_pictures

LOW_NAMES = ("low", "Low", "input")
HIGH_NAMES = ("high", "High", "Normal", "normal", "gt")


@dataclass(frozen=True)
class Pair:
    """One scene, dark and bright; the two files share a name, except for the suffix."""

    low: Path
    high: Path

    def require_one_size(self, low: Sequence[int], high: Sequence[int]) -> None:
        """UsageError where the two pictures, with these shapes, differ in size."""
        if low != high:
            raise UsageError(f"{self.low} and {self.high} differ in size")


@dataclass(frozen=True)
class TrainingFiles:
    """The files of some folders: aligned pairs, and bright pictures to darken."""

    pairs: tuple[Pair, ...]
    bright: tuple[Path, ...]

    def require_some(self) -> None:
        """UsageError where there are no files."""
        if not self.pairs and not self.bright:
            raise UsageError("no training pictures: name folders with low/ and high/, or folders of bright pictures")


def find_pairs(folder: Path) -> tuple[Pair, ...]:
    """Pairs below a folder with `low/` and `high/` sub-folders (LOL's layout), matched by stem.

    Raises UsageError where a picture has no partner: a silently missing pair would distort every figure.
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


def find_training_files(folders: Sequence[Path]) -> TrainingFiles:
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


LOW_SIDE = ("low", "input", "lowlight", "dark")
HIGH_SIDE = ("high", "normal", "gt", "target", "reference", "label")
_SIDE_WORD = "|".join((*LOW_SIDE, *HIGH_SIDE))
_PREFIX = re.compile(rf"(?:{_SIDE_WORD})(?=[\W_\d])[\W_]*", re.IGNORECASE)
_SUFFIX = re.compile(rf"(?:[\W_]+|(?<=\d))(?:{_SIDE_WORD})$", re.IGNORECASE)

Rule = Callable[[str], str]
"""From a file's stem to the part that it shares with its partner's."""


@dataclass(frozen=True)
class Problem:
    """A refused picture and the reason on one line."""

    path: Path
    reason: str


@dataclass
class Matched:
    """Pairs by name (`room/0001`), in natural order, and refused pictures."""

    pairs: dict[str, Pair] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def add(self, other: Matched, prefix: str = "") -> None:
        """Add another part's pairs, with `prefix` before their names."""
        self.pairs |= {f"{prefix}{name}": pair for name, pair in other.pairs.items()}
        self.problems += other.problems


def same_stem(stem: str) -> str:
    """The names are equal except for the suffix: `146.png` and `146.jpg`."""
    return stem.casefold()


def side_word(stem: str) -> str:
    """The names differ by a word for the side: `low00690` and `normal00690`, `7_low` and `7_gt`, or not at all."""
    stripped = _SUFFIX.sub("", stem[prefix.end() :] if (prefix := _PREFIX.match(stem)) else stem)
    return (stripped or stem).casefold()


def match_folders(low: Path, high: Path, rule: Rule) -> Matched:
    """Pair the pictures of two folders, sub-folders with sub-folders of the same name.

    Refused: a picture without partner, two pictures of one side for one name, a pair that differs in size.

    Raises:
        UsageError: one of the folders is missing or holds no pictures.
    """
    matched = Matched()
    lows, highs = _by_key(low, rule, matched.problems), _by_key(high, rule, matched.problems)
    for key in sorted(lows.keys() | highs.keys(), key=lambda key: natural_key(Path(key))):
        if key not in highs:
            matched.problems.append(Problem(lows[key], f"has no partner in {high}"))
        elif key not in lows:
            matched.problems.append(Problem(highs[key], f"has no partner in {low}"))
        else:
            add_pair(matched, key, Pair(lows[key], highs[key]))
    return matched


def match_sequences(folder: Path, labels: Path) -> Matched:
    """SICE: a folder a scene with its exposures, darkest first, and a reference of the scene's name among the labels.

    The dark pictures are the first half of the exposures, rounded down: three of seven, four of nine, as Guo et al.
    ("Zero-Reference Deep Curve Estimation", CVPR 2020) take them.
    """
    matched = Matched()
    references = _by_key(labels, same_stem, matched.problems)
    scenes = (entry for entry in folder.iterdir() if entry.is_dir() and entry != labels and entry.name[0] != ".")
    for scene in sorted(scenes, key=lambda path: natural_key(Path(path.name))):
        reference = references.pop(same_stem(scene.name), None)
        if reference is None:
            matched.problems.append(Problem(scene, f"has no reference in {labels}"))
            continue
        exposures = [source.path for source in find_pictures([scene])]
        for exposure in exposures[: len(exposures) // 2]:
            add_pair(matched, f"{scene.name}/{exposure.stem}", Pair(exposure, reference))
    for reference in references.values():
        matched.problems.append(Problem(reference, f"has no exposures in {folder}"))
    return matched


def add_pair(matched: Matched, name: str, pair: Pair) -> None:
    """Accept a pair, or refuse it where the sizes in the two headers differ; decoding checks the others."""
    low, high = upright_size(pair.low), upright_size(pair.high)
    if low is not None and high is not None and low != high:
        sizes = f"is {low[0]}×{low[1]} pixels, its partner {pair.high.name} {high[0]}×{high[1]}"
        matched.problems.append(Problem(pair.low, sizes))
    else:
        matched.pairs[name] = pair


def upright_size(path: Path) -> tuple[int, int] | None:
    """Width and height after the orientation tag, from the header alone; None where it cannot be read."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as picture:
                width, height = picture.size
                turned = picture.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    except Exception:  # the decoder will report the fault
        return None
    return (height, width) if turned else (width, height)


def _by_key(folder: Path, rule: Rule, problems: list[Problem]) -> dict[str, Path]:
    groups: dict[str, list[Path]] = defaultdict(list)
    for source in find_pictures([folder]):
        key = (source.relative.parent / rule(source.path.stem)).as_posix()
        groups[key].append(source.path)
    problems += (
        Problem(path, f"has the same name as {paths[0].name}, except for the suffix or the word for the side")
        for paths in groups.values()
        for path in _others(paths)
    )
    return {key: paths[0] for key, paths in groups.items() if len(paths) == 1}


def _others(paths: list[Path]) -> Iterable[Path]:
    return paths[1:]
