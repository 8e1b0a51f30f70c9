"""DiffLL: one stage that supervises the result of the sampler.

A network that is trained on the noise loss alone, and sampled from pure noise at a timestep that never saw any, returns
a grey veil. So every training step unrolls the sampler from pure noise and compares the finished picture with the
bright one. The schedule of our own weights ends in noise where the sampler starts, and the network returns the clean
average, which leaves no rest of the starting noise to cancel. Both networks correct a picture that a gain has
brightened, so colours are present from the first step. The estimator sees the dark average with its dark tones spread:
they span only a few of 255 levels, which bf16 would round away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumen_cli.diffusion import add_noise, normal
from lumen_cli.networks.base import LowLightModel
from lumen_cli.networks.diffll import DiffLL
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
    "unet_multipliers": (1, 2, 3, 3),
    "detail_channels": 32,
    "levels": 2,
    "steps": 2,
    "schedule": {"beta_start": 1e-4, "beta_end": 0.2, "timesteps": 200},
    "prediction": "x0",
    "clip": None,
    "condition_power": 0.4,
    "exposure": 0.5,
    "temperature": 1.0,
    "fade_above": None,
    "fade_colour_above": None,
    "wavelet": "haar",
}
"""The hyper-parameters of the `DiffLL` to train.

The signal left where the sampler starts is sqrt(ᾱ) = 0.07 at two steps (t = 100), 0.003 at four (t = 150).
"""


WEIGHTS = {"noise": 0.1, "coarse": 0.5, "details": 0.5, "picture": 1.0}
"""Weights of the loss terms; see `DiffLLRecipe.losses`."""


@dataclass(frozen=True)
class DiffLLRecipe(CompactRecipe):
    """One stage on small crops, one on larger crops; both train everything, as in the paper."""

    unrolled: tuple[int, ...] = (2, 2, 2, 4)
    """Sampling steps that the training steps unroll in turn, so that the network works with more than one number."""
    misexposed: float = 0.15
    """In training, the gain from the whole picture's mean is wrong by up to this many stops."""
    stages: tuple[Stage, ...] = (
        Stage("joint", steps=8000, batch=8, crop=192, rate=6e-4),
        Stage("refine", steps=2000, batch=4, crop=320, rate=2e-4),
    )

    @torch.no_grad()
    def initialise(self, model: DiffLL) -> None:
        """Keep the variance of signals through the layers without norms (He et al., 2015) and start from the identity.

        At first, details and residual blocks pass their input on.
        """
        for number in range(model.levels):
            restoration = model.get_submodule(f"high_enhance{number}")
            for name, layer in restoration.named_modules():
                if isinstance(layer, nn.Conv2d):
                    fan_in = layer.weight[0].numel()
                    activated = ".model." in name and not name.endswith(".8")
                    nn.init.normal_(layer.weight, std=((2.0 if activated else 1.0) / fan_in) ** 0.5)
                    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
            nn.init.zeros_(restoration.get_submodule("conv_tail.point_conv").weight)  # type: ignore[arg-type]
        zero_residuals(model.Unet)
        nn.init.zeros_(model.Unet.conv_out.weight)

    def losses(
        self, model: LowLightModel, stage: Stage, batch: dict[str, Tensor], step: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """See `Recipe`.

        noise: what the network returns for a bright average with noise of any timestep, in L1 (the paper: MSE).
        coarse: L1 of the sampled average, details: L1 of each level's details, both in units of the picture.
        picture: L1 and structure of the finished picture.
        """
        model = cast(DiffLL, model)
        low, high = batch["low"], batch["high"]
        target, target_details = model.decompose_bands(high, by_library=True)
        gain = None
        if model.exposure is not None:
            gain = misexposed_gain(batch["whole"], model.exposure, self.misexposed, generator)
        observed = model.observe(low, gain)
        noise, start = normal(target.shape, target, generator), normal(target.shape, target, generator)
        at = add_noise(target, noise, model.schedule, model.sampler.prediction, generator=generator)
        output = model.estimate(observed, at.noisy, at.timesteps).float()

        average = model.predict_average(observed, start, self.unrolled[step % len(self.unrolled)])
        details = model.restore_details(observed.details)
        picture, _ = model.compose_bands(average, details)
        w, scale = self.weights, 2.0**-model.levels / 2.0
        pairs = enumerate(zip(details, target_details, strict=True))
        missed = torch.stack([F.l1_loss(level, wish) * 2.0 ** -(k + 1) for k, (level, wish) in pairs]).sum()
        return {
            "noise": w["noise"] * F.l1_loss(output, at.target),
            "coarse": w["coarse"] * scale * F.l1_loss(average, target),
            "details": w["details"] * missed,
            "picture": w["picture"] * fidelity(picture, high),
        }


COMPACT = DiffLLRecipe("diffll", NETWORK, WEIGHTS)
PAPER = PaperRecipe(
    "diffll", stages=(Stage("diffusion", steps=30_500, batch=8, crop=256, rate=1e-4, rates="staircase"),)
)
