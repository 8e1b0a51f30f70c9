"""The high-frequency restoration module (HFRM) of DiffLL (Jiang et al., SIGGRAPH Asia 2023, section 3.3)."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from lumen_cli.networks.blocks import CrossAttention, DepthwiseSeparable

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


def analyse(x: Tensor) -> tuple[Tensor, Tensor]:
    """B×C×H×W with even sides → (average B×C×H/2×W/2, details 3B×C×H/2×W/2: HL, LH, HH)."""
    if x.shape[-2] % 2 or x.shape[-1] % 2:
        raise ValueError(f"the Haar transform needs even sides, not {x.shape[-2]}×{x.shape[-1]}")
    top, bottom = 0.5 * x[..., ::2, :], 0.5 * x[..., 1::2, :]
    total, change = top + bottom, bottom - top
    left, right = total[..., ::2], total[..., 1::2]
    change_left, change_right = change[..., ::2], change[..., 1::2]
    return left + right, torch.cat([right - left, change_left + change_right, change_right - change_left])


def synthesise(average: Tensor, details: Tensor) -> Tensor:
    """The inverse of `analyse`: B×C×h×w and 3B×C×h×w → B×C×2h×2w."""
    hl, lh, hh = (0.5 * details).chunk(3)
    average = 0.5 * average
    left, right = average - hl, average + hl
    change_left, change_right = lh - hh, lh + hh
    top = _interleave(left - change_left, right - change_right, axis=-1)
    bottom = _interleave(left + change_left, right + change_right, axis=-1)
    return _interleave(top, bottom, axis=-2)


def _interleave(even: Tensor, odd: Tensor, axis: int) -> Tensor:
    """Alternate the slices of two tensors of one shape along an axis counted from the end."""
    return torch.stack([even, odd], dim=axis).flatten(axis - 1, axis)


def library_analyse(x: Tensor) -> tuple[Tensor, Tensor]:
    """`analyse` through pytorch_wavelets, whose bands are -LH, -HL and HH."""
    forward, _ = _library()
    with torch.autocast(x.device.type, enabled=False):
        average, (bands,) = forward.to(x)(x)
    return average, torch.cat([-bands[:, :, 1], -bands[:, :, 0], bands[:, :, 2]])


def library_synthesise(average: Tensor, details: Tensor) -> Tensor:
    """`synthesise` through pytorch_wavelets."""
    _, inverse = _library()
    hl, lh, hh = details.chunk(3)
    with torch.autocast(average.device.type, enabled=False):
        whole: Tensor = inverse.to(average)((average, [torch.stack([-lh, -hl, hh], dim=2)]))
    return whole


@cache
def _library() -> tuple[Any, Any]:
    # Imported late, for it takes a quarter of a second, and quietly, for it still asks for pkg_resources.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pytorch_wavelets import DWTForward, DWTInverse
    return DWTForward(J=1, wave="haar", mode="zero"), DWTInverse(wave="haar", mode="zero")
