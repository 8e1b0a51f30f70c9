"""The high-frequency restoration module (HFRM) of DiffLL (Jiang et al., SIGGRAPH Asia 2023, section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lumen_cli.networks.attention import CrossAttention, DepthwiseSeparable

SLOPE = 0.01
DILATIONS = (1, 2, 3, 2, 1)


class DilatedBlock(nn.Module):
    """Five 3×3 convolutions of growing and shrinking dilation with LeakyReLU between them, and the input added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for dilation in DILATIONS:
            layers += [
                nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation),
                nn.LeakyReLU(SLOPE, inplace=True),
            ]
        self.model = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W → the same shape."""
        return x + self.model(x)


class DetailRestoration(nn.Module):
    """HFRM: the details of one wavelet level → the details of the bright picture.

    Horizontal and vertical details inform the diagonal ones, whose own features enter through the keys and values of
    the attention alone (and through the residual around the whole).

    Args:
        channels: width, a multiple of 8; 64 in the published model whatever the U-Net's width.
    """

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        if channels % 8:
            raise ValueError(f"the detail restoration's channels must be a multiple of 8, not {channels}")
        self.conv_head = DepthwiseSeparable(3, channels)
        self.dilated_block_LH = DilatedBlock(channels)
        self.dilated_block_HL = DilatedBlock(channels)
        self.cross_attention0 = CrossAttention(channels)
        self.dilated_block_HH = DilatedBlock(channels)
        self.conv_HH = nn.Conv2d(2 * channels, channels, 3, padding=1)
        self.cross_attention1 = CrossAttention(channels)
        self.conv_tail = DepthwiseSeparable(channels, 3)

    def forward(self, details: Tensor) -> Tensor:
        """3B×3×h×w, HL, LH and HH along the batch axis → the same."""
        hl, lh, hh = self.conv_head(details).chunk(3)
        crossed = torch.cat([self.cross_attention0(lh, hh), self.cross_attention1(hl, hh)], dim=1)
        diagonal = self.dilated_block_HH(self.conv_HH(crossed))
        restored = torch.cat([self.dilated_block_HL(hl), self.dilated_block_LH(lh), diagonal])
        return details + self.conv_tail(restored)
