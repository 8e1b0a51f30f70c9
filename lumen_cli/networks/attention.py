"""Channel attentions shared by the models of Jiang et al. (DiffLL, LightenDiffusion)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DepthwiseSeparable(nn.Module):
    """3×3 convolution per channel, then a 1×1 convolution across channels."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.depth_conv = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels)
        self.point_conv = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W → B×C'×H×W."""
        return self.point_conv(self.depth_conv(x))


class CrossAttention(nn.Module):
    """Attention between the channels of two maps, for every row of the map on its own.

    score[row, i, j] = Σ_column q_i k_j / sqrt(channels / 8), softmax over the key channels j. The scale is that
    of 8 heads, yet the channels are not split into heads: so the official code computes it.
    """

    def __init__(self, channels: int, heads: int = 8) -> None:
        super().__init__()
        self.query = DepthwiseSeparable(channels, channels)
        self.key = DepthwiseSeparable(channels, channels)
        self.value = DepthwiseSeparable(channels, channels)
        self.scale = (channels // heads) ** -0.5

    def forward(self, query_source: Tensor, context: Tensor) -> Tensor:
        """Query from the first map, keys and values from the second; both B×C×H×W → B×C×H×W."""
        q, k, v = (
            projected.permute(0, 2, 3, 1)
            for projected in (self.query(query_source), self.key(context), self.value(context))
        )
        # B×H×C×C. Products are ordered so that maps in channels_last are read and written without a copy.
        weights = torch.softmax((q.transpose(-2, -1) @ k) * self.scale, dim=-1)
        return (v @ weights.transpose(-2, -1)).permute(0, 3, 1, 2)


class ChannelSelfAttention(nn.Module):
    """Attention between the channels of each head, over the whole map (after Restormer's transposed attention).

    q and k are unit vectors over all positions; there is neither a scale nor a learned temperature.
    """

    def __init__(self, channels: int, heads: int = 8) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.qkv_dwconv = nn.Conv2d(3 * channels, 3 * channels, 3, padding=1, groups=3 * channels)
        self.project_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W → the same shape."""
        b, c, h, w = x.shape
        q, k, v = (
            part.reshape(b, self.heads, c // self.heads, h * w) for part in self.qkv_dwconv(self.qkv(x)).chunk(3, dim=1)
        )
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
        return self.project_out((torch.softmax(scores, dim=-1) @ v).reshape(b, c, h, w))
