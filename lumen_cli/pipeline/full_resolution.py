"""A network's result of a small picture, applied to the full-size picture.

Networks for low light are made for scenes of about 600×400 pixels, and attention grows with the square of the pixels.
So a large picture is reduced, the network runs on the small one, and what it did is described by local colour maps
B = A·I + b, which are smooth and so can be applied at any size. `shrinkage` then removes the noise that the gain
brings up.

1. `reduce_by_area`: the picture d becomes s, about `scene_pixels` large.
2. `fit_maps`: a guided filter (He, Sun, Tang: "Guided Image Filtering", TPAMI 2013, equations 17 and 18 for colour
   guides, here for each channel of the result) between I = tone(s) and the result S, on a coarse grid as in He and Sun,
   "Fast Guided Filter" (2015). tone is the extended operator of Reinhard et al., "Photographic Tone Reproduction for
   Digital Images" (SIGGRAPH 2002, equation 4): it shows a dark picture with the light that the result will have.
3. `FullResolution.render`: B = A·tone(d) + b in strips, in Y, Cb and Cr.
4. `shrinkage`, and where noise is strong the refiner (`networks/refiner.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lumen_cli.pipeline import shrinkage
from lumen_cli.pipeline.noise_level import NoiseLevel, survey_of

if TYPE_CHECKING:
    from lumen_cli.pipeline.refining import Refining

Floats = NDArray[np.float32]
Reader = Callable[[slice, slice], NDArray[Any]]
"""Rows and columns of the full-size picture → H×W×3, uint8, or float32 in [0, 1]."""

_TO_YCC = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float64)
"""RGB to Y, Cb, Cr (ITU-T T.871); `render` has its inverse."""
_BLOCK_COLUMNS = 512
_STRONG_NOISE = 1 / 255
"""See `FullResolution.noisy`."""
_INVISIBLE = 0.3 / 255
"""A band whose threshold is lower keeps its noise."""
_PATCH = 256
_SURVEYED_PIXELS = 1_000_000


@dataclass(frozen=True)
class Settings:
    """Numbers of the method; lengths in pixels of the small picture, values of pixels in [0, 1]."""

    whole_pixels: int = 400_000
    """Pictures of at most so many pixels go through the network at their own size."""
    scene_pixels: int = 250_000
    """Pixels of the small picture."""
    radius: int = 23
    """Of the windows in which a colour map is fitted: they are 2·radius + 1 wide."""
    grid: int = 4
    """Side of the squares that share a colour map."""
    regularisation: float = 0.02
    """ε of the guided filter: variance below which a window counts as flat."""
    fine_radius: int = 8
    """Of the windows in which what is left is fitted once more; 0 for none."""
    fine_regularisation: float = 0.01
    """ε there."""
    misfit: float = 0.03
    """Deviation from the first fit at which half of it is fitted once more; less is the network's noise."""
    target: float = 0.66
    """The mean that `tone` aims at."""
    largest_gain: float = 16.0
    """Of `tone`."""
    levels: int = 2
    """Bands from which noise is removed."""
    light_strength: float = 1.2
    """How many deviations of the noise a band of Y has to exceed."""
    colour_strength: float = 2.0
    """The same of Cb and Cr."""
    faint_gain: float = 1.1
    """Where the result is at most so much brighter than the picture, noise stays."""
    full_gain: float = 1.8
    """From here on shrinkage has its full strength."""


DEFAULTS = Settings()


@dataclass(frozen=True)
class Tone:
    """v(1 + v/g²) / (1 + v) with v = g·x: steep near black, 1 at white (Reinhard et al. 2002, equation 4).

    gain: g, the slope at black.
    """

    gain: float

    def __call__(self, values: Floats) -> Floats:
        """Values in [0, 1] of any shape → the same in [0, 1]."""
        gain = np.float32(self.gain)
        scaled = values * gain
        result: Floats = scaled * (1 + scaled / (gain * gain)) / (1 + scaled)
        return result

    def table(self) -> Floats:
        """The values of 0 to 255."""
        return self((np.arange(256, dtype=np.float32) / np.float32(255)).reshape(1, 256))


def tone_for(small: Floats, result: Floats, settings: Settings = DEFAULTS) -> Tone:
    """The tone that brings a dark picture near `Settings.target`.

    It fades to x itself where the result is as bright as the picture: what a network leaves alone has identical maps.
    """
    mean = max(float(small.mean(dtype=np.float64)), 1e-6)
    gain = min(max(settings.target / mean, 1.0), settings.largest_gain)
    brighter = float(result.mean(dtype=np.float64)) / mean - 1.0
    return Tone(1.0 + (gain - 1.0) * min(max(2.0 * brighter, 0.0), 1.0))


def fit_maps(guide: Floats, result: Floats, grid: Grid, settings: Settings = DEFAULTS) -> Floats:
    """Local colour maps from a guide to a result, in two scales.

    Large windows give maps that follow no noise. What these leave of the result, as where one window holds white
    porcelain and a red table, is fitted once more in small windows. Arguments and result as of `fit_windows`.
    """
    maps = fit_windows(guide, result, grid, settings.radius, settings.regularisation, ratio=True)
    if not settings.fine_radius:
        return maps
    size = guide.shape[1::-1]
    dense = [cv2.resize(maps[:, :, row, column], size) for row in range(3) for column in range(4)]
    parts = cv2.split(guide)
    fitted = [sum((dense[4 * row + k] * parts[k] for k in range(3)), dense[4 * row + 3]) for row in range(3)]
    rest = result - np.stack(fitted, axis=2)
    side = 2 * settings.fine_radius + 1
    energy = cv2.blur((rest * rest).mean(axis=2), (side, side), borderType=cv2.BORDER_REFLECT_101)
    rest *= (energy / (energy + settings.misfit**2))[:, :, None]
    return maps + fit_windows(guide, rest, grid, settings.fine_radius, settings.fine_regularisation, ratio=False)


def fit_windows(guide: Floats, result: Floats, grid: Grid, radius: int, epsilon: float, *, ratio: bool) -> Floats:
    """Local colour maps from a guide to a result.

    In each window A = (C + ε·ρ·1)(Σ + ε·1)⁻¹ and b = S̄ - A·Ī, with Σ the covariance of the guide and C that of the
    result with it. The ridge pulls A towards ρ, the ratio of their means, rather than towards 0, so that flat places
    keep the gain of their detail. Maps are averaged over the window again, as every pixel lies in many windows.

    Args:
        guide: h×w×3 in [0, 1], I.
        result: h×w×3 in [0, 1], S.
        grid: where maps are wanted.
        radius: the windows are 2·radius + 1 wide.
        epsilon: ε, the variance below which a window counts as flat.
        ratio: whether ρ is the ratio of the means; else 0.

    Returns:
        rows×columns×3×4: at each place of the grid A and, last, b.
    """
    means = _WindowMeans(grid, radius)
    mean_guide, mean_result = means(cv2.split(guide)), means(cv2.split(result))
    pairs = means(guide[:, :, row] * guide[:, :, column] for row in range(3) for column in range(3))
    crossed = means(result[:, :, row] * guide[:, :, column] for row in range(3) for column in range(3))
    shape = (*grid.shape, 3, 3)
    covariance = pairs.reshape(shape) - mean_guide[..., :, None] * mean_guide[..., None, :]
    shared = crossed.reshape(shape) - mean_result[..., :, None] * mean_guide[..., None, :]
    identity = np.eye(3)
    aim = (mean_result + 0.02) / (mean_guide + 0.02) if ratio else np.zeros_like(mean_result)
    slopes = np.linalg.solve(
        covariance + epsilon * identity, (shared + epsilon * aim[..., None] * identity).swapaxes(-1, -2)
    ).swapaxes(-1, -2)
    offsets = mean_result - (slopes @ mean_guide[..., None])[..., 0]
    maps = np.concatenate([slopes, offsets[..., None]], axis=-1).reshape(*grid.shape, 12)
    coarse = Grid(grid.shape, grid.shape, 1)
    averaged = _WindowMeans(coarse, max(1, round(radius * grid.factor / grid.step)))(
        maps[:, :, index] for index in range(12)
    )
    return averaged.reshape(*grid.shape, 3, 4).astype(np.float32)


class _WindowMeans:
    """Means over square windows around the places of a grid; what lies outside the picture does not count."""

    def __init__(self, grid: Grid, radius: int) -> None:
        self._grid, self._size = grid, (2 * radius + 1, 2 * radius + 1)
        self._counts = self._sums(np.ones(grid.scene, np.float32))

    def __call__(self, planes: Iterable[NDArray[Any]]) -> NDArray[np.float64]:
        """Planes h×w of the small picture → rows×columns×planes."""
        return np.stack([self._sums(plane) for plane in planes], axis=2) / self._counts[:, :, None]

    def _sums(self, plane: NDArray[Any]) -> NDArray[np.float64]:
        plane = np.ascontiguousarray(plane)
        sums = cv2.boxFilter(plane, cv2.CV_64F, self._size, normalize=False, borderType=cv2.BORDER_CONSTANT)
        return self._grid.sample(np.asarray(sums, np.float64))


@dataclass(frozen=True)
class Grid:
    """Places in squares of `step` full-size pixels; the first centre lies half a square inside the picture.

    size: height and width of the full-size picture; scene: those of the small one.
    """

    size: tuple[int, int]
    scene: tuple[int, int]
    step: int

    @property
    def factor(self) -> float:
        """Full-size pixels a side of a small one."""
        return math.sqrt(self.size[0] * self.size[1] / (self.scene[0] * self.scene[1]))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return -(-self.size[0] // self.step), -(-self.size[1] // self.step)

    def sample(self, planes: NDArray[Any]) -> NDArray[Any]:
        """h×w×… of the small picture → rows×columns×…, the nearest pixel of each place."""
        rows, columns = (
            np.minimum((np.arange(count) + 0.5) * self.step * small / length, small - 1).astype(int)
            for count, small, length in zip(self.shape, self.scene, self.size, strict=True)
        )
        chosen: NDArray[Any] = planes[rows[:, None], columns]
        return chosen

    def lines(self, planes: Floats, rows: tuple[int, int], columns: tuple[int, int]) -> tuple[Floats, int]:
        """The way down of `enlarge`, for several planes at once.

        Returns:
            planes×R×n, the rows of the picture at those columns of the grid that `columns` need; the first of these.
        """
        step, (count, across) = self.step, self.shape
        at = np.clip((np.arange(*rows, dtype=np.float32) + np.float32(0.5)) / step - np.float32(0.5), 0, count - 1)
        above = np.minimum(at.astype(int), count - 1)
        below = np.minimum(above + 1, count - 1)
        share = (at - above.astype(np.float32))[:, None]
        first, last = columns[0] // step - 1, -(-columns[1] // step) + 1
        knots = planes[:, :, np.clip(np.arange(first, last), 0, across - 1)]
        start = knots[:, above]
        lines: Floats = start + share * (knots[:, below] - start)
        return lines, first

    def enlarge(self, lines: Floats, first: int, columns: tuple[int, int], scratch: Floats) -> Floats:
        """One plane of `lines` → R×C pixels, linear along rows; a view of `scratch`, R×n·step."""
        cv2.resize(lines, scratch.shape[::-1], scratch, interpolation=cv2.INTER_LINEAR)
        start = columns[0] - first * self.step
        part: Floats = scratch[:, start : start + columns[1] - columns[0]]
        return part

    def interpolate(self, planes: Floats, rows: tuple[int, int], columns: tuple[int, int], square: int) -> Floats:
        """C×rows×columns of the grid → the centres of the squares of a part of the full-size picture, bilinear."""
        for axis, (first, last) in enumerate((rows, columns), start=1):
            count = self.shape[axis - 1]
            centres = np.arange(first, last, square, dtype=np.float32) + np.float32(square / 2)
            at = np.clip(centres / np.float32(self.step) - np.float32(0.5), 0, count - 1)
            before = np.minimum(at.astype(int), count - 1)
            after = np.minimum(before + 1, count - 1)
            share = (at - before.astype(np.float32)).reshape(-1, *(1,) * (2 - axis))
            start, end = planes.take(before, axis), planes.take(after, axis)
            planes = start + share * (end - start)
        return planes


@dataclass(frozen=True, eq=False)
class FullResolution:
    """What a network did with a small picture, ready for the full-size one.

    read: the full-size picture; maps: 12×rows×columns, three slopes and the offset of Y, of Cb and of Cr; energies:
    (3·levels)×rows×columns, t² of the noise in each band of Y, of Cb and of Cr; deviation: (3·levels)×rows×columns,
    that of the noise in Y, Cb and Cr, by halvings; stops: rows×columns, how much brighter the result is than the
    picture; tone: of the guide; refining: what removes noise after shrinkage, None for nothing.
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

        That is noise whose deviation in Y is at least `_STRONG_NOISE` in the result; half of it counts where the
        result is half a stop brighter, all from one stop on.
        """
        light = self.deviation[0] * np.clip(self.stops, 0, 1)
        return bool(np.quantile(light, 0.75) >= _STRONG_NOISE)

    def render(self, top: int, bottom: int) -> Floats:
        """Rows of the full-size result, (bottom - top)×W×3 float32; a little may lie outside [0, 1]."""
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
        """Y, Cb and Cr of a part of the picture after shrinkage, and what that removed; table: the tone's."""
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
    """Planes of Y, Cb and Cr → R, G and B. Products and sums one by one, so that blocks give the same bits anywhere."""
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
        levels: how many halvings, and none, are wanted.
    """
    # Independent noise of the channels: variances add.
    variance: NDArray[np.float64] = np.einsum("rcij,lrcj->lrci", maps[..., :3] ** 2, noise.at(guide)[:levels] ** 2)
    return variance


def noise_energies(variance: NDArray[np.float64], gain: Floats, settings: Settings = DEFAULTS) -> Floats:
    """t² of the noise in each band of Y, Cb and Cr.

    Args:
        variance: from `noise_variance`.
        gain: rows×columns, how much brighter the result is than the picture; near 1 nothing is removed.
        settings: strengths are used.

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
    read: Reader, small: Floats, result: Floats, size: tuple[int, int], settings: Settings = DEFAULTS
) -> FullResolution:
    """What is needed to render the full-size result.

    Args:
        read: rows and columns of the full-size picture → these pixels, uint8, or float32 in [0, 1].
        small: the same reduced, h×w×3 float32.
        result: what the network made of that, h×w×3 in [0, 1].
        size: height and width of the full-size picture.
        settings: the method's numbers.
    """
    tone = tone_for(small, result, settings)
    factor = math.sqrt(size[0] * size[1] / (small.shape[0] * small.shape[1]))
    grid = Grid(size, (small.shape[0], small.shape[1]), max(1, round(settings.grid * factor)))
    guide = tone(small)
    maps = np.einsum("ij,rcjk->rcik", _TO_YCC, fit_maps(guide, result, grid, settings)).astype(np.float32)
    noise = survey_of(tone(unit(read(rows, columns))) for rows, columns in patches_of(size))
    means = _WindowMeans(grid, settings.radius)
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
    """Rows and columns of parts that stand for the whole picture: of a large one every few."""
    step = max(1, round(math.sqrt(size[0] * size[1] / _SURVEYED_PIXELS)))
    for top in range(0, size[0], _PATCH * step):
        for left in range(0, size[1], _PATCH * step):
            yield slice(top, min(top + _PATCH, size[0])), slice(left, min(left + _PATCH, size[1]))


def unit(values: NDArray[Any]) -> Floats:
    """uint8 or float values as float32 in [0, 1]."""
    return values.astype(np.float32) / np.float32(255) if values.dtype == np.uint8 else values
