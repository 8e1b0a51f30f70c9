"""The encoder of LLDiffusion's degradation features, and sampling by patches.

Wang et al., "LLDiffusion: Learning Degradation Representations in Diffusion Models for Low-Light Image Enhancement"
(arXiv 2307.14659), the latent map encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumen_cli.diffusion import Denoiser
from lumen_cli.networks import is_exporting

LEAK = 0.2
REACH = 32
"""The encoder's output is smaller than the picture by this factor."""


class SpectralConv2d(nn.Module):
    """Convolution with its kernel divided by the kernel's largest singular value.

    Miyato et al., "Spectral Normalization for Generative Adversarial Networks", algorithm 1. σ = uᵀWv; in training
    every forward first improves u and v by one power iteration. In evaluation u and v are fixed: the normalised kernel
    is computed once and kept until weights are loaded or moved, or `train` or `eval` is called.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int = 1, padding: int = 0, bias: bool = True
    ) -> None:
        super().__init__()
        plain = nn.Conv2d(in_channels, out_channels, 3)
        self.stride, self.padding = stride, padding
        self.bias = nn.Parameter(plain.bias.detach()) if bias and plain.bias is not None else None
        self.weight_orig = nn.Parameter(plain.weight.detach())
        self.register_buffer("weight_u", F.normalize(torch.randn(out_channels), dim=0))
        self.register_buffer("weight_v", F.normalize(torch.randn(in_channels * 9), dim=0))
        self.weight_u: Tensor
        self.weight_v: Tensor
        self._kept: Tensor | None = None
        for _ in range(3):  # so that σ is meaningful before training
            self._iterate()

    @torch.no_grad()
    def _iterate(self) -> tuple[Tensor, Tensor]:
        matrix = self.weight_orig.flatten(1)
        v = F.normalize(matrix.T @ self.weight_u, dim=0, eps=1e-12)
        u = F.normalize(matrix @ v, dim=0, eps=1e-12)
        self.weight_u.copy_(u)
        self.weight_v.copy_(v)
        return u, v

    def kernel(self) -> Tensor:
        """The normalised kernel, C'×C×3×3."""
        with torch.autocast(self.weight_orig.device.type, enabled=False):
            if self.training:
                return self._normalise(*self._iterate())
            if torch.is_grad_enabled() or is_exporting():
                return self._normalise(self.weight_u, self.weight_v)
            if self._kept is None:
                self._kept = self._normalise(self.weight_u, self.weight_v)
            return self._kept

    def _normalise(self, u: Tensor, v: Tensor) -> Tensor:
        return self.weight_orig / torch.dot(u, self.weight_orig.flatten(1) @ v)

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W → B×C'×H'×W'."""
        return F.conv2d(x, self.kernel(), self.bias, self.stride, self.padding)

    def train(self, mode: bool = True) -> SpectralConv2d:
        """See `nn.Module.train`; drops the kept kernel."""
        self._kept = None
        return super().train(mode)

    def _apply(self, *args: Any, **kwargs: Any) -> SpectralConv2d:
        self._kept = None
        return super()._apply(*args, **kwargs)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._kept = None
        super()._load_from_state_dict(*args, **kwargs)


class _ResidualBlock(nn.Module):
    """Two 3×3 convolutions over a reflected border and a shortcut, activated after the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            nn.LeakyReLU(LEAK),
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x + self.conv_block(x), LEAK)


def _spectral_block(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """Spectral 3×3 convolution without bias, then instance norm; zero padding where it strides."""
    padding = 1 if stride > 1 else 0
    convolution = SpectralConv2d(in_channels, out_channels, stride=stride, padding=padding, bias=False)
    return nn.Sequential(convolution, nn.InstanceNorm2d(out_channels))


class ConvEncoder(nn.Module):
    """Five halvings, three residual blocks, three convolutions; `channels` is the width after the first halving."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        c = channels
        self.layer1 = _spectral_block(3, c, stride=2)
        self.layer2 = _spectral_block(c, 2 * c, stride=2)
        self.layer3 = _spectral_block(2 * c, 4 * c, stride=2)
        self.layer4 = _spectral_block(4 * c, 8 * c, stride=2)
        self.layer5 = _spectral_block(8 * c, 16 * c, stride=2)
        self.res_0 = _ResidualBlock(16 * c)
        self.res_1 = _ResidualBlock(16 * c)
        self.res_2 = _ResidualBlock(16 * c)
        out: list[nn.Module] = []
        for width in (16 * c, 32 * c, 32 * c):
            out += [nn.ReflectionPad2d(1), _spectral_block(width, 32 * c, stride=1), nn.LeakyReLU(LEAK)]
        self.out = nn.Sequential(*out)
        self.conv_7x7 = nn.Conv2d(c, c, 7)

    def forward(self, low: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Dark picture B×3×H×W in [-1, 1] → (B×32C×H/32×W/32, the four latents of the perceptual term).

        Sides are multiples of 32 and at least 64. The latents are taken at 1/4, 1/16, 1/32 and 1/32 of the size.
        """

        def activated(x: Tensor) -> Tensor:
            return F.leaky_relu(x, LEAK)

        x = self.conv_7x7(F.pad(activated(self.layer1(low)), (3, 3, 3, 3), mode="reflect"))
        first = self.layer2(activated(x))
        second = self.layer4(activated(self.layer3(activated(first))))
        third = self.res_0(self.layer5(activated(second)))
        fourth = self.res_2(self.res_1(third))
        return self.out(fourth), (first, second, third, fourth)


class _Enlarge(nn.Module):
    """Transposed 3×3 convolution that doubles both sides."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.module = nn.ConvTranspose2d(channels, channels, 3, stride=2, padding=1, output_padding=1)

    def forward(self, x: Tensor) -> Tensor:
        enlarged: Tensor = self.module(x)
        return enlarged


class FeatureUpsampler(nn.Module):
    """A chain of enlargements. Each result is a feature and the input of the next one.

    Args:
        channels: of the encoder's output.
        widths: of the features, coarsest first. The first has 1/16 of the picture's size, each of the next four twice
            the size of the one before, the sixth the picture's size like the fifth.
    """

    def __init__(self, channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.convs = nn.ModuleList()
        for number, width in enumerate(widths):
            enlarge = _Enlarge(channels) if number < 5 else nn.Identity()
            convolution = SpectralConv2d(channels, width)
            self.convs.append(nn.Sequential(enlarge, nn.ReflectionPad2d(1), convolution, nn.LeakyReLU(LEAK)))
            channels = width

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """B×C×H/32×W/32 → the features, coarsest first."""
        features = []
        for block in self.convs:
            x = block(x)
            features.append(x)
        return tuple(features)


class DegradationEncoder(nn.Module):
    """Encoder and upsampler; see `ConvEncoder` and `FeatureUpsampler` for the arguments."""

    def __init__(self, channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.encoder = ConvEncoder(channels)
        self.upsample = FeatureUpsampler(REACH * channels, widths)

    def forward(self, low: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Dark picture B×3×H×W in [-1, 1] → (features coarsest first, latents of the perceptual term)."""
        encoded, latents = self.encoder(low)
        return self.upsample(encoded), latents


Place = tuple[int, int, int]
"""A patch: number of the picture in the batch, top row, left column."""

Estimate = Callable[[Tensor, Tensor, Tensor, Sequence[Tensor]], Tensor]
Encode = Callable[[Tensor], Sequence[Tensor]]

FEATURE_BYTES = 1 << 30
"""Limit for features kept from one step to the next; those of further patches are computed again."""


def starts(side: int, patch: int, stride: int) -> list[int]:
    """The starts of patches along a side of at least `patch`: every `stride`, plus one if the end is not covered."""
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
        maps: what the network sees besides the noisy map, B×M×H×W.
        encode: n×3×p×p → features of these patches; called once for each patch, memory permitting.
        estimate: (noisy n×3×p×p, timesteps [n], maps n×M×p×p, features) → n×3×p×p.
        patch: side of a patch, pixels.
        stride: distance from one patch to the next, pixels.
        batch: patches per run. It changes the result by rounding only.
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
