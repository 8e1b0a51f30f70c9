"""The pictures of a quality benchmark, read or synthesised one at a time, and those that are in the training data too.

Near-duplicates are found in any exposure. Two views of a picture's thumbnail are compared, which a monotone tone curve
hardly changes: the ranks of its values (histogram equalisation) and the signs of its gradients (as in difference
hashes). Dark pictures are compared with dark ones, bright with bright ones.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumen_cli.datasets import Problem
from lumen_cli.datasets.layouts import Dataset, find_dataset
from lumen_cli.engine.scene import reduce_by_area
from lumen_cli.errors import PictureError, explain
from lumen_cli.files.find import find_pictures
from lumen_cli.imaging.colour.convert import luma
from lumen_cli.imaging.picture import Picture, read_picture
from lumen_cli.networks.base import as_pixels, as_tensor


@dataclass(frozen=True, eq=False)
class Scene:
    """A dark picture and its reference: H×W×3 float32 in [0, 1], or None."""

    low: Picture
    high: NDArray[np.float32] | None


@dataclass(frozen=True)
class Sample:
    """One picture of a set. path: the dark file, None where it is synthesised; `load` raises PictureError."""

    name: str
    path: Path | None
    load: Callable[[], Scene]


@dataclass(frozen=True)
class Samples:
    """A whole set.

    title: for a table's heading; dataset, split: to look up published figures; synthetic: the dark pictures are
    computed, not taken; files: the dark pictures and references; problems: refused pictures.
    """

    title: str
    dataset: str
    split: str
    items: tuple[Sample, ...]
    paired: bool
    synthetic: bool = False
    root: Path | None = None
    files: frozenset[Path] = frozenset()
    problems: tuple[Problem, ...] = ()


def samples_of(dataset: Dataset) -> Samples:
    """The pictures and references of a data set."""
    title = " · ".join(filter(None, (dataset.name, dataset.split)))
    paths: list[tuple[Path, Path | None]] = [(pair.low, pair.high) for pair in dataset.pairs]
    paths += [(path, None) for path in dataset.unpaired]
    named = zip(dataset.names, paths, strict=True)
    items = tuple(Sample(name, both[0], partial(_read_scene, *both)) for name, both in named)
    files = frozenset(path for both in paths for path in both if path is not None)
    facts = {"root": dataset.root, "files": files, "problems": dataset.problems}
    return Samples(title, dataset.name, dataset.split, items, dataset.paired, **facts)  # type: ignore[arg-type]


def _read_scene(low_path: Path, high_path: Path | None) -> Scene:
    if high_path is None:
        return Scene(read_picture(low_path), None)
    low, high = read_picture(low_path), read_picture(high_path)
    if (low.width, low.height) != (high.width, high.height):
        sizes = f"is {low.width}×{low.height} pixels, its partner {high_path.name} {high.width}×{high.height}"
        raise PictureError(low_path, sizes)
    return Scene(low, high.pixels)


FOLDER = Path(__file__).parent / "originals"
NAME = "built-in"
_SHOT = 3e-4


@dataclass(frozen=True)
class Darkened:
    """A photograph and its darkening. exposure: in EV; shot: variance of the noise per unit of signal."""

    name: str
    exposure: float
    shot: float


PICTURES = (
    Darkened("astronaut", -4.0, 4e-4),
    Darkened("coffee", -5.0, 2e-4),
    Darkened("cat", -3.5, 4e-4),
    Darkened("launch", -2.5, 1e-4),
    Darkened("palace", -4.5, 3e-4),
    Darkened("flower", -3.0, 2e-4),
)


def builtin_samples() -> Samples:
    """The built-in set. Every picture has its own noise seed, so that all runs see the same pixels."""
    items = tuple(Sample(each.name, None, partial(_darken_own, each, seed)) for seed, each in enumerate(PICTURES))
    title = f"the {NAME} set (synthetic: {len(items)} photographs darkened by lumen)"
    return Samples(title, NAME, "", items, paired=True, synthetic=True, root=FOLDER)


def photograph_samples(root: Path, ev: float, pixels: int | None = None) -> Samples:
    """The photographs of a folder and its subfolders, underexposed by `ev` stops; 0 changes nothing.

    pixels: larger photographs are first reduced to about this size, by area. UsageError where there are none.
    """
    sources = find_pictures([str(root)])
    stops = f"{ev:g} EV"
    how = f"darkened by {stops}" if ev else "as they are"
    how += "" if pixels is None else f", of at most {pixels / 1e6:g} megapixels"

    def scene(path: Path, seed: int) -> Scene:
        picture = read_picture(path)
        factor = 1.0 if pixels is None else max(1.0, (picture.height * picture.width / pixels) ** 0.5)
        sides = round(picture.height / factor), round(picture.width / factor)
        bright = picture.pixels if factor == 1.0 else reduce_by_area(picture, *sides)
        if not ev:
            return Scene(Picture(bright, None, 8, False, "png", None, None), bright)
        return darken_as_taken(bright, -ev, _SHOT, seed)

    items = tuple(
        Sample(source.relative.with_suffix("").as_posix(), source.path, partial(scene, source.path, seed))
        for seed, source in enumerate(sources)
    )
    title = f"{root.name} (synthetic: {len(items)} photographs {how})"
    files = frozenset(source.path for source in sources)
    return Samples(title, root.name, stops, items, paired=True, synthetic=True, root=root, files=files)


def _darken_own(picture: Darkened, seed: int) -> Scene:
    """The photograph and its underexposed version in 8 bits."""
    return darken_as_taken(read_picture(FOLDER / f"{picture.name}.webp").pixels, picture.exposure, picture.shot, seed)


def darken_as_taken(bright: NDArray[np.float32], exposure: float, shot: float, seed: int) -> Scene:
    """A photograph H×W×3 and its dark version in 8 bits; see `datasets/darken.py`.

    exposure: in EV, below 0; shot: variance of the noise per unit of signal; it determines the read noise.
    """
    import torch

    from lumen_cli.datasets.darken import Camera, darken

    settings = {"exposure": exposure, "shot": shot, "read": 2.0 * shot, "row": 0.3 * shot, "red": 2.0, "blue": 1.7}
    settings |= {"red_error": 0.97, "blue_error": 1.04, "black": 0.0, "smoothing": 0.0, "tone": 0.4, "bits": 14.0}
    camera = Camera(**{name: torch.tensor([value]) for name, value in settings.items()}, quality=torch.tensor([101.0]))
    generator = torch.Generator().manual_seed(seed)
    pixels = as_pixels(darken(as_tensor(bright), camera, generator))
    return Scene(Picture(pixels, None, 8, False, "png", None, None), bright)


NEAR_DUPLICATE = 0.75
"""From this score on two pictures show the same scene from the same viewpoint; exposures of one scene reach 0.9."""
ALIKE = 0.60
"""From this score on they usually show the same set-up with some objects moved; other scenes stay below 0.57 in LOL-v1.
"""
_THUMBNAIL = 32
_GRADIENTS = 16
_VIEWS = "ranks", "gradients"


@dataclass(frozen=True)
class Fingerprint:
    """Unit vectors of the ranks of a picture's values and of the signs of its gradients; of many pictures, rows."""

    ranks: NDArray[np.float32]
    gradients: NDArray[np.float32]


@dataclass(frozen=True)
class Likeness:
    """A test picture and the most similar training picture.

    side: "high", "low" or "any" (training data without sides); score: mean of `correlation` (of the ranks) and
    `gradients` (agreement of their signs), both from -1 to 1; mirrored: left and right are swapped.
    """

    name: str
    train: Path
    side: str
    score: float
    correlation: float
    gradients: float
    mirrored: bool

    @property
    def verdict(self) -> str:
        """What the score means: "near-duplicate", "alike" or nothing."""
        return "near-duplicate" if self.score >= NEAR_DUPLICATE else "alike" if self.score >= ALIKE else ""


@dataclass(frozen=True)
class LeakReport:
    """The most similar training picture of every test picture, the most similar first; unreadable pictures.

    trained: number of training pairs, or of pictures without sides.
    """

    likenesses: tuple[Likeness, ...]
    train: Path
    trained: int
    paired: bool
    failures: tuple[tuple[str, str], ...] = ()

    def of(self, verdict: str) -> tuple[Likeness, ...]:
        """The pictures with this verdict."""
        return tuple(likeness for likeness in self.likenesses if likeness.verdict == verdict)


def check_leak(
    samples: Samples,
    train: Path,
    *,
    stop: threading.Event | None = None,
    advance: Callable[[], None] | None = None,
    total: Callable[[int], None] | None = None,
) -> LeakReport:
    """Search a training folder for every test picture.

    Args:
        samples: the test pictures.
        train: a folder with a dark and a bright side (sides are compared apart), or any folder of pictures.
        stop: once set, the search ends with the pictures compared so far.
        advance: called for every picture read.
        total: called once with the number of pictures to read.

    Raises:
        UsageError: the training folder is missing or holds no pictures.
    """
    stop = stop or threading.Event()
    sides = _training_sides(train)
    if total is not None:
        total(len(samples.items) + sum(map(len, sides.values())))
    failures: list[tuple[str, str]] = []
    known: dict[str, tuple[list[Path], Fingerprint]] = {}
    for side, paths in sides.items():
        marks: dict[Path, Fingerprint] = {}
        for path in paths:
            if stop.is_set():
                break
            try:
                marks[path] = fingerprint(read_picture(path).pixels)
            except Exception as error:
                failures.append((str(path), explain(error)))
            if advance is not None:
                advance()
        if marks:
            ranks, gradients = (np.stack([getattr(mark, name) for mark in marks.values()]) for name in _VIEWS)
            known[side] = list(marks), Fingerprint(ranks, gradients)
    likenesses = []
    for sample in samples.items:
        if stop.is_set():
            break
        try:
            scene = sample.load()
        except Exception as error:
            failures.append((sample.name, explain(error)))
            continue
        given = {"low": scene.low.pixels} | ({} if scene.high is None else {"high": scene.high})
        found = [
            _nearest(sample.name, fingerprint(pixels), known_side, *known[known_side])
            for side, pixels in given.items()
            for known_side in (side, "any")
            if known_side in known
        ]
        likenesses += [max(found, key=lambda each: each.score)] if found else []
        if advance is not None:
            advance()
    likenesses.sort(key=lambda each: (-each.score, each.name))
    trained = max(map(len, sides.values()))
    return LeakReport(tuple(likenesses), train, trained, "any" not in sides, tuple(failures))


def fingerprint(pixels: NDArray[np.float32]) -> Fingerprint:
    """The fingerprint of a picture of any size, H×W×3 in [0, 1]."""
    import cv2

    grey = luma(pixels)
    small = cv2.resize(grey, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA)
    coarse = cv2.resize(grey, (_GRADIENTS + 1, _GRADIENTS + 1), interpolation=cv2.INTER_AREA)
    across, down = np.sign(np.diff(coarse, axis=1)).ravel(), np.sign(np.diff(coarse, axis=0)).ravel()
    return Fingerprint(_unit(_ranks(small.ravel())), _unit(np.concatenate([across, down])))


def _ranks(values: NDArray[Any]) -> NDArray[np.float32]:
    """Ranks of the values around zero; equal values share their mean rank."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks = (ends - (counts + 1) / 2)[places]
    return (ranks - ranks.mean()).astype(np.float32)


def _unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    length = float(np.linalg.norm(vector))
    return (vector / length if length else vector).astype(np.float32)


def _mirror(mark: Fingerprint) -> Fingerprint:
    """The fingerprint of the mirrored picture."""
    ranks = mark.ranks.reshape(_THUMBNAIL, _THUMBNAIL)[:, ::-1].ravel()
    across, down = np.split(mark.gradients, 2)
    across, down = across.reshape(_GRADIENTS + 1, _GRADIENTS), down.reshape(_GRADIENTS, _GRADIENTS + 1)
    return Fingerprint(ranks, np.concatenate([-across[:, ::-1].ravel(), down[:, ::-1].ravel()]))


def _nearest(name: str, mark: Fingerprint, side: str, paths: Sequence[Path], known: Fingerprint) -> Likeness:
    best: Likeness | None = None
    for turned, own in ((False, mark), (True, _mirror(mark))):
        correlations, gradients = known.ranks @ own.ranks, known.gradients @ own.gradients
        scores = (correlations + gradients) / 2
        index = int(scores.argmax())
        values = float(scores[index]), float(correlations[index]), float(gradients[index])
        if best is None or values[0] > best.score:
            best = Likeness(name, paths[index], side, *values, turned)
    assert best is not None
    return best


def _training_sides(train: Path) -> dict[str, list[Path]]:
    dataset = find_dataset("folder", train)
    if dataset.paired:
        return {"low": [pair.low for pair in dataset.pairs], "high": [pair.high for pair in dataset.pairs]}
    return {"any": list(dataset.unpaired)}
