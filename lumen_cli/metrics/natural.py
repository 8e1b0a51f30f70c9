"""The statistics of natural scenes that NIQE rests on: normalised luminance and its generalised Gaussians."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

CREST = 3
"""Pixels around a place that its normalisation sees: a window of 7×7."""

_SIGMA = 7.0 / 6.0


def rounded_grey(picture: Tensor) -> Tensor:
    """3×H×W in [0, 1] → H×W whole numbers 0 to 255, as MATLAB's rgb2gray makes them of 8 bits (BT.601)."""
    red, green, blue = (picture * 255.0).round()
    return (0.298936 * red + 0.587043 * green + 0.114021 * blue).round()


def normalised(luminance: Tensor) -> tuple[Tensor, Tensor]:
    """(H+6)×(W+6) luminance, 0 to 255 → H×W (I - μ)/(σ + 1) and σ (Mittal et al., 2013, eq. 1 to 3)."""
    weights = torch.exp(-(torch.arange(-CREST, CREST + 1, dtype=torch.float64) ** 2) / (2 * _SIGMA**2))
    weights = (weights / weights.sum()).to(luminance)
    both = torch.stack([luminance, luminance * luminance])[:, None]
    mean, square = F.conv2d(F.conv2d(both, weights[None, None, :, None]), weights[None, None, None])[:, 0]
    deviation = (square - mean * mean).abs().sqrt()
    return (luminance[CREST:-CREST, CREST:-CREST] - mean) / (deviation + 1.0), deviation


def halved(luminance: Tensor) -> Tensor:
    """H×W with even sides → half the size: bicubic with anti-aliasing, mirrored borders, as MATLAB's imresize."""
    for _ in range(2):
        luminance = _half_height(luminance).T
    return luminance


def _half_height(luminance: Tensor) -> Tensor:
    distance = (torch.arange(8, dtype=torch.float64) - 3.5).abs() / 2
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    weights = torch.where(distance <= 1, near, far)
    weights = (weights / weights.sum()).to(luminance)
    height = luminance.shape[0]
    half = torch.zeros_like(luminance[::2])
    places = 2 * torch.arange(len(half), device=luminance.device)
    for tap in range(8):
        row = torch.remainder(places + tap - 3, 2 * height)
        half += weights[tap] * luminance[torch.minimum(row, 2 * height - 1 - row)]
    return half


def scene_features(patches: Tensor) -> Tensor:
    """N×h×w normalised luminance → N×18: shape and scale; then shape, mean and two scales of four neighbours' products.

    Mittal et al. (2013), eq. 4 to 11. Neighbours wrap around within a patch, as in the authors' code. NaN where a patch
    is flat.
    """
    shape, left, right = asymmetric_gaussian(patches)
    features = [shape, (left + right) / 2]
    for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
        shape, left, right = asymmetric_gaussian(patches * patches.roll(shift, dims=(1, 2)))
        mean = (right - left) * torch.exp(torch.lgamma(2 / shape) - torch.lgamma(1 / shape))
        features += [shape, mean, left, right]
    return torch.stack(features, dim=1)


def asymmetric_gaussian(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """N×h×w → shape α and the scales β left and right of N asymmetric generalised Gaussians, by matching moments.

    Lasmar et al. (2009); α from 0.2 to 10 in steps of 0.001, as in the authors' code.
    """
    values = values.flatten(1)
    square = values * values
    left = ((square * (values < 0)).sum(1) / (values < 0).sum(1)).sqrt()
    right = ((square * (values > 0)).sum(1) / (values > 0).sum(1)).sqrt()
    balance = left / right
    ratio = values.abs().mean(1) ** 2 / square.mean(1)
    ratio = ratio * (balance**3 + 1) * (balance + 1) / (balance**2 + 1) ** 2
    shape = shape_of_ratio(ratio)
    to_scale = torch.exp((torch.lgamma(1 / shape) - torch.lgamma(3 / shape)) / 2)
    return shape, left * to_scale, right * to_scale


def shape_of_ratio(ratio: Tensor) -> Tensor:
    """N times Γ(2/α)² / (Γ(1/α) Γ(3/α)) → the nearest α, from 0.2 to 10 in steps of 0.001; NaN for NaN."""
    shapes, ratios = (part.to(ratio) for part in _table())
    above = torch.searchsorted(ratios, ratio.contiguous()).clamp(1, len(ratios) - 1)
    nearest = torch.where((ratio - ratios[above - 1]) <= (ratios[above] - ratio), above - 1, above)
    return torch.where(ratio.isfinite(), shapes[nearest], torch.nan)


@lru_cache(maxsize=1)
def _table() -> tuple[Tensor, Tensor]:
    """Shapes α and Γ(2/α)² / (Γ(1/α) Γ(3/α)), which grows with α."""
    shapes = torch.arange(200, 10001, dtype=torch.float64) / 1000
    return shapes, torch.exp(2 * torch.lgamma(2 / shapes) - torch.lgamma(1 / shapes) - torch.lgamma(3 / shapes))
