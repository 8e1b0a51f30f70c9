"""What KinD does around its networks: the stretch of the picture, the ratio of light, the two rules of fusion."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

Fusion = Literal["arbitrary", "pairs"]
"""Rule A, the release's script for arbitrary pictures, and rule B, the one for the pairs of LOL."""
FUSIONS: tuple[str, ...] = get_args(Fusion)

LEAST_RANGE = 0.001
LEAST_LIGHT = 1e-4
GREY = (0.2125, 0.7154, 0.0721)
BLUR_SIGMA = 3.0
BLUR_RADIUS = 12


def extremes(picture: Tensor) -> Tensor:
    """B×3×H×W → B×2: the least and the greatest value of each picture, all channels together."""
    return torch.stack(list(torch.aminmax(picture.flatten(1), dim=1)), dim=1)


def stretch(picture: Tensor, limits: Tensor | None = None) -> Tensor:
    """Spread each picture's values over [0, 1], as the release's loader does: (x - min) / max(max - min, 0.001).

    `picture` B×3×H×W, `limits` B×2 where the extremes are those of a larger picture that this one is a part of.
    """
    low, high = (extremes(picture) if limits is None else limits).view(-1, 2, 1, 1, 1).unbind(1)
    return (picture - low) / (high - low).clamp_min(LEAST_RANGE)


def grey(picture: Tensor) -> Tensor:
    """B×3×H×W → B×1×H×W by the weights of ITU-R BT.709 as the release rounds them."""
    weights = torch.tensor(GREY, dtype=picture.dtype, device=picture.device).view(1, 3, 1, 1)
    return (picture * weights).sum(dim=1, keepdim=True)


def blur(picture: Tensor) -> Tensor:
    """Gaussian of σ = 3, 25 taps, borders repeated; B×1×H×W → the same."""
    taps = torch.arange(-BLUR_RADIUS, BLUR_RADIUS + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (taps / BLUR_SIGMA) ** 2)
    kernel = (kernel / kernel.sum()).to(picture)
    rows = F.pad(picture, (0, 0, BLUR_RADIUS, BLUR_RADIUS), mode="replicate")
    columns = F.pad(F.conv2d(rows, kernel.view(1, 1, -1, 1)), (BLUR_RADIUS, BLUR_RADIUS, 0, 0), mode="replicate")
    return F.conv2d(columns, kernel.view(1, 1, 1, -1))


def darkness_weight(reflectance: Tensor) -> Tensor:
    """min(√(2 · blurred grey of R), 1), B×1×H×W: holds down what the restoration made grey where all is dark."""
    return (2.0 * blur(grey(reflectance))).sqrt().clamp_max(1.0)


def blend(picture: Tensor, reflectance: Tensor, illumination: Tensor, lit: Tensor) -> Tensor:
    """Rule A: L ∘ I + (1 - L) ∘ w ∘ `lit`, where `lit` is the restored reflectance under its new light.

    I and R are the stretched picture and the reflectance as decomposed, before the restoration.
    """
    return illumination * picture + (1.0 - illumination) * (lit * darkness_weight(reflectance))


def pair_ratio(target: Tensor, source: Tensor) -> Tensor:
    """Mean of target over source illumination, both B×1×H×W, per picture: [B]. The ratio of rule B."""
    return (target / (source + LEAST_LIGHT)).mean(dim=(1, 2, 3))
