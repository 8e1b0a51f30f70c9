"""How a dark picture would look with more light: one exposure and one tone curve for the whole of it.

Where nothing but light was lacking, the brightest places of the picture tell how much: a well-exposed photograph mostly
reaches white. That is the white-patch rule of Land and McCann, "Lightness and Retinex Theory" (JOSA 1971); how far it
goes, a small network decides by where the picture's tones lie. Of a scene with a lamp in it, or one that is dark by
itself, this says little, which is for `Rendition` to see.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumen_cli.srgb import to_linear, to_srgb

GRID = 96
"""Rows and columns on which the dark picture is measured; each is a mean, which takes the noise away."""
THUMBNAIL = 64
SHARES = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.97, 0.99, 0.999, 1.0)
"""Of the picture's places, ordered by their brightest channel: where its tones lie."""
WHITES = (0.999, 0.97)
"""Shares at which the picture's white might lie."""
START = 0.99
"""Share that a fresh development takes for white."""
NUMBERS = 1 + len(SHARES) + 3 * len(WHITES) + 3
BOUND = 0.95
"""On |a| + |b| of a curve: beyond 1 it could fall somewhere."""
_DARKEST = 1e-5
_SHOULDER = 0.8


class Developed(NamedTuple):
    """What is known of a dark picture.

    Attributes:
        numbers: where its tones lie, B×NUMBERS.
        given: its thumbnail as it is, B×3×THUMBNAIL×THUMBNAIL in [0, 1].
        picture: the same with more light.
    """

    numbers: Tensor
    given: Tensor
    picture: Tensor


class Development(nn.Module):
    """Measures a dark picture and chooses exposure, tint and tone curve; a fresh one takes it to its white point."""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.choice = nn.Sequential(nn.Linear(NUMBERS, width), nn.SiLU(), nn.Linear(width, 10))
        nn.init.zeros_(self.choice[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.choice[-1].bias)  # type: ignore[arg-type]

    def forward(self, light: Tensor) -> Developed:
        """What `measured` gives, of any height and width → the picture developed, float32."""
        tones = _tones(light)
        numbers = _numbers(light, tones)
        chosen = self.choice(numbers.to(next(self.parameters()).dtype)).float()
        stops = 2.0 * chosen[:, :1] + 0.5 * chosen[:, 1:4]
        small = _reduced(light)
        exposed = small / _at(tones, START) * torch.exp2(stops)[..., None, None]
        picture = bend(to_srgb(_rolled_off(exposed)), bounded(chosen[:, 4:].view(-1, 3, 2)))
        return Developed(numbers, to_srgb(small), picture)


def measured(low: Tensor) -> Tensor:
    """Dark pictures B×3×H×W of any size, sRGB values in [0, 1] → their light, linear, B×3×GRID×GRID, float32."""
    return to_linear(F.adaptive_avg_pool2d(low.float(), GRID).clamp(0.0, 1.0))


def bend(picture: Tensor, curves: Tensor) -> Tensor:
    """Pass x as x + x (1 - x) (a + b (1 - 2x)) in every channel; 0 and 1 stay where they are.

    Its slope, 1 + a (1 - 2x) + b (1 - 6x (1 - x)), is nowhere below 1 - |a| - |b|, so that within `BOUND` no two
    values change their order.

    Args:
        picture: B×3×H×W, clamped to [0, 1].
        curves: B×3×2, a and b.

    Returns:
        B×3×H×W in [0, 1], float32.
    """
    x = picture.float().clamp(0.0, 1.0)
    a, b = curves.to(x)[..., None, None].unbind(2)
    return x + x * (1.0 - x) * (a + b * (1.0 - 2.0 * x))


def bounded(curves: Tensor) -> Tensor:
    """Pairs of numbers ...×2 of any size → pairs whose |a| + |b| is within `BOUND`; small ones hardly change."""
    length = curves.abs().sum(dim=-1, keepdim=True).clamp_min(1e-6)
    return curves * (BOUND * torch.tanh(length) / length)


def curves_towards(picture: Tensor, aim: Tensor) -> Tensor:
    """The a and b with which `bend` brings a picture nearest to another, by least squares: both B×3×h×w → B×3×2.

    They lie within ±1.5, not within `BOUND`.
    """
    hill = picture * (1.0 - picture)
    wave = hill * (1.0 - 2.0 * picture)
    missing = aim - picture

    def product(one: Tensor, two: Tensor) -> Tensor:
        return (one * two).mean(dim=(2, 3))

    # The two normal equations, solved by Cramer's rule; the ridge keeps a picture of one tone from dividing by zero.
    a, b, c = product(hill, hill) + 1e-5, product(hill, wave), product(wave, wave) + 1e-5
    p, q = product(hill, missing), product(wave, missing)
    return (torch.stack([p * c - q * b, q * a - p * b], dim=2) / (a * c - b * b)[..., None]).clamp(-1.5, 1.5)


def _tones(light: Tensor) -> dict[float, Tensor]:
    brightest = light.amax(dim=1).flatten(1).clamp_min(_DARKEST)
    shares = torch.tensor(SHARES, device=light.device)
    return dict(zip(SHARES, brightest.quantile(shares, dim=1), strict=True))


def _numbers(light: Tensor, tones: dict[float, Tensor]) -> Tensor:
    """Mean and tones in stops above 1/32; means of the picture at each possible white, its contrast at the first."""
    mean = light.mean(dim=(1, 2, 3)).clamp_min(_DARKEST)
    stops = torch.stack([mean, *tones.values()], dim=1).log2() + 5.0
    shown = [_reduced(to_srgb((light / _at(tones, share)).clamp(0.0, 1.0))) for share in WHITES]
    return torch.cat([stops, *(picture.mean(dim=(2, 3)) for picture in shown), shown[0].std(dim=(2, 3))], dim=1)


def _at(tones: dict[float, Tensor], share: float) -> Tensor:
    return tones[share].view(-1, 1, 1, 1)


def _reduced(picture: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(picture, THUMBNAIL)


def _rolled_off(light: Tensor) -> Tensor:
    """Light up to `_SHOULDER` as it is, the rest below 1."""
    span = 1.0 - _SHOULDER
    return torch.where(light < _SHOULDER, light, _SHOULDER + span * torch.tanh((light - _SHOULDER) / span))
