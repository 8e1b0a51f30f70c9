"""What is measured on: pictures by name, read (or made) when their turn comes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lumen_cli.datasets.layouts import Dataset
from lumen_cli.datasets.pairs import Problem
from lumen_cli.engine.scene import reduce_by_area
from lumen_cli.errors import PictureError
from lumen_cli.files.find import find_pictures
from lumen_cli.imaging.picture import Picture
from lumen_cli.imaging.read import read_picture
from lumen_cli.networks.base import as_pixels, as_tensor


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


FOLDER = Path(__file__).parent / "originals"
NAME = "built-in"
_SHOT = 3e-4


@dataclass(frozen=True)
class Darkened:
    """A photograph and how it is darkened. exposure: in EV; shot: variance of the noise per unit of signal."""

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
    """The set; every picture is darkened with noise of its own seed, so that all runs see the same pixels."""
    items = tuple(
        Sample(picture.name, None, lambda seed=seed, picture=picture: darkened(picture, seed))  # type: ignore[misc]
        for seed, picture in enumerate(PICTURES)
    )
    title = f"the {NAME} set (synthetic: {len(items)} photographs darkened by lumen)"
    return Samples(title, NAME, "", items, paired=True, synthetic=True, root=FOLDER)


def photograph_samples(root: Path, ev: float, pixels: int | None = None) -> Samples:
    """The photographs of a folder and all below it, taken again with `ev` stops less light; 0 leaves them as they are.

    pixels: larger photographs are reduced to about so many first, by area.

    UsageError where there are none.
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
        Sample(
            source.relative.with_suffix("").as_posix(),
            source.path,
            lambda path=source.path, seed=seed: scene(path, seed),  # type: ignore[misc]
        )
        for seed, source in enumerate(sources)
    )
    title = f"{root.name} (synthetic: {len(items)} photographs {how})"
    return Samples(
        title,
        root.name,
        stops,
        items,
        paired=True,
        synthetic=True,
        root=root,
        files=frozenset(source.path for source in sources),
    )


def darkened(picture: Darkened, seed: int) -> Scene:
    """The photograph, and what a camera would have made of it with less light, in 8 bits."""
    return darken_as_taken(read_picture(FOLDER / f"{picture.name}.webp").pixels, picture.exposure, picture.shot, seed)


def darken_as_taken(bright: NDArray[np.float32], exposure: float, shot: float, seed: int) -> Scene:
    """A photograph H×W×3 and its dark version in 8 bits (see `datasets/darken.py`).

    exposure: in EV, below 0; shot: variance of the noise per unit of signal; the read noise follows from it.
    """
    import torch

    from lumen_cli.datasets.darken import Camera, darken

    def value(number: float) -> torch.Tensor:
        return torch.tensor([number])

    camera = Camera(
        exposure=value(exposure),
        shot=value(shot),
        read=value(2.0 * shot),
        row=value(0.3 * shot),
        red=value(2.0),
        blue=value(1.7),
        red_error=value(0.97),
        blue_error=value(1.04),
        black=value(0.0),
        smoothing=value(0.0),
        tone=value(0.4),
        bits=value(14.0),
        quality=value(101.0),
    )
    generator = torch.Generator().manual_seed(seed)
    pixels = as_pixels(darken(as_tensor(bright), camera, generator))
    return Scene(Picture(pixels, None, 8, False, "png", None, None), bright)
