"""The conditional noise estimator of LightenDiffusion and DiffLL: DDPM's U-Net.

Ho et al., "Denoising Diffusion Probabilistic Models", appendix B. LLDiffusion builds its U-Nets of the same parts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import has_torch_function

from lumen_cli.networks import doubled, is_exporting, upsampled_convolution

GROUPS = 32
BLOCKS = 2
ATTENTION_LEVEL = 2
MAX_PERIOD = 10000.0
WHOLE_SCORES = 2048
"""Positions whose whole matrix of scores, 8 MiB in bfloat16, may be in memory."""
MOST_POSITIONS = 8192
"""Limit for attention between all positions: those of a picture of 2 megapixels in LightenDiffusion."""
POOLED_POSITIONS = 2048
"""Approximate number of areas that give the keys and values of larger maps."""


def timestep_embedding(timesteps: Tensor, dimension: int) -> Tensor:
    """Sinusoidal embedding: all sines, then all cosines. `timesteps` [B] → [B, dimension], float32.

    The frequencies are exp(-i ln(10000) / (dimension/2 - 1)), i = 0 … dimension/2 - 1.
    """
    half = dimension // 2
    exponents = torch.arange(half, dtype=torch.float32, device=timesteps.device) * -(math.log(MAX_PERIOD) / (half - 1))
    angles = timesteps.float()[:, None] * exponents.exp()[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def group_norm(channels: int) -> nn.GroupNorm:
    """The norm of all blocks: 32 groups, eps 1e-6."""
    return nn.GroupNorm(GROUPS, channels, eps=1e-6)


def swish(x: Tensor) -> Tensor:
    """X · sigmoid(x), written over `x` (which nothing else uses) unless a gradient needs it."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


def enter(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    """The first convolution, in float32 even under autocast: B×C×H×W → B×C'×H×W in the autocast's dtype.

    The tones of a dark picture differ by less than the steps of bf16 near the ends of the range.
    """
    kind = x.device.type
    if not torch.is_autocast_enabled(kind):
        return convolution(x)
    with torch.autocast(kind, enabled=False):
        return convolution(x.float()).to(torch.get_autocast_dtype(kind))


class ResBlock(nn.Module):
    """norm, swish, 3×3 convolution, twice, with the time embedding added in between, and a shortcut.

    `embedding` is the width of the time embedding; None builds a block without one.
    """

    def __init__(self, in_channels: int, out_channels: int, embedding: int | None) -> None:
        super().__init__()
        self.norm1 = group_norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        if embedding is not None:
            self.temb_proj = nn.Linear(embedding, out_channels)
        self.norm2 = group_norm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        if in_channels != out_channels:
            self.nin_shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, activated_embedding: Tensor | None = None) -> Tensor:
        """B×C×H×W and swish(time embedding) B×E or 1×E → B×C'×H×W."""
        h = swish(self.norm1(x))
        if activated_embedding is None:
            h = self.conv1(h)
        elif len(activated_embedding) == 1:
            # One timestep for all: its shift is part of the bias.
            shift = self.temb_proj(activated_embedding)[0] + self.conv1.bias
            h = F.conv2d(h, self.conv1.weight, shift, padding=1)
        else:
            h = self.conv1(h)
            h += self.temb_proj(activated_embedding)[:, :, None, None]
        h = self.conv2(swish(self.norm2(h)))
        h += self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x
        return h


class AttentionBlock(nn.Module):
    """Single-head attention over all positions, with a residual.

    Its cost grows with the square of the positions, so maps of more than `MOST_POSITIONS` use the keys and values of
    about `POOLED_POSITIONS` areas.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W → the same shape."""
        normed = self.norm(x)
        positions = normed.flatten(2).transpose(1, 2)
        if not is_exporting() and positions.shape[1] > MOST_POSITIONS and not has_torch_function((x,)):
            return x + self.proj_out(self._attend_areas(positions, normed).transpose(1, 2).reshape(x.shape))
        layers = (self.q, self.k, self.v)
        weight = torch.cat([layer.weight.flatten(1) for layer in layers])
        bias = torch.cat([layer.bias for layer in layers if layer.bias is not None])
        q, k, v = F.linear(positions, weight, bias).chunk(3, dim=-1)
        return x + self.proj_out(_attend(q, k, v).transpose(1, 2).reshape(x.shape))

    def _attend_areas(self, positions: Tensor, normed: Tensor) -> Tensor:
        """Attention of every position to the means of areas: B×N×C and the same as a map B×C×H×W → B×N×C."""
        side = math.ceil(math.sqrt(positions.shape[1] / POOLED_POSITIONS))
        means = F.avg_pool2d(normed, side, ceil_mode=True, count_include_pad=False).flatten(2).transpose(1, 2)
        q, k, v = (
            F.linear(source, layer.weight.flatten(1), layer.bias)
            for source, layer in ((positions, self.q), (means, self.k), (means, self.v))
        )
        return _attend(q, k, v)


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q kᵀ / √C) v, all of them B×N×C."""
    few = q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.shape[1] <= WHOLE_SCORES
    if few and not has_torch_function((q,)):
        # Here torch's attention multiplies in float32, at a third of the speed. Tiles share global statistics by a mode
        # that watches torch's functions and must see it called.
        scores = (q * q.shape[2] ** -0.5) @ k.transpose(1, 2)
        return scores.softmax(dim=2) @ v
    # With an axis of one head and contiguous channels, torch never holds the whole matrix of scores.
    return F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]


class Downsample(nn.Module):
    """Halve both sides; one column on the right and one row at the bottom are padded, none elsewhere."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W → B×C×H/2×W/2."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Double both sides by repetition, then a 3×3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W → B×C×2H×2W."""
        # Adding the kernel's rows and columns pays only if the map is larger than the kernel.
        if is_exporting():
            return self.conv(doubled(x))
        if not torch.is_grad_enabled() and x.shape[-2] * x.shape[-1] > 4 * x.shape[1]:
            return upsampled_convolution(x, self.conv)
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class TimeEmbedding(nn.Module):
    """Sinusoids, linear, swish, linear."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.dense = nn.ModuleList([nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, 4 * channels)])

    def forward(self, timesteps: Tensor) -> Tensor:
        """[B] → B×4C, before the activation that the blocks expect."""
        first, second = self.dense
        embedding: Tensor = second(F.silu(first(timestep_embedding(timesteps, self.channels))))
        return embedding


class Middle(nn.Module):
    """Block, attention, block at the coarsest level."""

    def __init__(self, width: int, embedding: int | None) -> None:
        super().__init__()
        self.block_1 = ResBlock(width, width, embedding)
        self.attn_1 = AttentionBlock(width)
        self.block_2 = ResBlock(width, width, embedding)

    def forward(self, x: Tensor, activated_embedding: Tensor | None = None) -> Tensor:
        """B×C×H×W → the same shape; see `ResBlock.forward`."""
        h = self.attn_1(self.block_1(x, activated_embedding))
        h = self.block_2(h, activated_embedding)
        return h


class Level(nn.Module):
    """The blocks of one resolution, and `downsample` or `upsample` to the next one, if there is one."""

    def __init__(
        self,
        widths: Sequence[tuple[int, int]],
        attention: bool,
        embedding: int | None,
        downsample: int | None = None,
        upsample: int | None = None,
    ) -> None:
        super().__init__()
        self.block = nn.ModuleList(ResBlock(a, b, embedding) for a, b in widths)
        self.attn = nn.ModuleList(AttentionBlock(b) for _, b in widths) if attention else nn.ModuleList()
        if downsample is not None:
            self.downsample = Downsample(downsample)
        if upsample is not None:
            self.upsample = Upsample(upsample)

    def step(self, index: int, x: Tensor, activated_embedding: Tensor | None = None) -> Tensor:
        """Run block `index` and its attention."""
        x = self.block[index](x, activated_embedding)
        return self.attn[index](x) if len(self.attn) else x

    def leave(self, x: Tensor) -> Tensor:
        """Go to the next resolution, if there is one."""
        if hasattr(self, "downsample"):
            x = self.downsample(x)
        elif hasattr(self, "upsample"):
            x = self.upsample(x)
        return x


def build_down(
    channels: int, widths: Sequence[int], blocks: int, attention_level: int, embedding: int | None
) -> tuple[nn.ModuleList, list[int]]:
    """The levels going down, and the widths of their skips.

    Args:
        channels: width of the first map.
        widths: of the levels.
        blocks: residual blocks per level.
        attention_level: the level with attention after each block.
        embedding: width of the time embedding, or None.
    """
    down, skips, width = nn.ModuleList(), [channels], channels
    for i, out in enumerate(widths):
        last = i == len(widths) - 1
        pairs = [(width, out)] + [(out, out)] * (blocks - 1)
        down.append(Level(pairs, i == attention_level, embedding, downsample=None if last else out))
        skips += [out] * (blocks if last else blocks + 1)
        width = out
    return down, skips


def run_down(levels: nn.ModuleList, h: Tensor, activated_embedding: Tensor | None) -> list[Tensor]:
    """Run the levels going down on B×C×H×W → all skips, the coarsest map last."""
    skips = [h]
    for level in as_levels(levels):
        for i in range(len(level.block)):
            h = level.step(i, h, activated_embedding)
            skips.append(h)
        if hasattr(level, "downsample"):
            h = level.leave(h)
            skips.append(h)
    return skips


class DiffusionUNet(nn.Module):
    """Noise estimator: [condition, noisy sample] and timestep → estimate of the picture's shape.

    Args:
        channels: base width, a multiple of 32 (all norms use 32 groups).
        multipliers: width of each level in units of `channels`.

    Height and width of the input must be multiples of 2^(levels - 1), 8 for the published model.
    """

    def __init__(self, channels: int = 64, multipliers: Sequence[int] = (1, 2, 3, 4)) -> None:
        super().__init__()
        if channels % GROUPS:
            raise ValueError(f"the U-Net's channels must be a multiple of {GROUPS}, not {channels}")
        widths = [channels * multiplier for multiplier in multipliers]
        embedding = 4 * channels
        self.temb = TimeEmbedding(channels)
        self.conv_in = nn.Conv2d(6, channels, 3, padding=1)
        self.down, skips = build_down(channels, widths, BLOCKS, ATTENTION_LEVEL, embedding)
        width = widths[-1]
        self.mid = Middle(width, embedding)
        built: list[Level] = []
        for i in reversed(range(len(widths))):
            out = widths[i]
            pairs = []
            for _ in range(BLOCKS + 1):
                pairs.append((width + skips.pop(), out))
                width = out
            built.insert(0, Level(pairs, i == ATTENTION_LEVEL, embedding, upsample=out if i else None))
        self.up = nn.ModuleList(built)
        self.norm_out = group_norm(width)
        self.conv_out = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        """`x` B×6×H×W, `timesteps` [B] in 0 … T-1 → B×3×H×W, without activation."""
        activated = F.silu(self.temb(timesteps))
        skips = run_down(self.down, enter(self.conv_in, x), activated)
        h = self.mid(skips[-1], activated)
        for level in reversed(as_levels(self.up)):
            for i in range(len(level.block)):
                h = level.step(i, torch.cat([h, skips.pop()], dim=1), activated)
            h = level.leave(h)
        h = self.conv_out(swish(self.norm_out(h)))
        return h


def as_levels(levels: Iterable[nn.Module]) -> list[Level]:
    """The levels in a list of modules, with their type."""
    return [level for level in levels if isinstance(level, Level)]
