"""Test pictures that stand in the training data too: near-duplicates, whatever their exposure.

Two views of a picture's 32×32 thumbnail, neither of which a monotone tone curve changes much: the ranks of its values
(histogram equalisation), and the signs of its gradients (the idea of difference hashes). Dark sides are compared with
dark ones, bright with bright ones.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from lumen_cli.benchmark.samples import Samples
from lumen_cli.datasets.layouts import find_dataset
from lumen_cli.errors import explain
from lumen_cli.imaging.colour.convert import luma
from lumen_cli.imaging.read import read_picture

_Item = TypeVar("_Item")
NEAR_DUPLICATE = 0.75
"""From this score on two pictures show the same scene from the same place; other exposures of one scene reach 0.9."""
ALIKE = 0.60
"""From here on the same set-up with some things moved, as a rule; unlike scenes stay below 0.57 in LOL-v1."""
_THUMBNAIL = 32
_GRADIENTS = 16


@dataclass(frozen=True)
class Fingerprint:
    """What a picture is compared by: unit vectors of its values' ranks and of its gradients' signs."""

    ranks: NDArray[np.float32]
    gradients: NDArray[np.float32]


@dataclass(frozen=True)
class Likeness:
    """A test picture and the training picture most like it.

    side: "high", "low" or "any" (training data without sides); score: mean of `correlation` (of the ranks) and
    `gradients` (agreement of their signs), both from -1 to 1; mirrored: left and right are exchanged.
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
        """In a word: near-duplicate, alike, or nothing."""
        return "near-duplicate" if self.score >= NEAR_DUPLICATE else "alike" if self.score >= ALIKE else ""


@dataclass(frozen=True)
class LeakReport:
    """The likest training picture of every test picture, most alike first; pictures that could not be compared.

    trained: training pairs, or pictures where they have no sides.
    """

    likenesses: tuple[Likeness, ...]
    train: Path
    trained: int
    paired: bool
    failures: tuple[tuple[str, str], ...] = ()

    def of(self, verdict: str) -> tuple[Likeness, ...]:
        """Those of one verdict."""
        return tuple(likeness for likeness in self.likenesses if likeness.verdict == verdict)


def check_leak(
    samples: Samples,
    train: Path,
    *,
    stop: threading.Event | None = None,
    advance: Callable[[], None] | None = None,
    total: Callable[[int], None] | None = None,
) -> LeakReport:
    """Look for every test picture in a training folder.

    Args:
        samples: the test pictures.
        train: a folder with a dark and a bright side (sides are compared apart), or any folder of pictures.
        stop: once set, the search ends with what was compared so far.
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
        found = [(path, mark) for path in _until(paths, stop) if (mark := _read(path, failures, advance)) is not None]
        if found:
            known[side] = [path for path, _ in found], _stacked([mark for _, mark in found])
    likenesses = []
    for sample in _until(samples.items, stop):
        try:
            scene = sample.load()
        except Exception as error:
            failures.append((sample.name, explain(error)))
            continue
        given = {"low": scene.low.pixels} | ({} if scene.high is None else {"high": scene.high})
        marks = {side: fingerprint(pixels) for side, pixels in given.items()}
        found_here = [
            _nearest(sample.name, mark, known_side, *known[known_side])
            for side, mark in marks.items()
            for known_side in (side, "any")
            if known_side in known
        ]
        likenesses += [max(found_here, key=lambda each: each.score)] if found_here else []
        if advance is not None:
            advance()
    likenesses.sort(key=lambda each: (-each.score, each.name))
    trained = max(map(len, sides.values()))
    return LeakReport(tuple(likenesses), train, trained, "any" not in sides, tuple(failures))


def fingerprint(pixels: NDArray[np.float32]) -> Fingerprint:
    """H×W×3 in [0, 1] → what it is compared by, of any size and shape of picture."""
    import cv2

    grey = luma(pixels)
    small = cv2.resize(grey, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA)
    coarse = cv2.resize(grey, (_GRADIENTS + 1, _GRADIENTS + 1), interpolation=cv2.INTER_AREA)
    across, down = np.sign(np.diff(coarse, axis=1)).ravel(), np.sign(np.diff(coarse, axis=0)).ravel()
    return Fingerprint(_unit(_ranks(small.ravel())), _unit(np.concatenate([across, down])))


def _ranks(values: NDArray[Any]) -> NDArray[np.float32]:
    """Ranks of the values, equal values sharing the mean of theirs, around zero."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks = (ends - (counts + 1) / 2)[places]
    return (ranks - ranks.mean()).astype(np.float32)


def _unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    length = float(np.linalg.norm(vector))
    return (vector / length if length else vector).astype(np.float32)


def _mirrored(mark: Fingerprint) -> Fingerprint:
    """The fingerprint of the picture with left and right exchanged."""
    ranks = mark.ranks.reshape(_THUMBNAIL, _THUMBNAIL)[:, ::-1].ravel()
    across, down = np.split(mark.gradients, 2)
    across, down = across.reshape(_GRADIENTS + 1, _GRADIENTS), down.reshape(_GRADIENTS, _GRADIENTS + 1)
    return Fingerprint(ranks, np.concatenate([-across[:, ::-1].ravel(), down[:, ::-1].ravel()]))


def _nearest(name: str, mark: Fingerprint, side: str, paths: Sequence[Path], known: Fingerprint) -> Likeness:
    best: Likeness | None = None
    for turned, own in ((False, mark), (True, _mirrored(mark))):
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


def _read(path: Path, failures: list[tuple[str, str]], advance: Callable[[], None] | None = None) -> Fingerprint | None:
    try:
        return fingerprint(read_picture(path).pixels)
    except Exception as error:
        failures.append((str(path), explain(error)))
        return None
    finally:
        if advance is not None:
            advance()


def _stacked(marks: Sequence[Fingerprint]) -> Fingerprint:
    return Fingerprint(np.stack([mark.ranks for mark in marks]), np.stack([mark.gradients for mark in marks]))


def _until(items: Iterable[_Item], stop: threading.Event) -> Iterator[_Item]:
    for item in items:
        if stop.is_set():
            return
        yield item
