"""The U-Net of AnlightenDiff, of which noise estimator, conditional encoder and histogram network are three.

For one picture on a CPU without gradients, frames give the same numbers in a third of the time. The modules' own
`forward` spends more time on memory than on arithmetic: every layer writes a new map of up to 60 MiB, which the system
allocates page by page and frees at once, and reflection padding copies each map again. So maps are kept in frames:
channels-last buffers with one more pixel on every side. A layer writes into the inside, the border is filled in place,
and the next convolution reads the frame. Buffers are reused. A convolution and its activation run band by band, so that
a band is still in the cache when it is activated and measured for the norm.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumen_cli.diffusion import Schedule
from lumen_cli.networks import is_exporting
from lumen_cli.networks.anlightendiff.blocks import (
    NORM_EPS,
    Down,
    Layers,
    ResBlock,
    Rest,
    Unit,
    Up,
    WeightNormConv,
    linear,
)
from lumen_cli.networks.unet import timestep_embedding

BAND_BYTES = 4 * 2**20
LARGEST_EXPONENT = 20.0


def is_watched() -> bool:
    """Whether a mode watches torch's functions: it would not see the norms of framed layers."""
    return torch._C._len_torch_function_stack() > 0


class Framed:
    """A map 1×C×H×W inside a buffer 1×C×H+2×W+2, which returns to `spare` when the map is no longer used."""

    def __init__(self, buffer: Tensor, spare: list[Tensor]) -> None:
        self.buffer = buffer
        self._spare = spare

    def __del__(self) -> None:
        with suppress(AttributeError):
            self._spare.append(self.buffer)

    @property
    def inside(self) -> Tensor:
        """The map without its border."""
        return self.buffer[..., 1:-1, 1:-1]

    def reflect(self) -> Framed:
        """Fill the border as reflection padding does."""
        whole = self.buffer
        whole[..., 0, :], whole[..., -1, :] = whole[..., 2, :], whole[..., -3, :]
        whole[..., 0], whole[..., -1] = whole[..., 2], whole[..., -3]
        return self

    def clear(self) -> Framed:
        """Fill the border with zeros."""
        for edge in (self.buffer[..., 0, :], self.buffer[..., -1, :], self.buffer[..., 0], self.buffer[..., -1]):
            edge.zero_()
        return self


class FramedLayers(Layers):
    """The layers on framed maps. One object per run; it owns the buffers."""

    def __init__(self) -> None:
        self._spare: dict[tuple[int, int, int], list[Tensor]] = defaultdict(list)

    @staticmethod
    def suits(x: Tensor) -> bool:
        """Whether these layers can run on a network's input."""
        return (
            len(x) == 1
            and x.device.type == "cpu"
            and x.dtype == torch.float32
            and not torch.is_grad_enabled()
            and not torch.is_autocast_enabled("cpu")
            and not is_watched()
            and not is_exporting()
        )

    def _take(self, channels: int, height: int, width: int) -> Framed:
        spare = self._spare[channels, height, width]
        if not spare:
            size = (1, channels, height + 2, width + 2)
            spare.append(torch.empty(size, memory_format=torch.channels_last))
        return Framed(spare.pop(), spare)

    def enter(self, x: Tensor) -> Framed:
        """1×C×H×W → a frame."""
        framed = self._take(*x.shape[1:])
        framed.inside.copy_(x)
        return framed.reflect()

    def block(self, block: ResBlock, x: Framed, embedding: Tensor | None = None, rest: Rest | None = None) -> Framed:
        """See `ResBlock.forward`."""
        first, second = (None, None) if rest is None else rest
        h, scale, shift = self._unit(x, block.block1.conv, first)
        if embedding is not None:
            shift = shift + block.mlp(embedding)[:, :, None, None]
        torch.addcmul(shift, h.inside, scale, out=h.inside)
        result, scale, shift = self._unit(h.reflect(), block.block2.conv)
        inside = result.inside
        if block.res_conv is None:
            torch.addcmul(shift, inside, scale, out=inside)
            inside += x.inside
            return result.reflect()
        conv, channels = block.res_conv, x.buffer.shape[1]
        # The norm's shift is the same everywhere, so the shortcut's bias includes it.
        bias = shift.flatten() if second is not None or conv.bias is None else shift.flatten() + conv.bias
        for start, stop in _bands(inside):
            shortcut = F.conv2d(x.buffer[:, :, start + 1 : stop + 1], conv.kernel(channels), bias)[..., 1:-1]
            if second is not None:
                shortcut += second[:, :, start:stop]
            band = inside[:, :, start:stop]
            torch.addcmul(shortcut, band, scale, out=band)
        return result.reflect()

    def rest(self, block: ResBlock, x: Framed) -> Rest:
        """See `ResBlock.rest`."""
        if block.res_conv is None:
            raise ValueError("a block without a convolution in its shortcut takes no further channels")
        height, width = x.inside.shape[-2:]
        size = (1, len(block.res_conv.weight_v), height, width)
        first, second = (torch.empty(size, memory_format=torch.channels_last) for _ in range(2))
        for start, stop in _bands(first):
            first[:, :, start:stop] = block.block1.conv.rest(x.buffer[:, :, start : stop + 2])
            second[:, :, start:stop] = block.res_conv.rest(x.buffer[:, :, start + 1 : stop + 1])[..., 1:-1]
        return first, second

    def down(self, layer: Down, x: Framed) -> Framed:
        """See `Down.forward`."""
        conv = layer.conv[1]
        channels, height, width = x.inside.shape[1:]
        result = self._take(channels, height // 2, width // 2)
        for start, stop in _bands(result.inside):
            result.inside[:, :, start:stop] = conv(x.buffer[:, :, 2 * start : 2 * stop + 1])
        return result.reflect()

    def up(self, layer: Up, x: Framed) -> Framed:
        """See `Up.forward`; overwrites the border of `x`."""
        conv = layer.conv[0]
        assert isinstance(conv, nn.ConvTranspose2d)
        channels, height, width = x.inside.shape[1:]
        result = self._take(channels, 2 * height, 2 * width)
        x.clear()
        for start, stop in _bands(result.inside, even=True):
            rows = x.buffer[:, :, start // 2 : stop // 2 + 2]
            # Padding crops: 1 as in the layer, 2 more for the row and the column that the frame adds.
            band = F.conv_transpose2d(rows, conv.weight, conv.bias, stride=2, padding=3)
            result.inside[:, :, start:stop] = band
        return result.reflect()

    def join(self, x: Framed, skip: Framed) -> Framed:
        """Concatenate along the channels."""
        channels = x.buffer.shape[1]
        height, width = x.inside.shape[-2:]
        result = self._take(channels + skip.buffer.shape[1], height, width)
        result.buffer[:, :channels] = x.buffer
        result.buffer[:, channels:] = skip.buffer
        return result

    def final(self, layers: nn.Sequential, x: Framed) -> Tensor:
        """Unit and 1×1 convolution → 1×C×H×W."""
        unit, last = layers
        assert isinstance(unit, Unit)
        assert isinstance(last, WeightNormConv)
        height, width = x.inside.shape[-2:]
        result = torch.empty(1, len(last.weight_v), height, width)
        for start, stop, band in self._activate(x, unit.conv, None):
            result[:, :, start:stop] = last(band)
        return result

    def _activate(self, x: Framed, conv: WeightNormConv, rest: Tensor | None) -> Iterator[tuple[int, int, Tensor]]:
        """Bands of mish(conv(x)): first row, row after the last, 1×C×rows×W."""
        channels, height, width = len(conv.weight_v), *x.inside.shape[-2:]
        for start, stop in _bands(torch.empty(1, channels, height, width, device="meta")):
            rows = x.buffer[:, :, start : stop + 2]
            yield start, stop, mish_(conv(rows, None if rest is None else rest[:, :, start:stop]))

    def _unit(self, x: Framed, conv: WeightNormConv, rest: Tensor | None = None) -> tuple[Framed, Tensor, Tensor]:
        """mish(conv(x)) without a border, and scale and shift (1×C×1×1) of the instance norm that follows."""
        height, width = x.inside.shape[-2:]
        result = self._take(len(conv.weight_v), height, width)
        counts, means, squares = [], [], []
        for start, stop, band in self._activate(x, conv, rest):
            mean = band.mean(dim=(2, 3), keepdim=True)
            result.inside[:, :, start:stop] = band
            counts.append((stop - start) * width)
            means.append(mean)
            squares.append(band.sub_(mean).square_().sum(dim=(2, 3), keepdim=True))
        scale, shift = _norm(counts, means, squares)
        return result, scale, shift


def _norm(counts: list[int], means: list[Tensor], squares: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Means and centred sums of squares of parts → scale and shift of the norm of the whole.

    (Chan, Golub & LeVeque, "Algorithms for Computing the Sample Variance", equation 2.1.)
    """
    total = sum(counts)
    part = torch.stack(means).double()
    weights = torch.tensor(counts, dtype=torch.float64).view(-1, 1, 1, 1, 1) / total
    mean = (weights * part).sum(dim=0)
    variance = torch.stack(squares).double().sum(dim=0) / total + (weights * (part - mean) ** 2).sum(dim=0)
    scale = (variance + NORM_EPS).rsqrt()
    return scale.float(), (-mean * scale).float()


def mish_(x: Tensor) -> Tensor:
    """Mish, x · tanh(softplus(x)), written over `x`: with n = eˣ (eˣ + 2) it is x · n / (n + 2)."""
    n = x.clamp(max=LARGEST_EXPONENT).exp_()
    below = n + 2.0
    n.mul_(below)
    torch.add(n, 2.0, out=below)
    return x.mul_(n).div_(below)


def _bands(whole: Tensor, *, even: bool = False) -> Iterator[tuple[int, int]]:
    """The bands of a map: first row, row after the last."""
    channels, height, width = whole.shape[1:]
    rows = max(1, BAND_BYTES // (4 * channels * width))
    rows += even and rows % 2
    for start in range(0, height, rows):
        yield start, min(start + rows, height)


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
