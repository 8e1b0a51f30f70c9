"""The preset "paper": published widths, the papers' own losses, batches, crops, rates and lengths.

Where a release leaves something out, or asks for what lumen does not have, the class's docstring says what stands in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from lumen_cli.errors import UsageError
from lumen_cli.networks.base import LowLightModel
from lumen_cli.networks.lightendiffusion.network import LightenDiffusion
from lumen_cli.registry.architectures import network_class
from lumen_cli.training.recipes.base import Stage
from lumen_cli.training.recipes.lightendiffusion import LightenDiffusionRecipe

PAPER: dict[str, tuple[Stage, ...]] = {
    # Adam at 1e-3, the release's second choice, in place of Lion at 4e-4; 1000 epochs of 485 pairs.
    "anlightendiff": (Stage("diffusion", steps=20_000, batch=24, crop=160, rate=1e-3, rates="constant"),),
    "diffll": (Stage("diffusion", steps=30_500, batch=8, crop=256, rate=1e-4, rates="staircase"),),
    "kind": (
        Stage("decomposition", steps=90_000, batch=10, crop=48, rate=1e-4, rates="constant"),
        Stage("adjustment", steps=90_000, batch=10, crop=48, rate=1e-4, rates="constant"),
        Stage("restoration", steps=116_000, batch=4, crop=384, rate=1e-4, rates="constant"),
    ),
    # The first stage was never released; lumen's own is in its place.
    "lightendiffusion": (
        Stage("decomposition", steps=40_000, batch=8, crop=128, rate=8e-4),
        Stage("diffusion", steps=100_000, batch=12, crop=512, rate=2e-5, rates="constant"),
    ),
    # 8 pictures of 4 crops; the release goes on for 60,000 epochs of 61 batches, of which this is a tenth.
    "lldiffusion": (Stage("diffusion", steps=366_000, batch=32, crop=128, rate=1e-4, rates="constant"),),
}
"""Architecture → stages, on LOL-v1's 485 pairs."""


@dataclass(frozen=True)
class PaperRecipe:
    """One architecture as published; `network` names what is to differ from the published network.

    AnlightenDiff's loss is the mean absolute error in place of LPIPS, whose weights do not come with lumen.
    LightenDiffusion's second stage takes the bright picture from another scene, as in the paper.
    """

    architecture: str
    network: Mapping[str, Any] = field(default_factory=dict)
    stages: tuple[Stage, ...] = ()

    def __post_init__(self) -> None:
        if self.architecture not in PAPER:
            raise UsageError(f"there is no paper preset for {self.architecture}; known: {', '.join(sorted(PAPER))}")
        if not self.stages:
            object.__setattr__(self, "stages", PAPER[self.architecture])

    def build(self) -> LowLightModel:
        """A fresh network with PyTorch's own initialisation (torch's global generator)."""
        extra = {"degradation_network": True} if self.architecture == "lldiffusion" else {}
        return network_class(self.architecture)(**{**self.network, **extra})

    def network_config(self) -> dict[str, object]:
        """The `network` entry of config.json: only what differs from the published network."""
        lists = {name: list(value) if isinstance(value, tuple) else value for name, value in self.network.items()}
        return lists | ({"degradation_network": False} if self.architecture == "lldiffusion" else {})

    def trainable(self, model: LowLightModel, stage: Stage) -> Iterable[nn.Parameter]:
        """The stage's own network; everything for models of one stage."""
        parts = {"adjustment": "adjust", "restoration": "restoration", "decomposition": "decom"}
        if self.architecture == "lightendiffusion" and stage.name == "diffusion":
            return model.get_submodule("Unet").parameters()
        name = parts.get(stage.name)
        return model.parameters() if name is None else model.get_submodule(name).parameters()

    def losses(
        self, model: LowLightModel, stage: Stage, batch: dict[str, Tensor], step: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """The paper's weighted terms of this stage (`LowLightModel.losses`)."""
        if self.architecture == "lightendiffusion":
            if stage.name == "decomposition":
                own = LightenDiffusionRecipe(stages=(stage,))
                return own.losses(cast(LightenDiffusion, model), stage, batch, step, generator)
            batch = batch | {"high": batch["high"].roll(1, dims=0)}
        terms = model.losses(batch, generator)
        prefix = f"{stage.name}/"
        chosen = {name.removeprefix(prefix): term for name, term in terms.items() if name.startswith(prefix)}
        return chosen or {name: term for name, term in terms.items() if name != "total"}
