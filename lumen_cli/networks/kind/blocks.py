"""The networks of KinD (Zhang et al., "Kindling the Darkness", ACM MM 2019, section 3) and KinD++, as released.

The releases are in TensorFlow: pooling rounds sizes up and pads at the bottom and the right; enlarged maps are cropped
there to the size of the skip. So any size from 1×1 up works without padding the picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumen_cli.networks import is_exporting

SLOPE = 0.2


def convolution(in_channels: int, out_channels: int, size: int = 3) -> nn.Conv2d:
    """A convolution with bias that keeps the size."""
    return nn.Conv2d(in_channels, out_channels, size, padding=size // 2)


def doubling(in_channels: int, out_channels: int) -> nn.ConvTranspose2d:
    """A transposed 2×2 convolution that doubles both sides, without bias."""
    return nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2, bias=False)


def activate(x: Tensor) -> Tensor:
    """Leaky ReLU in place: the convolution before it does not need its own output."""
    return F.leaky_relu(x, SLOPE, inplace=True)


def pool(x: Tensor) -> Tensor:
    """B×C×H×W → B×C×⌈H/2⌉×⌈W/2⌉, the maximum of up to four values."""
    if is_exporting():
        height, width = x.shape[-2:]
        x = F.pad(x, (0, width % 2, 0, height % 2), value=-math.inf)
        return F.max_pool2d(x, 2, 2)
    return F.max_pool2d(x, 2, 2, ceil_mode=True)


def join(grown: Tensor, skip: Tensor) -> Tensor:
    """Crop `grown` to the size of `skip` and concatenate both, the grown map first."""
    height, width = skip.shape[-2:]
    return torch.cat([grown[..., :height, :width], skip], dim=1)


class DecompositionNet(nn.Module):
    """Picture → reflectance and illumination (section 3.1).

    Args:
        channels: width c at full size; the published network has 32.
    """

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        c = channels
        self.g_conv1_1 = convolution(3, c)
        self.g_conv2_1 = convolution(c, 2 * c)
        self.g_conv3_1 = convolution(2 * c, 4 * c)
        self.g_up_1 = doubling(4 * c, 2 * c)
        self.g_conv8_1 = convolution(4 * c, 2 * c)
        self.g_up_2 = doubling(2 * c, c)
        self.g_conv9_1 = convolution(2 * c, c)
        self.g_conv10 = convolution(c, 3, 1)
        self.l_conv1_2 = convolution(c, c)
        self.l_conv1_4 = convolution(2 * c, 1, 1)

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """B×3×H×W in [0, 1] → reflectance B×3×H×W and illumination B×1×H×W, both in (0, 1) and float32."""
        full = activate(self.g_conv1_1(picture))
        half = activate(self.g_conv2_1(pool(full)))
        x = activate(self.g_conv3_1(pool(half)))
        x = activate(self.g_conv8_1(join(self.g_up_1(x), half)))
        x = activate(self.g_conv9_1(join(self.g_up_2(x), full)))
        light = activate(self.l_conv1_2(full))
        # float32: half precision has too few steps near 1, and the ratio divides by the illumination.
        illumination = torch.sigmoid(self.l_conv1_4(torch.cat([light, x], dim=1)).float())
        return torch.sigmoid(self.g_conv10(x).float()), illumination


class RestorationNet(nn.Module):
    """Reflectance and illumination → reflectance without noise and colour cast (section 3.2).

    A U-Net of five levels with `channels` × `multipliers`; published: 32 and 1, 2, 4, 8, 16.
    """

    def __init__(self, channels: int = 32, multipliers: Sequence[int] = (1, 2, 4, 8, 16)) -> None:
        super().__init__()
        if len(multipliers) != 5:
            raise ValueError(f"the restoration network has five levels, not {len(multipliers)}")
        widths = [channels * multiplier for multiplier in multipliers]
        before = 4
        for level, width in enumerate(widths, start=1):
            self.add_module(f"de_conv{level}_1", convolution(before, width))
            self.add_module(f"de_conv{level}_2", convolution(width, width))
            before = width
        for level, width in enumerate(widths[-2::-1], start=6):
            self.add_module(f"up_{level}", doubling(before, width))
            self.add_module(f"de_conv{level}_1", convolution(2 * width, width))
            self.add_module(f"de_conv{level}_2", convolution(width, width))
            before = width
        self.de_conv10 = convolution(before, 3)

    def forward(self, reflectance: Tensor, illumination: Tensor) -> Tensor:
        """B×3×H×W and B×1×H×W → B×3×H×W in (0, 1), float32."""
        x = self._level(torch.cat([reflectance, illumination], dim=1), 1)
        skips = []
        for level in range(2, 6):
            skips.append(x)
            x = self._level(pool(x), level)
        for level in range(6, 10):
            x = self._level(join(self.get_submodule(f"up_{level}")(x), skips.pop()), level)
        return torch.sigmoid(self.de_conv10(x).float())

    def _level(self, x: Tensor, level: int) -> Tensor:
        for part in (1, 2):
            x = activate(self.get_submodule(f"de_conv{level}_{part}")(x))
        return x


class AdjustmentNet(nn.Module):
    """Illumination and the ratio of its change → the adjusted illumination (section 3.3).

    As in the release, a leaky ReLU precedes the sigmoid: a negative logit counts a fifth.
    """

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        self.en_conv_1 = convolution(2, channels)
        self.en_conv_2 = convolution(channels, channels)
        self.en_conv_3 = convolution(channels, channels)
        self.en_conv_4 = convolution(channels, 1)

    def forward(self, illumination: Tensor, ratio: Tensor) -> Tensor:
        """B×1×H×W and the ratio, of a shape that expands to it → B×1×H×W in (0, 1), float32."""
        x = torch.cat([illumination, ratio.to(illumination.dtype).expand_as(illumination)], dim=1)
        for layer in (self.en_conv_1, self.en_conv_2, self.en_conv_3):
            x = activate(layer(x))
        return torch.sigmoid(activate(self.en_conv_4(x)).float())


def rectify(x: Tensor) -> Tensor:
    """ReLU in place."""
    return F.relu(x, inplace=True)


class Scale(nn.Module):
    """One branch of the attention block: maximum over `factor` × `factor`, convolution, norm, back to full size.

    As released, a ReLU follows every layer, even the convolution before the norm.
    """

    def __init__(self, channels: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.conv = convolution(channels, channels, 1 if factor == 4 else 3)
        self.norm = nn.BatchNorm2d(channels, eps=0.001, momentum=0.01)
        self.ups = {1: (), 2: ("up",), 4: ("up1", "up2")}[factor]
        for name in self.ups:
            self.add_module(name, nn.ConvTranspose2d(channels, channels, 2, stride=2))

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W, sides multiples of `factor` → the same shape."""
        if self.factor > 1:
            x = F.max_pool2d(x, self.factor)
        x = rectify(self.norm(rectify(self.conv(x))))
        for name in self.ups:
            x = rectify(self.get_submodule(name)(x))
        return x


class MultiScaleAttention(nn.Module):
    """Multi-scale illumination attention: a convolution of the illumination weighs the features."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention = nn.Conv2d(1, 1, 3, padding=1, bias=False)
        self.scale1, self.scale2, self.scale4 = (Scale(channels, factor) for factor in (1, 2, 4))
        self.fuse = convolution(4 * channels, channels, 1)

    def forward(self, x: Tensor, illumination: Tensor) -> Tensor:
        """B×C×H×W and B×1×H×W, sides multiples of 4 → B×C×H×W."""
        x = x * torch.sigmoid(self.attention(illumination))
        return rectify(self.fuse(torch.cat([x, self.scale1(x), self.scale2(x), self.scale4(x)], dim=1)))


class MultiScaleRestorationNet(nn.Module):
    """Reflectance, guided by the illumination, → the restored reflectance. Published width: 32."""

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        before = 3
        for level, multipliers in enumerate(((1, 2), (4, 8), (16, 8), (4, 2)), start=1):
            for part, multiplier in enumerate(multipliers, start=1):
                self.add_module(f"de_conv{level}_{part}", convolution(before, multiplier * channels))
                before = multiplier * channels
            self.add_module(f"msia{level}", MultiScaleAttention(before))
        self.de_conv5_1 = convolution(before, channels)
        self.de_conv10 = convolution(channels, 3)

    def forward(self, reflectance: Tensor, illumination: Tensor) -> Tensor:
        """B×3×H×W and B×1×H×W, sides multiples of 4 → B×3×H×W in (0, 1), float32."""
        x = reflectance
        for level in range(1, 5):
            for part in (1, 2):
                x = activate(self.get_submodule(f"de_conv{level}_{part}")(x))
            x = self.get_submodule(f"msia{level}")(x, illumination)
        return torch.sigmoid(self.de_conv10(activate(self.de_conv5_1(x))).float())


Fusion = Literal["arbitrary", "pairs"]
"""Rule A, the release's script for arbitrary pictures, and rule B, the one for the pairs of LOL."""
FUSIONS: tuple[str, ...] = get_args(Fusion)

LEAST_RANGE = 0.001
GREY = (0.2125, 0.7154, 0.0721)
BLUR_SIGMA = 3.0
BLUR_RADIUS = 12


def extremes(picture: Tensor) -> Tensor:
    """B×3×H×W → B×2: the least and the greatest value of each picture, all channels together."""
    return torch.stack(list(torch.aminmax(picture.flatten(1), dim=1)), dim=1)


def stretch(picture: Tensor, limits: Tensor | None = None) -> Tensor:
    """Spread each picture's values over [0, 1], as the release's loader does: (x - min) / max(max - min, 0.001).

    `picture` B×3×H×W; `limits` B×2: the extremes of the larger picture that this one is a part of.
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
    """min(√(2 · blurred grey of R), 1), B×1×H×W: suppresses dark areas that were restored as grey."""
    return (2.0 * blur(grey(reflectance))).sqrt().clamp_max(1.0)


def blend(picture: Tensor, reflectance: Tensor, illumination: Tensor, lit: Tensor) -> Tensor:
    """Rule A: L ∘ I + (1 - L) ∘ w ∘ `lit`, where `lit` is the restored reflectance under its new light.

    I and R are the stretched picture and its reflectance before the restoration.
    """
    return illumination * picture + (1.0 - illumination) * (lit * darkness_weight(reflectance))
