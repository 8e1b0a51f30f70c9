"""Noise of full-size pictures: estimated by brightness and scale, removed by shrinkage, the rest by the refiner.

The estimate uses the diagonal Haar band (Donoho and Johnstone, "Ideal spatial adaptation by wavelet shrinkage", 1994),
which edges along rows and columns do not reach. Texture does, so each brightness takes a low quantile over small
squares instead of the median over all pixels. The picture halved once and twice shows the coarser noise: noise of
cameras that denoise, of enlarged pictures and of JPEG is correlated.

The refiner (`networks/refiner.py`) runs on parts of a picture. A pixel's value depends only on the margin around it, as
long as PyTorch runs the same code for all sizes. For maps narrower than about 20 squares it runs other code, so parts
have at least `_LEAST` pixels a side. Parts of any size then give the same bytes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lumen_cli.engine.scene import Floats
from lumen_cli.networks.refiner import SQUARE, Refiner, see, share_of
from lumen_cli.registry import bundled_models
from lumen_cli.registry.load import apply_weights, load_weights

BINS = 12
SCALES = 3
_SQUARE = 8
"""Side of a square, in Haar coefficients."""
_QUANTILE = 0.25
_FEWEST = 24
"""Least squares of a bin with its own estimate."""
_CLIPPED = 0.004
"""Squares within this distance of black or white are left out, because clipping cuts their noise."""


@dataclass(frozen=True, eq=False)
class NoiseLevel:
    """Standard deviations of white noise of equal strength at each scale.

    sigma: `SCALES`×3×`BINS` float32, by halvings, channel and brightness of the channel in [0, 1].
    """

    sigma: Floats

    def at(self, values: Floats) -> Floats:
        """…×3 brightness in [0, 1] → `SCALES`×…×3 standard deviations, linear between the bins' centres."""
        centres = (np.arange(BINS) + 0.5) / BINS
        channels = [
            [np.interp(values[..., channel], centres, self.sigma[scale, channel]) for channel in range(3)]
            for scale in range(SCALES)
        ]
        return np.moveaxis(np.array(channels, np.float32), 1, -1)


class NoiseSurvey:
    """Collects squares of a picture; `level` is the estimate."""

    def __init__(self) -> None:
        self._found: list[list[list[Floats]]] = [[[] for _ in range(3)] for _ in range(SCALES)]

    def add(self, patch: Floats) -> None:
        """Add a part of the picture, H×W×3 in [0, 1]; for all scales its sides need `_SQUARE` · 2^SCALES pixels."""
        for scale in range(SCALES):
            if scale:
                height, width = (length // 2 * 2 for length in patch.shape[:2])
                halved = cv2.resize(patch[:height, :width], (width // 2, height // 2), interpolation=cv2.INTER_AREA)
                patch = np.asarray(halved, np.float32)
            if min(patch.shape[:2]) < 2 * _SQUARE:
                return
            for channel in range(3):
                self._found[scale][channel].append(_squares(np.ascontiguousarray(patch[:, :, channel])))

    def level(self) -> NoiseLevel:
        """The estimate from all added parts; 0 where nothing could be measured."""
        sigma = np.zeros((SCALES, 3, BINS), np.float32)
        for scale, channels in enumerate(self._found):
            for channel, parts in enumerate(channels):
                if parts:
                    # An average over 4^scale independent pixels has 2^-scale of their deviation.
                    sigma[scale, channel] = 2**scale * _by_brightness(np.concatenate(parts))
        return NoiseLevel(sigma)


def _squares(plane: Floats) -> Floats:
    """N×2: mean and deviation of the diagonal Haar band of each square."""
    height, width = (length // (2 * _SQUARE) * (2 * _SQUARE) for length in plane.shape)
    a, b = plane[0:height:2, 0:width:2], plane[0:height:2, 1:width:2]
    c, d = plane[1:height:2, 0:width:2], plane[1:height:2, 1:width:2]
    size = (width // (2 * _SQUARE), height // (2 * _SQUARE))
    band = (a - b - c + d) * np.float32(0.5)
    energy = cv2.resize(band * band, size, interpolation=cv2.INTER_AREA)
    mean = cv2.resize(plane[:height, :width], size, interpolation=cv2.INTER_AREA)
    return np.stack([mean.ravel(), np.sqrt(energy).ravel()], axis=1)


def _by_brightness(squares: Floats) -> Floats:
    """The low quantile of the deviation in each bin; bins with too few squares use their neighbours'."""
    mean, deviation = squares[:, 0], squares[:, 1]
    usable = (mean > _CLIPPED) & (mean < 1 - _CLIPPED) & (deviation > 0)
    bins = np.minimum((mean * BINS).astype(int), BINS - 1)
    levels = np.full(BINS, np.nan)
    for index in range(BINS):
        chosen = deviation[usable & (bins == index)]
        if len(chosen) >= _FEWEST:
            levels[index] = np.quantile(chosen, _QUANTILE)
    known = np.flatnonzero(~np.isnan(levels))
    if not len(known):
        return np.zeros(BINS, np.float32)
    filled: Floats = np.interp(np.arange(BINS), known, levels[known]).astype(np.float32)
    return filled


def survey_of(patches: Iterable[Floats]) -> NoiseLevel:
    """The noise level of a picture, from some of its patches."""
    survey = NoiseSurvey()
    for patch in patches:
        survey.add(patch)
    return survey.level()


BAND_DEVIATION = (0.8908, 0.2007, 0.0856)
"""Deviation of unit white noise in the bands 1, 2 and 3 (Starck et al.)."""
SPLINE = np.array([1, 4, 6, 4, 1], np.float32) / np.float32(16)
ENERGY = 5
"""Side of the square in which a band's energy is averaged."""
TINY = 1e-12
"""Added to that energy, which may be 0."""


def margin(levels: int) -> int:
    """Number of pixels around a block that its values depend on."""
    return 2 * (2**levels - 1) + ENERGY // 2


def shrink(plane: Floats, energies: Sequence[Callable[[], Floats]]) -> Floats:
    """Remove noise from a plane, in place; returns the removed part.

    Args:
        plane: H×W; pixels within `margin` of a border may differ from those of a larger plane.
        energies: functions that return t² of each band, H×W; one for each level.
    """
    removed = np.zeros_like(plane)
    if not energies:
        return removed
    mean = np.full(ENERGY, 1 / ENERGY, np.float32)
    smooth, coarser, spare = plane, np.empty_like(plane), np.empty_like(plane)
    band, energy = np.empty_like(plane), np.empty_like(plane)
    for level, noise in enumerate(energies):
        kernel = np.zeros(4 * 2**level + 1, np.float32)
        kernel[:: 2**level] = SPLINE
        cv2.sepFilter2D(smooth, cv2.CV_32F, kernel, kernel, coarser, borderType=cv2.BORDER_REFLECT_101)
        np.subtract(smooth, coarser, out=band)
        np.multiply(band, band, out=energy)
        cv2.sepFilter2D(energy, cv2.CV_32F, mean, mean, energy, borderType=cv2.BORDER_REFLECT_101)
        energy += np.float32(TINY)
        # w - w·max(e - t², 0)/e = w·min(t²/e, 1)
        np.divide(noise(), energy, out=energy)
        np.minimum(energy, np.float32(1), out=energy)
        energy *= band
        removed += energy
        smooth, coarser = coarser, spare
        spare = smooth
    plane -= removed
    return removed


SHA256 = "f6ba5dd9d44a6c25d6926b5d7562594885e06acf562a5e1dbc4ded45f2332533"
"""Of the weights file."""
_FILE = "refiner/refiner.safetensors"
_LEAST = 128
"""Smallest sides of a part, unless the picture is smaller."""


class Refining:
    """The refiner with its weights, in one precision on one device."""

    def __init__(self, network: Refiner, dtype: torch.dtype) -> None:
        self._network = network.to(dtype).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self._dtype = dtype

    def extent(self, start: int, stop: int, length: int) -> tuple[int, int]:
        """The rows (or columns) of a picture of `length` that those from `start` to `stop` depend on."""
        margin = max(self._network.margin, -(-(_LEAST - (stop - start)) // 2))
        first = max(0, start - margin) // SQUARE * SQUARE
        last = min(length, max(-(-(stop + margin) // SQUARE) * SQUARE, first + _LEAST))
        return min(first, max(0, last - _LEAST) // SQUARE * SQUARE), last

    @torch.inference_mode()
    def refine(self, planes: list[Floats], removed: list[Floats], maps: Floats) -> list[Floats]:
        """Refine a part of a picture; values within the margin of its borders differ from those of the whole picture.

        Args:
            planes: Y, Cb and Cr, h×w each, after shrinkage. The part starts at a multiple of `SQUARE` and ends
                at another, or at the end of the picture.
            removed: what shrinkage removed, h×w each.
            maps: (3·LEVELS + 1)×⌈h/4⌉×⌈w/4⌉, the deviation of the noise and, last, the gain in stops.

        Returns:
            Y, Cb and Cr, h×w each.
        """
        given = (torch.from_numpy(np.ascontiguousarray(each)) for each in (np.stack(planes), np.stack(removed), maps))
        return list(self.correct(*given).numpy())

    def correct(self, planes: Tensor, removed: Tensor, maps: Tensor) -> Tensor:
        """As `refine`, with tensors on the network's device: 3×h×w, 3×h×w and the maps → 3×h×w."""
        height, width = planes.shape[1:]
        clean, taken = (_fill(each)[None] for each in (planes, removed))
        deviation, stops = maps[None, :-1], maps[None, -1:]
        seen = see(clean, taken, deviation, stops, self._dtype)
        refined = clean + self._network(seen, share_of(deviation, stops))
        return refined[0, :, :height, :width]

    def moved(self, device: torch.device, dtype: torch.dtype) -> Refining:
        """A copy on another device, or in another precision."""
        return Refining(copy.deepcopy(self._network).to(device), dtype)


def _fill(planes: Tensor) -> Tensor:
    """3×h×w, extended by its last row and column to multiples of `SQUARE`."""
    height, width = planes.shape[1:]
    return F.pad(planes, (0, -width % SQUARE, 0, -height % SQUARE), "replicate")


@cache
def load_refining(dtype: torch.dtype) -> Refining:
    """The bundled refiner; ModelError where its file is missing or damaged."""
    path = bundled_models() / _FILE
    network = Refiner()
    apply_weights(network, load_weights(path, SHA256, model="refiner"), path, model="refiner")
    return Refining(network, dtype)
