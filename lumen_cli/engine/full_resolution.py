"""Applies a network's result on a small picture to the full-size picture.

Low-light networks are made for scenes of about 600×400 pixels, and attention grows with the square of the pixels. So a
large picture is reduced, the network runs on the small one, and local colour maps B = A·I + b describe its change. They
are smooth, so they can be applied at any size. `shrinkage` then removes the noise that the gain amplifies.

1. `reduce_by_area`: the picture d becomes s, about `scene_pixels` large.
2. `colour_maps.fit_maps`: a guided filter between I = tone(s) and the result S.
3. `FullResolution.render`: B = A·tone(d) + b in strips, in Y, Cb and Cr.
4. `shrinkage`, and for strong noise the refiner (`networks/refiner.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lumen_cli.engine import refine as shrinkage
from lumen_cli.engine.colour_maps import Grid, Tone, WindowMeans, fit_maps, tone_for
from lumen_cli.engine.refine import NoiseLevel, survey_of
from lumen_cli.engine.scene import DEFAULTS, Floats, Settings
from lumen_cli.imaging.colour.convert import to_unit

if TYPE_CHECKING:
    from lumen_cli.engine.refine import Refining

Reader = Callable[[slice, slice], NDArray[Any]]
"""Rows and columns of the full-size picture → H×W×3, uint8, or float32 in [0, 1]."""

_TO_YCC = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float64)
"""RGB to Y, Cb, Cr (ITU-T T.871); `render` has its inverse."""
_BLOCK_COLUMNS = 512
_STRONG_NOISE = 1 / 255
"""See `FullResolution.noisy`."""
_INVISIBLE = 0.3 / 255
"""A band with a lower threshold keeps its noise."""
_PATCH = 256
_SURVEYED_PIXELS = 1_000_000


@dataclass(frozen=True, eq=False)
class FullResolution:
    """A network's change of a small picture, ready for the full-size one.

    read: the full-size picture; maps: 12×rows×columns, three slopes and the offset of Y, of Cb and of Cr; energies:
    (3·levels)×rows×columns, t² of the noise in each band of Y, of Cb and of Cr; deviation: (3·levels)×rows×columns,
    of the noise in Y, Cb and Cr, by halvings; stops: rows×columns, gain of the result over the picture; tone: of the
    guide; refining: removes noise after shrinkage, or None.
    """

    read: Reader
    maps: Floats
    energies: Floats
    deviation: Floats
    stops: Floats
    grid: Grid
    tone: Tone
    refining: Refining | None = None

    @property
    def noisy(self) -> bool:
        """Whether a quarter of the picture has strong noise.

        Strong noise has a deviation of at least `_STRONG_NOISE` in the result's Y. It counts fully where the result is
        one stop brighter, half where it is half a stop brighter.
        """
        light = self.deviation[0] * np.clip(self.stops, 0, 1)
        return bool(np.quantile(light, 0.75) >= _STRONG_NOISE)

    def render(self, top: int, bottom: int) -> Floats:
        """Rows of the full-size result, (bottom - top)×W×3 float32; some values may be slightly outside [0, 1]."""
        height, width = self.grid.size
        result = np.empty((bottom - top, width, 3), np.float32)
        table = self.tone.table()
        for left in range(0, width, _BLOCK_COLUMNS):
            right = min(left + _BLOCK_COLUMNS, width)
            rows, columns = (top, bottom), (left, right)
            if self.refining is not None:
                rows, columns = self.refining.extent(top, bottom, height), self.refining.extent(left, right, width)
            planes, removed = self.carry(rows, columns, table)
            if self.refining is not None:
                planes = self.refining.refine(planes, removed, self.noise_maps(rows, columns))
            inner = np.s_[top - rows[0] : bottom - rows[0], left - columns[0] : right - columns[0]]
            result[:, left:right] = cv2.merge(_to_rgb(*(plane[inner] for plane in planes)))
        return result

    def carry(
        self, rows: tuple[int, int], columns: tuple[int, int], table: Floats
    ) -> tuple[list[Floats], list[Floats]]:
        """Y, Cb and Cr of a part of the picture after shrinkage, and the removed part; table: of the tone."""
        height, width = self.grid.size
        edge = shrinkage.margin(len(self.energies) // 3) if self.energies.any() else 0
        down = max(0, rows[0] - edge), min(height, rows[1] + edge)
        across = max(0, columns[0] - edge), min(width, columns[1] + edge)
        part = np.s_[rows[0] - down[0] : rows[1] - down[0], columns[0] - across[0] : columns[1] - across[0]]
        planes = self._carry(down, across, table)
        removed = self._shrink(planes, down, across)
        return [plane[part] for plane in planes], [plane[part] for plane in removed]

    def _carry(self, rows: tuple[int, int], columns: tuple[int, int], table: Floats) -> list[Floats]:
        low = self.read(slice(*rows), slice(*columns))
        if low.dtype == np.uint8:
            guide = [cv2.LUT(plane, table) for plane in cv2.split(np.ascontiguousarray(low))]
        else:
            guide = list(cv2.split(self.tone(low)))
        lines, first = self.grid.lines(self.maps, rows, columns)
        scratch = np.empty((lines.shape[1], lines.shape[2] * self.grid.step), np.float32)
        planes = []
        for channel in range(3):
            total = self.grid.enlarge(lines[4 * channel + 3], first, columns, scratch).copy()
            for index in range(3):
                slope = self.grid.enlarge(lines[4 * channel + index], first, columns, scratch)
                np.multiply(slope, guide[index], out=slope)
                np.add(total, slope, out=total)
            planes.append(total)
        return planes

    def _shrink(self, planes: list[Floats], rows: tuple[int, int], columns: tuple[int, int]) -> list[Floats]:
        noise, first = self.grid.lines(self.energies, rows, columns)
        scratch = np.empty((noise.shape[1], noise.shape[2] * self.grid.step), np.float32)
        levels = len(noise) // 3
        enlarge = partial(self.grid.enlarge, first=first, columns=columns, scratch=scratch)
        removed = []
        for channel, plane in enumerate(planes):
            own = noise[channel * levels : (channel + 1) * levels]
            bands = [partial(enlarge, each) for each in own] if own.any() else []
            removed.append(shrinkage.shrink(plane, bands))
        return removed

    def noise_maps(self, rows: tuple[int, int], columns: tuple[int, int]) -> Floats:
        """Deviations and stops at the centres of a part's squares of 4×4 pixels, (3·levels + 1)×⌈h/4⌉×⌈w/4⌉."""
        return self.grid.interpolate(np.concatenate([self.deviation, self.stops[None]]), rows, columns, 4)


def to_ycc(rgb: Floats) -> Floats:
    """RGB, H×W×3 in [0, 1] → Y in [0, 1], Cb and Cr in [-0.5, 0.5]."""
    return np.asarray(cv2.transform(rgb, _TO_YCC), np.float32)


def to_rgb(planes: Floats) -> Floats:
    """The inverse of `to_ycc`."""
    return np.asarray(cv2.merge(_to_rgb(*(planes[:, :, index] for index in range(3)))), np.float32)


def _to_rgb(light: Floats, blue: Floats, red: Floats) -> tuple[Floats, Floats, Floats]:
    """Planes of Y, Cb and Cr → R, G and B. One operation at a time, so that all blocks give the same bits."""
    green = np.float32(-0.344136) * blue
    green += light
    green -= np.float32(0.714136) * red
    first, last = np.float32(1.402) * red, np.float32(1.772) * blue
    first += light
    last += light
    return first, green, last


def noise_variance(maps: Floats, guide: Floats, noise: NoiseLevel, levels: int) -> NDArray[np.float64]:
    """Variance of the noise in Y, Cb and Cr, by halvings: levels×rows×columns×3.

    Args:
        maps: rows×columns×3×4 to Y, Cb and Cr.
        guide: rows×columns×3, tone(s) at the places of the grid.
        noise: of tone(d).
        levels: number of halvings, including none.
    """
    # Independent noise of the channels: variances add.
    variance: NDArray[np.float64] = np.einsum("rcij,lrcj->lrci", maps[..., :3] ** 2, noise.at(guide)[:levels] ** 2)
    return variance


def noise_energies(variance: NDArray[np.float64], gain: Floats, settings: Settings = DEFAULTS) -> Floats:
    """t² of the noise in each band of Y, Cb and Cr.

    Args:
        variance: from `noise_variance`.
        gain: rows×columns, of the result over the picture; near 1 nothing is removed.
        settings: for the strengths.

    Returns:
        (3·levels)×rows×columns: the bands of Y, those of Cb and those of Cr.
    """
    fade = np.clip((gain - settings.faint_gain) / (settings.full_gain - settings.faint_gain), 0, 1)[..., None]
    strength = np.array([settings.light_strength, settings.colour_strength, settings.colour_strength]) * fade
    bands = np.array(shrinkage.BAND_DEVIATION[: settings.levels])[:, None, None, None]
    energies = (variance * (strength * bands) ** 2).transpose(3, 0, 1, 2).reshape(-1, *gain.shape)
    energies[energies < _INVISIBLE**2] = 0
    return energies.astype(np.float32)


def plan(
    read: Reader,
    small: Floats,
    result: Floats,
    size: tuple[int, int],
    settings: Settings = DEFAULTS,
    tone: Tone | None = None,
    fit: Callable[[Floats, Floats, Grid, Settings], Floats] = fit_maps,
) -> FullResolution:
    """Prepare the rendering of the full-size result.

    Args:
        read: rows and columns of the full-size picture → these pixels, uint8, or float32 in [0, 1].
        small: the reduced picture, h×w×3 float32.
        result: of the network, h×w×3 in [0, 1].
        size: height and width of the full-size picture.
        settings: parameters of the method.
        tone: of the guide; None for `tone_for`.
        fit: `fit_maps`, or a carrier's.
    """
    tone = tone or tone_for(small, result, settings)
    factor = math.sqrt(size[0] * size[1] / (small.shape[0] * small.shape[1]))
    grid = Grid(size, (small.shape[0], small.shape[1]), max(1, round(settings.grid * factor)))
    guide = tone(small)
    maps = np.einsum("ij,rcjk->rcik", _TO_YCC, fit(guide, result, grid, settings)).astype(np.float32)
    noise = survey_of(tone(to_unit(read(rows, columns))) for rows, columns in patches_of(size))
    means = WindowMeans(grid, settings.radius)
    before, after = np.moveaxis(means([small.mean(axis=2), result.mean(axis=2)]), 2, 0)
    gain = after / np.maximum(before, 1e-4)
    variance = noise_variance(maps, grid.sample(guide), noise, settings.levels)
    return FullResolution(
        read,
        np.ascontiguousarray(maps.reshape(*grid.shape, 12).transpose(2, 0, 1)),
        noise_energies(variance, gain, settings),
        np.sqrt(variance).transpose(0, 3, 1, 2).reshape(-1, *grid.shape).astype(np.float32),
        np.log2(np.clip(gain, 1, 64)).astype(np.float32),
        grid,
        tone,
    )


def patches_of(size: tuple[int, int]) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of sample patches; in a large picture every n-th."""
    step = max(1, round(math.sqrt(size[0] * size[1] / _SURVEYED_PIXELS)))
    for top in range(0, size[0], _PATCH * step):
        for left in range(0, size[1], _PATCH * step):
            yield slice(top, min(top + _PATCH, size[0])), slice(left, min(left + _PATCH, size[1]))
