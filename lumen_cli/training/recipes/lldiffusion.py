"""LLDiffusion: denoiser, degradation encoder and degradation network together, supervised on what the sampler does.

The paper trains on the noise alone and samples 25 times at full resolution. Our own network is to do with two steps,
so the sampler is unrolled from pure noise in every training step and the finished picture is held against the bright
one. The degradation network, which darkens the bright picture again and so teaches the encoder what degradation is,
joins in every few steps and is left out of the exported model.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumen_cli.diffusion.noise import normal
from lumen_cli.diffusion.sampler import sample, target_of
from lumen_cli.diffusion.schedule import antithetic_timesteps
from lumen_cli.networks.base import LowLightModel
from lumen_cli.networks.lldiffusion.network import LLDiffusion
from lumen_cli.networks.unet import ResBlock
from lumen_cli.training.recipes.base import Stage, fidelity, misexposed_gain


@dataclass(frozen=True)
class Network:
    """Widths, schedule and sampler of the network to train; the fields of `LLDiffusion`.

    The schedule leaves a signal of sqrt(ᾱ) = 0.08 where a sampler of two steps starts.
    """

    unet_channels: int = 32
    unet_multipliers: tuple[int, ...] = (1, 1, 2, 2, 3, 3)
    blocks: int = 1
    encoder_channels: int = 4
    feature_channels: tuple[int, ...] = (32, 32, 64, 64, 128, 128)
    features: int = 3
    fusion: str = "cattn"
    degradation_channels: int = 32
    attention_level: int = 4
    steps: int = 2
    schedule: dict[str, float] = field(
        default_factory=lambda: {"beta_start": 1e-4, "beta_end": 0.04, "timesteps": 1000}
    )
    prediction: str = "x0"
    clip: float | None = None
    exposure: float | None = 0.5
    temperature: float = 1.0
    fade_above: float | None = None
    fade_colour_above: float | None = None


@dataclass(frozen=True)
class Weights:
    """Weights of the loss terms; see `LLDiffusionRecipe.losses` for what each is."""

    noise: float = 0.1
    picture: float = 1.0
    degradation: float = 0.1


@dataclass(frozen=True)
class LLDiffusionRecipe:
    """Stages, losses and sizes.

    Attributes:
        unrolled: numbers of sampling steps that training steps run through in turn.
        degrade_every: the degradation network is trained in one of that many steps.
        misexposed: the gain that the whole picture's mean asks for is off by up to this many stops in training.
    """

    architecture: str = "lldiffusion"
    network: Network = field(default_factory=Network)
    weights: Weights = Weights()
    unrolled: tuple[int, ...] = (2,)
    degrade_every: int = 4
    misexposed: float = 0.15
    stages: tuple[Stage, ...] = (
        Stage("joint", steps=8000, batch=8, crop=128, rate=6e-4),
        Stage("refine", steps=2000, batch=4, crop=256, rate=2e-4),
    )

    def build(self) -> LLDiffusion:
        """A fresh network with its degradation network, initialised for training (torch's global generator)."""
        model = LLDiffusion(**self.network_config() | {"degradation_network": True})  # type: ignore[arg-type]
        _initialise(model)
        return model

    def network_config(self) -> dict[str, object]:
        """The `network` entry of config.json: without the degradation network, which only training needs."""
        sequences = {name: list(getattr(self.network, name)) for name in ("unet_multipliers", "feature_channels")}
        return {**asdict(self.network), **sequences, "degradation_network": False}

    def trainable(self, model: LowLightModel, stage: Stage) -> Iterable[nn.Parameter]:
        """Everything, as in the paper; the second stage only shows larger crops."""
        return model.parameters()

    def losses(
        self, model: LowLightModel, stage: Stage, batch: dict[str, Tensor], step: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Weighted terms; their sum is minimised.

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
        timesteps = antithetic_timesteps(len(high), model.schedule.timesteps, generator)
        signal, spread = model.schedule.coefficients(timesteps, high)
        output = model.estimate(signal * high + spread * noise, timesteps.float(), condition).float()
        wanted = target_of(high, noise, signal, spread, model.sampler.prediction)

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            return model.estimate(x, t, condition)

        made = sample(denoise, start, model.schedule, self.unrolled[step % len(self.unrolled)], model.sampler)
        w = self.weights
        terms = {
            "noise": w.noise * F.l1_loss(output, wanted),
            "picture": w.picture * fidelity((made + 1.0) / 2.0, batch["high"]),
        }
        if step % self.degrade_every == 0:
            darkened = (model.deg_unet(high, condition.features).float() + 1.0) / 2.0
            terms["degradation"] = w.degradation * F.l1_loss(darkened, batch["low"])
        return terms


@torch.no_grad()
def _initialise(model: LLDiffusion) -> None:
    """Residual blocks pass their input on, and the denoiser at first returns the brightened picture as it is."""
    for module in model.modules():
        if isinstance(module, ResBlock):
            nn.init.zeros_(module.conv2.weight)
    nn.init.zeros_(model.diff_unet.conv_out.weight)
    nn.init.zeros_(model.diff_unet.conv_out.bias)  # type: ignore[arg-type]
