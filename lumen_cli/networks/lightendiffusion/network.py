"""LightenDiffusion: latent-Retinex diffusion (Jiang et al., ECCV 2024, arXiv 2407.08939)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lumen_cli.diffusion.noise import normal
from lumen_cli.diffusion.sampler import Prediction, Sampler, sample, target_of
from lumen_cli.diffusion.schedule import LinearSchedule, antithetic_timesteps
from lumen_cli.networks.base import LowLightModel, Retinex, pad_to_multiple, padded_size
from lumen_cli.networks.lightendiffusion.ctdn import CTDN, Levels
from lumen_cli.networks.unet import DiffusionUNet

LATENT_SCALE = 8
ROWS_AT_ONCE = 512
ENCODER_REACH = 64
"""Pixels, a multiple of the latent's scale, beyond which the encoder does not look."""
CONSISTENCY_WEIGHT = 0.001
CONSISTENCY_EXPONENT = 0.2


class LightenDiffusion(LowLightModel):
    """Encoder → diffusion of the enhanced latent, conditioned on the dark one → decoder with the dark picture's maps.

    Args:
        unet_channels, unet_multipliers: width and levels of the noise estimator (published: 64; 1, 2, 3, 4).
        ctdn_channels: width of the decomposition network (published: 64).
        steps: sampling steps where a caller names none (published: 20).
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

        The output lives in [-1, 1] for a trained network but is not bounded; `to_latent` brings it back.
        """
        condition = 2.0 * low_latent - 1.0

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            return self.Unet(torch.cat([condition, x], dim=1), t)

        return sample(denoise, noise, self.schedule, self.steps if steps is None else steps, self.sampler)

    def sample_whole(self, low: Tensor, noise: Tensor, steps: int | None = None, **context: Any) -> Tensor:
        """See `LowLightModel.sample_whole`; the encoder goes over the picture row by row of tiles."""
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
        """See `LowLightModel.enhance`. The encoder runs once and the Retinex block, which no output needs, never.

        presampled: `noise` is a part of what `sample_whole` gave.
        """
        if noise is None:
            raise ValueError("LightenDiffusion starts from noise: pass a tensor of shape noise_shape(H, W)")
        height, width = low.shape[-2:]
        latent, levels = self.encode(pad_to_multiple(low, self.size_multiple))
        enhanced = to_latent(noise if presampled else self.predict_latent(latent, noise, steps))
        return self.decode(enhanced, levels)[..., :height, :width].clamp(0.0, 1.0)

    def decompose(self, low: Tensor) -> Retinex:
        """See `LowLightModel.decompose`. Reflectance and illumination are latents of an eighth of the size.

        As pictures: the reflectance goes through the decoder with the dark picture's maps, which was trained on
        pictures' latents only, so its colours are an extrapolation; the illumination is enlarged by repetition; R ∘ L
        is multiplied as a latent, then decoded. The latents come without the padding: ⌈H/8⌉ × ⌈W/8⌉.
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
                repeatable runs: `timesteps` [kB] and `noise` kB×3×H/8×W/8 (k > 1 draws for every picture, which
                cost no further encoding), and `start` B×3×H/8×W/8. `consistency` (bool tensor, default true)
                says whether the sampler is unrolled for the second term in this step.
            generator: source of what the batch does not bring.

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
        timesteps = batch.get("timesteps")
        if timesteps is None:
            timesteps = antithetic_timesteps(len(target), self.schedule.timesteps, generator).to(target.device)
        signal, spread = self.schedule.coefficients(timesteps, target)
        noisy = signal * target + spread * noise
        output = self.Unet(torch.cat([condition, noisy], dim=1), timesteps.float())
        wanted = target_of(target, noise, signal, spread, self.sampler.prediction)
        terms = {"noise": F.mse_loss(output.float(), wanted)}
        if bool(batch.get("consistency", torch.tensor(True))):
            start = batch["start"] if "start" in batch else normal(low_latent.shape, low_latent, generator)
            predicted = to_latent(self.predict_latent(low_latent, start))
            reference = reflectance * illumination**CONSISTENCY_EXPONENT
            terms["consistency"] = CONSISTENCY_WEIGHT * F.l1_loss(predicted, reference)
        return terms | {"total": torch.stack(list(terms.values())).sum()}


def to_latent(sampled: Tensor) -> Tensor:
    """Sampler output in [-1, 1] → latent in [0, 1], clamped."""
    return ((sampled + 1.0) / 2.0).clamp(0.0, 1.0)
