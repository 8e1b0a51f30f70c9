"""LightenDiffusion: the decomposition network first, then the diffusion, then both together.

The official release holds the second stage only. The first stage is our own. Its latents meet the paper's conditions
for Retinex maps, and its decoder learns its task in the finished model: to make a clean picture of a bright latent with
the dark picture's finer maps.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumen_cli.datasets.darken import expose
from lumen_cli.diffusion import add_noise, antithetic_timesteps, normal
from lumen_cli.networks.base import LowLightModel
from lumen_cli.networks.lightendiffusion import LATENT_SCALE, LightenDiffusion, to_latent
from lumen_cli.training.recipes import (
    CompactRecipe,
    PaperRecipe,
    Stage,
    fidelity,
    retinex_anchor,
    smoothness,
    zero_residuals,
)

NETWORK: dict[str, Any] = {
    "unet_channels": 32,
    "unet_multipliers": (1, 2, 3, 3),
    "ctdn_channels": 32,
    "steps": 4,
    "prediction": "v",
    "clip": 1.0,
}
"""The hyper-parameters of the `LightenDiffusion` to train."""


WEIGHTS = {
    "transfer": 1.0,
    "reconstruction": 0.5,
    "thumbnail": 1.0,
    "product": 1.0,
    "reflectance": 0.5,
    "smooth": 0.3,
    "anchor": 0.1,
    "consistency": 0.001,
    "latent": 0.5,
    "picture": 1.0,
}
"""Weights of the loss terms."""


@dataclass(frozen=True)
class LightenDiffusionRecipe(CompactRecipe):
    """A stage for the decomposition, one for the diffusion, one for both."""

    reference: str = "paired"
    """Source of the target illumination: "paired", the bright picture of the same scene, or "unpaired" (the paper), of
    another scene."""
    consistency_every: int = 4
    """The sampler is unrolled for the self-constrained term in one step of so many."""
    draws: int = 4
    """Timesteps and noises per encoded picture of the second stage, whose main cost is encoding."""
    relit: float = 0.5
    """Share of the first stage's pictures whose bright side gets another exposure, so that the decoder has to take the
    brightness from the latent and cannot guess it from the finer maps."""
    stages: tuple[Stage, ...] = field(
        default=(
            Stage("decomposition", steps=8000, batch=8, crop=128, rate=8e-4),
            Stage("diffusion", steps=4000, batch=8, crop=256, rate=8e-4),
            Stage("joint", steps=6000, batch=6, crop=256, rate=4e-4),
        )
    )

    @torch.no_grad()
    def initialise(self, model: LightenDiffusion) -> None:
        """Keep the variance of signals through the decomposition network, which has no norms (He et al., 2015).

        With torch's default every convolution loses a third of its signal's variance, and the biases soon exceed it.
        """
        for name, layer in model.decom.named_modules():
            if not isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
                continue
            taps = layer.weight[0, 0].numel()
            transposed = isinstance(layer, nn.ConvTranspose2d)
            fan_in = layer.in_channels // layer.groups * (taps / 4 if transposed else taps)
            # model.2 and conv are summed: half the variance each. Others lose half of it in the LeakyReLU that follows.
            activated = transposed or name.endswith(("model.0", "conv0", "conv1")) or name == "ReconNet.conv2"
            gain = 0.5 if name.endswith(("model.2", ".conv")) and not transposed else 2.0 if activated else 1.0
            nn.init.normal_(layer.weight, std=(gain / fan_in) ** 0.5)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        zero_residuals(model.Unet)
        nn.init.zeros_(model.Unet.conv_out.weight)

    def trainable(self, model: LowLightModel, stage: Stage) -> Iterable[nn.Parameter]:
        """See `Recipe`. First the decomposition network, then the U-Net (as in the paper), then U-Net and decoder.

        After the first stage the encoder is frozen, because the Retinex block was trained on its latents.
        """
        model = cast(LightenDiffusion, model)
        if stage.name == "decomposition":
            return model.decom.parameters()
        if stage.name == "diffusion":
            return model.Unet.parameters()
        encoder = ("pyramid.", "channel_down.")
        decoder = [p for name, p in model.decom.ReconNet.named_parameters() if not name.startswith(encoder)]
        return [*model.Unet.parameters(), *decoder]

    def losses(
        self, model: LowLightModel, stage: Stage, batch: dict[str, Tensor], step: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """See `Recipe`."""
        model = cast(LightenDiffusion, model)
        if stage.name == "decomposition":
            return self._decomposition(model, batch, step, generator)
        if stage.name == "diffusion":
            return self._diffusion(model, batch, step, generator)
        return self._joint(model, batch, generator)

    def _decomposition(
        self, model: LightenDiffusion, batch: dict[str, Tensor], step: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        low, high = batch["low"], _relight(batch["high"], self.relit, generator)
        both, levels = model.encode(torch.cat([low, high]))
        # Detached from the encoder, which would make the latents grey and flat, the easiest way to R ∘ L = F.
        reflectance, illumination = model.retinex(both.detach())
        (f_low, f_high), (r_low, r_high), (l_low, l_high) = both.chunk(2), reflectance.chunk(2), illumination.chunk(2)
        dark_maps = tuple(level.chunk(2)[0] for level in levels)

        # One decoder pass for the transfer, one for a reconstruction, of the dark and the bright picture in turn.
        rebuilt, maps = (f_low, dark_maps) if step % 2 else (f_high, tuple(level.chunk(2)[1] for level in levels))
        decoded = model.decode(
            torch.cat([r_low * l_high, rebuilt]),
            tuple(torch.cat([a, b]) for a, b in zip(dark_maps, maps, strict=True)),  # type: ignore[arg-type]
        )
        transferred, reconstructed = decoded.chunk(2)
        w = self.weights
        anchor_low = retinex_anchor(f_low.detach(), r_low, l_low)
        anchor_high = retinex_anchor(f_high.detach(), r_high, l_high)
        product = F.l1_loss(r_low * l_low, f_low.detach()) + F.l1_loss(r_high * l_high, f_high.detach())
        return {
            "transfer": w["transfer"] * fidelity(transferred, high),
            "reconstruction": w["reconstruction"] * fidelity(reconstructed, low if step % 2 else high),
            "thumbnail": w["thumbnail"] * (F.l1_loss(f_low, _thumbnail(low)) + F.l1_loss(f_high, _thumbnail(high))),
            "product": w["product"] * product,
            "reflectance": w["reflectance"] * F.l1_loss(r_low, r_high),
            "anchor": w["anchor"] * (anchor_low + anchor_high),
            "smooth": w["smooth"] * (smoothness(l_low, r_low.detach()) + smoothness(l_high, r_high.detach())),
        }

    def _diffusion(
        self, model: LightenDiffusion, batch: dict[str, Tensor], step: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        high = batch["high"] if self.reference == "paired" else batch["high"].roll(1, dims=0)
        consistency = torch.tensor(step % self.consistency_every == 0)
        drawn = high.repeat(self.draws, 1, 1, 1)
        draw = {
            "timesteps": antithetic_timesteps(len(drawn), model.schedule.timesteps, generator),
            "noise": _normal(model, drawn, generator),
            "start": _normal(model, high, generator),
        }
        terms = model.losses({"low": batch["low"], "high": high, "consistency": consistency, **draw})
        del terms["total"]
        if "consistency" in terms:
            terms["consistency"] = terms["consistency"] * (self.weights["consistency"] / 0.001)
        return terms

    def _joint(
        self, model: LightenDiffusion, batch: dict[str, Tensor], generator: torch.Generator
    ) -> dict[str, Tensor]:
        low, high = batch["low"], batch["high"]
        with torch.no_grad():
            f_low, levels = model.encode(low)
            r_low, _ = model.retinex(f_low)
            _, l_high = model.retinex(model.encode(high)[0])
        target = 2.0 * r_low * l_high - 1.0
        noise = normal(target.shape, target, generator)
        at = add_noise(target, noise, model.schedule, model.sampler.prediction, generator=generator)
        output = model.Unet(torch.cat([2.0 * f_low - 1.0, at.noisy], dim=1), at.timesteps).float()
        latent = to_latent(model.predict_latent(f_low, normal(f_low.shape, f_low, generator)))
        w = self.weights
        return {
            "noise": F.mse_loss(output, at.target),
            "latent": w["latent"] * F.l1_loss(latent, (target + 1.0) / 2.0),
            "picture": w["picture"] * fidelity(model.decode(latent, levels), high),
        }


def _normal(model: LightenDiffusion, pictures: Tensor, generator: torch.Generator) -> Tensor:
    shape = (len(pictures), *model.noise_shape(*pictures.shape[-2:]))
    return normal(shape, pictures, generator)


def _thumbnail(picture: Tensor) -> Tensor:
    """The target of a latent: the picture at an eighth of its size, with the darks spread by a square root.

    Without it the latents collapse: constants satisfy product and equal reflectance best, and the decoder then works
    from the finer maps alone.
    """
    return F.avg_pool2d(picture, LATENT_SCALE).sqrt()


def _relight(picture: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Change the exposure of a share of the pictures by -1.5 … +0.5 EV; B×3×H×W in [0, 1]."""
    count = len(picture)
    ev = torch.rand(count, generator=generator, device=picture.device) * 2.0 - 1.5
    chosen = torch.rand(count, generator=generator, device=picture.device) < share
    return torch.where(chosen.view(-1, 1, 1, 1), expose(picture, ev * chosen), picture)


class LightenDiffusionPaperRecipe(PaperRecipe):
    """The paper's second stage, and lumen's own decomposition stage in place of the first, which was never released."""

    parts = {"decomposition": "decom", "diffusion": "Unet"}  # noqa: RUF012

    def losses(
        self, model: LowLightModel, stage: Stage, batch: dict[str, Tensor], step: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """See `Recipe`; in the second stage the bright picture shows another scene, as in the paper."""
        if stage.name == "decomposition":
            return COMPACT.losses(model, stage, batch, step, generator)
        return super().losses(model, stage, batch | {"high": batch["high"].roll(1, dims=0)}, step, generator)


COMPACT = LightenDiffusionRecipe("lightendiffusion", NETWORK, WEIGHTS)
PAPER = LightenDiffusionPaperRecipe(
    "lightendiffusion",
    stages=(
        Stage("decomposition", steps=40_000, batch=8, crop=128, rate=8e-4),
        Stage("diffusion", steps=100_000, batch=12, crop=512, rate=2e-5, rates="constant"),
    ),
)
