"""AnlightenDiff: encoder and noise estimator together, supervised on what the sampler does.

The release trains the noise estimator alone, with LPIPS, beside an encoder that its optimiser never sees, and walks
through a hundred steps. Our own network is to do with two: the sampler is unrolled from the centre in every training
step, the finished picture is held against the bright one, and so is the centre, which makes the encoder say where the
bright picture lies.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumen_cli.diffusion.noise import normal
from lumen_cli.diffusion.sampler import target_of
from lumen_cli.diffusion.schedule import antithetic_timesteps
from lumen_cli.networks.anlightendiff.losses import diffuse, to_residual
from lumen_cli.networks.anlightendiff.network import AnlightenDiff
from lumen_cli.networks.base import LowLightModel
from lumen_cli.training.recipes.base import Stage, fidelity


@dataclass(frozen=True)
class Network:
    """Widths and sampler of the network to train; the fields of `AnlightenDiff`."""

    dim: int = 16
    multipliers: tuple[int, ...] = (1, 2, 2, 4, 4, 8)
    steps: int = 2
    prediction: str = "x0"
    eta: float = 0.0
    clip: float | None = None
    encoder_trained: bool = True
    full_resolution_skip: bool = True
    from_center: bool = True


@dataclass(frozen=True)
class Weights:
    """Weights of the loss terms; see `AnlightenDiffRecipe.losses` for what each is."""

    noise: float = 0.1
    center: float = 0.3
    picture: float = 1.0


@dataclass(frozen=True)
class AnlightenDiffRecipe:
    """Stages, losses and sizes.

    Attributes:
        unrolled: numbers of sampling steps that training steps run through in turn.
    """

    architecture: str = "anlightendiff"
    network: Network = Network()
    weights: Weights = Weights()
    unrolled: tuple[int, ...] = (2, 1, 2, 3)
    stages: tuple[Stage, ...] = (
        Stage("joint", steps=8000, batch=8, crop=160, rate=1e-3),
        Stage("refine", steps=2000, batch=4, crop=256, rate=3e-4),
    )

    def build(self) -> AnlightenDiff:
        """A fresh network of the recipe's widths, initialised for training (torch's global generator)."""
        model = AnlightenDiff(**self.network_config())  # type: ignore[arg-type]
        _initialise(model)
        return model

    def network_config(self) -> dict[str, object]:
        """The `network` entry of config.json."""
        return {**asdict(self.network), "multipliers": list(self.network.multipliers)}

    def trainable(self, model: LowLightModel, stage: Stage) -> Iterable[nn.Parameter]:
        """Everything; the second stage only shows larger crops."""
        return model.parameters()

    def losses(
        self, model: LowLightModel, stage: Stage, batch: dict[str, Tensor], step: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Weighted terms; their sum is minimised.

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
            "noise": w.noise * F.l1_loss(output, wanted),
            "center": w.center * fidelity(center, high),
            "picture": w.picture * fidelity(low + (residual + 1.0) / 2.0, high),
        }


@torch.no_grad()
def _initialise(model: AnlightenDiff) -> None:
    """Both networks start by adding nothing, so that the first pictures are the equalised ones."""
    for network in (model.encoder, model.model.unet):
        last = network.get_submodule("final_conv.1")
        nn.init.constant_(last.weight_g, 1e-3)  # type: ignore[arg-type]
