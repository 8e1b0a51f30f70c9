"""Finds the pictures of a data set on disk, with their references where there are some."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lumen_cli.datasets.layouts_known import LAYOUTS, OTHER_NAMES, Layout, Place
from lumen_cli.datasets.pairs import (
    HIGH_SIDE,
    LOW_SIDE,
    Matched,
    Pair,
    Problem,
    match_folders,
    match_sequences,
    side_word,
)
from lumen_cli.errors import UsageError
from lumen_cli.files.find import find_pictures, is_picture_name
from lumen_cli.text import did_you_mean, nearest

FOLDER = "folder"
"""The name for a user's own pictures."""
DEFAULT_SPLIT = "test"


@dataclass(frozen=True)
class Dataset:
    """The pictures of a benchmark.

    name, split: of the set ("LOL-v1", "test"); root: its folder; names: of the pictures, unique, in order; pairs: one
    for each name, or none; unpaired: a dark picture for each name, or none; problems: refused pictures.
    """

    name: str
    split: str
    root: Path
    names: tuple[str, ...]
    pairs: tuple[Pair, ...] = ()
    unpaired: tuple[Path, ...] = ()
    problems: tuple[Problem, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    @property
    def paired(self) -> bool:
        """Whether there is a reference for every picture."""
        return bool(self.pairs)


def find_layout(name: str) -> Layout:
    """The data set of that name in any spelling (`lolv1`, `LOL`, `lol-v2-real`).

    Raises:
        UsageError: it is unknown (with the nearest name and the list), or the name stands for two sets.
    """
    letters = _letters(name)
    known = {_letters(layout.name): layout for layout in LAYOUTS}
    known |= {other: known[_letters(name)] for other, name in OTHER_NAMES.items()}
    if letters in known:
        return known[letters]
    if letters == "lolv2":
        raise UsageError(f"{name} has two parts that are measured separately: LOL-v2-real and LOL-v2-synthetic")
    near = nearest(letters, known)
    hint = did_you_mean(known[near].name if near else None)
    names = ", ".join(layout.name for layout in LAYOUTS)
    raise UsageError(f"unknown data set {name!r}.{hint} Known: {names}, {FOLDER}")


def find_dataset(name: str, root: Path, split: str | None = None) -> Dataset:
    """The pictures of a data set's split.

    Args:
        name: of the set, or "folder" for any folder of dark pictures without references.
        root: the set's own folder, or its parent folder.
        split: "test", "train" or the name of a folder with a dark and a bright side ("val20"); None for "test", or for
            what lies in `root` itself.

    Raises:
        UsageError: the set is missing (the message has its page and the expected layout), it has no pictures, or all
            were refused.
    """
    if not root.is_dir():
        raise UsageError(f"{root}: no such folder" if not root.exists() else f"{root}: not a folder")
    if _letters(name) == FOLDER:
        if split is not None:
            return find_dataset(FOLDER, root / split)
        if _sides(root) is not None:
            return _list_pairs("folder", root.name, root, _part(root, "", _OWN), _OWN)
        return _list_unpaired("folder", "", root)
    layout = find_layout(name)
    places = list(_homes(layout, root))
    if not layout.paired:
        if split is not None:
            raise UsageError(f"{layout.name} has no splits")
        if len(places) == 1 and _letters(root.name) not in map(_letters, layout.homes) and not _holds_pictures(root):
            raise UsageError(_not_there(layout, "", root, []))
        return _list_unpaired(layout.name, "", places[0])
    wanted = split or DEFAULT_SPLIT
    ways = layout.splits.get(wanted.lower(), ((wanted,),))
    for home in places:
        for way in ways:
            parts = [_part(home, place, layout) for place in way]
            if any(part is not None for part in parts):
                return _join(layout, wanted, home, way, parts)
    own = _part(root, "", layout) if split is None else None
    if own is not None:
        return _list_pairs(layout.name, root.name, root, own, layout)
    raise UsageError(_not_there(layout, wanted, root, places))


def find_folders(low: Path, high: Path) -> Dataset:
    """One's own pictures: dark ones and references of the same names, up to a word for the side (`7_low`, `7_high`).

    Raises:
        UsageError: a folder is missing or without pictures, or all were refused.
    """
    for folder in (low, high):
        if not folder.is_dir():
            raise UsageError(f"{folder}: no such folder")
    matched = match_folders(low, high, side_word)
    return _dataset("folder", low.name, low.parent, matched)


_OWN = Layout("folder", "", "", (), {"": ()}, side_word)


def _join(layout: Layout, split: str, home: Path, way: tuple[Place, ...], parts: list[_Sides | None]) -> Dataset:
    matched = Matched()
    for place, part in zip(way, parts, strict=True):
        if part is None:
            matched.problems.append(Problem(home / str(place), f"is missing: a part of {layout.name}"))
        else:
            matched.add(_match(part, layout), f"{Path(str(place)).name}/" if len(way) > 1 else "")
    return _dataset(layout.name, split, home, matched)


def _list_pairs(name: str, split: str, root: Path, sides: _Sides | None, layout: Layout) -> Dataset:
    assert sides is not None
    return _dataset(name, split, root, _match(sides, layout))


def _match(sides: _Sides, layout: Layout) -> Matched:
    if layout.sequences:
        return match_sequences(sides.low, sides.high)
    return match_folders(sides.low, sides.high, layout.rule)


def _dataset(name: str, split: str, root: Path, matched: Matched) -> Dataset:
    problems = tuple(matched.problems)
    if not matched.pairs:
        first = f"; the first: {problems[0].path} {problems[0].reason}" if problems else ""
        raise UsageError(f"{root}: no usable pair of {name}: {len(problems)} refused{first}")
    names, pairs = tuple(matched.pairs), tuple(matched.pairs.values())
    return Dataset(name, split, root, names, pairs, problems=problems)


def _list_unpaired(name: str, split: str, root: Path) -> Dataset:
    sources = find_pictures([root])
    names = [source.relative.with_suffix("").as_posix() for source in sources]
    again = {name for name in names if names.count(name) > 1}
    names = [source.relative.as_posix() if name in again else name for name, source in zip(names, sources, strict=True)]
    return Dataset(name, split, root, tuple(names), unpaired=tuple(source.path for source in sources))


@dataclass(frozen=True)
class _Sides:
    """The folder of dark and the one of bright pictures."""

    low: Path
    high: Path


def _part(home: Path, place: Place, layout: Layout) -> _Sides | None:
    if isinstance(place, tuple):
        low, high = (_descend(home, side) for side in place)
        return None if low is None or high is None else _Sides(low, high)
    folder = _descend(home, place)
    if folder is None:
        return None
    if layout.sequences:
        labels = _child(folder, "label")
        return None if labels is None else _Sides(folder, labels)
    return _sides(folder)


def _sides(folder: Path) -> _Sides | None:
    low, high = (next(filter(None, (_child(folder, name) for name in names)), None) for names in (LOW_SIDE, HIGH_SIDE))
    return None if low is None or high is None else _Sides(low, high)


def _homes(layout: Layout, root: Path) -> Iterator[Path]:
    """The folders below `root` with the set's name, innermost first, then `root` itself."""
    names = {_letters(home) for home in layout.homes}
    for child in _folders(root):
        if _letters(child.name) in names:
            yield from (grandchild for grandchild in _folders(child) if _letters(grandchild.name) in names)
            yield child
    yield root


def _descend(home: Path, path: str) -> Path | None:
    folder: Path | None = home
    for part in Path(path).parts:
        folder = None if folder is None else _child(folder, part)
    return folder


def _child(folder: Path, name: str) -> Path | None:
    """The sub-folder of exactly that name, otherwise one that differs in case or separators."""
    if (folder / name).is_dir():
        return folder / name
    return next((child for child in _folders(folder) if _letters(child.name) == _letters(name)), None)


def _holds_pictures(folder: Path) -> bool:
    """Whether the folder itself holds pictures; its sub-folders may belong to other sets."""
    return any(is_picture_name(entry.name) for entry in folder.iterdir())


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError:
        return []


def _letters(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())


def _not_there(layout: Layout, split: str, root: Path, places: list[Path]) -> str:
    what = f"{layout.name} ({split})" if split else layout.name
    text = f"{root}: {what} not found; expected {layout.expected}; its authors publish it at {layout.page}"
    splits = dict.fromkeys(child.name for home in places for child in _folders(home) if _sides(child) is not None)
    if splits:
        text += f"; splits found: {', '.join(splits)}"
    return text
