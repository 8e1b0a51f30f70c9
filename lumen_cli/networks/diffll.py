"""DiffLL: wavelet-domain diffusion (Jiang et al., SIGGRAPH Asia 2023, arXiv 2306.00306)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumen_cli.diffusion import LinearSchedule, Prediction, Sampler, add_noise, normal, sample
from lumen_cli.networks import (
    CrossAttention,
    DepthwiseSeparable,
    check_fade,
    faded,
    gain_to,
    similarity,
    tone_map,
)
from lumen_cli.networks.base import LowLightModel, pad_to_multiple, padded_size
from lumen_cli.networks.unet import DiffusionUNet
from lumen_cli.text import nearest

SLOPE = 0.01
DILATIONS = (1, 2, 3, 2, 1)
MATCH_WEIGHT = 0.1
SMOOTH_WEIGHT = 0.01
ROWS_AT_ONCE = 512
HAAR = "haar"


class DilatedBlock(nn.Module):
    """Five 3×3 convolutions of growing and shrinking dilation with LeakyReLU between them, and the input added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for dilation in DILATIONS:
            layers += [
                nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation),
                nn.LeakyReLU(SLOPE, inplace=True),
            ]
        self.model = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W → the same shape."""
        return x + self.model(x)


class DetailRestoration(nn.Module):
    """HFRM (section 3.3): the details of one wavelet level → the details of the bright picture.

    Horizontal and vertical details inform the diagonal ones, whose own features enter only through the keys and values
    of the attention (and through the residual around the whole).

    Args:
        channels: width, a multiple of 8; 64 in the published model.
    """

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        if channels % 8:
            raise ValueError(f"the detail restoration's channels must be a multiple of 8, not {channels}")
        self.conv_head = DepthwiseSeparable(3, channels)
        self.dilated_block_LH = DilatedBlock(channels)
        self.dilated_block_HL = DilatedBlock(channels)
        self.cross_attention0 = CrossAttention(channels)
        self.dilated_block_HH = DilatedBlock(channels)
        self.conv_HH = nn.Conv2d(2 * channels, channels, 3, padding=1)
        self.cross_attention1 = CrossAttention(channels)
        self.conv_tail = DepthwiseSeparable(channels, 3)

    def forward(self, details: Tensor) -> Tensor:
        """3B×3×h×w, HL, LH and HH along the batch axis → the same."""
        hl, lh, hh = self.conv_head(details).chunk(3)
        crossed = torch.cat([self.cross_attention0(lh, hh), self.cross_attention1(hl, hh)], dim=1)
        diagonal = self.dilated_block_HH(self.conv_HH(crossed))
        restored = torch.cat([self.dilated_block_HL(hl), self.dilated_block_LH(lh), diagonal])
        return details + self.conv_tail(restored)


def analyse(x: Tensor) -> tuple[Tensor, Tensor]:
    """Haar transform: B×C×H×W with even sides → (average B×C×H/2×W/2, details 3B×C×H/2×W/2: HL, LH, HH)."""
    if x.shape[-2] % 2 or x.shape[-1] % 2:
        raise ValueError(f"the Haar transform needs even sides, not {x.shape[-2]}×{x.shape[-1]}")
    top, bottom = 0.5 * x[..., ::2, :], 0.5 * x[..., 1::2, :]
    total, change = top + bottom, bottom - top
    left, right = total[..., ::2], total[..., 1::2]
    change_left, change_right = change[..., ::2], change[..., 1::2]
    return left + right, torch.cat([right - left, change_left + change_right, change_right - change_left])


def synthesise(average: Tensor, details: Tensor) -> Tensor:
    """The inverse of `analyse`: B×C×h×w and 3B×C×h×w → B×C×2h×2w."""
    hl, lh, hh = (0.5 * details).chunk(3)
    average = 0.5 * average
    left, right = average - hl, average + hl
    change_left, change_right = lh - hh, lh + hh
    top = _interleave(left - change_left, right - change_right, axis=-1)
    bottom = _interleave(left + change_left, right + change_right, axis=-1)
    return _interleave(top, bottom, axis=-2)


def _interleave(even: Tensor, odd: Tensor, axis: int) -> Tensor:
    """Alternate the slices of two tensors of one shape along an axis counted from the end."""
    return torch.stack([even, odd], dim=axis).flatten(axis - 1, axis)


def library_analyse(x: Tensor, wavelet: str = "haar") -> tuple[Tensor, Tensor]:
    """`analyse` through pytorch_wavelets, whose bands are -LH, -HL and HH; any wavelet, periodic at the borders."""
    forward, _ = _library(wavelet, x.device, x.dtype)
    with torch.autocast(x.device.type, enabled=False):
        average, (bands,) = forward(x)
    return average, torch.cat([-bands[:, :, 1], -bands[:, :, 0], bands[:, :, 2]])


def library_synthesise(average: Tensor, details: Tensor, wavelet: str = "haar") -> Tensor:
    """`synthesise` through pytorch_wavelets; the inverse of `library_analyse` with the same wavelet."""
    _, inverse = _library(wavelet, average.device, average.dtype)
    hl, lh, hh = details.chunk(3)
    with torch.autocast(average.device.type, enabled=False):
        whole: Tensor = inverse((average, [torch.stack([-lh, -hl, hh], dim=2)]))
    return whole


@cache
def _library(wavelet: str, device: torch.device, dtype: torch.dtype) -> tuple[Any, Any]:
    # One for each device: networks on several of them run at the same time.
    # Its import takes a quarter of a second and warns that it asks for pkg_resources.
    # Periodic borders keep a band at half the sides. Haar's two taps do not reach beyond the borders.
    mode = "zero" if wavelet == HAAR else "periodization"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pytorch_wavelets import DWTForward, DWTInverse
    with torch.inference_mode(False):  # a training in this process may use them later
        forward, inverse = DWTForward(J=1, wave=wavelet, mode=mode), DWTInverse(wave=wavelet, mode=mode)
        return forward.to(device, dtype), inverse.to(device, dtype)


def check_wavelet(wavelet: str, shortest: int) -> None:
    """Whether PyWavelets has this discrete wavelet, and it is not longer than a picture's shortest side.

    Raises:
        ValueError: it is unknown, or has more taps than `shortest`.
    """
    if wavelet == HAAR:
        return
    import pywt

    known = pywt.wavelist(kind="discrete")
    if wavelet not in known:
        near = nearest(wavelet, known)
        hint = f"; did you mean {near}?" if near else ""
        raise ValueError(f"wavelet must be a discrete wavelet of PyWavelets, such as db2, not {wavelet!r}{hint}")
    if (taps := pywt.Wavelet(wavelet).dec_len) > shortest:
        raise ValueError(f"wavelet {wavelet} has {taps} taps; the smallest picture has {shortest} pixels a side here")


@dataclass(frozen=True)
class Observed:
    """What the networks see of a dark picture."""

    condition: Tensor
    """B×3×H/2^K×W/2^K, shown to the noise estimator."""
    details: list[Tensor]
    """To be restored, finest first."""
    base: Tensor | None
    """Where set: the average that the estimator's clean average is a correction of, of the condition's shape."""


class DiffLL(LowLightModel):
    """Wavelet transform → diffusion of the coarsest average, restoration of the details → inverse transform.

    Args:
        unet_channels, unet_multipliers: width and levels of the noise estimator (published: 64; 1, 2, 3, 4).
        detail_channels: width of the detail restoration at every wavelet level (published: 64).
        levels: wavelet levels K; the diffusion works at 1/2^K of the picture's sides (published: 2).
        steps: default sampling steps (published: 10).
        schedule: keyword arguments of `LinearSchedule` (published: 1e-4 to 0.02 over 200, the defaults here).
        prediction: what the noise estimator returns; "epsilon" in the papers' checkpoints.
        clip: bound on the clean average at every step, whose range is ±2^K; None in the paper.
        condition_power: 1 shows the estimator the dark average as in the paper, all of it within a few hundredths of
            the range. Any other p shows 2 u^p - 1 of the average mapped to u in [0, 1], which separates dark tones.
        exposure: mean light to which a gain and a tone curve bring the dark picture before its details are restored.
            The estimator's clean average is then a correction of that picture's average, so the network need not learn
            colours; needs prediction "x0". None as in the paper.
        temperature: of the noise that sampling starts from, see `Sampler`; 1 in the paper.
        fade_above: brightness above which the correction fades, see `fade`; needs `exposure`. None: nowhere.
        fade_colour_above: the same for colour alone, see `faded`.
        wavelet: "haar" as in the paper, by slices of the picture, or any discrete wavelet of PyWavelets ("db2",
            "bior4.4"), by pytorch_wavelets with periodic borders.
    """

    whole_rows = True  # the attention of the details

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
        wavelet: str = HAAR,
    ) -> None:
        super().__init__()
        if levels < 1:
            raise ValueError(f"DiffLL needs at least one wavelet level, not {levels}")
        check_wavelet(wavelet, 2 ** len(unet_multipliers))
        self.wavelet = wavelet
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

    def decompose_bands(self, picture: Tensor, *, by_library: bool = False) -> tuple[Tensor, list[Tensor]]:
        """Picture B×3×H×W in [0, 1] → coarsest average B×3×H/2^K×W/2^K in ±2^K, details of each level, finest first.

        Details are 3B×3×h×w: HL, LH, HH along the batch axis. by_library: compute them by pytorch_wavelets, as losses
        do for the bands of the bright picture: an error in `analyse` then shows as a loss that stays.
        """
        average, details = 2.0 * picture.float() - 1.0, []
        by_library |= self.wavelet != HAAR
        for _ in range(self.levels):
            average, level = library_analyse(average, self.wavelet) if by_library else analyse(average)
            details.append(level)
        return average, details

    def compose_bands(self, average: Tensor, details: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The inverse of `decompose_bands`: → (picture, not clamped; average of the finest level)."""
        whole = average
        for level in reversed(details):
            average = whole
            whole = synthesise(whole, level) if self.wavelet == HAAR else library_synthesise(whole, level, self.wavelet)
        return (whole + 1.0) / 2.0, average

    def restore_details(self, details: Sequence[Tensor]) -> list[Tensor]:
        """Details of the dark picture → those of the bright one, finest first."""
        return [self.get_submodule(f"high_enhance{number}")(level).float() for number, level in enumerate(details)]

    def observe(self, low: Tensor, gain: Tensor | None = None) -> Observed:
        """Picture B×3×H×W in [0, 1] → what the networks see of it.

        `gain`, B×1×1×1, replaces the one that brings the picture to `exposure`.
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
        """Run the noise estimator; `noisy` B×3×h×w, `timesteps` [B] → its `prediction`, B×3×h×w."""
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

    def global_context(self, low: Tensor, **options: Any) -> dict[str, Any]:
        """See `LowLightModel`: the gain."""
        return (
            {} if self.exposure is None else {"gain": gain_to(pad_to_multiple(low, self.size_multiple), self.exposure)}
        )

    def sample_whole(self, low: Tensor, noise: Tensor, steps: int | None = None, **context: Any) -> Tensor:
        """See `LowLightModel`; the Haar transform runs over some rows at a time, a longer one over all."""
        device = next(self.parameters()).device
        padded = pad_to_multiple(low, self.size_multiple)
        parts = padded.split(ROWS_AT_ONCE if self.wavelet == HAAR else padded.shape[-2], dim=-2)
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
        """See `LowLightModel`; `gain` as in `observe`. `presampled`: `noise` is from `sample_whole`."""
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
            generator: source of what the batch does not contain.

        Returns:
            `noise`, `photo`, `frequency` (weighted) and `total`.
        """
        clean, clean_details = self.decompose_bands(batch["high"], by_library=True)
        noise = batch["noise"] if "noise" in batch else normal(clean.shape, clean, generator)
        at = add_noise(clean, noise, self.schedule, self.sampler.prediction, batch.get("timesteps"), generator)
        output = self.estimate(self.observe(batch["low"]), at.noisy, at.timesteps)

        start = batch["start"] if "start" in batch else normal(clean.shape, clean, generator)
        picture, finest, _, details = self.predict(batch["low"], start)
        _, clean_finest = self.compose_bands(clean, clean_details)
        terms = {
            "noise": F.mse_loss(output.float(), at.target),
            "photo": content_loss(picture.clamp(0.0, 1.0), batch["high"]),
            "frequency": frequency_loss([*details, finest], [*clean_details, clean_finest]),
        }
        return terms | {"total": torch.stack(list(terms.values())).sum()}


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
