"""LLDiffusion: diffusion guided by learned degradation features (Wang et al., arXiv 2307.14659)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lumen_cli.diffusion import Denoiser, LinearSchedule, Prediction, Sampler, add_noise, normal, sample
from lumen_cli.networks import at_least, check_fade, faded, gain_to, tone_map
from lumen_cli.networks.base import LowLightModel, pad_to_multiple, pad_to_size, padded_size
from lumen_cli.networks.lldiffusion.blocks import LEVELS, REACH, DegradationEncoder, FeatureUNet, Joining
from lumen_cli.networks.unet import ATTENTION_LEVEL

SMALLEST = 2 * REACH
"""The encoder's last maps need two rows and columns."""


@dataclass(frozen=True)
class Condition:
    """What the denoiser knows about a dark picture, the same at every step."""

    maps: Tensor
    """B×6×H×W, the picture and its colour map, both in [-1, 1]."""
    features: Sequence[Tensor]
    """See `DegradationEncoder`."""
    base: Tensor | None = None
    """Where set: the picture B×3×H×W in [-1, 1] that the denoiser's clean one is a correction of."""


class LLDiffusion(LowLightModel):
    """Diffusion of the bright picture, conditioned on the dark one, its colour map and its degradation features.

    Defaults are the published network for LOL. The one for LOL-v2 has unet_channels=128, blocks=4,
    degradation_channels=128, features=6, fusion="cat", image_weight=1.

    Args:
        unet_channels, unet_multipliers, blocks: width, six levels and residual blocks per level of the noise estimator.
        encoder_channels: width of the degradation encoder after its first layer.
        feature_channels: widths of the degradation features, finest first; features: how many are used, coarsest
            first.
        fusion: how features join the U-Nets, "cat" or "cattn" (with channel attention, up to five features).
        degradation_network: whether the network that darkens the bright picture again exists; only training needs it.
            degradation_channels: its width.
        image_weight, perceptual_weight: of the training terms (released: 0.1 or 1, and 0).
        steps: default sampling steps.
        schedule: keyword arguments of `LinearSchedule` (published: 1e-4 to 0.02 over 1000).
        prediction: what the noise estimator returns; "epsilon" in the papers' checkpoints.
        clip: bound on the clean picture, in [-1, 1], at every step; None in the paper.
        sampling: "whole" shows the network the whole picture (the paper's validation), "patches" averages estimates
            over overlapping patches (its test, about 13 times slower). The two give different pictures.
        patch_size, stride: of patches, pixels; the size a multiple of 32 from 64 up.
        patch_batch: patches per run, 60 MB each; it changes the result by rounding only.
        attention_level: level of the U-Nets whose blocks are followed by attention, 0 the finest (published: 2, a
            quarter of the size, where attention is half of the work).
        exposure: mean light to which a gain and a tone curve bring the picture. The denoiser sees that picture instead
            of the dark one and corrects it, so it need not learn colours; needs prediction "x0" and whole pictures.
            None as in the paper.
        temperature: of the noise that sampling starts from, see `Sampler`; 1 in the paper.
        fade_above: brightness above which the correction fades, see `fade`; needs `exposure`. None: nowhere.
        fade_colour_above: the same for colour alone, see `faded`.
    """

    size_multiple = 16
    training_only = ("deg_unet.",)
    costly = ("encoder", "deg_unet", "diff_unet")

    def __init__(
        self,
        unet_channels: int = 64,
        unet_multipliers: Sequence[int] = (1, 1, 2, 2, 4, 4),
        blocks: int = 2,
        encoder_channels: int = 16,
        feature_channels: Sequence[int] = (128, 128, 256, 256, 512, 512),
        features: int = 3,
        fusion: Joining = "cattn",
        degradation_network: bool = True,
        degradation_channels: int = 32,
        image_weight: float = 0.1,
        perceptual_weight: float = 0.0,
        steps: int = 25,
        schedule: dict[str, Any] | None = None,
        prediction: Prediction = "epsilon",
        clip: float | None = None,
        sampling: Literal["whole", "patches"] = "whole",
        patch_size: int = 128,
        stride: int = 16,
        patch_batch: int = 8,
        attention_level: int = ATTENTION_LEVEL,
        exposure: float | None = None,
        temperature: float = 1.0,
        fade_above: float | None = None,
        fade_colour_above: float | None = None,
    ) -> None:
        super().__init__()
        most = min(LEVELS if fusion == "cat" else LEVELS - 1, len(feature_channels))
        if fusion not in ("cat", "cattn") or sampling not in ("whole", "patches"):
            raise ValueError(f'fusion is "cat" or "cattn", sampling "whole" or "patches", not {fusion!r}, {sampling!r}')
        if not 1 <= features <= most:
            raise ValueError(f"features must lie in 1 … {most} here, not {features}")
        if patch_size < SMALLEST or patch_size % REACH or not 1 <= stride <= patch_size or patch_batch < 1:
            raise ValueError(
                f"patch_size must be a multiple of {REACH} from {SMALLEST} up, stride 1 … patch_size, patch_batch from "
                f"1 up, not {patch_size}, {stride}, {patch_batch}"
            )
        if exposure is not None and (prediction != "x0" or sampling != "whole" or not 0.0 < exposure < 1.0):
            raise ValueError(
                f'exposure must lie in (0, 1) and needs prediction "x0" and sampling "whole", not {exposure}, '
                f"{prediction!r}, {sampling!r}"
            )
        widths = list(reversed(feature_channels))[:features]
        self.encoder = DegradationEncoder(encoder_channels, widths)
        if degradation_network:
            self.deg_unet = FeatureUNet(
                degradation_channels, unet_multipliers, blocks, 3, widths, fusion, attention_level, time=False
            )
        self.diff_unet = FeatureUNet(
            unet_channels, unet_multipliers, blocks, 9, widths, fusion, attention_level, time=True
        )
        self.image_weight, self.perceptual_weight = image_weight, perceptual_weight
        self.steps = steps
        self.schedule = LinearSchedule(**(schedule or {}))
        self.sampler = Sampler(prediction=prediction, clip=clip, temperature=temperature)
        self.sampling = sampling
        check_fade(exposure, fade_above=fade_above, fade_colour_above=fade_colour_above)
        self.exposure, self.fade_above, self.fade_colour_above = exposure, fade_above, fade_colour_above
        self.patch_size, self.stride, self.patch_batch = patch_size, stride, patch_batch

    def canvas_size(self, height: int, width: int) -> tuple[int, int]:
        """The size of the padded picture.

        First the next multiples of 16, as in the paper's data set. Then, for whole pictures, the next larger multiple
        of 32, even if a side is one already, and at least 64; for patches at least a patch.
        """
        height, width = padded_size(height, width, self.size_multiple)
        if self.sampling == "patches":
            return max(height, self.patch_size), max(width, self.patch_size)
        return at_least((height // REACH + 1) * REACH, SMALLEST), at_least((width // REACH + 1) * REACH, SMALLEST)

    def noise_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """3 × `canvas_size`."""
        return 3, *self.canvas_size(height, width)

    def canvas(self, low: Tensor) -> Tensor:
        """Picture B×3×H×W in [0, 1] → the network's domain [-1, 1], padded by reflection to `canvas_size`."""
        padded = pad_to_multiple(low, self.size_multiple)
        return 2.0 * pad_to_size(padded, *self.canvas_size(low.shape[-2], low.shape[-1])) - 1.0

    def condition(self, low: Tensor, gain: Tensor | None = None) -> Condition:
        """Dark picture B×3×H×W in [-1, 1], sides multiples of 32 from 64 up → what the denoiser sees.

        `gain`, B×1×1×1, replaces the one that brings the picture to `exposure`.
        """
        return self._condition(low, self.encoder(low)[0], gain)

    def _condition(self, low: Tensor, features: Sequence[Tensor], gain: Tensor | None = None) -> Condition:
        base, shown = None, low
        if self.exposure is not None:
            unit = (low + 1.0) / 2.0
            base = shown = 2.0 * tone_map(unit, gain_to(unit, self.exposure) if gain is None else gain) - 1.0
        return Condition(torch.cat([shown, colour_map(low)], dim=1), features, base)

    def estimate(self, x: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        """Run the noise estimator: x_t B×3×H×W and timesteps [B] or [1] → B×3×H×W."""
        shown = torch.cat([x, condition.maps], dim=1)
        if not torch.is_grad_enabled():
            shown = shown.contiguous(memory_format=torch.channels_last)
        estimated: Tensor = self.diff_unet(shown, condition.features, timesteps)
        if condition.base is None:
            return estimated
        brightened = (condition.base + 1.0) / 2.0
        return condition.base + faded(estimated.float(), brightened, self.fade_above, self.fade_colour_above)

    def denoiser(self, low: Tensor, gain: Tensor | None = None) -> Denoiser:
        """The denoiser of `sample` for dark pictures on their canvas, by whole pictures or by patches."""
        if self.sampling == "whole":
            condition = self.condition(low, gain)
            return lambda x, t: self.estimate(x, t, condition)
        return over_patches(
            low,
            torch.cat([low, colour_map(low)], dim=1),
            lambda patches: self.encoder(patches)[0],
            lambda x, t, maps, features: self.estimate(x, t, Condition(maps, features)),
            patch=self.patch_size,
            stride=self.stride,
            batch=self.patch_batch,
        )

    def predict(self, low: Tensor, noise: Tensor, steps: int | None = None, gain: Tensor | None = None) -> Tensor:
        """Sample the bright picture for a dark one; both and the noise on their canvas, B×3×H×W.

        The result of a trained network lies about in [-1, 1].
        """
        count = self.steps if steps is None else steps
        return sample(self.denoiser(low, gain), noise, self.schedule, count, self.sampler)

    @property
    def tiles(self) -> bool:
        """See `LowLightModel`; patches have their own statistics, which tiles do not share."""
        return self.sampling == "whole"

    @property
    def obstacle_to_export(self) -> str:
        """See `LowLightModel`."""
        return "" if self.sampling == "whole" else "it samples by patches, whose number depends on the size"

    def global_context(self, low: Tensor, **options: Any) -> dict[str, Any]:
        """See `LowLightModel`: the gain."""
        return {} if self.exposure is None else {"gain": gain_to((self.canvas(low) + 1.0) / 2.0, self.exposure)}

    def enhance(
        self, low: Tensor, *, noise: Tensor | None = None, steps: int | None = None, gain: Tensor | None = None
    ) -> Tensor:
        """See `LowLightModel`; `gain` as in `condition`. The encoder runs once, whatever the number of steps."""
        if noise is None:
            raise ValueError("LLDiffusion starts from noise: pass a tensor of shape noise_shape(H, W)")
        height, width = low.shape[-2:]
        gain = None if gain is None else gain.to(low.device)
        bright = self.predict(self.canvas(low), noise, steps, gain)[..., :height, :width]
        return ((bright + 1.0) / 2.0).clamp(0.0, 1.0)

    def losses(self, batch: dict[str, Tensor], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The paper's terms: the error of the noise estimate, and that of the picture that was darkened again.

        Args:
            batch: `low` and `high`, B×3×H×W in [0, 1], of one scene, sides multiples of 32 from 64 up. Optional, for
                repeatable runs: `timesteps` [B] and `noise` B×3×H×W. `degradation` (bool tensor, default true):
                whether this step trains the degradation network; late in training the papers' code stops that and
                freezes the encoder.
            generator: source of what the batch does not contain.

        Returns:
            `noise`, `image` (L1, weighted), `perceptual` (weighted, unless its weight is 0) and `total`.
        """
        low, high = 2.0 * batch["low"] - 1.0, 2.0 * batch["high"] - 1.0
        noise = batch["noise"] if "noise" in batch else normal(high.shape, high, generator)
        at = add_noise(high, noise, self.schedule, self.sampler.prediction, batch.get("timesteps"), generator)
        features, latents = self.encoder(low)
        output = self.estimate(at.noisy, at.timesteps, self._condition(low, features))
        terms = {"noise": F.mse_loss(output.float(), at.target)}
        if hasattr(self, "deg_unet") and bool(batch.get("degradation", torch.tensor(True))):
            darkened = self.deg_unet(high, features).float()
            picture = ((darkened + 1.0) / 2.0).clamp(0.0, 1.0)
            terms["image"] = self.image_weight * F.l1_loss(picture, batch["low"])
            if self.perceptual_weight:
                pairs = zip(latents, self.encoder.encoder(darkened)[1], strict=True)
                distances = torch.stack([F.l1_loss(ours.float(), wanted.float()) for wanted, ours in pairs])
                terms["perceptual"] = self.perceptual_weight * distances.mean()
        return terms | {"total": torch.stack(list(terms.values())).sum()}


def colour_map(low: Tensor) -> Tensor:
    """Each channel's share of a pixel's sum: dark picture B×3×H×W in [-1, 1] → the same; black pixels give -1."""
    y = (low + 1.0) / 2.0
    return 2.0 * (y / (y.sum(dim=1, keepdim=True) + 1e-4)).clamp(0.0, 1.0) - 1.0


Place = tuple[int, int, int]
"""A patch: number of the picture in the batch, top row, left column."""

Estimate = Callable[[Tensor, Tensor, Tensor, Sequence[Tensor]], Tensor]
Encode = Callable[[Tensor], Sequence[Tensor]]

FEATURE_BYTES = 1 << 30
"""Limit for features kept from one step to the next; those of further patches are computed again."""


def starts(side: int, patch: int, stride: int) -> list[int]:
    """The starts of patches along a side of at least `patch`: every `stride`, plus one if the end is not covered."""
    regular = list(range(0, side - patch + 1, stride))
    return regular if regular[-1] == side - patch else [*regular, side - patch]


def places(shape: torch.Size, patch: int, stride: int) -> list[Place]:
    """All patches of maps B×C×H×W, picture by picture, row by row."""
    rows, columns = starts(shape[-2], patch, stride), starts(shape[-1], patch, stride)
    return [(picture, row, column) for picture in range(shape[0]) for row in rows for column in columns]


def cut(x: Tensor, group: Sequence[Place], patch: int) -> Tensor:
    """The patches of B×C×H×W as a batch n×C×patch×patch."""
    return torch.stack([x[b, :, row : row + patch, column : column + patch] for b, row, column in group])


def over_patches(
    low: Tensor, maps: Tensor, encode: Encode, estimate: Estimate, patch: int, stride: int, batch: int
) -> Denoiser:
    """A denoiser of whole maps that averages the network's estimates for their patches.

    Args:
        low: dark pictures B×3×H×W as `encode` takes them, both sides at least `patch`.
        maps: what the network sees besides the noisy map, B×M×H×W.
        encode: n×3×p×p → features of these patches; called once for each patch, memory permitting.
        estimate: (noisy n×3×p×p, timesteps [n], maps n×M×p×p, features) → n×3×p×p.
        patch: side of a patch, pixels.
        stride: distance from one patch to the next, pixels.
        batch: patches per run. It changes the result by rounding only.
    """
    everything = places(low.shape, patch, stride)
    groups = [everything[i : i + batch] for i in range(0, len(everything), batch)]
    count = torch.zeros_like(low[:1, :1])
    for _, row, column in places(low[:1].shape, patch, stride):
        count[..., row : row + patch, column : column + patch] += 1.0
    kept: dict[int, Sequence[Tensor]] = {}
    spent = 0

    def features_of(number: int, group: Sequence[Place]) -> Sequence[Tensor]:
        nonlocal spent
        if number in kept:
            return kept[number]
        features = encode(cut(low, group, patch))
        size = sum(feature.nbytes for feature in features)
        if spent + size <= FEATURE_BYTES:
            spent += size
            kept[number] = features
        return features

    def denoise(x: Tensor, timesteps: Tensor) -> Tensor:
        total = torch.zeros_like(x)
        for number, group in enumerate(groups):
            own = timesteps[[b for b, _, _ in group]]
            estimates = estimate(cut(x, group, patch), own, cut(maps, group, patch), features_of(number, group))
            for (b, row, column), patch_estimate in zip(group, estimates, strict=True):
                total[b, :, row : row + patch, column : column + patch] += patch_estimate
        return total / count

    return denoise
