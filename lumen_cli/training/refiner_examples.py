"""Training examples of the refiner: dark pictures brightened as in `engine/full_resolution.py`.

No enhancing network runs. Its result is replaced by the bright picture, reduced by area, slightly blurred and blotched,
and changed in tone and tint. The target is the full-size bright picture with the same tone and tint, and with the
coarse light and colour of the carried picture. So the refiner learns to remove noise and to restore detail, but nothing
about exposure or colour.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from torch import Tensor

from lumen_cli.datasets.darken import Camera, darken, draw_camera, draw_shade
from lumen_cli.datasets.pairs import Pair, TrainingFiles
from lumen_cli.engine import full_resolution
from lumen_cli.imaging.colour.convert import to_unit
from lumen_cli.networks.base import as_pixels, as_tensor
from lumen_cli.networks.refiner import SQUARE
from lumen_cli.training.data import load_bytes, named_generator

Floats = NDArray[np.float32]

PAIRED, PHOTOGRAPHED = 2, 5
SIDE, KEPT = 640, 384
"""Greatest side of the part of a photograph that is darkened, and of the part of it that is stored."""
COARSE = 12.0
"""Deviation, in full-size pixels, of the Gaussian that separates light and colour from detail."""
LEAST_SCENE = 80
"""Smallest shorter side of the small picture."""
FACTORS = (1.25, 7.0)
"""Range of the ratio of full-size to small sides."""
EXPOSURE = (-5.5, -0.7)
NOISE = (8e-5, 3e-3)
COMPRESSED, UNEVEN, ENLARGED, CHROMA_SMOOTHED = 0.5, 0.15, 0.15, 0.2
"""Shares of the darkened photographs."""


@dataclass(frozen=True)
class Example:
    """The refiner's input for one picture, and its target.

    planes: 9×H×W float16, Y, Cb and Cr of the shrunk picture, of what shrinkage removed and of the target; maps:
    (3·LEVELS + 1)×H/4×W/4 float16, deviations of the noise and the gain in stops.
    """

    planes: NDArray[np.float16]
    maps: NDArray[np.float16]

    def save(self, path: Path) -> None:
        """Write a safetensors file atomically."""
        beside = path.with_suffix(".tmp")
        save_file({"planes": self.planes, "maps": self.maps}, beside)
        beside.replace(path)

    @classmethod
    def load(cls, path: Path) -> Example:
        """Read what `save` wrote."""
        return cls(**load_file(path))


class Sources:
    """Dark pictures and their bright ones by number; the same for the same seed.

    Each photograph is darkened by `photographed` cameras; each pair is reduced to `paired` sizes. Pairs come first;
    `pairs` is the number of their examples.
    """

    def __init__(self, files: TrainingFiles, seed: int, paired: int = PAIRED, photographed: int = PHOTOGRAPHED) -> None:
        files.require_some()
        self.seed = seed
        self.pairs = paired * len(files.pairs)
        self.entries: list[Pair | Path] = [*paired * files.pairs, *photographed * files.bright]

    def __len__(self) -> int:
        return len(self.entries)

    def example(self, number: int) -> Example:
        """The example with this number; reads one or two files."""
        entry = self.entries[number]
        generator = named_generator(f"{self.seed}/refiner/{number}", torch.device("cpu"))
        draw = Draw(generator)
        if isinstance(entry, Pair):
            low, high = load_bytes(entry.low), load_bytes(entry.high)
            entry.require_one_size(low.shape, high.shape)
            dark, bright = as_pixels(low), _as_floats(high)
        else:
            bright = _part(_as_floats(load_bytes(entry)), draw)
            dark, bright = _take_photograph(bright, draw)
        return make_example(np.ascontiguousarray(dark), bright, draw)


class Draw:
    """Random numbers from one generator."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def uniform(self, low: float, high: float) -> float:
        """A number between two bounds."""
        return low + (high - low) * float(torch.rand(1, generator=self.generator))

    def chance(self, share: float) -> bool:
        """True with this probability."""
        return self.uniform(0, 1) < share

    def normal(self, *shape: int) -> Floats:
        """Standard normal numbers."""
        numbers: Floats = torch.randn(*shape, generator=self.generator).numpy()
        return numbers


def make_example(dark: NDArray[np.uint8], bright: Floats, draw: Draw) -> Example:
    """Brighten a dark picture, H×W×3, to the light of its bright one, H×W×3 in [0, 1]."""
    height, width = (length // (2 * SQUARE) * (2 * SQUARE) for length in dark.shape[:2])
    dark = np.ascontiguousarray(dark[:height, :width])
    aim = _bend(bright[:height, :width], draw)
    largest = max(FACTORS[0], min(FACTORS[1], min(height, width) / LEAST_SCENE))
    factor = math.exp(draw.uniform(math.log(FACTORS[0]), math.log(largest)))
    scene = max(1, round(height / factor)), max(1, round(width / factor))
    small = _resize(to_unit(dark), scene, cv2.INTER_AREA)
    result = _degrade(_resize(aim, scene, cv2.INTER_AREA), draw)
    plan = full_resolution.plan(lambda rows, columns: dark[rows, columns], small, result, (height, width))
    where = (0, height), (0, width)
    planes, removed = plan.carry(*where, plan.tone.table())
    carried = [plane + taken for plane, taken in zip(planes, removed, strict=True)]
    wanted = [
        plane + _blur(noisy - plane, COARSE)
        for plane, noisy in zip(cv2.split(full_resolution.to_ycc(aim)), carried, strict=True)
    ]
    stacked, maps = np.stack([*planes, *removed, *wanted]), plan.noise_maps(*where)
    top, left = (int(draw.uniform(0, 1) * max(0, length - KEPT)) // 8 * 8 for length in (height, width))
    fine = stacked[:, top : top + KEPT, left : left + KEPT]
    top, left, kept = top // SQUARE, left // SQUARE, KEPT // SQUARE
    return Example(fine.astype(np.float16), maps[:, top : top + kept, left : left + kept].astype(np.float16))


def _take_photograph(bright: Floats, draw: Draw) -> tuple[NDArray[np.uint8], Floats]:
    """The dark photograph of a bright picture, and the bright picture at the same size."""
    camera = _draw_camera(draw.generator)
    picture = as_tensor(np.ascontiguousarray(bright))
    height, width = bright.shape[:2]
    shade = draw_shade(1, max(height, width), draw.generator)[..., :height, :width] if draw.chance(UNEVEN) else None
    dark = as_pixels(darken(picture, camera, draw.generator, shade=shade))
    if draw.chance(CHROMA_SMOOTHED):
        planes = full_resolution.to_ycc(dark)
        planes[:, :, 1:] = _blur(np.ascontiguousarray(planes[:, :, 1:]), draw.uniform(1.0, 3.0))
        dark = full_resolution.to_rgb(planes)
    if draw.chance(ENLARGED):
        factor = draw.uniform(1.2, 1.8)
        size = round(height * factor), round(width * factor)
        top, left = (
            int(draw.uniform(0, 1) * (now - then)) // 8 * 8 for now, then in zip(size, (height, width), strict=True)
        )
        dark, bright = (
            np.clip(_resize(each, size, cv2.INTER_CUBIC)[top : top + height, left : left + width], 0, 1)
            for each in (dark, bright)
        )
    return np.rint(np.clip(dark, 0, 1) * 255).astype(np.uint8), np.ascontiguousarray(bright, np.float32)


def _draw_camera(generator: torch.Generator) -> Camera:
    camera = draw_camera(1, generator, exposure=EXPOSURE, noise=NOISE, uncompressed=1.0 - COMPRESSED)
    louder = torch.exp(torch.empty(1).uniform_(-0.5, 1.2, generator=generator))
    return Camera(**{**vars(camera), "read": camera.read * louder, "row": camera.row * louder})


def _part(bright: Floats, draw: Draw) -> Floats:
    """A part of a photograph with sides of at most `SIDE`, turned and mirrored; sometimes reduced, to be sharp."""
    if draw.chance(0.4):
        scale = draw.uniform(0.6, 1.0)
        bright = _resize(bright, (round(bright.shape[0] * scale), round(bright.shape[1] * scale)), cv2.INTER_AREA)
    top, left = (int(draw.uniform(0, 1) * max(0, length - SIDE)) for length in bright.shape[:2])
    part = bright[top : top + SIDE, left : left + SIDE]
    part = np.rot90(part, int(draw.uniform(0, 4)))
    return np.ascontiguousarray(part[:, ::-1] if draw.chance(0.5) else part)


def _bend(picture: Floats, draw: Draw) -> Floats:
    """A picture with another gamma, contrast and tint, as networks differ in them."""
    gamma, contrast = math.exp(draw.uniform(-0.3, 0.3)), draw.uniform(-0.2, 0.4)
    bent = np.clip(picture, 0, 1) ** np.float32(gamma)
    bent += np.float32(contrast) * (bent * bent * (3 - 2 * bent) - bent)
    tint = (1 + 0.05 * draw.normal(3)).astype(np.float32)
    bent = np.clip(bent * tint, 0, 1)
    return np.ascontiguousarray(bent, np.float32)


def _degrade(result: Floats, draw: Draw) -> Floats:
    """A result like a network's: slightly less sharp, with faint blotches of colour."""
    if draw.chance(0.7):
        result = _blur(result, draw.uniform(0.3, 1.2))
    blotches = _resize(draw.normal(8, 8, 3), result.shape[:2], cv2.INTER_CUBIC)
    result = result * (1 + np.float32(draw.uniform(0, 0.03)) * blotches)
    return np.clip(result, 0, 1).astype(np.float32)


def _resize(picture: Floats, size: tuple[int, ...], interpolation: int) -> Floats:
    resized: Any = cv2.resize(picture, (size[1], size[0]), interpolation=interpolation)
    return np.asarray(resized, np.float32)


def _blur(values: Floats, deviation: float) -> Floats:
    blurred: Any = cv2.GaussianBlur(values, (0, 0), deviation)
    return np.asarray(blurred, np.float32)


def _as_floats(picture: Tensor) -> Floats:
    return as_pixels(picture).astype(np.float32) / np.float32(255)


def collect(folder: Path, sources: Sources, tell: Callable[[int], None]) -> list[Path]:
    """Make the examples whose files are missing in `folder`; returns all files in the order of their numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{number:06d}.safetensors" for number in range(len(sources))]
    for number, path in enumerate(files):
        if not path.is_file():
            sources.example(number).save(path)
        tell(number + 1)
    return files
