"""KinD: "Kindling the Darkness", a practical low-light image enhancer (Zhang et al., ACM MM 2019, arXiv 1905.04161)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lumen_cli.networks.base import LowLightModel, Retinex
from lumen_cli.networks.kind.blocks import (
    FUSIONS,
    LEAST_RANGE,
    AdjustmentNet,
    DecompositionNet,
    Fusion,
    RestorationNet,
    blend,
    extremes,
    stretch,
)
from lumen_cli.networks.kind.losses import (
    CONTRAST,
    adjustment_losses,
    adjustment_pairs,
    decomposition_losses,
    restoration_losses,
)

CONTEXT_ROWS = 512
"""Rows whose light is measured at once, where a picture is to be run in parts."""


@dataclass(frozen=True)
class Released:
    """What tells the training losses of the two releases apart.

    reflectance: weight of equal reflectances; signed: gradients of the adjustment keep their sign; gradient: the
    restoration has a gradient term; white: factor on the reflectance to restore, before it is raised to 1.2.
    """

    reflectance: float = 0.01
    signed: bool = False
    gradient: bool = True
    white: float = 1.0


class KinD(LowLightModel):
    """Takes the picture apart, cleans its reflectance, changes its light by a ratio and puts the two together.

    Args:
        decomposition_channels, adjustment_channels: widths of the two small networks (published: 32 both).
        restoration_channels, restoration_multipliers: the U-Net's (published: 32; 1, 2, 4, 8, 16).
        fusion: "arbitrary" mixes the picture in where it was bright already (rule A, the release's script for
            arbitrary pictures), "pairs" is the plain product (rule B, its script for the pairs of LOL).
        stretch: spread each picture's values over [0, 1] first, as the release's loader does.
        target_light: mean illumination that the automatic ratio aims at.
        ratio_limits: bounds of the automatic ratio. The lower one, 1, leaves a bright picture as bright as it is;
            the upper one is what the release gives every picture.
    """

    released: ClassVar[Released] = Released()
    costly = ("decom", "restoration", "adjust")

    def __init__(
        self,
        decomposition_channels: int = 32,
        restoration_channels: int = 32,
        restoration_multipliers: Sequence[int] = (1, 2, 4, 8, 16),
        adjustment_channels: int = 32,
        fusion: Fusion = "arbitrary",
        stretch: bool = True,
        target_light: float = 0.5,
        ratio_limits: Sequence[float] = (1.0, 5.0),
    ) -> None:
        super().__init__()
        if fusion not in FUSIONS:
            raise ValueError(f"fusion: expected one of {', '.join(FUSIONS)}, found {fusion!r}")
        if not 0.0 < target_light <= 1.0:
            raise ValueError(f"target_light: expected a number above 0, up to 1, found {target_light}")
        lower, upper = ratio_limits
        if not 0.0 < lower <= upper:
            raise ValueError(f"ratio_limits: expected two rising numbers above 0, found {lower}, {upper}")
        self.decom = DecompositionNet(decomposition_channels)
        self.restoration: nn.Module = RestorationNet(restoration_channels, restoration_multipliers)
        self.adjust = AdjustmentNet(adjustment_channels)
        self.fusion, self.stretch, self.target_light, self.ratio_limits = fusion, stretch, target_light, (lower, upper)

    def prepare(self, low: Tensor, limits: Tensor | None = None) -> Tensor:
        """The picture as the networks see it: B×3×H×W in [0, 1] → the same in float32, stretched where the model does.

        A picture whose values span less than 0.001, such as one of a single colour, has nothing to stretch and stays
        as it is; the release makes it black.

        Args:
            low: the picture, or a part of one.
            limits: B×2, least and greatest value of the whole picture where `low` is a part of it.
        """
        low = low.float()
        if not self.stretch:
            return low
        limits = extremes(low) if limits is None else limits.to(low)
        flat = (limits[:, 1] - limits[:, 0] < LEAST_RANGE).view(-1, 1, 1, 1)
        return torch.where(flat, low, stretch(low, limits))

    def automatic_ratio(self, illumination: Tensor) -> Tensor:
        """The ratio that brings the mean of an illumination B×1×H×W to `target_light`, within `ratio_limits`; [B]."""
        mean = illumination.double().mean(dim=(1, 2, 3))  # float64: the same number from any number of threads
        return (self.target_light / mean.clamp_min(1e-6)).clamp(*self.ratio_limits).float()

    def render(self, picture: Tensor, illumination_ratio: float | Tensor | None = None) -> Tensor:
        """A prepared picture B×3×H×W → the brightened one, not clamped; `illumination_ratio` as in `enhance`."""
        reflectance, illumination = self.decom(picture)
        ratio = self._ratio(illumination_ratio, illumination).view(-1, 1, 1, 1)
        lit = self.restoration(reflectance, illumination) * self.adjust(illumination, ratio)
        return self.fuse(picture, reflectance, illumination, lit)

    def fuse(self, picture: Tensor, reflectance: Tensor, illumination: Tensor, lit: Tensor) -> Tensor:
        """The result from the maps of a prepared picture and `lit`, its restored reflectance under its new light."""
        if self.fusion == "pairs":
            return lit
        with torch.autocast(lit.device.type, enabled=False):
            return blend(picture, reflectance, illumination, lit)

    def global_context(self, low: Tensor, **knobs: Any) -> dict[str, Any]:
        """See `LowLightModel.global_context`: the limits and, where none is given, the ratio."""
        limits = extremes(low)
        if "illumination_ratio" in knobs:
            return {"limits": limits}
        device = next(self.parameters()).device
        light = [
            self.decom(self.prepare(rows.to(device), limits))[1].double().sum()
            for rows in low.split(CONTEXT_ROWS, dim=-2)
        ]
        mean = torch.stack(light).sum().view(1, 1, 1, 1) / (low.shape[-2] * low.shape[-1])
        return {"limits": limits, "illumination_ratio": self.automatic_ratio(mean)}

    def enhance(
        self,
        low: Tensor,
        *,
        noise: Tensor | None = None,
        steps: int | None = None,
        illumination_ratio: float | Tensor | None = None,
        limits: Tensor | None = None,
    ) -> Tensor:
        """See `LowLightModel.enhance`; neither noise nor steps play a part.

        Args:
            low: B×3×H×W in [0, 1].
            noise: not used.
            steps: not used.
            illumination_ratio: α, target over source illumination, one number or one a picture [B], at least 0. Above 1
                brightens, below 1 darkens; it saturates. None chooses it from each picture's own light.
            limits: as in `prepare`; for parts of a picture, which need the whole picture's `illumination_ratio` too.
        """
        return self.render(self.prepare(low, limits), illumination_ratio).clamp(0.0, 1.0)

    def decompose(self, low: Tensor) -> Retinex:
        """Reflectance and illumination, float32; their product is the prepared picture (see `prepare`)."""
        return Retinex(*self.decom(self.prepare(low)))

    def losses(self, batch: dict[str, Tensor], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The terms of all three networks, which the paper trains one after another, each on its own.

        The maps are detached before the two later networks see them, so each term moves its own network only.

        Args:
            batch: `low` and `high`, B×3×H×W in [0, 1] of the same scenes, at least 11×11. Optional: `brighten`
                (bool [B]), which way the illumination is adjusted; else one or the other by chance.
            generator: source of that chance.

        Returns:
            Terms as `network/term`, weighted, and `total`.
        """
        low, high = self.prepare(batch["low"]), self.prepare(batch["high"])
        (r_low, l_low), (r_high, l_high) = self.decom(low), self.decom(high)
        brighten = batch.get("brighten")
        if brighten is None:
            device = low.device if generator is None else generator.device
            brighten = (torch.rand(len(low), generator=generator, device=device) < 0.5).to(low.device)
        source, target, ratio = adjustment_pairs(l_low.detach(), l_high.detach(), brighten)
        restored = self.restoration(r_low.detach(), l_low.detach())
        adjusted = self.adjust(source, ratio.view(-1, 1, 1, 1))
        wanted = (self.released.white * r_high.detach()) ** CONTRAST
        networks = {
            "decomposition": decomposition_losses(
                (low, high), (r_low, r_high), (l_low, l_high), self.released.reflectance
            ),
            "adjustment": adjustment_losses(adjusted, target, signed=self.released.signed),
            "restoration": restoration_losses(restored, wanted, gradient=self.released.gradient),
        }
        terms = {f"{network}/{name}": term for network, part in networks.items() for name, term in part.items()}
        return terms | {"total": torch.stack(list(terms.values())).sum()}

    def _ratio(self, illumination_ratio: float | Tensor | None, illumination: Tensor) -> Tensor:
        if illumination_ratio is None:
            return self.automatic_ratio(illumination)
        ratio = torch.as_tensor(illumination_ratio, dtype=torch.float32, device=illumination.device)
        if not bool((torch.isfinite(ratio) & (ratio >= 0.0)).all()):
            raise ValueError(f"illumination_ratio: expected a number of at least 0, found {illumination_ratio}")
        return ratio
