"""Local colour maps from a small picture to the network's result, and their values at full size.

A guided filter (He, Sun, Tang: "Guided Image Filtering", TPAMI 2013, equations 17 and 18 for colour guides, here for
each channel of the result) between I = tone(s) and the result S, on a coarse grid as in He and Sun, "Fast Guided
Filter" (2015). tone is the extended operator of Reinhard et al., "Photographic Tone Reproduction for Digital Images"
(SIGGRAPH 2002, equation 4): it brightens a dark picture to about the light of the result.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lumen_cli.engine.scene import DEFAULTS, Floats, Settings


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
    """The tone that brings the mean of a dark picture near `Settings.target`.

    It becomes the identity where the result is as bright as the picture; an unchanged picture has identity maps.
    """
    mean = max(float(small.mean(dtype=np.float64)), 1e-6)
    gain = min(max(settings.target / mean, 1.0), settings.largest_gain)
    brighter = float(result.mean(dtype=np.float64)) / mean - 1.0
    return Tone(1.0 + (gain - 1.0) * min(max(2.0 * brighter, 0.0), 1.0))


def fit_maps(guide: Floats, result: Floats, grid: Grid, settings: Settings = DEFAULTS) -> Floats:
    """Local colour maps from a guide to a result, in two scales.

    Large windows give maps that do not follow noise. Their residual, for example where one window contains white
    porcelain and a red table, is fitted again in small windows. Arguments and result as of `fit_windows`.
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
    result with it. The ridge pulls A towards ρ, the ratio of their means, instead of 0, so that flat places keep the
    gain of their detail. Then maps are averaged over the window, because every pixel lies in many windows.

    Args:
        guide: h×w×3 in [0, 1], I.
        result: h×w×3 in [0, 1], S.
        grid: the places of the maps.
        radius: the windows are 2·radius + 1 wide.
        epsilon: ε, the variance below which a window counts as flat.
        ratio: whether ρ is the ratio of the means; otherwise it is 0.

    Returns:
        rows×columns×3×4: at each place of the grid A and, last, b.
    """
    means = WindowMeans(grid, radius)
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
    averaged = WindowMeans(coarse, max(1, round(radius * grid.factor / grid.step)))(
        maps[:, :, index] for index in range(12)
    )
    return averaged.reshape(*grid.shape, 3, 4).astype(np.float32)


class WindowMeans:
    """Means over square windows around the places of a grid; pixels outside the picture do not count."""

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
        """Ratio of full-size to small sides."""
        return math.sqrt(self.size[0] * self.size[1] / (self.scene[0] * self.scene[1]))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return -(-self.size[0] // self.step), -(-self.size[1] // self.step)

    def sample(self, planes: NDArray[Any]) -> NDArray[Any]:
        """h×w×… of the small picture → rows×columns×…, the nearest pixel to each place."""
        chosen: NDArray[Any] = planes[self.nearest(0)[:, None], self.nearest(1)]
        return chosen

    def nearest(self, axis: int) -> NDArray[np.int64]:
        """The rows (axis 0) or columns of the small picture that are nearest to those of the grid."""
        count, small, length = self.shape[axis], self.scene[axis], self.size[axis]
        at = np.minimum((np.arange(count) + 0.5) * self.step * small / length, small - 1)
        return at.astype(np.int64)

    def lines(self, planes: Floats, rows: tuple[int, int], columns: tuple[int, int]) -> tuple[Floats, int]:
        """The vertical step of `enlarge`, for several planes at once.

        Returns:
            planes×R×n, the rows of the picture at the grid's columns around `columns`; the first of these columns.
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
