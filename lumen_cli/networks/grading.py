"""Grading: small networks choose brightness, contrast and tint of the final picture, as one tone curve per channel.

The papers' networks leave the overall look of a scene open: after a correction of gain and contrast towards the ground
truth, their pictures gain seven dB on LOL. As in the global branch of Cui et al., "You Only Need 90K Parameters to
Adapt Light" (BMVC 2022), a network reads a thumbnail of the picture and chooses a few numbers. As in Guo et al.,
"Zero-Reference Deep Curve Estimation" (CVPR 2020), these numbers are curves that keep black black and white white.

Three experts propose curves: `Head`s, which read the network's result; the input as it is; and `AutoExposure`, which
brightens the input alone. `Gate` decides which of them to follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from lumen_cli.imaging.colour.convert import to_linear, to_srgb
from lumen_cli.networks import average_to, powers_of_two, quantiles

GRID = 96
"""Rows and columns on which the dark picture is measured; each cell is a mean, which removes the noise."""
THUMBNAIL = 64
QUANTILES = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.97, 0.99, 0.999, 1.0)
"""Quantiles of the cells' brightest channel: they describe how the tones are distributed."""
WHITES = (0.999, 0.97)
"""Quantiles at which the picture's white may lie."""
INITIAL_WHITE = 0.99
"""Quantile that an untrained `AutoExposure` maps to white."""
STATISTICS = 1 + len(QUANTILES) + 3 * len(WHITES) + 3
BOUND = 0.95
"""Limit on |a| + |b| of a curve: above 1 a curve could fall somewhere."""
DISTRUST = 0.3
EXPERTS = ("heads", "input", "exposed")
"""What the result may follow: the heads' curves, the input's tones, or the tones of the exposed input."""
REGIONS = 16
"""Rows and columns of `Grading.residual`."""
CERTAINTY = 3
"""Power of the gate's shares there: where the gate is unsure, a result keeps the light of its curves."""
DARK_REGION, LIT_REGION = 0.05, 0.2
"""Brightness of the input up to which a region is never made as dark as it was, and from which it may be."""
_DARKEST = 1e-5
_SHOULDER = 0.8

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)
Sizes = Sequence[tuple[int, int]]
"""Heights and widths in pixels."""


class Exposure(NamedTuple):
    """What `AutoExposure` finds in a dark picture.

    Attributes:
        statistics: distribution of its tones, B×STATISTICS.
        input: its thumbnail, B×3×THUMBNAIL×THUMBNAIL in [0, 1].
        exposed: the same thumbnail with more light.
    """

    statistics: Tensor
    input: Tensor
    exposed: Tensor


class AutoExposure(nn.Module):
    """Chooses exposure, tint and tone curve from a dark picture; untrained, it maps `INITIAL_WHITE` to white.

    Where a picture only lacks light, its brightest places tell how much: a well-exposed photograph mostly reaches
    white. This is the white-patch rule of Land and McCann, "Lightness and Retinex Theory" (JOSA 1971). It says little
    about a scene that contains a lamp or is dark by nature; `Gate` recognises these.
    """

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.choice = nn.Sequential(nn.Linear(STATISTICS, width), nn.SiLU(), zeroed(nn.Linear(width, 10)))

    def forward(self, light: Tensor) -> Exposure:
        """Light from `measure`, of any height and width → the exposed picture, float32."""
        tones = _quantiles(light)
        statistics = _statistics(light, tones)
        chosen = self.choice(statistics.to(next(self.parameters()).dtype)).float()
        stops = 2.0 * chosen[:, :1] + 0.5 * chosen[:, 1:4]
        small = _reduce(light)
        bright = small / _at(tones, INITIAL_WHITE) * powers_of_two(stops)[..., None, None]
        exposed = bend(to_srgb(_roll_off(bright)), limit(chosen[:, 4:].view(-1, 3, 2)))
        return Exposure(statistics, to_srgb(small), exposed)


class Grading(nn.Module):
    """Three experts propose curves for a network's result; a gate mixes them, and the result is bent by the mixture.

    Args:
        channels: width of the first of a head's four levels, a multiple of 8; the gate is half as wide.
        heads: number of heads, which differ in their initial values; see `agree`.
        dropout: of a head's last layers, in training.
    """

    def __init__(self, channels: int = 24, heads: int = 3, dropout: float = 0.3) -> None:
        super().__init__()
        if channels < 8 or channels % 8 or heads < 1:
            raise ValueError(f"channels must be a multiple of 8 and heads at least 1, not {channels} and {heads}")
        self.auto_exposure = AutoExposure()
        self.gate = Gate(channels // 2)
        self.heads = nn.ModuleList(Head(channels, dropout) for _ in range(heads))

    def curves(self, low: Tensor, result: Tensor) -> Tensor:
        """Dark pictures and a network's results, both B×3×H×W in [0, 1] → a and b for each channel, B×3×2."""
        return self.curves_of(*summarise(low, result))

    def curves_of(self, light: Tensor, thumbnail: Tensor) -> Tensor:
        """The same from what `summarise` returns."""
        with torch.autocast(thumbnail.device.type, enabled=False):
            exposure = self.auto_exposure(light)
            stops = mean_stops(light)
            agreement = agree(torch.stack([head(stops, thumbnail) for head in self.heads]))
            targets = (exposure.input, exposure.exposed)
            curves = torch.stack([agreement, *(limit(fit_curves(thumbnail, target)) for target in targets)])
            shares = self.gate(exposure).softmax(dim=1)
            return (shares.T[..., None, None] * curves).sum(dim=0)

    def forward(self, low: Tensor, result: Tensor, sizes: Sizes | None = None) -> Tensor:
        """Dark pictures and a network's results → graded pictures, all B×3×H×W in [0, 1], float32.

        sizes: height and width of each picture where some are padded, see `LowLightModel.forward`.
        """
        if sizes is None:
            return bend(result, self.curves(low, result))
        summaries = [
            summarise(low[index : index + 1, :, :height, :width], result[index : index + 1, :, :height, :width])
            for index, (height, width) in enumerate(sizes)
        ]
        light, thumbnails = (torch.cat(parts) for parts in zip(*summaries, strict=True))
        return bend(result, self.curves_of(light, thumbnails))

    def grade_large(self, low: Tensor, result: Tensor, rows: int, device: str) -> None:
        """As `forward`, on one large picture on the CPU, in place and some rows at a time; curves on the device."""
        curves = self.curves(low.to(device), result.to(device)).cpu()
        for band in result.split(rows, dim=-2):
            band.copy_(bend(band, curves))

    def residual(self, low: Tensor, graded: Tensor) -> Tensor:
        """How far large regions are from the input or the exposed input, as far as the gate follows these.

        A curve of two numbers per channel often ends far from them. Dark and graded pictures, both B×3×H×W in [0, 1],
        without padding → B×3×REGIONS×REGIONS, float32.
        """
        light, thumbnail = summarise(low, graded)
        with torch.autocast(thumbnail.device.type, enabled=False):
            exposure = self.auto_exposure(light)
            shares = self.gate(exposure).softmax(dim=1) ** CERTAINTY
            _, of_input, of_exposed = shares[..., None, None, None].unbind(1)
            lit = (exposure.input.mean(dim=1, keepdim=True) - DARK_REGION) / (LIT_REGION - DARK_REGION)
            of_input = of_input * lit.clamp(0.0, 1.0)  # a dark foreground before a bright sky stays brightened
            residual = of_input * (exposure.input - thumbnail) + of_exposed * (exposure.exposed - thumbnail)
            return average_to(residual, REGIONS)


class Gate(nn.Module):
    """Reads the dark picture and its exposed version, returns logits over `EXPERTS`; untrained, they are all zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.levels = strided_levels([6, channels, 2 * channels, 4 * channels, 4 * channels])
        self.choice = zeroed(nn.Linear(8 * channels + STATISTICS, len(EXPERTS)))

    def forward(self, exposure: Exposure) -> Tensor:
        """What `AutoExposure` returns → B×3, float32."""
        dtype = next(self.parameters()).dtype
        features = self.levels(torch.cat([exposure.input, exposure.exposed], dim=1).to(dtype) - 0.5)
        numbers = [features.mean(dim=(2, 3)), features.amax(dim=(2, 3)), exposure.statistics.to(dtype)]
        logits: Tensor = self.choice(torch.cat(numbers, dim=1)).float()
        return logits


class Head(nn.Module):
    """Four strided convolutions, mean and maximum of their map, two linear layers; untrained curves are straight."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.levels = strided_levels([3, channels, 2 * channels, 4 * channels, 4 * channels])
        self.choice = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(8 * channels + 7, 64),
            nn.SiLU(),
            nn.Dropout(dropout),
            zeroed(nn.Linear(64, 6)),
        )

    def forward(self, stops: Tensor, thumbnail: Tensor) -> Tensor:
        """`mean_stops` of the dark pictures, B×1, and thumbnails of the results → curves B×3×2."""
        dtype = next(self.parameters()).dtype
        thumbnail = thumbnail.to(dtype)
        features = self.levels(thumbnail - 0.5)
        numbers = [stops.to(dtype), thumbnail.mean(dim=(2, 3)), thumbnail.std(dim=(2, 3))]
        chosen = self.choice(torch.cat([features.mean(dim=(2, 3)), features.amax(dim=(2, 3)), *numbers], dim=1))
        return limit(chosen.float().view(-1, 3, 2))


def agree(curves: Tensor) -> Tensor:
    """Combine the curves of several heads, heads×B×3×2 → B×3×2: their mean m times m² / (m² + `DISTRUST` · variance).

    Heads that know a kind of scene propose the same. For a new kind each proposes something else, and the picture had
    better stay as the network made it.
    """
    mean = curves.mean(dim=0)
    if len(curves) == 1:
        return mean
    return mean * mean.square() / (mean.square() + DISTRUST * curves.var(dim=0) + 1e-9)


def summarise(low: Tensor, result: Tensor) -> tuple[Tensor, Tensor]:
    """Dark pictures and results B×3×H×W → the light of the former (`measure`) and thumbnails of the latter, float32."""
    return measure(low), _reduce(result.float()).clamp(0.0, 1.0)


def measure(low: Tensor) -> Tensor:
    """Dark pictures B×3×H×W of any size, sRGB values in [0, 1] → their linear light, B×3×GRID×GRID, float32."""
    return to_linear(average_to(low.float(), GRID).clamp(0.0, 1.0))


def mean_stops(light: Tensor) -> Tensor:
    """The mean of what `measure` returns, as sRGB values, in powers of two above an eighth, B×1."""
    return to_srgb(light).mean(dim=(1, 2, 3)).clamp_min(1e-3).log2()[:, None] + 3.0


def bend(picture: Tensor, curves: Tensor) -> Tensor:
    """Map x to x + x (1 - x) (a + b (1 - 2x)) in every channel; 0 and 1 stay where they are.

    The slope, 1 + a (1 - 2x) + b (1 - 6x (1 - x)), is nowhere below 1 - |a| - |b|; within `BOUND` no two values change
    their order.

    Args:
        picture: B×3×H×W, clamped to [0, 1].
        curves: B×3×2, a and b.

    Returns:
        B×3×H×W in [0, 1], float32.
    """
    x = picture.float().clamp(0.0, 1.0)
    a, b = curves.to(x)[..., None, None].unbind(2)
    return x + x * (1.0 - x) * (a + b * (1.0 - 2.0 * x))


def limit(curves: Tensor) -> Tensor:
    """Any pairs of numbers ...×2 → pairs with |a| + |b| within `BOUND`; small ones hardly change."""
    length = curves.abs().sum(dim=-1, keepdim=True).clamp_min(1e-6)
    return curves * (BOUND * torch.tanh(length) / length)


def fit_curves(picture: Tensor, target: Tensor) -> Tensor:
    """The curves with which `bend` brings a picture nearest to a target, by least squares: both B×3×h×w → B×3×2.

    Their numbers lie within ±1.5, not within `BOUND`.
    """
    hill = picture * (1.0 - picture)
    wave = hill * (1.0 - 2.0 * picture)
    missing = target - picture

    def product(one: Tensor, two: Tensor) -> Tensor:
        return (one * two).mean(dim=(2, 3))

    # Cramer's rule on the two normal equations; the ridge avoids a division by zero for a picture of one tone.
    a, b, c = product(hill, hill) + 1e-5, product(hill, wave), product(wave, wave) + 1e-5
    p, q = product(hill, missing), product(wave, missing)
    return (torch.stack([p * c - q * b, q * a - p * b], dim=2) / (a * c - b * b)[..., None]).clamp(-1.5, 1.5)


def _quantiles(light: Tensor) -> dict[float, Tensor]:
    brightest = light.amax(dim=1).flatten(1).clamp_min(_DARKEST)
    shares = torch.tensor(QUANTILES, device=light.device)
    return dict(zip(QUANTILES, quantiles(brightest, shares), strict=True))


def _statistics(light: Tensor, tones: dict[float, Tensor]) -> Tensor:
    """Mean and tones in stops above 1/32; the picture's mean at each possible white, its contrast at the first."""
    mean = light.mean(dim=(1, 2, 3)).clamp_min(_DARKEST)
    stops = torch.stack([mean, *tones.values()], dim=1).log2() + 5.0
    small = [_reduce(to_srgb((light / _at(tones, white)).clamp(0.0, 1.0))) for white in WHITES]
    return torch.cat([stops, *(picture.mean(dim=(2, 3)) for picture in small), small[0].std(dim=(2, 3))], dim=1)


def _at(tones: dict[float, Tensor], quantile: float) -> Tensor:
    return tones[quantile].view(-1, 1, 1, 1)


def _reduce(picture: Tensor) -> Tensor:
    return average_to(picture, THUMBNAIL)


def _roll_off(light: Tensor) -> Tensor:
    """Keep light up to `_SHOULDER`, compress the rest below 1."""
    span = 1.0 - _SHOULDER
    return torch.where(light < _SHOULDER, light, _SHOULDER + span * torch.tanh((light - _SHOULDER) / span))


def strided_levels(widths: list[int]) -> nn.Sequential:
    """A convolution with stride 2, normalisation and SiLU from each width to the next; keep widths multiples of 4."""
    return nn.Sequential(
        *(
            nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1), nn.GroupNorm(4, b), nn.SiLU())
            for a, b in pairwise(widths)
        )
    )


def zeroed(layer: Layer) -> Layer:
    """The layer, with weights and bias 0: untrained it answers 0."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer
