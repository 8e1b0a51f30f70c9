"""The U-Net of AnlightenDiff, of which noise estimator, conditional encoder and histogram network are three."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from lumen_cli.diffusion.schedule import Schedule
from lumen_cli.networks.anlightendiff.blocks import (
    Down,
    Layers,
    ResBlock,
    Rest,
    Unit,
    Up,
    WeightNormConv,
    linear,
)
from lumen_cli.networks.anlightendiff.frames import FramedLayers
from lumen_cli.networks.unet import timestep_embedding


class UNet(nn.Module):
    """Residual blocks at every level; sides are multiples of 2^(levels - 1), and at least twice that.

    As published, the skip of the lowest level is joined right after the middle, and that of full resolution is not
    joined: the result's detail passes through half the resolution.

    Args:
        in_channels: of the input; the output has 3.
        dim: width at full resolution; multipliers: width of each level in units of it.
        conditioned: whether the second block of each level takes in a map of another UNet, of the same width.
        full_resolution_skip: join the first level's map before the last layers.
    """

    def __init__(
        self,
        in_channels: int,
        dim: int = 64,
        multipliers: Sequence[int] = (1, 2, 2, 4, 4, 8),
        *,
        conditioned: bool = False,
        full_resolution_skip: bool = False,
    ) -> None:
        super().__init__()
        widths = [dim * multiplier for multiplier in multipliers]
        self.dim = dim
        self.full_resolution_skip = full_resolution_skip
        self.mlp = nn.Sequential(linear(dim, 4 * dim), nn.Mish(), linear(4 * dim, dim))
        self.downs = nn.ModuleList()
        for number, width in enumerate(widths):
            first = ResBlock(in_channels if number == 0 else widths[number - 1], width, dim)
            second = ResBlock(2 * width if conditioned else width, width, dim)
            last = [Down(width)] if number + 1 < len(widths) else []
            self.downs.append(nn.ModuleList([first, second, *last]))
        self.ups = nn.ModuleList()
        for above, width in list(pairwise(widths))[::-1]:
            blocks = [ResBlock(2 * width, above, dim), ResBlock(above, above, dim)]
            self.ups.append(nn.ModuleList([*blocks, Up(above)]))
        self.mid_block1 = ResBlock(widths[-1], widths[-1], dim)
        self.mid_block2 = ResBlock(widths[-1], widths[-1], dim)
        joined = 2 * widths[0] if full_resolution_skip else widths[0]
        self.final_conv = nn.Sequential(Unit(joined, dim), WeightNormConv(dim, 3, 1))

    def embed(self, timesteps: Tensor) -> Tensor:
        """Timesteps [B] → time embedding B×dim."""
        embedding: Tensor = self.mlp(timestep_embedding(timesteps, self.dim))
        return embedding

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor | None = None,
        rests: Sequence[Rest] | None = None,
        layers: FramedLayers | None = None,
    ) -> Tensor:
        """B×C×H×W, timesteps [B] for a network that takes them → B×3×H×W, unbounded.

        `rests`: from `with_rests`, for a conditioned network. `layers`: those of an earlier run, to reuse its buffers.
        """
        embedding = None if timesteps is None else self.embed(timesteps)
        return self._run(_layers_for(x, layers), x, embedding, rests)[0]

    def with_rests(
        self, x: Tensor, other: UNet, layers: FramedLayers | None = None, *, learn: bool = True
    ) -> tuple[Tensor, list[Rest]]:
        """The result for B×C×H×W, and what its maps contribute to the blocks of the `other`, conditioned network.

        learn: whether gradients reach this network; they always reach the other one's blocks.
        """
        run = _layers_for(x, layers)
        with torch.set_grad_enabled(torch.is_grad_enabled() and learn):
            result, maps = self._run(run, x, None, None)
        return result, [run.rest(second, maps.pop(0)) for _, second, *_ in _levels(other.downs)]

    def _run(
        self, layers: Layers, x: Tensor, embedding: Tensor | None, rests: Sequence[Rest] | None
    ) -> tuple[Tensor, list[Any]]:
        h, maps = layers.enter(x), []
        for number, (first, second, *down) in enumerate(_levels(self.downs)):
            h = layers.block(first, h, embedding)
            h = layers.block(second, h, embedding, None if rests is None else rests[number])
            maps.append(h)
            for layer in down:
                h = layers.down(layer, h)
        h = layers.block(self.mid_block1, h, embedding)
        h = layers.block(self.mid_block2, h, embedding)
        for (first, second, up), skip in zip(_levels(self.ups), maps[:0:-1], strict=True):
            h = layers.block(first, layers.join(h, skip), embedding)
            h = layers.up(up, layers.block(second, h, embedding))
        if self.full_resolution_skip:
            h = layers.join(h, maps[0])
        return layers.final(self.final_conv, h), maps


def _layers_for(x: Tensor, framed: FramedLayers | None) -> Layers:
    """Framed layers where they can run on an input, else the modules themselves."""
    if not FramedLayers.suits(x):
        return Layers()
    return FramedLayers() if framed is None else framed


def _levels(levels: nn.ModuleList) -> list[list[Any]]:
    """The modules of each level."""
    return [list(level.children()) for level in levels]


SMALLEST_VARIANCE = 1e-20


def tables(schedule: Schedule) -> dict[str, Tensor]:
    """The fourteen tables of the checkpoint, float64 [timesteps] each, in its order."""
    betas = schedule.betas().double()
    alphas = 1.0 - betas
    product = alphas.cumprod(dim=0)
    before = torch.cat([torch.ones(1, dtype=torch.float64), product[:-1]])
    noise, signal = 1.0 - product, product.sqrt()
    variance = betas * (1.0 - before) / noise
    extra = (1.0 - before.sqrt()) * betas - alphas.sqrt() * (1.0 - alphas.sqrt()) * (1.0 - before)
    return {
        "betas": betas,
        "alphas_cumprod": product,
        "alphas_cumprod_prev": before,
        "sqrt_alphas_cumprod": signal,
        "sqrt_one_minus_alphas_cumprod": noise.sqrt(),
        "log_one_minus_alphas_cumprod": noise.log(),
        "sqrt_recip_alphas_cumprod": (1.0 / product).sqrt(),
        "sqrt_recipm1_alphas_cumprod": (1.0 / product - 1.0).sqrt(),
        "posterior_variance": variance,
        "posterior_log_variance_clipped": variance.clamp(min=SMALLEST_VARIANCE).log(),
        "posterior_mean_coef1": betas * before.sqrt() / noise,
        "posterior_mean_coef2": (1.0 - before) * alphas.sqrt() / noise,
        "extra_term_coef1": (1.0 - signal) / noise.sqrt(),
        "extra_term_coef2": extra / noise,
    }


class ScheduleTables(nn.Module):
    """The noise estimator and, only for their names, the tables of the schedule it was trained with.

    Nothing reads the tables: the sampler uses the schedule. So they are not loaded from files either, whatever
    precision or length they have there.
    """

    unet: UNet

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        for name, table in tables(schedule).items():
            self.register_buffer(name, table.float())

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        own = {prefix + name: table for name, table in self.named_buffers(recurse=False)}
        super()._load_from_state_dict(state_dict | own, prefix, *args)
