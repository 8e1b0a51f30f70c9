"""KinD: decomposition, illumination adjustment and restoration as in the paper, then the two later ones together.

The paper stops after the third stage and takes the ratio of light from the bright picture, which nobody has who
wants one. The last two stages are our own: they ask of the finished picture, at the ratio chosen from the dark picture
alone, to be the bright one. First the decomposition stays as stage one left it; then it moves too, held by its own
terms, so that its maps keep their meaning.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumen_cli.networks.base import LowLightModel
from lumen_cli.networks.kind.blocks import SLOPE, extremes
from lumen_cli.networks.kind.losses import adjustment_losses, adjustment_pairs, decomposition_losses, restoration_losses
from lumen_cli.networks.kind.network import KinD
from lumen_cli.training.recipes.base import Stage, fidelity

LIGHT_OF_BLACK = -2.0


@dataclass(frozen=True)
class Network:
    """Widths and rules of the network to train; the fields of `KinD`."""

    decomposition_channels: int = 32
    restoration_channels: int = 32
    restoration_multipliers: tuple[int, ...] = (1, 2, 4, 8, 8)
    adjustment_channels: int = 32
    fusion: str = "pairs"
    stretch: bool = True
    target_light: float = 0.5
    ratio_limits: tuple[float, float] = (1.0, 8.0)


@dataclass(frozen=True)
class Weights:
    """Weights of what is not as in the paper: `equal`, of equal reflectances (paper: 0.01), and our own terms."""

    equal: float = 0.2
    anchor: float = 0.5
    picture: float = 1.0
    adjustment: float = 0.5
    restoration: float = 0.25
    decomposition: float = 0.25


@dataclass(frozen=True)
class KinDRecipe:
    """Stages, losses and sizes.

    Attributes:
        contrast: power of the reflectance to restore; the release takes 1.2, which the last stage would undo.
    """

    architecture: str = "kind"
    network: Network = Network()
    weights: Weights = Weights()
    contrast: float = 1.0
    stages: tuple[Stage, ...] = field(
        default=(
            Stage("decomposition", steps=4000, batch=8, crop=96, rate=1e-3),
            Stage("adjustment", steps=1500, batch=8, crop=96, rate=3e-3),
            Stage("restoration", steps=4000, batch=8, crop=128, rate=8e-4),
            Stage("joint", steps=8000, batch=8, crop=160, rate=6e-4),
            Stage("refine", steps=2000, batch=4, crop=256, rate=3e-4),
        )
    )

    def build(self) -> KinD:
        """A fresh network of the recipe's widths, initialised for training (torch's global generator)."""
        model = KinD(**self.network_config())  # type: ignore[arg-type]
        _initialise(model)
        return model

    def network_config(self) -> dict[str, object]:
        """The `network` entry of config.json."""
        sequences = ("restoration_multipliers", "ratio_limits")
        return {**asdict(self.network), **{name: list(getattr(self.network, name)) for name in sequences}}

    def trainable(self, model: LowLightModel, stage: Stage) -> Iterable[nn.Parameter]:
        """The stage's own network; "joint": the adjustment and the restoration; "refine": all three."""
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
        """The stage's weighted terms; their sum is minimised."""
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
            "picture": w.picture * fidelity(model.fuse(low, r_low, l_low, restored * adjusted), high),
            # What the ratio means, and what the reflectance is, must not be lost over the picture.
            "adjustment": w.adjustment * _sum(self._adjustment(model, l_low.detach(), l_high.detach(), generator)),
            "restoration": w.restoration * _sum(cleaned),
        }
        if stage.name == "refine":
            maps = ((low, high), (r_low, r_high), (l_low, l_high))
            terms["decomposition"] = w.decomposition * _sum(self._decomposition(*maps))
        return terms

    def _decomposition(
        self, pictures: tuple[Tensor, Tensor], reflectances: tuple[Tensor, Tensor], lights: tuple[Tensor, Tensor]
    ) -> dict[str, Tensor]:
        (low, high), (r_low, r_high), (l_low, l_high) = pictures, reflectances, lights
        terms = decomposition_losses((low, high), (r_low, r_high), (l_low, l_high), self.weights.equal)
        anchor = _retinex_anchor(low, r_low, l_low) + _retinex_anchor(high, r_high, l_high)
        return terms | {"anchor": self.weights.anchor * anchor}

    def _adjustment(self, model: KinD, low: Tensor, high: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        brighten = torch.rand(len(low), generator=generator, device=low.device) < 0.5
        source, target, ratio = adjustment_pairs(low, high, brighten)
        return adjustment_losses(model.adjust(source, ratio.view(-1, 1, 1, 1)), target)


def _sum(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum()


def _limits(crops: Tensor, generator: torch.Generator) -> Tensor:
    """Limits [B, 2] for the stretch of crops, as if each were part of a larger picture: between its own and 0 … 1.

    Half of the crops keep their own bright end, as a picture would that is dark all over.
    """
    count, device = len(crops), crops.device
    own = extremes(crops)
    share = torch.rand(count, 3, generator=generator, device=device)
    beyond = torch.where(share[:, 2] < 0.5, 0.0, share[:, 1])
    return torch.stack([own[:, 0] * share[:, 0], own[:, 1].lerp(torch.ones_like(beyond), beyond)], dim=1)


def _retinex_anchor(picture: Tensor, reflectance: Tensor, illumination: Tensor) -> Tensor:
    """How far the maps are from the usual first guess, L_0 = max over channels, R_0 = I / L_0.

    A weak pull away from R = 1, L = I and from R = I, L = 1, which rebuild grey pictures and separate nothing.
    """
    brightest = picture.amax(dim=1, keepdim=True)
    estimate = (picture / brightest.clamp_min(0.02)).clamp(0.02, 0.98)
    # Compared before the sigmoid: after it, a reflectance that has once run into 1 gets no gradient any more.
    return F.l1_loss(illumination, brightest) + 0.1 * F.smooth_l1_loss(
        torch.logit(reflectance, 1e-6), torch.logit(estimate)
    )


@torch.no_grad()
def _initialise(model: KinD) -> None:
    """Keep the variance of signals through layers without norms (He et al., 2015, with the slope of the release)."""
    for name, layer in model.named_modules():
        if not isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            continue
        if isinstance(layer, nn.ConvTranspose2d):
            # Every output pixel sees one tap; no activation follows.
            nn.init.normal_(layer.weight, std=layer.in_channels**-0.5)
            continue
        fan_in = layer.in_channels * layer.weight[0, 0].numel()
        # The maps start near a half, where their sigmoids are steepest.
        last = {"conv10": 0.05, "conv1_4": 0.05, "conv_4": 0.5}.get(name.partition("_")[2])
        gain = last or 2.0 / (1.0 + SLOPE**2)
        nn.init.normal_(layer.weight, std=(gain / fan_in) ** 0.5)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    # Black gives no signal, so its light is what this bias says. At zero that is a half, and the dark comes to be
    # explained by dark reflectances, which is the one thing a decomposition must not do.
    assert model.decom.l_conv1_4.bias is not None
    nn.init.constant_(model.decom.l_conv1_4.bias, LIGHT_OF_BLACK)
