"""The Haar wavelet transform of DiffLL: the average of every 2×2 block and three kinds of detail.

With a, c over b, d the pixels of a block (a, b the left column):

    LL = (a + b + c + d) / 2    average, twice the mean
    HL = (c + d - a - b) / 2    right minus left
    LH = (b + d - a - c) / 2    bottom minus top
    HH = (a + d - b - c) / 2    diagonal

The transform is orthonormal. Details are stacked along the batch axis in the order HL, LH, HH, as the papers' code has
them. `analyse` and `synthesise` compute the sums as they stand; `library_analyse` and `library_synthesise` are the same
two through pytorch_wavelets, the reference they are tested against. For this one wavelet the library's convolutions
take about ten times as long on a CPU, and autocast would round them.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor


def analyse(x: Tensor) -> tuple[Tensor, Tensor]:
    """B×C×H×W with even sides → (average B×C×H/2×W/2, details 3B×C×H/2×W/2: HL, LH, HH)."""
    if x.shape[-2] % 2 or x.shape[-1] % 2:
        raise ValueError(f"the Haar transform needs even sides, not {x.shape[-2]}×{x.shape[-1]}")
    top, bottom = 0.5 * x[..., ::2, :], 0.5 * x[..., 1::2, :]
    total, change = top + bottom, bottom - top
    left, right = total[..., ::2], total[..., 1::2]
    change_left, change_right = change[..., ::2], change[..., 1::2]
    return left + right, torch.cat([right - left, change_left + change_right, change_right - change_left])


def synthesise(average: Tensor, details: Tensor) -> Tensor:
    """The inverse of `analyse`: B×C×h×w and 3B×C×h×w → B×C×2h×2w."""
    hl, lh, hh = (0.5 * details).chunk(3)
    average = 0.5 * average
    left, right = average - hl, average + hl
    change_left, change_right = lh - hh, lh + hh
    top = _interleave(left - change_left, right - change_right, axis=-1)
    bottom = _interleave(left + change_left, right + change_right, axis=-1)
    return _interleave(top, bottom, axis=-2)


def _interleave(even: Tensor, odd: Tensor, axis: int) -> Tensor:
    """Alternate the slices of two tensors of one shape along an axis counted from the end."""
    return torch.stack([even, odd], dim=axis).flatten(axis - 1, axis)


def library_analyse(x: Tensor) -> tuple[Tensor, Tensor]:
    """`analyse` through pytorch_wavelets, whose bands are -LH, -HL and HH."""
    forward, _ = _library()
    with torch.autocast(x.device.type, enabled=False):
        average, (bands,) = forward.to(x)(x)
    return average, torch.cat([-bands[:, :, 1], -bands[:, :, 0], bands[:, :, 2]])


def library_synthesise(average: Tensor, details: Tensor) -> Tensor:
    """`synthesise` through pytorch_wavelets."""
    _, inverse = _library()
    hl, lh, hh = details.chunk(3)
    with torch.autocast(average.device.type, enabled=False):
        whole: Tensor = inverse.to(average)((average, [torch.stack([-lh, -hl, hh], dim=2)]))
    return whole


@cache
def _library() -> tuple[Any, Any]:
    # Imported late, for it takes a quarter of a second, and quietly, for it still asks for pkg_resources.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pytorch_wavelets import DWTForward, DWTInverse
    return DWTForward(J=1, wave="haar", mode="zero"), DWTInverse(wave="haar", mode="zero")
