"""The field's data sets: layouts on disk, where their authors publish them, and how their pictures are found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lumen_cli.datasets import (
    HIGH_SIDE,
    LOW_SIDE,
    Matched,
    Pair,
    Problem,
    Rule,
    match_folders,
    match_sequences,
    same_stem,
    side_word,
)
from lumen_cli.errors import UsageError
from lumen_cli.files.find import find_pictures, is_picture_name
from lumen_cli.text import did_you_mean, nearest

Place = str | tuple[str, str]
"""A folder with a dark and a bright sub-folder, or these two folders themselves."""


@dataclass(frozen=True)
class Layout:
    """One data set.

    name: as usually written; about: paper; page: where its authors publish it; homes: names of its folder; splits: for
    each split its possible layouts below that folder, of which the first existing one counts, each a list of parts;
    rule: how partners are named; expected: the layout in words; sequences: a folder of exposures for each scene. A set
    without splits has no references: any folder of pictures.
    """

    name: str
    about: str
    page: str
    homes: tuple[str, ...]
    splits: Mapping[str, tuple[tuple[Place, ...], ...]] = field(default_factory=dict)
    rule: Rule = same_stem
    expected: str = "a folder of pictures"
    sequences: bool = False

    @property
    def paired(self) -> bool:
        """Whether there is a reference for every picture."""
        return bool(self.splits)


def _ways(*places: Place) -> tuple[tuple[Place, ...], ...]:
    """Each place by itself is the whole split."""
    return tuple((place,) for place in places)


def _lsrw(*cameras: str) -> Mapping[str, tuple[tuple[Place, ...], ...]]:
    return {
        "test": (tuple(f"Eval/{camera}" for camera in cameras), tuple(f"test/{camera}" for camera in cameras)),
        "train": (
            tuple(f"Training data/{camera}" for camera in cameras),
            tuple(f"train/{camera}" for camera in cameras),
        ),
    }


def _velol(folder: str, part: str) -> Mapping[str, tuple[tuple[Place, ...], ...]]:
    def ways(split: str) -> tuple[tuple[Place, ...], ...]:
        low, high = f"{part}-Low_{split}", f"{part}-Normal_{split}"
        return _ways((f"{folder}/{low}", f"{folder}/{high}"), (low, high), f"{folder}/{split}", split)

    return {split: ways(split) for split in ("test", "train")}


_LSRW = "Hai et al., R2RNet, JVCIR 2023 (arXiv 2106.14501)"
_LSRW_PAGE = "https://github.com/JianghaiSCU/R2RNet"
_LSRW_BOTH = "Eval/Huawei/low and high, Eval/Nikon/low and high"
_VELOL = "Liu et al., Benchmarking Low-Light Image Enhancement and Beyond, IJCV 2021"
_VELOL_PAGE = "https://flyywh.github.io/IJCV2021LowLight_VELOL/"
_LOLV2 = "Yang et al., Sparse Gradient Regularized Deep Retinex Network, TIP 2021"
_LOLV2_PAGE = "https://github.com/flyywh/CVPR-2020-Semi-Low-Light"

LAYOUTS: tuple[Layout, ...] = (
    Layout(
        "LOL-v1",
        "Wei et al., Deep Retinex Decomposition for Low-Light Enhancement, BMVC 2018",
        "https://daooshee.github.io/BMVC2018website/",
        ("LOL", "LOLv1", "LOLdataset", "LOLv1dataset"),
        {"test": _ways("eval15", "test", "eval"), "train": _ways("our485", "train")},
        same_stem,
        "eval15/low and eval15/high (or test/, Test/ with low or input and high, normal, gt or target), same names",
    ),
    Layout(
        "LOL-v2-real",
        _LOLV2,
        _LOLV2_PAGE,
        ("LOLv2", "LOLv2real", "LOLv2Realcaptured"),
        {"test": _ways("Real_captured/Test", "Test"), "train": _ways("Real_captured/Train", "Train")},
        side_word,
        "Real_captured/Test/Low/low00690.png and Real_captured/Test/Normal/normal00690.png",
    ),
    Layout(
        "LOL-v2-synthetic",
        _LOLV2,
        _LOLV2_PAGE,
        ("LOLv2", "LOLv2synthetic", "LOLv2syn"),
        {"test": _ways("Synthetic/Test", "Test"), "train": _ways("Synthetic/Train", "Train")},
        side_word,
        "Synthetic/Test/Low and Synthetic/Test/Normal, same names",
    ),
    Layout(
        "VE-LOL",
        _VELOL,
        _VELOL_PAGE,
        ("VELOL", "VELOLL", "VELOLLCapFull", "VELOLLCap"),
        _velol("VE-LOL-L-Cap-Full", "VE-LOL-L-Cap"),
        side_word,
        "VE-LOL-L-Cap-Full/VE-LOL-L-Cap-Low_test and VE-LOL-L-Cap-Full/VE-LOL-L-Cap-Normal_test",
    ),
    Layout(
        "VE-LOL-synthetic",
        _VELOL,
        _VELOL_PAGE,
        ("VELOL", "VELOLL", "VELOLsyn", "VELOLLSyn"),
        _velol("VE-LOL-L-Syn", "VE-LOL-L-Syn"),
        side_word,
        "VE-LOL-L-Syn/VE-LOL-L-Syn-Low_test and VE-LOL-L-Syn/VE-LOL-L-Syn-Normal_test",
    ),
    Layout("LSRW", _LSRW, _LSRW_PAGE, ("LSRW",), _lsrw("Huawei", "Nikon"), same_stem, _LSRW_BOTH),
    Layout("LSRW-Huawei", _LSRW, _LSRW_PAGE, ("LSRW",), _lsrw("Huawei"), same_stem, "Eval/Huawei/low and high"),
    Layout("LSRW-Nikon", _LSRW, _LSRW_PAGE, ("LSRW",), _lsrw("Nikon"), same_stem, "Eval/Nikon/low and high"),
    Layout(
        "SICE",
        "Cai et al., Learning a Deep Single Image Contrast Enhancer from Multi-Exposure Images, TIP 2018",
        "https://github.com/csjcai/SICE",
        ("SICE", "SICEdataset"),
        {"test": _ways("Dataset_Part2", "Part2"), "train": _ways("Dataset_Part1", "Part1")},
        same_stem,
        "Dataset_Part2/1/1.JPG … (exposures, darkest first) and Dataset_Part2/Label/1.JPG",
        sequences=True,
    ),
    Layout("DICM", "Lee et al., TIP 2013", "http://mcl.korea.ac.kr/projects/LDR/", ("DICM", "LDR_TEST_IMAGES_DICM")),
    Layout("LIME", "Guo et al., LIME, TIP 2017", "https://sites.google.com/view/xjguo/lime", ("LIME",)),
    Layout("MEF", "Ma et al., TIP 2015", "https://ece.uwaterloo.ca/~k29ma/", ("MEF",)),
    Layout(
        "NPE",
        "Wang et al., Naturalness Preserved Enhancement Algorithm for Non-Uniform Illumination Images, TIP 2013",
        "https://shuhangwang.wordpress.com/2015/12/14/"
        "naturalness-preserved-enhancement-algorithm-for-non-uniform-illumination-images/",
        ("NPE",),
    ),
    Layout("VV", "Vonikakis, busting image enhancement", "https://sites.google.com/site/vonikakis/datasets", ("VV",)),
)  # fmt: skip

OTHER_NAMES = {
    "lol": "LOL-v1",
    "loldataset": "LOL-v1",
    "lolv2realcaptured": "LOL-v2-real",
    "lolv2syn": "LOL-v2-synthetic",
    "velolcap": "VE-LOL",
    "velollcap": "VE-LOL",
    "velolsyn": "VE-LOL-synthetic",
    "velollsyn": "VE-LOL-synthetic",
}
"""Other names, reduced to letters and digits in lower case."""


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
