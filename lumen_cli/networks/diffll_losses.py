"""The training terms of DiffLL (Jiang et al., SIGGRAPH Asia 2023, section 3.4; weights as released)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

MATCH_WEIGHT = 0.1
SMOOTH_WEIGHT = 0.01
WINDOW, SIGMA = 11, 1.5


def content_loss(picture: Tensor, target: Tensor) -> Tensor:
    """L1 + (1 - SSIM) of two pictures B×3×H×W in [0, 1]; a scalar."""
    return F.l1_loss(picture, target) + 1.0 - similarity(picture, target)


def frequency_loss(bands: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """0.1 · Σ MSE to the bright picture's bands + 0.01 · Σ total variation; a scalar."""
    match = torch.stack([F.mse_loss(band, target) for band, target in zip(bands, targets, strict=True)]).sum()
    smooth = torch.stack([total_variation(band) for band in bands]).sum()
    return MATCH_WEIGHT * match + SMOOTH_WEIGHT * smooth


def total_variation(x: Tensor) -> Tensor:
    """2 · (mean squared vertical difference + mean squared horizontal difference); x is B×C×H×W."""
    return 2.0 * (x.diff(dim=-2).square().mean() + x.diff(dim=-1).square().mean())


def similarity(x: Tensor, y: Tensor) -> Tensor:
    """SSIM (Wang et al., 2004) under a Gaussian window without padding, peak 1, mean over everything; a scalar.

    Population statistics, C1 = 0.01², C2 = 0.03²; sides of at least 11.
    """
    offsets = torch.arange(WINDOW, dtype=torch.float32, device=x.device) - WINDOW // 2
    window = (-offsets.square() / (2.0 * SIGMA**2)).exp()
    window = window / window.sum()
    count = x.shape[0]

    def blurred(stacked: Tensor) -> Tensor:
        channels = stacked.shape[1]
        stacked = F.conv2d(stacked, window.view(1, 1, -1, 1).expand(channels, -1, -1, -1), groups=channels)
        return F.conv2d(stacked, window.view(1, 1, 1, -1).expand(channels, -1, -1, -1), groups=channels)

    with torch.autocast(x.device.type, enabled=False):
        x, y = x.float(), y.float()
        mean_x, mean_y, xx, yy, xy = blurred(torch.cat([x, y, x * x, y * y, x * y])).split(count)
        contrast = (2.0 * (xy - mean_x * mean_y) + 9e-4) / (xx - mean_x**2 + yy - mean_y**2 + 9e-4)
        return (contrast * (2.0 * mean_x * mean_y + 1e-4) / (mean_x**2 + mean_y**2 + 1e-4)).mean()
