"""AnlightenDiff: diffusion of the residual around a predicted centre (Chan et al., IEEE TIP 2024, 3486610).

The forward process runs around that centre; 2z - 1 maps [0, 1] to [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumen_cli.diffusion import (
    CosineSchedule,
    Prediction,
    Sampler,
    Schedule,
    antithetic_timesteps,
    fresh_noise,
    normal,
    sample,
    split_prediction,
    target_of,
)
from lumen_cli.networks import at_least, is_exporting
from lumen_cli.networks.anlightendiff.unet import FramedLayers, Rest, ScheduleTables, UNet
from lumen_cli.networks.base import LowLightModel, pad_to_multiple, pad_to_size, padded_size

ImageLoss = Callable[[Tensor, Tensor], Tensor]
"""(prediction, target), both B×3×H×W in [0, 1] → a scalar, as LPIPS."""


def to_residual(high: Tensor, low: Tensor) -> Tensor:
    """What the diffusion models: 2 (high - low) - 1, in [-3, 1], not clamped. All B×3×H×W."""
    return 2.0 * (high - low) - 1.0


def to_picture(residual: Tensor, low: Tensor) -> Tensor:
    """Residual → picture in [0, 1]. The change of `low` is clamped to [0, 1]: no pixel becomes darker."""
    return (low + (residual.clamp(-1.0, 1.0) + 1.0) / 2.0).clamp(0.0, 1.0)


@dataclass(frozen=True)
class Diffused:
    """A batch at its timesteps (the paper's DRDA): x_t = signal · x_0 + spread · ε*; tensors B×3×H×W."""

    clean: Tensor
    """x_0."""
    shifted: Tensor
    """ε* = ε + shift, the noise that the network should return."""
    shift: Tensor
    """(1 - signal) / spread · m' for the centre m' in [-1, 1]."""
    noisy: Tensor
    """x_t."""
    signal: Tensor
    """sqrt(ᾱ_t), B×1×1×1."""
    spread: Tensor
    """sqrt(1 - ᾱ_t), B×1×1×1."""

    def picture(self, shifted: Tensor, low: Tensor) -> Tensor:
        """The picture of a returned noise, as DFPL compares it: x_t rebuilt with that noise, not x_0.

        As in the papers' code, the centre's shift is added a second time, although `shifted` contains it. It decides
        which pixels `to_picture` clamps, and so which ones get a gradient.
        """
        return to_picture(self.signal * self.clean + self.spread * (shifted + self.shift), low)


def diffuse(clean: Tensor, center: Tensor, noise: Tensor, timesteps: Tensor, schedule: Schedule) -> Diffused:
    """Add noise around a centre.

    Args:
        clean: x_0, B×3×H×W.
        center: m of the same shape, around [0, 1]; not clamped.
        noise: ε of the same shape, standard normal.
        timesteps: integers [B].
        schedule: the forward process.
    """
    signal, spread = schedule.coefficients(timesteps, clean)
    # (1 - signal) / spread without the difference of two numbers that are nearly equal.
    shift = spread / (1.0 + signal) * (2.0 * center - 1.0)
    shifted = noise + shift
    return Diffused(clean, shifted, shift, signal * clean + spread * shifted, signal, spread)


def bright_center(generator: torch.Generator | None) -> bool:
    """The coin toss of the paper's training: whether the bright picture is this batch's centre, not the encoder's."""
    device = None if generator is None else generator.device
    return bool(torch.rand((), generator=generator, device=device) < 0.5)


CHANNELS = 12
LEVELS = 256
ROWS = 512


def features(picture: Tensor, table: Tensor | None = None) -> Tensor:
    """Picture B×3×H×W in [0, 1] → B×12×H×W in [0, 1], float32: picture, equalised picture, colours, their gradient.

    `table`: the `equalisation` of the picture that this one is a part of.
    """
    with torch.autocast(picture.device.type, enabled=False):
        picture = picture.float()
        colours = color_map(picture)
        return torch.cat([picture, equalise(picture, table), colours, gradient_map(colours)], dim=1)


def equalise(picture: Tensor, table: Tensor | None = None) -> Tensor:
    """Histogram equalisation of every picture and channel on its own, in 256 levels: B×C×H×W in [0, 1] → the same.

    The algorithm of Pillow and torchvision: a level becomes (levels below it + step/2) / step, all integers, with
    step = 1/255 of the pixels that are not of the brightest level; a channel whose step is 0 keeps its levels.
    Deeper pictures are rounded down to 256 levels; the levels of 8-bit pictures need float32.
    `table`: the `equalisation` of the picture that this one is a part of; None for its own.
    """
    table = equalisation(picture) if table is None else table.to(picture.device)
    return table.gather(1, _levels(picture)).view(picture.shape).to(picture.dtype) / (LEVELS - 1)


def equalisation(picture: Tensor) -> Tensor:
    """Pictures B×C×H×W in [0, 1] → the new level of each of 256 levels, BC×256, integers."""
    histogram = _histogram(picture)
    order = torch.arange(LEVELS, device=picture.device)
    brightest = histogram.gather(1, torch.where(histogram > 0, order, 0).amax(dim=1, keepdim=True))
    step = (picture.shape[-2] * picture.shape[-1] - brightest) // (LEVELS - 1)
    below = histogram.cumsum(dim=1) - histogram
    table = ((below + step // 2) // step.clamp(min=1)).clamp_(0, LEVELS - 1)
    return torch.where(step > 0, table, order)


def _histogram(picture: Tensor) -> Tensor:
    """B×C×H×W in [0, 1] → how often each level occurs, BC×256, integers."""
    count = picture.shape[0] * picture.shape[1]
    if is_exporting():  # there is no `bincount` in ONNX
        levels = _levels(picture)
        return torch.zeros(count, LEVELS, dtype=torch.long).scatter_add(1, levels, torch.ones_like(levels))
    total = torch.zeros(count * LEVELS, dtype=torch.long, device=picture.device)
    for rows in picture.split(ROWS, dim=-2):  # int64 levels of a large picture would take too much memory
        levels = _levels(rows)
        planes = torch.arange(len(levels), device=picture.device)[:, None]
        total = total + torch.bincount((levels + planes * LEVELS).flatten(), minlength=LEVELS * len(levels))
    return total.view(-1, LEVELS)


def _levels(picture: Tensor) -> Tensor:
    """B×C×H×W in [0, 1] → BC×HW in 0 … 255."""
    return (picture * (LEVELS - 1)).long().clamp_(0, LEVELS - 1).reshape(-1, picture.shape[-2] * picture.shape[-1])


def color_map(picture: Tensor) -> Tensor:
    """Each channel's share of the pixel's sum, B×3×H×W in [0, 1]; black pixels give 0."""
    return (picture / (picture.mean(dim=1, keepdim=True) + 1e-8) / 3.0).clamp(0.0, 1.0)


def gradient_map(picture: Tensor) -> Tensor:
    """The larger of the two absolute forward differences, per channel; 0 beyond the border. B×C×H×W."""
    down = F.pad(picture[..., 1:, :] - picture[..., :-1, :], (0, 0, 0, 1))
    right = F.pad(picture[..., 1:] - picture[..., :-1], (0, 1))
    return torch.maximum(down.abs(), right.abs())


Variant = Literal["from-scratch", "two-step"]
VARIANTS = ("from-scratch", "two-step")
EQUALISED = slice(3, 6)
"""The channels of the features that hold the equalised picture."""


class AnlightenDiff(LowLightModel):
    """Encoder → centre of the diffusion (and maps that condition it) → sampling of the change of the picture.

    Args:
        dim, multipliers: width and levels of all its networks (published: 64; 1, 2, 2, 4, 4, 8).
        variant: "from-scratch": the centre is the equalised picture plus the encoder's result, and the encoder's maps
            condition the noise estimator at every level. "two-step": the encoder predicts colours, a histogram network
            light, and the centre is a blend of both; nothing else conditions the estimator. Its release crops the
            picture to a multiple of 32; here it is padded.
        steps: default sampling steps (published: 100, all timesteps).
        schedule: keyword arguments of `CosineSchedule` (published: its defaults, 100 timesteps).
        prediction: what the noise estimator returns; "epsilon", the noise with the centre's shift, as published.
        eta: share of fresh noise per step: 1 as published; at 0 the result is deterministic.
        clip: bound on the clean residual at every step (published: 1), None for none.
        encoder_trained: whether `losses` train the encoder (and the histogram network). The release's optimiser does
            not see the encoder, which keeps its initial values: the default, False. True for new weights.
        full_resolution_skip: join the skip of full resolution. The release computes and drops it, so its finest detail
            passes through half the resolution: the default, False. True for new weights.
        from_center: the estimator corrects the centre's residual instead of predicting a whole one; needs prediction
            "x0". False as published.
    """

    size_multiple = 32
    costly = ("encoder.with_rests", "model.unet")

    def __init__(
        self,
        dim: int = 64,
        multipliers: Sequence[int] = (1, 2, 2, 4, 4, 8),
        variant: Variant = "from-scratch",
        steps: int = 100,
        schedule: dict[str, Any] | None = None,
        prediction: Prediction = "epsilon",
        eta: float = 1.0,
        clip: float | None = 1.0,
        encoder_trained: bool = False,
        full_resolution_skip: bool = False,
        from_center: bool = False,
    ) -> None:
        super().__init__()
        if variant not in VARIANTS:
            raise ValueError(f"variant must be one of {', '.join(VARIANTS)}, not {variant}")
        if dim < 4 or dim % 2:
            raise ValueError(f"dim must be even and at least 4, not {dim}")
        if len(multipliers) < 2:
            raise ValueError("AnlightenDiff needs at least two levels")
        if from_center and prediction != "x0":
            raise ValueError(f'from_center needs prediction "x0", not {prediction!r}')
        self.variant = variant
        self.steps = steps
        self.schedule = CosineSchedule(**(schedule or {}))
        self.sampler = Sampler(eta=eta, prediction=prediction, clip=clip)
        self.encoder_trained = encoder_trained
        self.from_center = from_center
        self.size_multiple = 2 ** (len(multipliers) - 1)

        def unet(channels: int, conditioned: bool = False) -> UNet:
            return UNet(channels, dim, multipliers, conditioned=conditioned, full_resolution_skip=full_resolution_skip)

        self.model = ScheduleTables(self.schedule)
        self.model.unet = unet(6, variant == "from-scratch")
        self.encoder: nn.Module = unet(CHANNELS)
        if variant == "two-step":
            self.encoder = nn.ModuleDict({"model": self.encoder})
            self.histroEncoder = nn.ModuleDict({"model": unet(6)})  # the checkpoint's spelling

    def padded(self, height: int, width: int) -> tuple[int, int]:
        """The size of the padded picture: multiples of `size_multiple`, at least two of them."""
        h, w = padded_size(height, width, self.size_multiple)
        return at_least(h, 2 * self.size_multiple), at_least(w, 2 * self.size_multiple)

    def noise_shape(self, height: int, width: int) -> tuple[int, int, int] | None:
        """3 × the padded picture's height and width; None at eta 0."""
        return None if self.sampler.eta == 0.0 else (3, *self.padded(height, width))

    def pad(self, low: Tensor) -> Tensor:
        """B×3×H×W → the picture padded by reflection at the bottom and the right."""
        # In two steps: a picture that is padded to the multiple already must give the same.
        return pad_to_size(pad_to_multiple(low, self.size_multiple), *self.padded(*low.shape[-2:]))

    def center(
        self, low: Tensor, layers: FramedLayers | None = None, *, learn: bool = True, table: Tensor | None = None
    ) -> tuple[Tensor, list[Rest] | None]:
        """Padded picture → centre of the diffusion, and what the encoder's maps contribute to the noise estimator.

        The centre is B×3×H×W, about in [0, 1]; "from-scratch" does not clamp it. learn: whether gradients reach the
        networks that predict it; they always reach the noise estimator's own layers. table: see `features`.
        """
        made = features(low, table)
        equalised = made[:, EQUALISED]
        if self.variant == "from-scratch":
            assert isinstance(self.encoder, UNet)
            predicted, rests = self.encoder.with_rests(made, self.model.unet, layers, learn=learn)
            return predicted.float() + equalised, rests
        with torch.set_grad_enabled(torch.is_grad_enabled() and learn):
            colours = torch.sigmoid(self.encoder["model"](made, layers=layers).float())  # type: ignore[index]
            seen = torch.cat([equalised, colours], dim=1)
            light = (self.histroEncoder["model"](seen, layers=layers).float() + equalised).clamp(0.0, 1.0)
            return (1.0 - light) * colours + light, None

    def predict(
        self, low: Tensor, fresh: Iterator[Tensor] | None, steps: int | None = None, table: Tensor | None = None
    ) -> Tensor:
        """Padded picture B×3×H×W → its change as a residual in [-1, 1] (the paper's DRDS).

        Args:
            low: sides as from `padded`.
            fresh: source of the noise of the steps, B×3×H×W each; None at eta 0.
            steps: sampling steps. Any number works: the process of x - m' is an ordinary one without a centre, see
                `lumen_cli.diffusion.sample`.
            table: see `features`.
        """
        layers = FramedLayers()
        center, rests = self.center(low, layers, table=table)
        return self.walk(low, center, rests, steps, fresh, layers)

    def estimate(
        self,
        x: Tensor,
        timesteps: Tensor,
        low: Tensor,
        center: Tensor,
        rests: list[Rest] | None,
        layers: FramedLayers | None = None,
    ) -> Tensor:
        """Run the noise estimator: x_t B×3×H×W and timesteps [B] → its `prediction`, B×3×H×W."""
        output: Tensor = self.model.unet(torch.cat([x, low], dim=1), timesteps, rests, layers)
        return to_residual(center, low) + output.float() if self.from_center else output

    def walk(
        self,
        low: Tensor,
        center: Tensor,
        rests: list[Rest] | None,
        steps: int | None = None,
        fresh: Iterator[Tensor] | None = None,
        layers: FramedLayers | None = None,
    ) -> Tensor:
        """Sample around a centre from `center()`, starting there; see `predict`."""
        start = 2.0 * center - 1.0

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            return self.estimate(x, t, low, center, rests, layers)

        count = self.steps if steps is None else steps
        return sample(denoise, start, self.schedule, count, self.sampler, center=start, fresh=fresh)

    @property
    def tiles(self) -> bool:
        """See `LowLightModel`; the noise of later steps is derived from the whole picture's first noise."""
        return self.sampler.eta == 0.0

    @property
    def obstacle_to_export(self) -> str:
        """See `LowLightModel`."""
        return "" if self.sampler.eta == 0.0 else "it draws fresh noise in every step (eta above 0)"

    def global_context(self, low: Tensor, **options: Any) -> dict[str, Any]:
        """See `LowLightModel`: the equalisation."""
        return {"table": equalisation(self.pad(low))}

    def enhance(
        self, low: Tensor, *, noise: Tensor | None = None, steps: int | None = None, table: Tensor | None = None
    ) -> Tensor:
        """See `LowLightModel`. `noise` is that of the first step; the noise of later steps is derived from it.

        `table`, for a part of one picture: the `equalisation` of the whole. No pixel becomes darker. A CPU runs a batch
        picture by picture.
        """
        if noise is None and self.sampler.eta > 0.0:
            raise ValueError("AnlightenDiff adds noise in every step: pass a tensor of shape noise_shape(H, W)")
        height, width = low.shape[-2:]
        padded = self.pad(low.float())
        pictures = padded.split(1) if padded.device.type == "cpu" else (padded,)
        noises = [None] * len(pictures) if noise is None else noise.split(len(pictures[0]))
        residuals = [
            self.predict(picture, None if first is None else chain([first], fresh_noise(first)), steps, table)
            for picture, first in zip(pictures, noises, strict=True)
        ]
        return to_picture(torch.cat(residuals), padded)[..., :height, :width]

    def losses(
        self,
        batch: dict[str, Tensor],
        generator: torch.Generator | None = None,
        *,
        loss: ImageLoss | Literal["l1", "l2"] = F.l1_loss,
    ) -> dict[str, Tensor]:
        """The paper's one term (DFPL): an image loss between the pictures of the returned and the right noise.

        Args:
            batch: `low` and `high`, B×3×H×W in [0, 1], of one scene; sides as from `padded`. Optional, for repeatable
                runs: `timesteps` [B], `noise` B×3×H×W, and the bool tensor `bright_center`, whether the bright picture
                is the centre instead of the encoder's (the paper: in every second batch; "two-step": never).
            generator: source of what the batch does not contain.
            loss: (prediction, target) → scalar on pictures in [0, 1]. The paper uses LPIPS with VGG16. Or, instead of
                DFPL, "l1" (smooth) or "l2" between the network's output and its target.

        Returns:
            `image`, or `noise` if `loss` is a name, and `total`.
        """
        low, high = batch["low"], batch["high"]
        center, rests = self.center(low, learn=self.encoder_trained)
        if self.variant == "from-scratch":
            coin = batch.get("bright_center")
            center = high if (bright_center(generator) if coin is None else bool(coin)) else center
        timesteps = batch.get("timesteps")
        if timesteps is None:
            timesteps = antithetic_timesteps(len(low), self.schedule.timesteps, generator).to(low.device)
        noise = batch["noise"] if "noise" in batch else normal(low.shape, low, generator)
        at = diffuse(to_residual(high, low), center, noise, timesteps, self.schedule)
        output = self.estimate(at.noisy, timesteps.float(), low, center, rests).float()
        if callable(loss):
            _, shifted = split_prediction(output, at.noisy, at.signal, at.spread, self.sampler.prediction)
            terms = {"image": loss(at.picture(shifted, low), at.picture(at.shifted, low))}
        else:
            wanted = target_of(at.clean, at.shifted, at.signal, at.spread, self.sampler.prediction)
            terms = {"noise": {"l1": F.smooth_l1_loss, "l2": F.mse_loss}[loss](output, wanted)}
        return terms | {"total": torch.stack(list(terms.values())).sum()}
