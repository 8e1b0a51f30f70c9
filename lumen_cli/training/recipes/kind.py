"""KinD: decomposition, illumination adjustment and restoration as in the paper, then two stages of our own.

The paper stops after the third stage and takes the ratio of light from the bright picture, which a user does not have.
Our last two stages choose the ratio from the dark picture alone and compare the finished picture with the bright one.
In the first of them the decomposition is frozen. In the second it is trained too, with its own terms, so that its maps
keep their meaning.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from lumen_cli.networks.base import LowLightModel
from lumen_cli.networks.kind import KinD, adjustment_losses, adjustment_pairs, decomposition_losses, restoration_losses
from lumen_cli.networks.kind.blocks import SLOPE, extremes
from lumen_cli.training.recipes import CompactRecipe, PaperRecipe, Stage, fidelity, retinex_anchor

LIGHT_OF_BLACK = -2.0


NETWORK: dict[str, Any] = {
    "decomposition_channels": 32,
    "restoration_channels": 32,
    "restoration_multipliers": (1, 2, 4, 8, 8),
    "adjustment_channels": 32,
    "fusion": "pairs",
    "stretch": True,
    "target_light": 0.5,
    "ratio_limits": (1.0, 8.0),
}
"""The hyper-parameters of the `KinD` to train."""


WEIGHTS = {"equal": 0.2, "anchor": 0.5, "picture": 1.0, "adjustment": 0.5, "restoration": 0.25, "decomposition": 0.25}
"""Weights that differ from the paper: `equal`, of equal reflectances (paper: 0.01), and those of our own terms."""


@dataclass(frozen=True)
class KinDRecipe(CompactRecipe):
    """A stage for each of the three networks, then two on the finished picture."""

    contrast: float = 1.0
    """Power of the reflectance to restore. The release uses 1.2, which the last stage would undo."""
    stages: tuple[Stage, ...] = field(
        default=(
            Stage("decomposition", steps=4000, batch=8, crop=96, rate=1e-3),
            Stage("adjustment", steps=1500, batch=8, crop=96, rate=3e-3),
            Stage("restoration", steps=4000, batch=8, crop=128, rate=8e-4),
            Stage("joint", steps=8000, batch=8, crop=160, rate=6e-4),
            Stage("refine", steps=2000, batch=4, crop=256, rate=3e-4),
        )
    )

    @torch.no_grad()
    def initialise(self, model: KinD) -> None:
        """Keep the variance of signals through layers without norms (He et al., 2015; the slope is the release's)."""
        for name, layer in model.named_modules():
            if not isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
                continue
            if isinstance(layer, nn.ConvTranspose2d):
                # Each output pixel depends on one tap, and no activation follows.
                nn.init.normal_(layer.weight, std=layer.in_channels**-0.5)
                continue
            fan_in = layer.in_channels * layer.weight[0, 0].numel()
            # The maps start near a half, where their sigmoids are steepest.
            last = {"conv10": 0.05, "conv1_4": 0.05, "conv_4": 0.5}.get(name.partition("_")[2])
            gain = last or 2.0 / (1.0 + SLOPE**2)
            nn.init.normal_(layer.weight, std=(gain / fan_in) ** 0.5)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        # Black gives no signal, so this bias decides its light. At zero the light is a half, and dark reflectances then
        # explain the dark: the one thing that a decomposition must not do.
        assert model.decom.l_conv1_4.bias is not None
        nn.init.constant_(model.decom.l_conv1_4.bias, LIGHT_OF_BLACK)

    def trainable(self, model: LowLightModel, stage: Stage) -> Iterable[nn.Parameter]:
        """See `Recipe`: the stage's own network; "joint": adjustment and restoration; "refine": all three."""
        model = cast(KinD, model)
        parts: dict[str, list[nn.Module]] = {
            "decomposition": [model.decom],
            "adjustment": [model.adjust],
            "restoration": [model.restoration],
        }
        chosen = parts.get(stage.name, [model.adjust, model.restoration])
        if stage.name == "refine":
            chosen = [model.decom, *chosen]
        return [parameter for part in chosen for parameter in part.parameters()]

    def losses(
        self, model: LowLightModel, stage: Stage, batch: dict[str, Tensor], step: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """See `Recipe`."""
        model, high = cast(KinD, model), batch["high"]
        limits = _limits(batch["low"], generator)
        low = model.prepare(batch["low"], limits)
        if stage.name == "decomposition":
            reflectances, lights = (maps.chunk(2) for maps in model.decom(torch.cat([low, high])))
            return self._decomposition((low, high), reflectances, lights)
        with torch.set_grad_enabled(stage.name == "refine"):
            (r_low, r_high), (l_low, l_high) = (maps.chunk(2) for maps in model.decom(torch.cat([low, high])))
        if stage.name == "adjustment":
            return self._adjustment(model, l_low, l_high, generator)
        restored = model.restoration(r_low, l_low)
        cleaned = restoration_losses(restored, r_high.detach() ** self.contrast)
        if stage.name == "restoration":
            return cleaned
        with torch.no_grad():
            _, light = model.decom(model.prepare(batch["whole"], limits))
        adjusted = model.adjust(l_low, model.automatic_ratio(light).view(-1, 1, 1, 1))
        w = self.weights
        terms = {
            "picture": w["picture"] * fidelity(model.fuse(low, r_low, l_low, restored * adjusted), high),
            # The ratio and the reflectance keep their meaning.
            "adjustment": w["adjustment"] * _sum(self._adjustment(model, l_low.detach(), l_high.detach(), generator)),
            "restoration": w["restoration"] * _sum(cleaned),
        }
        if stage.name == "refine":
            maps = ((low, high), (r_low, r_high), (l_low, l_high))
            terms["decomposition"] = w["decomposition"] * _sum(self._decomposition(*maps))
        return terms

    def _decomposition(
        self, pictures: tuple[Tensor, Tensor], reflectances: tuple[Tensor, Tensor], lights: tuple[Tensor, Tensor]
    ) -> dict[str, Tensor]:
        (low, high), (r_low, r_high), (l_low, l_high) = pictures, reflectances, lights
        terms = decomposition_losses((low, high), (r_low, r_high), (l_low, l_high), self.weights["equal"])
        anchor = retinex_anchor(low, r_low, l_low, 0.02) + retinex_anchor(high, r_high, l_high, 0.02)
        return terms | {"anchor": self.weights["anchor"] * anchor}

    def _adjustment(self, model: KinD, low: Tensor, high: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        brighten = torch.rand(len(low), generator=generator, device=low.device) < 0.5
        source, target, ratio = adjustment_pairs(low, high, brighten)
        return adjustment_losses(model.adjust(source, ratio.view(-1, 1, 1, 1)), target)


def _sum(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum()


def _limits(crops: Tensor, generator: torch.Generator) -> Tensor:
    """Limits [B, 2] for the stretch of crops as parts of larger pictures: between a crop's own limits and 0 … 1.

    Half of the crops keep their own upper limit, as in pictures that are dark everywhere.
    """
    count, device = len(crops), crops.device
    own = extremes(crops)
    share = torch.rand(count, 3, generator=generator, device=device)
    beyond = torch.where(share[:, 2] < 0.5, 0.0, share[:, 1])
    return torch.stack([own[:, 0] * share[:, 0], own[:, 1].lerp(torch.ones_like(beyond), beyond)], dim=1)


class KinDPaperRecipe(PaperRecipe):
    """The paper's three stages, each for a network of its own."""

    parts = {"decomposition": "decom", "adjustment": "adjust", "restoration": "restoration"}  # noqa: RUF012


COMPACT = KinDRecipe("kind", NETWORK, WEIGHTS)
PAPER = KinDPaperRecipe(
    "kind",
    stages=(
        Stage("decomposition", steps=90_000, batch=10, crop=48, rate=1e-4, rates="constant"),
        Stage("adjustment", steps=90_000, batch=10, crop=48, rate=1e-4, rates="constant"),
        Stage("restoration", steps=116_000, batch=4, crop=384, rate=1e-4, rates="constant"),
    ),
)
