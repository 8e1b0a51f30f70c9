"""Finds test pictures that are in the training data too: near-duplicates in any exposure.

Two views of a picture's thumbnail are compared, which a monotone tone curve hardly changes: the ranks of its values
(histogram equalisation) and the signs of its gradients (as in difference hashes). Dark pictures are compared with dark
ones, bright with bright ones.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumen_cli.benchmark.samples import Samples
from lumen_cli.datasets.layouts import find_dataset
from lumen_cli.errors import explain
from lumen_cli.imaging.colour.convert import luma
from lumen_cli.imaging.picture import read_picture

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
