"""Noise that a gain brings up, removed from one plane by wavelet shrinkage with a known noise level.

The undecimated wavelets of the à-trous algorithm (Starck, Fadili, Murtagh: "The Undecimated Wavelet Decomposition and
its Reconstruction", IEEE TIP 2007): a_j = B3-spline of a_(j-1) with holes of 2^(j-1), band w_j = a_(j-1) - a_j. Each
band is multiplied by max(e - t², 0) / e, the Wiener rule with e the band's mean energy near the pixel and t² the
energy that noise has in the band.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

BAND_DEVIATION = (0.8908, 0.2007, 0.0856)
"""Of unit white noise in the bands 1, 2 and 3 (Starck et al.)."""
_SPLINE = np.array([1, 4, 6, 4, 1], np.float32) / np.float32(16)
_ENERGY = 5
"""Side of the square in which a band's energy is averaged."""
_TINY = np.float32(1e-12)


def margin(levels: int) -> int:
    """Pixels beyond a block that its values depend on."""
    return 2 * (2**levels - 1) + _ENERGY // 2


def shrink(plane: Floats, energies: Sequence[Callable[[], Floats]]) -> Floats:
    """Remove noise from a plane, in place; returns what was removed.

    Args:
        plane: H×W; pixels nearer to a border than `margin` may differ from those of a larger plane.
        energies: give t² of each band, H×W; their number is that of the levels.
    """
    removed = np.zeros_like(plane)
    if not energies:
        return removed
    mean = np.full(_ENERGY, 1 / _ENERGY, np.float32)
    smooth, coarser, spare = plane, np.empty_like(plane), np.empty_like(plane)
    band, energy = np.empty_like(plane), np.empty_like(plane)
    for level, noise in enumerate(energies):
        kernel = np.zeros(4 * 2**level + 1, np.float32)
        kernel[:: 2**level] = _SPLINE
        cv2.sepFilter2D(smooth, cv2.CV_32F, kernel, kernel, coarser, borderType=cv2.BORDER_REFLECT_101)
        np.subtract(smooth, coarser, out=band)
        np.multiply(band, band, out=energy)
        cv2.sepFilter2D(energy, cv2.CV_32F, mean, mean, energy, borderType=cv2.BORDER_REFLECT_101)
        energy += _TINY
        # w - w·max(e - t², 0)/e = w·min(t²/e, 1)
        np.divide(noise(), energy, out=energy)
        np.minimum(energy, np.float32(1), out=energy)
        energy *= band
        removed += energy
        smooth, coarser = coarser, spare
        spare = smooth
    plane -= removed
    return removed
