"""The content-transfer decomposition network of LightenDiffusion (Jiang et al., ECCV 2024, section 3.2).

An encoder takes a picture to a latent of an eighth of its size, a Retinex block takes latents apart into
reflectance and illumination, a decoder takes latents back with the help of the encoder's finer maps.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumen_cli.networks.blocks import ChannelSelfAttention, CrossAttention, compose

SLOPE = 0.01
Levels = tuple[Tensor, Tensor, Tensor]


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions and, around them, a 1×1 convolution of the input (also where widths agree)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.model = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, padding=1),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
        )
        self.conv = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W → B×C'×H×W."""
        return self.model(x) + self.conv(x)


class UpSampling(nn.Module):
    """Transposed 3×3 convolution that doubles both sides, then LeakyReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(in_channels, out_channels, 3, stride=2, padding=1, output_padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W → B×C'×2H×2W."""
        return F.leaky_relu(self.conv(x), SLOPE)


class Pyramid(nn.Module):
    """Feature maps of a picture at 1/2, 1/4 and 1/8 of its size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        c = channels
        self.convs = nn.ModuleList([nn.Conv2d(3, c, 5, padding=2), nn.Conv2d(c, c, 5, padding=2)])
        self.block0, self.down0 = ResidualBlock(c, c), nn.Conv2d(c, c, 3, stride=2, padding=1)
        self.block1, self.down1 = ResidualBlock(c, 2 * c), nn.Conv2d(2 * c, 2 * c, 3, stride=2, padding=1)
        self.block2, self.down2 = ResidualBlock(2 * c, 4 * c), nn.Conv2d(4 * c, 4 * c, 3, stride=2, padding=1)

    def forward(self, picture: Tensor) -> Levels:
        """B×3×H×W → (B×c×H/2×W/2, B×2c×H/4×W/4, B×4c×H/8×W/8)."""
        level0 = self.down0(self.block0(compose(picture, *self.convs)))
        level1 = self.down1(self.block1(level0))
        return level0, level1, self.down2(self.block2(level1))


class _Channels(nn.Module):
    """Three 3×3 convolutions with LeakyReLU between them."""

    def __init__(self, first: int, second: int, third: int, last: int) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(first, second, 3, padding=1)
        self.conv1 = nn.Conv2d(second, third, 3, padding=1)
        self.conv2 = nn.Conv2d(third, last, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.conv0(x), SLOPE)
        return self.conv2(F.leaky_relu(self.conv1(x), SLOPE))


class ReconNet(nn.Module):
    """Encoder and decoder."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        c = channels
        self.pyramid = Pyramid(c)
        self.channel_down = _Channels(4 * c, 2 * c, c, 3)
        self.channel_up = _Channels(3, c, 2 * c, 4 * c)
        self.block_up0, self.block_up1 = ResidualBlock(4 * c, 4 * c), ResidualBlock(4 * c, 4 * c)
        self.up_sampling0 = UpSampling(4 * c, 2 * c)
        self.block_up2, self.block_up3 = ResidualBlock(2 * c, 2 * c), ResidualBlock(2 * c, 2 * c)
        self.up_sampling1 = UpSampling(2 * c, c)
        self.block_up4, self.block_up5 = ResidualBlock(c, c), ResidualBlock(c, c)
        self.up_sampling2 = UpSampling(c, c)
        self.conv2 = nn.Conv2d(c, c, 3, padding=1)
        self.conv3 = nn.Conv2d(c, 3, 1)

    def encode(self, picture: Tensor) -> tuple[Tensor, Levels]:
        """Picture B×3×H×W in [0, 1], sides multiples of 8 → latent B×3×H/8×W/8 in (0, 1) and the finer maps."""
        levels = self.pyramid(picture)
        # float32: a half-precision sigmoid reaches exact zero early, and the Retinex block divides by the latent.
        return torch.sigmoid(self.channel_down(levels[2]).float()), levels

    def decode(self, latent: Tensor, levels: Levels) -> Tensor:
        """Latent B×3×H/8×W/8 with the finer maps of a picture → B×3×H×W, neither activated nor clamped."""
        level0, level1, level2 = levels
        u = self.channel_up(latent)
        u = self.up_sampling0(self.block_up1(self.block_up0(u) + level2))
        u = self.up_sampling1(self.block_up3(self.block_up2(u) + level1))
        u = self.up_sampling2(self.block_up5(self.block_up4(u) + level0))
        u = F.leaky_relu(self.conv2(u), SLOPE)
        # The last layer in its own precision: bfloat16 has 256 levels between 0.5 and 1, and would show bands.
        with torch.autocast(u.device.type, enabled=False):
            return self.conv3(u.to(self.conv3.weight.dtype))


class RetinexBlock(nn.Module):
    """Latent → reflectance and illumination, both of the latent's size and in (0, 1).

    Starts from L_0 = the maximum over channels and R_0 = F / L_0; nothing enforces R ∘ L = F.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        c = channels
        self.conv0 = nn.Conv2d(3, c, 3, padding=1)
        self.blocks0 = nn.Sequential(ResidualBlock(c, c), ResidualBlock(c, c))
        self.conv1 = nn.Conv2d(1, c, 3, padding=1)
        self.blocks1 = nn.Sequential(ResidualBlock(c, c), ResidualBlock(c, c))
        self.cross_attention = CrossAttention(c)
        self.self_attention = ChannelSelfAttention(c)
        self.conv0_1 = nn.Sequential(ResidualBlock(c, c), nn.Conv2d(c, 3, 3, padding=1))
        self.conv1_1 = nn.Sequential(ResidualBlock(c, c), nn.Conv2d(c, 1, 3, padding=1))

    def forward(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """B×3×h×w in (0, 1] → reflectance B×3×h×w, illumination B×1×h×w."""
        brightest = latent.amax(dim=1, keepdim=True)
        reflectance = self.blocks0(self.conv0(latent / brightest))
        illumination = self.blocks1(self.conv1(brightest))
        shared = self.self_attention(illumination)
        crossed = self.cross_attention(illumination, reflectance)
        return (
            torch.sigmoid(self.conv0_1(crossed + shared).float()),
            torch.sigmoid(self.conv1_1(illumination - shared).float()),
        )


class CTDN(nn.Module):
    """Encoder, decoder and Retinex block under the names of the official checkpoint.

    Args:
        channels: width c at full resolution, a multiple of 8; the published model has 64.
    """

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        if channels % 8:
            raise ValueError(f"the decomposition network's channels must be a multiple of 8, not {channels}")
        self.ReconNet = ReconNet(channels)
        self.retinex = RetinexBlock(channels)
