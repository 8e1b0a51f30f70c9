"""Denoising a picture of any size by overlapping patches, the way LLDiffusion is tested in its paper's code.

At every step the network estimates the noise of every patch; where patches overlap, their estimates are averaged, and
one step is made with the whole map (after Özdenizci & Legenstein, "Restoring Vision in Adverse Weather Conditions with
Patch-Based Denoising Diffusion Models", algorithm 2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lumen_cli.diffusion.sampler import Denoiser

Place = tuple[int, int, int]
"""A patch: number of the picture in the batch, top row, left column."""

Estimate = Callable[[Tensor, Tensor, Tensor, Sequence[Tensor]], Tensor]
Encode = Callable[[Tensor], Sequence[Tensor]]

FEATURE_BYTES = 1 << 30
"""Features kept from one step to the next take no more than that; those of further patches are computed anew."""


def starts(side: int, patch: int, stride: int) -> list[int]:
    """Where patches begin along a side of at least `patch`: every `stride`, and one more where these do not reach."""
    regular = list(range(0, side - patch + 1, stride))
    return regular if regular[-1] == side - patch else [*regular, side - patch]


def places(shape: torch.Size, patch: int, stride: int) -> list[Place]:
    """All patches of maps B×C×H×W, picture by picture, row by row."""
    rows, columns = starts(shape[-2], patch, stride), starts(shape[-1], patch, stride)
    return [(picture, row, column) for picture in range(shape[0]) for row in rows for column in columns]


def cut(x: Tensor, group: Sequence[Place], patch: int) -> Tensor:
    """The patches of B×C×H×W as a batch n×C×patch×patch."""
    return torch.stack([x[b, :, row : row + patch, column : column + patch] for b, row, column in group])


def over_patches(
    low: Tensor, maps: Tensor, encode: Encode, estimate: Estimate, patch: int, stride: int, batch: int
) -> Denoiser:
    """A denoiser of whole maps that averages the network's estimates for their patches.

    Args:
        low: dark pictures B×3×H×W as `encode` takes them, both sides at least `patch`.
        maps: what the network is shown besides the noisy map, B×M×H×W.
        encode: n×3×p×p → features of these patches; called once for each patch, memory permitting.
        estimate: (noisy n×3×p×p, timesteps [n], maps n×M×p×p, features) → n×3×p×p.
        patch: side of a patch, pixels.
        stride: distance from one patch to the next, pixels.
        batch: patches run at once. It changes nothing in the result beyond rounding.
    """
    everything = places(low.shape, patch, stride)
    groups = [everything[i : i + batch] for i in range(0, len(everything), batch)]
    count = torch.zeros_like(low[:1, :1])
    for _, row, column in places(low[:1].shape, patch, stride):
        count[..., row : row + patch, column : column + patch] += 1.0
    kept: dict[int, Sequence[Tensor]] = {}
    spent = 0

    def features_of(number: int, group: Sequence[Place]) -> Sequence[Tensor]:
        nonlocal spent
        if number in kept:
            return kept[number]
        features = encode(cut(low, group, patch))
        size = sum(feature.nbytes for feature in features)
        if spent + size <= FEATURE_BYTES:
            spent += size
            kept[number] = features
        return features

    def denoise(x: Tensor, timesteps: Tensor) -> Tensor:
        total = torch.zeros_like(x)
        for number, group in enumerate(groups):
            own = timesteps[[b for b, _, _ in group]]
            estimates = estimate(cut(x, group, patch), own, cut(maps, group, patch), features_of(number, group))
            for (b, row, column), patch_estimate in zip(group, estimates, strict=True):
                total[b, :, row : row + patch, column : column + patch] += patch_estimate
        return total / count

    return denoise
