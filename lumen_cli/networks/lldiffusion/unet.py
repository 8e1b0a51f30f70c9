"""The U-Net of LLDiffusion: DDPM's, with degradation features joined to the way up (arXiv 2307.14659).

The official checkpoint holds weights that nothing reads: the embedding's projections in the middle, and channel
attentions at places without a feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumen_cli.networks.unet import (
    ATTENTION_LEVEL,
    Level,
    Middle,
    TimeEmbedding,
    build_down,
    enter,
    group_norm,
    run_down,
    swish,
)

Joining = Literal["cattn", "cat"]
LEVELS = 6
REDUCTION = 16


class ChannelAttention(nn.Module):
    """Weigh the channels by their averages (Hu et al., "Squeeze-and-Excitation Networks", section 3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, channels // REDUCTION, 1),
            nn.ReLU(),
            nn.Conv2d(channels // REDUCTION, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W → the same shape."""
        weighted: Tensor = x * self.attention(x)
        return weighted


class Fusion(nn.Module):
    """Joins a feature to the map at a place on the way up; `cattns` has a channel attention per place, if any."""

    def __init__(self, attentions: Sequence[nn.Module] = ()) -> None:
        super().__init__()
        if attentions:
            self.cattns = nn.ModuleList(attentions)

    def forward(self, place: int, x: Tensor, feature: Tensor) -> Tensor:
        """B×C×H×W and B×F×H×W → B×(C + F)×H×W."""
        joined = torch.cat([x, feature], dim=1)
        if hasattr(self, "cattns"):
            joined = self.cattns[place](joined)
        return joined


class _Up(nn.Module):
    """The levels by number, coarsest first, and the fusion of features with them."""

    def __init__(self, levels: Sequence[Level], fuse: Fusion) -> None:
        super().__init__()
        for number, level in enumerate(levels):
            self.add_module(str(number), level)
        self.fuse = fuse

    def levels(self) -> list[Level]:
        return [level for level in self.children() if isinstance(level, Level)]


class FeatureUNet(nn.Module):
    """Map B×in×H×W, features and, where it has a time embedding, timestep → B×3×H×W.

    Args:
        channels: base width, a multiple of 32 (all norms use 32 groups).
        multipliers: width of each of the six levels in units of `channels`.
        blocks: residual blocks per level going down; one more going up.
        in_channels: of the input.
        features: widths of the features, coarsest first. The first five join levels 1 … 5 of the way up (1/16 of the
            size up to the whole), the sixth the map before the last convolution.
        joining: "cat" concatenates feature and map; "cattn" then weighs all channels.
        attention_level: level whose blocks are followed by attention, 0 the finest.
        time: whether the blocks take the timestep. Those in the middle never take it.

    Sides are multiples of 32.
    """

    def __init__(
        self,
        channels: int,
        multipliers: Sequence[int],
        blocks: int,
        in_channels: int,
        features: Sequence[int],
        joining: Joining,
        attention_level: int = ATTENTION_LEVEL,
        *,
        time: bool,
    ) -> None:
        super().__init__()
        if len(multipliers) != LEVELS:
            raise ValueError(f"LLDiffusion's U-Nets have {LEVELS} levels, not {len(multipliers)}")
        if not 0 <= attention_level < LEVELS:
            raise ValueError(f"attention_level must lie in 0 … {LEVELS - 1}, not {attention_level}")
        widths = [channels * multiplier for multiplier in multipliers]
        embedding = 4 * channels if time else None
        # Registered first, as in the checkpoint, for the sixth feature, which a "cattn" network never has.
        self.fuse = Fusion([nn.Identity(), ChannelAttention(2 * features[-1])] if joining == "cattn" else [])
        if time:
            self.temb = TimeEmbedding(channels)
        self.conv_in = nn.Conv2d(in_channels, channels, 3, padding=1)

        self.down, skips = build_down(channels, widths, blocks, attention_level, embedding)
        width = widths[-1]
        self.mid = Middle(width, embedding)

        levels: list[Level] = []
        joined: list[int] = []
        for i in reversed(range(LEVELS)):
            number, out = len(levels), widths[i]
            if 0 < number <= len(features):
                width += features[number - 1]
            joined.append(width)
            pairs = []
            for _ in range(blocks + 1):
                pairs.append((width + skips.pop(), out))
                width = out
            levels.append(Level(pairs, i == attention_level, embedding, upsample=out if i else None))
        attentions = [ChannelAttention(count) for count in joined] if joining == "cattn" else []
        self.up = _Up(levels, Fusion(attentions))
        if len(features) == LEVELS:
            width += features[-1]
        self.norm_out = group_norm(width)
        self.conv_out = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x: Tensor, features: Sequence[Tensor], timesteps: Tensor | None = None) -> Tensor:
        """`x` B×in×H×W, features coarsest first, `timesteps` [B] or [1] → B×3×H×W, without activation."""
        activated = None if timesteps is None else F.silu(self.temb(timesteps))
        skips = run_down(self.down, enter(self.conv_in, x), activated)
        h = self.mid(skips[-1])
        for number, level in enumerate(self.up.levels()):
            if 0 < number <= len(features):
                h = self.up.fuse(number, h, features[number - 1])
            for i in range(len(level.block)):
                # Only the joined map stays in memory while the block runs.
                h = torch.cat([h, skips.pop()], dim=1)
                h = level.step(i, h, activated)
            h = level.leave(h)
        if len(features) == LEVELS:
            h = self.fuse(0, h, features[-1])
        h = self.conv_out(swish(self.norm_out(h)))
        return h
