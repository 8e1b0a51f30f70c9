"""KinD++: "Beyond Brightening Low-light Images" (Zhang et al., IJCV 2021): KinD with another restoration network.

The new network works at full resolution and needs about thirty times the operations of KinD's.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumen_cli.networks.base import pad_to_multiple
from lumen_cli.networks.kind import KinD, Released
from lumen_cli.networks.kind.blocks import Fusion, activate, convolution, extremes

MULTIPLE = 4


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


class KinDPlus(KinD):
    """KinD with the multi-scale restoration network.

    Args:
        decomposition_channels, restoration_channels, adjustment_channels: widths (published: 32 all).
        fusion, stretch, target_light, ratio_limits: as in `KinD`.
        adjustment: whether the light is adjusted without a given ratio. The release does not adjust it: rule A then
            mixes the picture with the restored reflectance alone.
    """

    released = Released(reflectance=0.009, signed=True, gradient=False, white=0.99)

    def __init__(
        self,
        decomposition_channels: int = 32,
        restoration_channels: int = 32,
        adjustment_channels: int = 32,
        fusion: Fusion = "arbitrary",
        stretch: bool = True,
        target_light: float = 0.5,
        ratio_limits: tuple[float, float] = (1.0, 5.0),
        adjustment: bool = False,
    ) -> None:
        super().__init__(
            decomposition_channels=decomposition_channels,
            restoration_channels=1,
            adjustment_channels=adjustment_channels,
            fusion=fusion,
            stretch=stretch,
            target_light=target_light,
            ratio_limits=ratio_limits,
        )
        self.restoration = MultiScaleRestorationNet(restoration_channels)
        self.adjustment = adjustment or fusion == "pairs"
        self.size_multiple = MULTIPLE

    def global_context(self, low: Tensor, **options: Any) -> dict[str, Any]:
        """See `KinD`; without adjustment no ratio is chosen."""
        if "illumination_ratio" in options or self.adjustment:
            return super().global_context(low, **options)
        return {"limits": extremes(low)}

    def render(self, picture: Tensor, illumination_ratio: float | Tensor | None = None) -> Tensor:
        """See `KinD`. The networks see sizes padded to a multiple of 4; the release crops them."""
        height, width = picture.shape[-2:]
        picture = pad_to_multiple(picture, MULTIPLE)
        if illumination_ratio is not None or self.adjustment:
            return super().render(picture, illumination_ratio)[..., :height, :width]
        reflectance, illumination = self.decom(picture)
        restored = self.restoration(reflectance, illumination)
        return self.fuse(picture, reflectance, illumination, restored)[..., :height, :width]
