"""The field's metrics by name, from well-kept libraries. All take B×3×H×W in [0, 1]; see `registry`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lumen_cli.metrics.registry import METRICS, measure

if TYPE_CHECKING:
    from torch import Tensor


def psnr(enhanced: Tensor, reference: Tensor) -> float:
    """Mean over the batch of the peak signal-to-noise ratio over RGB in dB; infinite for equal pictures.

    >>> import torch
    >>> reference = torch.full((1, 3, 16, 16), 0.5)
    >>> round(psnr(reference + 0.1, reference), 2)
    20.0
    >>> psnr(reference, reference)
    inf
    """
    return _mean("psnr", enhanced, reference)


def ssim(enhanced: Tensor, reference: Tensor) -> float:
    """Mean over the batch of the structural similarity (Wang et al., 2004): Gaussian window 11, σ 1.5, RGB, peak 1.

    >>> import torch
    >>> picture = torch.rand(1, 3, 16, 16)
    >>> round(ssim(picture, picture), 4)
    1.0
    """
    return _mean("ssim", enhanced, reference)


def _mean(name: str, enhanced: Tensor, reference: Tensor) -> float:
    values = measure(METRICS[name], enhanced, reference)
    return sum(values) / len(values)
