"""What the loop needs to know of an architecture: its stages and what one step minimises."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumen_cli.networks.base import LowLightModel
from lumen_cli.networks.exposure import gain_to


@dataclass(frozen=True)
class Stage:
    """One part of a training.

    Attributes:
        name: how the command line and the files call it.
        steps: length where the user names none.
        batch, crop: pictures a step, and their side in pixels.
        rate: peak learning rate of Adam.
        rates: how it changes: "cosine" rises shortly, then falls to a fiftieth, with decay of the weights and a bound
            on the gradient's norm; "constant" and "staircase" (four fifths after every tenth of the stage) are the
            papers' ways, without either.
    """

    name: str
    steps: int
    batch: int
    crop: int
    rate: float
    rates: Literal["cosine", "constant", "staircase"] = "cosine"


class Recipe(Protocol):
    """How one architecture is trained."""

    @property
    def architecture(self) -> str:
        """The registry's name of the architecture."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The parts of a training, in order."""

    def build(self) -> LowLightModel:
        """A fresh network."""

    def network_config(self) -> dict[str, object]:
        """The `network` entry of config.json."""

    def trainable(self, model: LowLightModel, stage: Stage) -> Iterable[nn.Parameter]:
        """Parameters this stage changes; all others stay as they are."""

    def losses(
        self, model: LowLightModel, stage: Stage, batch: dict[str, Tensor], step: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Weighted terms by name; the loop minimises their sum."""


def structure(output: Tensor, target: Tensor, window: int = 7, stride: int = 2) -> Tensor:
    """1 - SSIM with a uniform window (Wang et al., 2004, with C1 = 0.01², C2 = 0.03²); a scalar in [0, 2]."""

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, window, stride=stride)

    mx, my = mean(output), mean(target)
    vx = mean(output * output) - mx * mx
    vy = mean(target * target) - my * my
    covariance = mean(output * target) - mx * my
    similarity = (2 * mx * my + 1e-4) * (2 * covariance + 9e-4)
    return 1.0 - (similarity / ((mx * mx + my * my + 1e-4) * (vx + vy + 9e-4))).mean()


def fidelity(output: Tensor, target: Tensor, structure_weight: float = 0.2) -> Tensor:
    """L1 plus weighted structural dissimilarity, a scalar."""
    output = output.float()
    return F.l1_loss(output, target) + structure_weight * structure(output, target)


def smoothness(illumination: Tensor, guide: Tensor, sharpness: float = 10.0) -> Tensor:
    """Σ |∇L| · exp(-k |∇guide|): the illumination may change only where the guide does (Wei et al., 2018, eq. 5).

    `illumination` B×1×h×w, `guide` B×C×h×w of the same size; a scalar.
    """
    guide = guide.mean(dim=1, keepdim=True)
    loss = illumination.new_zeros(())
    for axis in (-1, -2):
        change, edge = illumination.diff(dim=axis).abs(), guide.diff(dim=axis).abs()
        loss = loss + (change * (-sharpness * edge).exp()).mean()
    return loss


def misexposed_gain(whole: Tensor, exposure: float, stops: float, generator: torch.Generator) -> Tensor:
    """`gain_to` of the whole pictures that crops are cut from, off by up to `stops` either way and never below 1."""
    off = stops * (2.0 * torch.rand(len(whole), 1, 1, 1, generator=generator, device=whole.device) - 1.0)
    return (gain_to(whole, exposure) * torch.exp2(off)).clamp_min(1.0)
