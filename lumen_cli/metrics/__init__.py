"""The field's metrics by name, from well-kept libraries. All take B×3×H×W in [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor


def psnr(enhanced: Tensor, reference: Tensor) -> float:
    """Mean over the batch of the peak signal-to-noise ratio over RGB in dB; infinite for equal pictures."""
    error = (enhanced - reference).square().flatten(1).mean(dim=1)
    return float((-10.0 * torch.log10(error)).mean())


def ssim(enhanced: Tensor, reference: Tensor) -> float:
    """Structural similarity (Wang et al., 2004): Gaussian window 11, σ 1.5, RGB, peak 1."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    value = structural_similarity_index_measure(enhanced, reference, data_range=1.0)
    assert isinstance(value, Tensor)
    return float(value)
