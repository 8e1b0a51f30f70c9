"""The networks of LLDiffusion (arXiv 2307.14659): the encoder of degradation features, and the U-Net that they guide.

Wang et al., "LLDiffusion: Learning Degradation Representations in Diffusion Models for Low-Light Image Enhancement":
the latent map encoder; DDPM's U-Net, with degradation features joined to the way up.

The official checkpoint holds weights that nothing reads: the embedding's projections in the middle, and channel
attentions at places without a feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumen_cli.networks import is_exporting
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

LEAK = 0.2
REACH = 32
"""The encoder's output is smaller than the picture by this factor."""
Joining = Literal["cattn", "cat"]
LEVELS = 6
REDUCTION = 16


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
