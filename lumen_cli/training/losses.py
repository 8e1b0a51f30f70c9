"""Losses that recipes share. Pictures are B×3×H×W in [0, 1] (targets) or unbounded (outputs)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lumen_cli.networks.exposure import gain_to


def structure(output: Tensor, target: Tensor, window: int = 7, stride: int = 2) -> Tensor:
    """1 - SSIM with a uniform window (Wang et al., 2004, with C1 = 0.01², C2 = 0.03²); a scalar in [0, 2]."""

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, window, stride=stride)

    mx, my = mean(output), mean(target)
    vx = mean(output * output) - mx * mx
    vy = mean(target * target) - my * my
    covariance = mean(output * target) - mx * my
    similarity = (2 * mx * my + 1e-4) * (2 * covariance + 9e-4)
    return 1.0 - (similarity / ((mx * mx + my * my + 1e-4) * (vx + vy + 9e-4))).mean()


def fidelity(output: Tensor, target: Tensor, structure_weight: float = 0.2) -> Tensor:
    """L1 plus weighted structural dissimilarity, a scalar."""
    output = output.float()
    return F.l1_loss(output, target) + structure_weight * structure(output, target)


def smoothness(illumination: Tensor, guide: Tensor, sharpness: float = 10.0) -> Tensor:
    """Σ |∇L| · exp(-k |∇guide|): the illumination may change only where the guide does (Wei et al., 2018, eq. 5).

    `illumination` B×1×h×w, `guide` B×C×h×w of the same size; a scalar.
    """
    guide = guide.mean(dim=1, keepdim=True)
    loss = illumination.new_zeros(())
    for axis in (-1, -2):
        change, edge = illumination.diff(dim=axis).abs(), guide.diff(dim=axis).abs()
        loss = loss + (change * (-sharpness * edge).exp()).mean()
    return loss


def misexposed_gain(whole: Tensor, exposure: float, stops: float, generator: torch.Generator) -> Tensor:
    """`gain_to` of the whole pictures that crops are cut from, off by up to `stops` either way and never below 1."""
    off = stops * (2.0 * torch.rand(len(whole), 1, 1, 1, generator=generator, device=whole.device) - 1.0)
    return (gain_to(whole, exposure) * torch.exp2(off)).clamp_min(1.0)
