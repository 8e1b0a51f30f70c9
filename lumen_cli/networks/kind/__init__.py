"""KinD: "Kindling the Darkness", a practical low-light image enhancer (Zhang et al., ACM MM 2019, arXiv 1905.04161).

Where paper and release differ, the training terms follow the release: means for sums, absolute differences for the
reflectances, gradients that are normalised over the whole batch.

KinD++, "Beyond Brightening Low-light Images" (Zhang et al., IJCV 2021), is KinD with another restoration network, which
works at full resolution and needs about thirty times the operations of KinD's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumen_cli.networks import similarity, widened
from lumen_cli.networks.base import LowLightModel, Retinex, pad_to_multiple
from lumen_cli.networks.kind.blocks import (
    FUSIONS,
    LEAST_RANGE,
    AdjustmentNet,
    DecompositionNet,
    Fusion,
    MultiScaleRestorationNet,
    RestorationNet,
    blend,
    extremes,
    stretch,
)

ROWS_AT_ONCE = 512
GREY = (0.2989, 0.5870, 0.1140)
CONTRAST = 1.2
MULTIPLE = 4
"""Of the sides that KinD++'s restoration network takes."""


@dataclass(frozen=True)
class Released:
    """The differences between the training losses of the two releases."""

    reflectance: float = 0.01
    """Weight of equal reflectances."""
    signed: bool = False
    """Whether gradients of the adjustment keep their sign."""
    gradient: bool = True
    """Whether the restoration has a gradient term."""
    white: float = 1.0
    """Factor on the reflectance to restore, before it is raised to 1.2."""


class KinD(LowLightModel):
    """Decomposes the picture, restores its reflectance, changes its illumination by a ratio and multiplies both.

    Args:
        decomposition_channels, adjustment_channels: widths of the two small networks (published: 32 both).
        restoration_channels, restoration_multipliers: the U-Net's (published: 32; 1, 2, 4, 8, 16).
        fusion: "arbitrary" mixes the picture in where it is bright already (rule A, the release's script for
            arbitrary pictures); "pairs" is the product alone (rule B, its script for the pairs of LOL).
        stretch: spread each picture's values over [0, 1] first, as the release's loader does.
        target_light: mean illumination that the automatic ratio aims at.
        ratio_limits: bounds of the automatic ratio. The lower one, 1, does not darken bright pictures; the upper one is
            the release's ratio for every picture.
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
        """The picture as the networks see it: B×3×H×W in [0, 1] → the same in float32, stretched if the model does so.

        A picture whose values span less than 0.001, such as one of a single colour, is not changed; the release makes
        it black.

        Args:
            low: the picture, or a part of one.
            limits: B×2, the least and the greatest value of the whole picture if `low` is a part of it.
        """
        low = low.float()
        if not self.stretch:
            return low
        limits = extremes(low) if limits is None else limits.to(low)
        flat = (limits[:, 1] - limits[:, 0] < LEAST_RANGE).view(-1, 1, 1, 1)
        return torch.where(flat, low, stretch(low, limits))

    def automatic_ratio(self, illumination: Tensor) -> Tensor:
        """The ratio that brings the mean of an illumination B×1×H×W to `target_light`, within `ratio_limits`; [B]."""
        mean = widened(illumination).mean(dim=(1, 2, 3))  # the same for any number of threads
        return (self.target_light / mean.clamp_min(1e-6)).clamp(*self.ratio_limits).float()

    def render(self, picture: Tensor, illumination_ratio: float | Tensor | None = None) -> Tensor:
        """A prepared picture B×3×H×W → the brightened one, not clamped; `illumination_ratio` as in `enhance`."""
        reflectance, illumination = self.decom(picture)
        ratio = self._ratio(illumination_ratio, illumination).view(-1, 1, 1, 1)
        lit = self.restoration(reflectance, illumination) * self.adjust(illumination, ratio)
        return self.fuse(picture, reflectance, illumination, lit)

    def fuse(self, picture: Tensor, reflectance: Tensor, illumination: Tensor, lit: Tensor) -> Tensor:
        """The result from the maps of a prepared picture and `lit`, its restored reflectance in the new light."""
        if self.fusion == "pairs":
            return lit
        with torch.autocast(lit.device.type, enabled=False):
            return blend(picture, reflectance, illumination, lit)

    def global_context(self, low: Tensor, **options: Any) -> dict[str, Any]:
        """See `LowLightModel`: the limits and, unless it is given, the ratio."""
        limits = extremes(low)
        if "illumination_ratio" in options:
            return {"limits": limits}
        device = next(self.parameters()).device
        light = [
            widened(self.decom(self.prepare(rows.to(device), limits))[1]).sum()
            for rows in low.split(ROWS_AT_ONCE, dim=-2)
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
        """See `LowLightModel`; noise and steps are ignored.

        Args:
            low: B×3×H×W in [0, 1].
            noise: ignored.
            steps: ignored.
            illumination_ratio: α, target over source illumination, one number or one per picture [B], at least 0. Above
                1 brightens, below 1 darkens; it saturates. None chooses it from each picture's own light.
            limits: as in `prepare`, for parts of a picture. They need the whole picture's `illumination_ratio` too.
        """
        return self.render(self.prepare(low, limits), illumination_ratio).clamp(0.0, 1.0)

    def decompose(self, low: Tensor) -> Retinex:
        """Reflectance and illumination, float32; their product is the prepared picture (see `prepare`)."""
        return Retinex(*self.decom(self.prepare(low)))

    def losses(self, batch: dict[str, Tensor], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The terms of all three networks, which the paper trains one after another.

        The two later networks see detached maps, so each term trains its own network only.

        Args:
            batch: `low` and `high`, B×3×H×W in [0, 1] of the same scenes, at least 11×11. Optional: `brighten`
                (bool [B]), the direction in which the illumination is adjusted, random by default.
            generator: source of the random directions.

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


class KinDPlus(KinD):
    """KinD with the multi-scale restoration network.

    Args:
        decomposition_channels, restoration_channels, adjustment_channels: widths (published: 32 all).
        fusion, stretch, target_light, ratio_limits: as in `KinD`.
        adjustment: whether the light is adjusted without a given ratio. The release does not adjust it: rule A then
            mixes the picture with the restored reflectance alone.
    """

    released = Released(reflectance=0.009, signed=True, gradient=False, white=0.99)

    def __init__(
        self,
        decomposition_channels: int = 32,
        restoration_channels: int = 32,
        adjustment_channels: int = 32,
        fusion: Fusion = "arbitrary",
        stretch: bool = True,
        target_light: float = 0.5,
        ratio_limits: tuple[float, float] = (1.0, 5.0),
        adjustment: bool = False,
    ) -> None:
        super().__init__(
            decomposition_channels=decomposition_channels,
            restoration_channels=1,
            adjustment_channels=adjustment_channels,
            fusion=fusion,
            stretch=stretch,
            target_light=target_light,
            ratio_limits=ratio_limits,
        )
        self.restoration = MultiScaleRestorationNet(restoration_channels)
        self.adjustment = adjustment or fusion == "pairs"
        self.size_multiple = MULTIPLE

    def global_context(self, low: Tensor, **options: Any) -> dict[str, Any]:
        """See `KinD`; without adjustment no ratio is chosen."""
        if "illumination_ratio" in options or self.adjustment:
            return super().global_context(low, **options)
        return {"limits": extremes(low)}

    def render(self, picture: Tensor, illumination_ratio: float | Tensor | None = None) -> Tensor:
        """See `KinD`. The networks see sizes padded to a multiple of 4; the release crops them."""
        height, width = picture.shape[-2:]
        picture = pad_to_multiple(picture, MULTIPLE)
        if illumination_ratio is not None or self.adjustment:
            return super().render(picture, illumination_ratio)[..., :height, :width]
        reflectance, illumination = self.decom(picture)
        restored = self.restoration(reflectance, illumination)
        return self.fuse(picture, reflectance, illumination, restored)[..., :height, :width]


def luminance(picture: Tensor) -> Tensor:
    """B×3×H×W → B×1×H×W, by the weights of the losses (the fusion has others)."""
    weights = torch.tensor(GREY, dtype=picture.dtype, device=picture.device).view(1, 3, 1, 1)
    return (picture * weights).sum(dim=1, keepdim=True)


def normalised_gradients(x: Tensor, *, signed: bool = False) -> tuple[Tensor, Tensor]:
    """Horizontal and vertical differences of B×1×H×W, each scaled to [0, 1] by the batch's least and greatest.

    As released: the maps are padded with zeros below and to the right; the horizontal difference is that of the row
    below, the vertical one that of the column to the right. The padding mostly sets the maximum. `signed` (KinD++)
    keeps the sign.
    """
    padded = F.pad(x, (0, 1, 0, 1))
    corner = padded[..., 1:, 1:]
    across, down = corner - padded[..., 1:, :-1], corner - padded[..., :-1, 1:]
    if not signed:
        across, down = across.abs(), down.abs()
    return _normalise(across), _normalise(down)


def _normalise(x: Tensor) -> Tensor:
    least, greatest = x.amin(), x.amax()
    return (x - least) / (greatest - least + 1e-4)


def mutual_consistency(low: Tensor, high: Tensor) -> Tensor:
    """Edges of two illuminations B×1×H×W are strong in both or in none: mean of Σ s · exp(-10 s), s = ∇low + ∇high."""
    loss = low.new_zeros(())
    for dark, bright in zip(normalised_gradients(low), normalised_gradients(high), strict=True):
        both = dark + bright
        loss = loss + (both * torch.exp(-10.0 * both)).mean()
    return loss


def guided_smoothness(illumination: Tensor, picture: Tensor) -> Tensor:
    """Edges of an illumination B×1×H×W where the picture B×3×H×W has none: mean of Σ ∇L / max(∇I, 0.01)."""
    loss = illumination.new_zeros(())
    guides = normalised_gradients(luminance(picture))
    for change, edge in zip(normalised_gradients(illumination), guides, strict=True):
        loss = loss + (change / edge.clamp_min(0.01)).mean()
    return loss


def gradient_fidelity(output: Tensor, target: Tensor, *, signed: bool = False) -> Tensor:
    """Mean of the squared differences of normalised gradients, summed over both directions; B×1×H×W each."""
    pairs = zip(normalised_gradients(output, signed=signed), normalised_gradients(target, signed=signed), strict=True)
    return torch.stack([F.mse_loss(ours, theirs) for ours, theirs in pairs]).sum()


def decomposition_losses(
    pictures: tuple[Tensor, Tensor],
    reflectances: tuple[Tensor, Tensor],
    illuminations: tuple[Tensor, Tensor],
    reflectance_weight: float = 0.01,
) -> dict[str, Tensor]:
    """Weighted terms of section 3.1 for (dark, bright) pairs of maps. KinD++ weights equal reflectances by 0.009."""
    (low, high), (r_low, r_high), (l_low, l_high) = pictures, reflectances, illuminations
    return {
        "reconstruction_low": F.l1_loss(r_low * l_low, low),
        "reconstruction_high": F.l1_loss(r_high * l_high, high),
        "reflectance": reflectance_weight * F.l1_loss(r_low, r_high),
        "mutual": 0.2 * mutual_consistency(l_low, l_high),
        "smooth_low": 0.15 * guided_smoothness(l_low, low),
        "smooth_high": 0.15 * guided_smoothness(l_high, high),
    }


def adjustment_losses(adjusted: Tensor, target: Tensor, *, signed: bool = False) -> dict[str, Tensor]:
    """Terms of section 3.3 for illuminations B×1×H×W; `signed` for KinD++."""
    return {
        "square": F.mse_loss(adjusted, target),
        "gradient": gradient_fidelity(adjusted, target, signed=signed),
    }


def restoration_losses(restored: Tensor, target: Tensor, *, gradient: bool = True) -> dict[str, Tensor]:
    """Terms of section 3.2 for reflectances B×3×H×W, at least 11×11; KinD++ has no gradient term."""
    terms = {"square": F.mse_loss(restored, target), "structure": 1.0 - similarity(restored, target)}
    if gradient:
        terms["gradient"] = gradient_fidelity(luminance(restored), luminance(target))
    return terms


def adjustment_pairs(low: Tensor, high: Tensor, brighten: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Source, target and ratio [B] of illuminations B×1×H×W: dark to bright where `brighten` (bool [B]), else back.

    As released, the ratio is mean(low / (high + 1e-4)) on the way down and one over that, plus 1e-4, on the way up.
    """
    down = (low / (high + 1e-4)).mean(dim=(1, 2, 3))
    ratio = torch.where(brighten, 1.0 / down + 1e-4, down)
    choose = brighten.view(-1, 1, 1, 1)
    return torch.where(choose, low, high), torch.where(choose, high, low), ratio
