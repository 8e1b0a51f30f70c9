"""The pictures of a quality benchmark, read or synthesised one at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lumen_cli.datasets.layouts import Dataset
from lumen_cli.datasets.pairs import Problem
from lumen_cli.engine.scene import reduce_by_area
from lumen_cli.errors import PictureError
from lumen_cli.files.find import find_pictures
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
