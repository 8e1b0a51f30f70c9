"""LLDiffusion: denoiser, degradation encoder and degradation network together, supervised on the sampler's result.

The paper trains on the noise alone and samples 25 times at full resolution. Our own network needs two steps: every
training step unrolls the sampler from pure noise and compares the finished picture with the bright one. The degradation
network darkens the bright picture again and so teaches the encoder what degradation is. It is trained every few steps
and left out of the exported model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumen_cli.diffusion import add_noise, normal, sample
from lumen_cli.networks.base import LowLightModel
from lumen_cli.networks.lldiffusion import LLDiffusion
from lumen_cli.training.recipes import (
    CompactRecipe,
    PaperRecipe,
    Stage,
    fidelity,
    misexposed_gain,
    zero_residuals,
)

NETWORK: dict[str, Any] = {
    "unet_channels": 32,
    "unet_multipliers": (1, 1, 2, 2, 3, 3),
    "blocks": 1,
    "encoder_channels": 4,
    "feature_channels": (32, 32, 64, 64, 128, 128),
    "features": 3,
    "fusion": "cattn",
    "degradation_channels": 32,
    "attention_level": 4,
    "steps": 2,
    "schedule": {"beta_start": 1e-4, "beta_end": 0.04, "timesteps": 1000},
    "prediction": "x0",
    "clip": None,
    "exposure": 0.5,
    "temperature": 1.0,
    "fade_above": None,
    "fade_colour_above": None,
}
"""The hyper-parameters of the `LLDiffusion` to train.

The schedule leaves a signal of sqrt(ᾱ) = 0.08 where a sampler of two steps starts.
"""


WEIGHTS = {"noise": 0.1, "picture": 1.0, "degradation": 0.1}
"""Weights of the loss terms; see `LLDiffusionRecipe.losses`."""


@dataclass(frozen=True)
class LLDiffusionRecipe(CompactRecipe):
    """One stage on small crops, one on larger crops; both train everything, as in the paper."""

    unrolled: tuple[int, ...] = (2,)
    """Sampling steps that the training steps unroll in turn."""
    degrade_every: int = 4
    """The degradation network is trained in one step of so many."""
    misexposed: float = 0.15
    """In training, the gain from the whole picture's mean is wrong by up to this many stops."""
    stages: tuple[Stage, ...] = (
        Stage("joint", steps=8000, batch=8, crop=128, rate=6e-4),
        Stage("refine", steps=2000, batch=4, crop=256, rate=2e-4),
    )

    def build(self, **more: Any) -> LowLightModel:
        """See `Recipe`; with the degradation network."""
        return super().build(degradation_network=True)

    @torch.no_grad()
    def initialise(self, model: LLDiffusion) -> None:
        """At first, the denoiser returns the brightened picture as it is."""
        zero_residuals(model)
        nn.init.zeros_(model.diff_unet.conv_out.weight)
        nn.init.zeros_(model.diff_unet.conv_out.bias)  # type: ignore[arg-type]

    def network_config(self) -> dict[str, object]:
        """See `Recipe`; without the degradation network, which only training needs."""
        return super().network_config() | {"degradation_network": False}

    def losses(
        self, model: LowLightModel, stage: Stage, batch: dict[str, Tensor], step: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """See `Recipe`.

        noise: what the network returns for a bright picture with noise of any timestep, in L1 (the paper: MSE).
        picture: L1 and structure of the picture that the sampler makes of pure noise.
        degradation: L1 of the bright picture darkened again, against the dark one; every few steps.
        """
        model = cast(LLDiffusion, model)
        low, high = 2.0 * batch["low"] - 1.0, 2.0 * batch["high"] - 1.0
        gain = None
        if model.exposure is not None:
            gain = misexposed_gain(batch["whole"], model.exposure, self.misexposed, generator)
        condition = model.condition(low, gain)

        noise, start = normal(high.shape, high, generator), normal(high.shape, high, generator)
        at = add_noise(high, noise, model.schedule, model.sampler.prediction, generator=generator)
        output = model.estimate(at.noisy, at.timesteps, condition).float()

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            return model.estimate(x, t, condition)

        made = sample(denoise, start, model.schedule, self.unrolled[step % len(self.unrolled)], model.sampler)
        w = self.weights
        terms = {
            "noise": w["noise"] * F.l1_loss(output, at.target),
            "picture": w["picture"] * fidelity((made + 1.0) / 2.0, batch["high"]),
        }
        if step % self.degrade_every == 0:
            darkened = (model.deg_unet(high, condition.features).float() + 1.0) / 2.0
            terms["degradation"] = w["degradation"] * F.l1_loss(darkened, batch["low"])
        return terms


class LLDiffusionPaperRecipe(PaperRecipe):
    """The published network; the degradation network is part of the training alone."""

    def build(self) -> LowLightModel:
        """See `Recipe`; with the degradation network."""
        return LLDiffusion(**{**self.network, "degradation_network": True})

    def network_config(self) -> dict[str, object]:
        """See `Recipe`; without the degradation network."""
        return super().network_config() | {"degradation_network": False}


COMPACT = LLDiffusionRecipe("lldiffusion", NETWORK, WEIGHTS)
# 8 pictures of 4 crops. The release trains for 60,000 epochs of 61 batches; this is a tenth of it.
PAPER = LLDiffusionPaperRecipe(
    "lldiffusion", stages=(Stage("diffusion", steps=366_000, batch=32, crop=128, rate=1e-4, rates="constant"),)
)
