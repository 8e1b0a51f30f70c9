"""DiffLL: wavelet-domain diffusion (Jiang et al., SIGGRAPH Asia 2023, arXiv 2306.00306)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lumen_cli.diffusion.noise import normal
from lumen_cli.diffusion.sampler import Prediction, Sampler, sample, target_of
from lumen_cli.diffusion.schedule import LinearSchedule, antithetic_timesteps
from lumen_cli.networks.base import LowLightModel, pad_to_multiple, padded_size
from lumen_cli.networks.diffll.blocks import DetailRestoration, analyse, synthesise
from lumen_cli.networks.exposure import check_fade, faded, gain_to, tone_map
from lumen_cli.networks.unet import DiffusionUNet

MATCH_WEIGHT = 0.1
SMOOTH_WEIGHT = 0.01
WINDOW, SIGMA = 11, 1.5


def content_loss(picture: Tensor, target: Tensor) -> Tensor:
    """L1 + (1 - SSIM) of two pictures B×3×H×W in [0, 1]; a scalar."""
    return F.l1_loss(picture, target) + 1.0 - similarity(picture, target)


def frequency_loss(bands: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """0.1 · Σ MSE to the bright picture's bands + 0.01 · Σ total variation; a scalar."""
    match = torch.stack([F.mse_loss(band, target) for band, target in zip(bands, targets, strict=True)]).sum()
    smooth = torch.stack([total_variation(band) for band in bands]).sum()
    return MATCH_WEIGHT * match + SMOOTH_WEIGHT * smooth


def total_variation(x: Tensor) -> Tensor:
    """2 · (mean squared vertical difference + mean squared horizontal difference); x is B×C×H×W."""
    return 2.0 * (x.diff(dim=-2).square().mean() + x.diff(dim=-1).square().mean())


def similarity(x: Tensor, y: Tensor) -> Tensor:
    """SSIM (Wang et al., 2004) under a Gaussian window without padding, peak 1, mean over everything; a scalar.

    Population statistics, C1 = 0.01², C2 = 0.03²; sides of at least 11.
    """
    offsets = torch.arange(WINDOW, dtype=torch.float32, device=x.device) - WINDOW // 2
    window = (-offsets.square() / (2.0 * SIGMA**2)).exp()
    window = window / window.sum()
    count = x.shape[0]

    def blurred(stacked: Tensor) -> Tensor:
        channels = stacked.shape[1]
        stacked = F.conv2d(stacked, window.view(1, 1, -1, 1).expand(channels, -1, -1, -1), groups=channels)
        return F.conv2d(stacked, window.view(1, 1, 1, -1).expand(channels, -1, -1, -1), groups=channels)

    with torch.autocast(x.device.type, enabled=False):
        x, y = x.float(), y.float()
        mean_x, mean_y, xx, yy, xy = blurred(torch.cat([x, y, x * x, y * y, x * y])).split(count)
        contrast = (2.0 * (xy - mean_x * mean_y) + 9e-4) / (xx - mean_x**2 + yy - mean_y**2 + 9e-4)
        return (contrast * (2.0 * mean_x * mean_y + 1e-4) / (mean_x**2 + mean_y**2 + 1e-4)).mean()


ROWS_AT_ONCE = 512


@dataclass(frozen=True)
class Observed:
    """What the networks see of a dark picture.

    condition: B×3×H/2^K×W/2^K, shown to the noise estimator; details: to be restored, finest first; base: where set,
    the average that the estimator's clean one is told as a difference from, of the condition's shape.
    """

    condition: Tensor
    details: list[Tensor]
    base: Tensor | None


class DiffLL(LowLightModel):
    """Wavelet transform → diffusion of the coarsest average, restoration of the details → inverse transform.

    Args:
        unet_channels, unet_multipliers: width and levels of the noise estimator (published: 64; 1, 2, 3, 4).
        detail_channels: width of the detail restoration at every wavelet level (published: 64).
        levels: wavelet levels K; the diffusion works at 1/2^K of the picture's sides (published: 2).
        steps: sampling steps where a caller names none (published: 10).
        schedule: keyword arguments of `LinearSchedule` (published: 1e-4 to 0.02 over 200, the defaults here).
        prediction: what the noise estimator returns; "epsilon" in the papers' checkpoints.
        clip: bound on the clean average at every step, whose range is ±2^K; None in the paper.
        condition_power: 1 shows the estimator the dark average as it is, as in the paper, all of it within a few
            hundredths of the range; any other p shows 2 u^p - 1 of the average mapped to u in [0, 1], in which dark
            tones stand apart.
        exposure: mean light that the dark picture is brought to by a gain and a tone curve before its details are
            restored, and on whose average the estimator's clean one is a correction, so that colours need not be
            learnt anew; needs prediction "x0". None as in the paper.
        temperature: of the noise that sampling starts from, see `Sampler`; 1 in the paper.
        fade_above: brightness from which less and less is corrected, see `fade`; needs `exposure`. None: nowhere.
        fade_colour_above: the same of colour alone, see `faded`.
    """

    whole_rows = True  # the details' attention

    def __init__(
        self,
        unet_channels: int = 64,
        unet_multipliers: Sequence[int] = (1, 2, 3, 4),
        detail_channels: int = 64,
        levels: int = 2,
        steps: int = 10,
        schedule: dict[str, Any] | None = None,
        prediction: Prediction = "epsilon",
        clip: float | None = None,
        condition_power: float = 1.0,
        exposure: float | None = None,
        temperature: float = 1.0,
        fade_above: float | None = None,
        fade_colour_above: float | None = None,
    ) -> None:
        super().__init__()
        if levels < 1:
            raise ValueError(f"DiffLL needs at least one wavelet level, not {levels}")
        if not 0.0 < condition_power <= 1.0:
            raise ValueError(f"condition_power must lie in (0, 1], not {condition_power}")
        if exposure is not None and (prediction != "x0" or not 0.0 < exposure < 1.0):
            raise ValueError(f'exposure must lie in (0, 1) and needs prediction "x0", not {exposure}, {prediction!r}')
        for level in range(levels):
            self.add_module(f"high_enhance{level}", DetailRestoration(detail_channels))
        self.costly = ("Unet", *(f"high_enhance{level}" for level in range(levels)))
        self.Unet = DiffusionUNet(unet_channels, unet_multipliers)
        self.levels = levels
        self.steps = steps
        self.condition_power = condition_power
        check_fade(exposure, fade_above=fade_above, fade_colour_above=fade_colour_above)
        self.exposure, self.fade_above, self.fade_colour_above = exposure, fade_above, fade_colour_above
        self.schedule = LinearSchedule(**{"timesteps": 200, **(schedule or {})})
        self.sampler = Sampler(prediction=prediction, clip=clip, temperature=temperature)
        self.size_multiple = 2 ** (levels + len(unet_multipliers) - 1)

    def noise_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """3 × the coarsest average's height and width, for the padded picture."""
        h, w = padded_size(height, width, self.size_multiple)
        return 3, h >> self.levels, w >> self.levels

    def decompose_bands(self, picture: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Picture B×3×H×W in [0, 1] → coarsest average B×3×H/2^K×W/2^K in ±2^K, details of each level, finest first.

        Details are 3B×3×h×w: HL, LH, HH along the batch axis.
        """
        average, details = 2.0 * picture.float() - 1.0, []
        for _ in range(self.levels):
            average, level = analyse(average)
            details.append(level)
        return average, details

    def compose_bands(self, average: Tensor, details: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The inverse of `decompose_bands`: → (picture, neither clamped nor bounded; average of the finest level)."""
        whole = average
        for level in reversed(details):
            average, whole = whole, synthesise(whole, level)
        return (whole + 1.0) / 2.0, average

    def restore_details(self, details: Sequence[Tensor]) -> list[Tensor]:
        """Details of the dark picture → those of the bright one, finest first."""
        return [self.get_submodule(f"high_enhance{number}")(level).float() for number, level in enumerate(details)]

    def observe(self, low: Tensor, gain: Tensor | None = None) -> Observed:
        """Picture B×3×H×W in [0, 1] → what the networks see of it.

        `gain`, B×1×1×1, in place of the one that brings the picture to `exposure`.
        """
        average, details = self.decompose_bands(low)
        condition, base = average, None
        if self.condition_power != 1.0:
            condition = 2.0 * self._unit(average) ** self.condition_power - 1.0
        if self.exposure is not None:
            gain = gain_to(low, self.exposure) if gain is None else gain.to(low.device)
            base, details = self.decompose_bands(tone_map(low, gain))
        return Observed(condition, details, base)

    def _unit(self, average: Tensor) -> Tensor:
        """Coarsest average in ±2^K → [0, 1]."""
        return (average / 2.0 ** (self.levels + 1) + 0.5).clamp(0.0, 1.0)

    def estimate(self, observed: Observed, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """Run the noise estimator; `noisy` B×3×h×w, `timesteps` [B] → what `prediction` says, B×3×h×w."""
        output: Tensor = self.Unet(torch.cat([observed.condition, noisy], dim=1), timesteps)
        if observed.base is None:
            return output
        brightened = self._unit(observed.base)
        return observed.base + faded(output.float(), brightened, self.fade_above, self.fade_colour_above)

    def predict_average(self, observed: Observed, noise: Tensor, steps: int | None = None) -> Tensor:
        """Sample the bright picture's coarsest average from `noise`; both B×3×h×w, in ±2^K when trained."""

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            return self.estimate(observed, x, t)

        return sample(denoise, noise, self.schedule, self.steps if steps is None else steps, self.sampler)

    def predict(
        self, low: Tensor, noise: Tensor, steps: int | None = None, gain: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        """A picture of padded size → (bright picture, not clamped; finest average; coarsest average; details)."""
        observed = self.observe(low, gain)
        coarsest = self.predict_average(observed, noise, steps)
        details = self.restore_details(observed.details)
        picture, finest = self.compose_bands(coarsest, details)
        return picture, finest, coarsest, details

    def global_context(self, low: Tensor, **knobs: Any) -> dict[str, Any]:
        """See `LowLightModel.global_context`: the gain."""
        return (
            {} if self.exposure is None else {"gain": gain_to(pad_to_multiple(low, self.size_multiple), self.exposure)}
        )

    def sample_whole(self, low: Tensor, noise: Tensor, steps: int | None = None, **context: Any) -> Tensor:
        """See `LowLightModel.sample_whole`; the wavelet's averages are taken of some rows at a time."""
        device = next(self.parameters()).device
        parts = pad_to_multiple(low, self.size_multiple).split(ROWS_AT_ONCE, dim=-2)
        seen = [self.observe(part.to(device), context.get("gain")) for part in parts]
        condition = torch.cat([part.condition for part in seen], dim=-2)
        bases = [part.base for part in seen if part.base is not None]
        observed = Observed(condition, [], torch.cat(bases, dim=-2) if bases else None)
        return self.predict_average(observed, noise.to(device), steps)

    def enhance(
        self,
        low: Tensor,
        *,
        noise: Tensor | None = None,
        steps: int | None = None,
        gain: Tensor | None = None,
        presampled: bool = False,
    ) -> Tensor:
        """See `LowLightModel.enhance`; `gain` as in `observe`. `presampled`: `noise` is from `sample_whole`."""
        if noise is None:
            raise ValueError("DiffLL starts from noise: pass a tensor of shape noise_shape(H, W)")
        height, width = low.shape[-2:]
        padded = pad_to_multiple(low, self.size_multiple)
        if presampled:
            picture, _ = self.compose_bands(noise, self.restore_details(self.observe(padded, gain).details))
        else:
            picture, *_ = self.predict(padded, noise, steps, gain)
        return picture[..., :height, :width].clamp(0.0, 1.0)

    def losses(self, batch: dict[str, Tensor], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The paper's terms: the noise estimate's error, and two on the result of the whole, unrolled sampler.

        Args:
            batch: `low` and `high`, B×3×H×W in [0, 1], of one scene. Optional, for repeatable runs: `timesteps` [B],
                `noise` and `start`, both B×3×H/2^K×W/2^K.
            generator: source of what the batch does not bring.

        Returns:
            `noise`, `photo`, `frequency` (weighted) and `total`.
        """
        target, target_details = self.decompose_bands(batch["high"])
        noise = batch["noise"] if "noise" in batch else normal(target.shape, target, generator)
        timesteps = batch.get("timesteps")
        if timesteps is None:
            timesteps = antithetic_timesteps(len(target), self.schedule.timesteps, generator).to(target.device)
        signal, spread = self.schedule.coefficients(timesteps, target)
        noisy = signal * target + spread * noise
        output = self.estimate(self.observe(batch["low"]), noisy, timesteps.float())
        wanted = target_of(target, noise, signal, spread, self.sampler.prediction)

        start = batch["start"] if "start" in batch else normal(target.shape, target, generator)
        picture, finest, _, details = self.predict(batch["low"], start)
        _, target_finest = self.compose_bands(target, target_details)
        terms = {
            "noise": F.mse_loss(output.float(), wanted),
            "photo": content_loss(picture.clamp(0.0, 1.0), batch["high"]),
            "frequency": frequency_loss([*details, finest], [*target_details, target_finest]),
        }
        return terms | {"total": torch.stack(list(terms.values())).sum()}
