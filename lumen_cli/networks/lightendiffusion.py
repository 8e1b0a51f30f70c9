"""LightenDiffusion: latent-Retinex diffusion (Jiang et al., ECCV 2024, arXiv 2407.08939).

The content-transfer decomposition network (section 3.2) has three parts. An encoder takes a picture to a latent of an
eighth of its size, a Retinex block decomposes latents into reflectance and illumination, a decoder takes latents back
with the help of the encoder's finer maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumen_cli.diffusion import LinearSchedule, Prediction, Sampler, add_noise, normal, sample
from lumen_cli.networks import ChannelSelfAttention, CrossAttention, compose
from lumen_cli.networks.base import LowLightModel, Retinex, pad_to_multiple, padded_size
from lumen_cli.networks.unet import DiffusionUNet

SLOPE = 0.01
LATENT_SCALE = 8
ROWS_AT_ONCE = 512
ENCODER_REACH = 64
"""Pixels, a multiple of the latent's scale, beyond which the encoder sees nothing."""
CONSISTENCY_WEIGHT = 0.001
CONSISTENCY_EXPONENT = 0.2
Levels = tuple[Tensor, Tensor, Tensor]


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions plus a 1×1 convolution of the input, even where the widths agree."""

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
        # float32: a half-precision sigmoid soon reaches exact zero, and the Retinex block divides by the latent.
        return torch.sigmoid(self.channel_down(levels[2]).float()), levels

    def decode(self, latent: Tensor, levels: Levels) -> Tensor:
        """Latent B×3×H/8×W/8 with the finer maps of a picture → B×3×H×W, without activation or clamping."""
        level0, level1, level2 = levels
        u = self.channel_up(latent)
        u = self.up_sampling0(self.block_up1(self.block_up0(u) + level2))
        u = self.up_sampling1(self.block_up3(self.block_up2(u) + level1))
        u = self.up_sampling2(self.block_up5(self.block_up4(u) + level0))
        u = F.leaky_relu(self.conv2(u), SLOPE)
        # The last layer in its own precision: bfloat16 has 256 levels between 0.5 and 1, which would show as bands.
        with torch.autocast(u.device.type, enabled=False):
            return self.conv3(u.to(self.conv3.weight.dtype))


class RetinexBlock(nn.Module):
    """Latent → reflectance and illumination, both of the latent's size and in (0, 1).

    It starts from L_0 = the maximum over channels and R_0 = F / L_0; nothing enforces R ∘ L = F.
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
    """Encoder, decoder and Retinex block; width `channels` at full resolution, a multiple of 8 (published: 64)."""

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        if channels % 8:
            raise ValueError(f"the decomposition network's channels must be a multiple of 8, not {channels}")
        self.ReconNet = ReconNet(channels)
        self.retinex = RetinexBlock(channels)


class LightenDiffusion(LowLightModel):
    """Encoder → diffusion of the enhanced latent, conditioned on the dark one → decoder with the dark picture's maps.

    Args:
        unet_channels, unet_multipliers: width and levels of the noise estimator (published: 64; 1, 2, 3, 4).
        ctdn_channels: width of the decomposition network (published: 64).
        steps: default sampling steps (published: 20).
        schedule: keyword arguments of `LinearSchedule` (published: 1e-4 to 0.02 over 1000).
        prediction: what the noise estimator returns; "epsilon" in the papers' checkpoints.
        clip: bound on the clean latent at every step, None in the paper.
    """

    costly = ("Unet", "decom.ReconNet.encode", "decom.ReconNet.decode", "decom.retinex")

    def __init__(
        self,
        unet_channels: int = 64,
        unet_multipliers: Sequence[int] = (1, 2, 3, 4),
        ctdn_channels: int = 64,
        steps: int = 20,
        schedule: dict[str, Any] | None = None,
        prediction: Prediction = "epsilon",
        clip: float | None = None,
    ) -> None:
        super().__init__()
        self.Unet = DiffusionUNet(unet_channels, unet_multipliers)
        self.decom = CTDN(ctdn_channels)
        self.steps = steps
        self.schedule = LinearSchedule(**(schedule or {}))
        self.sampler = Sampler(prediction=prediction, clip=clip)
        self.size_multiple = LATENT_SCALE * 2 ** (len(unet_multipliers) - 1)

    def noise_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """3 × the latent's height and width, for the padded picture."""
        h, w = padded_size(height, width, self.size_multiple)
        return 3, h // LATENT_SCALE, w // LATENT_SCALE

    def encode(self, picture: Tensor) -> tuple[Tensor, Levels]:
        """Picture B×3×H×W in [0, 1], sides multiples of `size_multiple` → latent in (0, 1), finer maps."""
        latent, levels = self.decom.ReconNet.encode(picture)
        return latent, levels

    def decode(self, latent: Tensor, levels: Levels) -> Tensor:
        """Latent B×3×H/8×W/8 in [0, 1] → picture B×3×H×W, not clamped."""
        picture: Tensor = self.decom.ReconNet.decode(latent, levels)
        return picture

    def retinex(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Latent → reflectance B×3×h×w and illumination B×1×h×w of the latent, both in (0, 1)."""
        reflectance, illumination = self.decom.retinex(latent)
        return reflectance, illumination

    def predict_latent(self, low_latent: Tensor, noise: Tensor, steps: int | None = None) -> Tensor:
        """Sample the enhanced latent for a dark one: B×3×h×w in (0, 1) and noise of that shape → sampler output.

        The output of a trained network lies about in [-1, 1]; `to_latent` converts it.
        """
        condition = 2.0 * low_latent - 1.0

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            return self.Unet(torch.cat([condition, x], dim=1), t)

        return sample(denoise, noise, self.schedule, self.steps if steps is None else steps, self.sampler)

    def sample_whole(self, low: Tensor, noise: Tensor, steps: int | None = None, **context: Any) -> Tensor:
        """See `LowLightModel`; the encoder runs over some rows at a time."""
        device = next(self.parameters()).device
        low, latents = pad_to_multiple(low, self.size_multiple), []
        for start in range(0, low.shape[-2], ROWS_AT_ONCE):
            top, bottom = max(0, start - ENCODER_REACH), min(low.shape[-2], start + ROWS_AT_ONCE + ENCODER_REACH)
            latent, _ = self.encode(low[..., top:bottom, :].to(device))
            skip = (start - top) // LATENT_SCALE
            latents.append(latent[..., skip : skip + ROWS_AT_ONCE // LATENT_SCALE, :])
        return self.predict_latent(torch.cat(latents, dim=-2), noise.to(device), steps)

    def enhance(
        self, low: Tensor, *, noise: Tensor | None = None, steps: int | None = None, presampled: bool = False
    ) -> Tensor:
        """See `LowLightModel`; `presampled`: `noise` is from `sample_whole`. The Retinex block never runs."""
        if noise is None:
            raise ValueError("LightenDiffusion starts from noise: pass a tensor of shape noise_shape(H, W)")
        height, width = low.shape[-2:]
        latent, levels = self.encode(pad_to_multiple(low, self.size_multiple))
        enhanced = to_latent(noise if presampled else self.predict_latent(latent, noise, steps))
        return self.decode(enhanced, levels)[..., :height, :width].clamp(0.0, 1.0)

    def decompose(self, low: Tensor) -> Retinex:
        """See `LowLightModel`. Reflectance and illumination are latents of an eighth of the size, ⌈H/8⌉ × ⌈W/8⌉.

        The picture of the reflectance is decoded with the dark picture's maps. The decoder was trained on latents of
        pictures only, so its colours are an extrapolation. The picture of the illumination is enlarged by repetition.
        R ∘ L is multiplied as a latent, then decoded.
        """
        height, width = low.shape[-2:]
        latent, levels = self.encode(pad_to_multiple(low, self.size_multiple))
        reflectance, illumination = self.retinex(latent)

        def picture(of: Tensor) -> Tensor:
            return self.decode(of, levels)[..., :height, :width].float().clamp(0.0, 1.0)

        enlarged = F.interpolate(illumination, scale_factor=LATENT_SCALE, mode="nearest")
        h, w = -(-height // LATENT_SCALE), -(-width // LATENT_SCALE)
        maps = {"reflectance": reflectance, "illumination": illumination, "latent": latent}
        return Retinex(
            picture(reflectance),
            enlarged[..., :height, :width],
            latents={name: value[..., :h, :w] for name, value in maps.items()},
            rebuild=lambda: picture(reflectance * illumination),
        )

    def losses(self, batch: dict[str, Tensor], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Stage-two terms of the paper (section 3.3; as released: noise MSE + 0.001 · consistency L1).

        Args:
            batch: `low` and `high`, B×3×H×W in [0, 1]; the bright picture need not show the same scene. Optional, for
                repeatable runs: `timesteps` [kB] and `noise` kB×3×H/8×W/8 (k > 1: several draws per picture, without
                further encoding), and `start` B×3×H/8×W/8. `consistency` (bool tensor, default true): whether the
                sampler is unrolled for the second term in this step.
            generator: source of what the batch does not contain.

        Returns:
            `noise`, `consistency` (weighted) and `total`.
        """
        with torch.no_grad():
            low_latent, _ = self.encode(batch["low"])
            reflectance, illumination = self.retinex(low_latent)
            _, bright_illumination = self.retinex(self.encode(batch["high"])[0])
        target = 2.0 * (reflectance * bright_illumination) - 1.0

        noise = batch["noise"] if "noise" in batch else normal(target.shape, target, generator)
        draws = len(noise) // len(low_latent)
        target, condition = target.repeat(draws, 1, 1, 1), (2.0 * low_latent - 1.0).repeat(draws, 1, 1, 1)
        at = add_noise(target, noise, self.schedule, self.sampler.prediction, batch.get("timesteps"), generator)
        output = self.Unet(torch.cat([condition, at.noisy], dim=1), at.timesteps)
        terms = {"noise": F.mse_loss(output.float(), at.target)}
        if bool(batch.get("consistency", torch.tensor(True))):
            start = batch["start"] if "start" in batch else normal(low_latent.shape, low_latent, generator)
            predicted = to_latent(self.predict_latent(low_latent, start))
            reference = reflectance * illumination**CONSISTENCY_EXPONENT
            terms["consistency"] = CONSISTENCY_WEIGHT * F.l1_loss(predicted, reference)
        return terms | {"total": torch.stack(list(terms.values())).sum()}


def to_latent(sampled: Tensor) -> Tensor:
    """Sampler output in [-1, 1] → latent in [0, 1], clamped."""
    return ((sampled + 1.0) / 2.0).clamp(0.0, 1.0)
