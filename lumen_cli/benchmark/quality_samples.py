"""What is measured on: pictures by name, read (or made) when their turn comes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lumen_cli.datasets.layouts import Dataset
from lumen_cli.datasets.layouts_match import Problem
from lumen_cli.errors import PictureError
from lumen_cli.imaging.picture import Picture
from lumen_cli.imaging.read import read_picture


@dataclass(frozen=True, eq=False)
class Scene:
    """A dark picture, and what it should become: H×W×3 float32 in [0, 1], None where nobody knows."""

    low: Picture
    high: NDArray[np.float32] | None


@dataclass(frozen=True)
class Sample:
    """One picture of a set. path: the dark file, None where it is made on the fly; `load` raises PictureError."""

    name: str
    path: Path | None
    load: Callable[[], Scene]


@dataclass(frozen=True)
class Samples:
    """A whole set.

    title: for a table's heading; dataset, split: published figures are looked up by them; synthetic: the dark pictures
    were computed, not taken; origin: the files the dark pictures and references come from; problems: what was refused.
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
    """A data set's pictures, references included."""
    title = " · ".join(filter(None, (dataset.name, dataset.split)))
    if not dataset.paired:
        loaded = zip(dataset.names, dataset.unpaired, strict=True)
        items = tuple(Sample(name, path, lambda path=path: Scene(read_picture(path), None)) for name, path in loaded)  # type: ignore[misc]
        files = frozenset(dataset.unpaired)
    else:
        pairs = zip(dataset.names, dataset.pairs, strict=True)
        items = tuple(Sample(name, pair.low, lambda pair=pair: _pair(pair.low, pair.high)) for name, pair in pairs)  # type: ignore[misc]
        files = frozenset(path for pair in dataset.pairs for path in (pair.low, pair.high))
    return Samples(
        title,
        dataset.name,
        dataset.split,
        items,
        dataset.paired,
        root=dataset.root,
        files=files,
        problems=dataset.problems,
    )


def _pair(low_path: Path, high_path: Path) -> Scene:
    low, high = read_picture(low_path), read_picture(high_path)
    if (low.width, low.height) != (high.width, high.height):
        sizes = f"is {low.width}×{low.height} pixels, its partner {high_path.name} {high.width}×{high.height}"
        raise PictureError(low_path, sizes)
    return Scene(low, high.pixels)
