"""What the loop needs to know of an architecture: its stages and what one step minimises."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from lumen_cli.networks.base import LowLightModel


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
