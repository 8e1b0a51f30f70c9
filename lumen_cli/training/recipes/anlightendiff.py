"""AnlightenDiff: encoder and noise estimator together, supervised on the sampler's result.

The release trains the noise estimator alone, with LPIPS, beside an encoder that its optimiser never sees, and samples
in a hundred steps. Our own network needs two: every training step unrolls the sampler from the centre and compares the
finished picture, and the centre too, with the bright one. So the encoder learns where the bright picture lies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumen_cli.diffusion import antithetic_timesteps, normal, target_of
from lumen_cli.networks.anlightendiff import AnlightenDiff, diffuse, to_residual
from lumen_cli.networks.base import LowLightModel
from lumen_cli.training.recipes import CompactRecipe, PaperRecipe, Stage, fidelity

NETWORK: dict[str, Any] = {
    "dim": 16,
    "multipliers": (1, 2, 2, 4, 4, 8),
    "steps": 2,
    "prediction": "x0",
    "eta": 0.0,
    "clip": None,
    "encoder_trained": True,
    "full_resolution_skip": True,
    "from_center": True,
}
"""The hyper-parameters of the `AnlightenDiff` to train."""


WEIGHTS = {"noise": 0.1, "center": 0.3, "picture": 1.0}
"""Weights of the loss terms; see `AnlightenDiffRecipe.losses`."""


@dataclass(frozen=True)
class AnlightenDiffRecipe(CompactRecipe):
    """One stage on small crops, one on larger crops; both train everything."""

    unrolled: tuple[int, ...] = (2, 1, 2, 3)
    """Sampling steps that the training steps unroll in turn."""
    stages: tuple[Stage, ...] = (
        Stage("joint", steps=8000, batch=8, crop=160, rate=1e-3),
        Stage("refine", steps=2000, batch=4, crop=256, rate=3e-4),
    )

    @torch.no_grad()
    def initialise(self, model: AnlightenDiff) -> None:
        """Both networks add nothing at first, so the first pictures are the equalised ones."""
        for network in (model.encoder, model.model.unet):
            last = network.get_submodule("final_conv.1")
            nn.init.constant_(last.weight_g, 1e-3)  # type: ignore[arg-type]

    def losses(
        self, model: LowLightModel, stage: Stage, batch: dict[str, Tensor], step: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """See `Recipe`.

        noise: what the estimator returns for a residual diffused around the centre to any timestep, in L1.
        center: L1 and structure of the centre against the bright picture.
        picture: the same of the picture that the sampler makes, starting from the centre.
        """
        model = cast(AnlightenDiff, model)
        low, high = batch["low"], batch["high"]
        center, rests = model.center(low)
        clean = to_residual(high, low)
        noise = normal(clean.shape, clean, generator)
        timesteps = antithetic_timesteps(len(clean), model.schedule.timesteps, generator)
        at = diffuse(clean, center.detach(), noise, timesteps, model.schedule)
        output = model.estimate(at.noisy, timesteps.float(), low, center, rests).float()
        wanted = target_of(at.clean, at.shifted, at.signal, at.spread, model.sampler.prediction)
        residual = model.walk(low, center, rests, self.unrolled[step % len(self.unrolled)])
        w = self.weights
        return {
            "noise": w["noise"] * F.l1_loss(output, wanted),
            "center": w["center"] * fidelity(center, high),
            "picture": w["picture"] * fidelity(low + (residual + 1.0) / 2.0, high),
        }


COMPACT = AnlightenDiffRecipe("anlightendiff", NETWORK, WEIGHTS)
# The loss is the mean absolute error in place of LPIPS, whose weights lumen does not have. Adam at 1e-3, the release's
# second choice, in place of Lion at 4e-4; 1000 epochs of 485 pairs.
PAPER = PaperRecipe(
    "anlightendiff", stages=(Stage("diffusion", steps=20_000, batch=24, crop=160, rate=1e-3, rates="constant"),)
)
