"""How much light a picture ends with: whether there is anything to brighten, and `--brightness`.

Both rules hold for every model. They look at the picture as it was given and at what the network, with its grading,
made of it, at whatever size the network ran. They are pure functions of these two.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from lumen_cli.srgb import to_linear, to_srgb

GRID = 32
"""Rows and columns of the map on which a picture's structure is measured."""
STRUCTURE = (0.7 / 255, 1.2 / 255)
"""Structure (see `structure`) up to which a picture has nothing to show, and from which the model decides alone.

Pictures of one colour and black frames of a camera with its cap on have less than 0.5 / 255, of 485 dark pictures of
LOL-v1 the poorest one has 1.38 / 255.
"""
BRIGHT_QUARTER = (0.42, 0.58)
"""Brightness of a picture's dark quarter up to which the model decides alone, and from which it counts as bright."""
BRIGHT_HALF = (0.6, 0.75)
"""The same of its median. Both have to be bright: a dark foreground before a bright sky is worth brightening."""
PLACES = 96
"""Rows and columns of the map on which brightness is measured."""
LEAST_RATIO = 1.5
"""Light of the model's result over the picture's own, below which `--brightness` does not trust it as an aim."""
KNEE = 0.6
"""Mean light up to which a brightness is met exactly; more than that approaches 1, which is white."""
SHOULDER = 0.5
"""Light up to which an exposure is a plain factor; what would go beyond white is rolled off above it."""
LARGEST_CORRECTION = 16.0
"""How far the factor of an exposure may differ from the plain one, to make up for what the shoulder takes."""
LEVELS = 4096
ROWS = 256


def relight(low: Tensor, finished: Tensor, brightness: float | None = None) -> Tensor:
    """Apply both rules of this file.

    Args:
        low: the pictures as they were given, B×3×H×W sRGB values in [0, 1], without padding.
        finished: what the network and its grading made of them, the same shape and range, finite.
        brightness: mean linear light wanted, as a multiple of the picture's own; None leaves it to the model.

    Returns:
        The same shape and range, float32. Where a rule changes nothing, the values of `finished`, bit for bit; where
        nothing is to be brightened, or for a brightness of 1, those of `low`.
    """
    pairs = zip(low.split(1), finished.float().split(1), strict=True)
    return torch.cat([_relight_one(*pair, brightness) for pair in pairs])


def _relight_one(low: Tensor, finished: Tensor, brightness: float | None) -> Tensor:
    share = brightening_share(low)
    if share == 0.0:
        finished = low.float()
    elif share < 1.0:
        finished = torch.lerp(low.float(), finished, share)
    return finished if brightness is None else expose(low, finished, brightness)


def brightening_share(low: Tensor) -> float:
    """How much of a model's change a picture takes: 1 for a dark photograph, 0 where there is nothing to brighten.

    There is nothing to brighten in a picture without structure (one colour, or a black frame with noise and hot pixels)
    and in one that is bright nearly everywhere (a page of text, a photograph of snow). Between, the share rises
    smoothly. `low`: 1×3×H×W in [0, 1].
    """
    brightest = F.adaptive_avg_pool2d(low.float(), PLACES).amax(dim=1).flatten()
    quarter, half = (float(brightest.quantile(share)) for share in (0.25, 0.5))
    bright = smooth_step(quarter, *BRIGHT_QUARTER) * smooth_step(half, *BRIGHT_HALF)
    return smooth_step(structure(low), *STRUCTURE) * (1.0 - bright)


def structure(low: Tensor) -> float:
    """Standard deviation of a picture's tones over its area, on a map of `GRID` × `GRID` places, without its noise.

    The pixels are dealt to two halves like the squares of a chessboard. Noise differs between them, so that it is not
    in the covariance of their maps; what belongs to the scene is in both. `low`: 1×3×H×W in [0, 1].
    """
    low = low.float()
    if min(low.shape[-2:]) < 2 * GRID:  # too few pixels a place to tell noise from structure
        return float(low.double().var(dim=(2, 3), correction=0).mean().sqrt())
    low = F.avg_pool2d(low, 2)
    low = low[..., : low.shape[-2] // 2 * 2, : low.shape[-1] // 2 * 2]
    black = 0.5 * (low[..., 0::2, 0::2] + low[..., 1::2, 1::2])
    white = 0.5 * (low[..., 0::2, 1::2] + low[..., 1::2, 0::2])
    one, other = (F.adaptive_avg_pool2d(half, GRID).double() for half in (black, white))
    one, other = (half - half.mean(dim=(2, 3), keepdim=True) for half in (one, other))
    return max(float((one * other).mean()), 0.0) ** 0.5


def smooth_step(value: float, start: float, stop: float) -> float:
    """0 up to `start`, 1 from `stop` on, between them 3 t² - 2 t³."""
    t = min(max((value - start) / (stop - start), 0.0), 1.0)
    return t * t * (3.0 - 2.0 * t)


def expose(low: Tensor, finished: Tensor, brightness: float) -> Tensor:
    """Give a picture `brightness` times its own mean linear light.

    Below 1 the picture itself is darkened. From 1 up to the light of the model's result, picture and result are mixed
    in linear light: 1 is the picture, and the model's own brightness is the model's result. Beyond that the result is
    exposed further, with its highlights rolled off. The mean is met up to `KNEE`; from there on it approaches white.

    Args:
        low: the picture, 1×3×H×W sRGB values in [0, 1].
        finished: the model's result, the same shape and range.
        brightness: above 0.

    Returns:
        1×3×H×W in [0, 1], float32; its mean light rises with `brightness`.
    """
    given, made = mean_light(low), mean_light(finished)
    if brightness == 1.0 or given == 0.0:
        return low.float()
    ratio = max(made / given, LEAST_RATIO)
    share = min(max((brightness - 1.0) / (ratio - 1.0), 0.0), 1.0)
    target = _reachable(brightness * given, max(KNEE, given))
    gain, white = _gain_for(low, finished, share, brightness * given, target)
    result = torch.empty_like(finished)
    for rows, mixed in _mixed(low, finished, share):
        result[..., rows, :] = to_srgb(_roll_off(gain * mixed, white))
    return result.clamp_(0.0, 1.0)


def mean_light(picture: Tensor) -> float:
    """Mean linear light of sRGB values, 1×3×H×W in [0, 1], over pixels and channels."""
    total = sum(float(to_linear(part.float()).double().sum()) for part in picture.split(ROWS, dim=-2))
    return total / picture.numel()


def _reachable(light: float, knee: float) -> float:
    """A mean light as it is up to the knee; what is beyond approaches 1."""
    if light <= knee or knee >= 1.0:
        return min(light, knee)
    excess = (light - knee) / (1.0 - knee)
    return knee + (1.0 - knee) * excess / (1.0 + excess)


def _mixed(low: Tensor, finished: Tensor, share: float) -> Iterator[tuple[slice, Tensor]]:
    """Picture and result mixed in linear light, some rows at a time: `share` 0 is the picture, 1 the result."""
    for top in range(0, low.shape[-2], ROWS):
        rows = slice(top, top + ROWS)
        if share == 0.0:
            mixed = to_linear(low[..., rows, :].float())
        elif share == 1.0:
            mixed = to_linear(finished[..., rows, :])
        else:
            mixed = torch.lerp(to_linear(low[..., rows, :].float()), to_linear(finished[..., rows, :]), share)
        yield rows, mixed


def _gain_for(low: Tensor, finished: Tensor, share: float, plain: float, target: float) -> tuple[float, float]:
    """The factor on a mix of picture and result that makes its mean light `target`, and the white it leads to.

    plain: the mean light without a shoulder, from which the search starts. A histogram of the mix stands for its
    pixels, and bisection finds the factor, so that the same pictures give the same one.
    """
    counts = torch.zeros(LEVELS, dtype=torch.int64)
    brightest, total = 0.0, 0.0
    for _, mixed in _mixed(low, finished, share):
        places = (to_srgb(mixed) * (LEVELS - 1)).round().long().clamp_(0, LEVELS - 1).flatten().cpu()
        counts += places.bincount(minlength=LEVELS)
        brightest, total = max(brightest, float(mixed.max())), total + float(mixed.double().sum())
    mean = total / low.numel()
    start = plain / mean
    if start * brightest <= 1.0 and target == plain:
        return start, 1.0
    light = to_linear(torch.linspace(0.0, 1.0, LEVELS, dtype=torch.float64))
    light *= mean / (float((counts * light).sum()) / low.numel())
    below, above = start / LARGEST_CORRECTION, start * LARGEST_CORRECTION
    for _ in range(48):
        gain = (below * above) ** 0.5
        reached = float((counts * _roll_off(gain * light, gain * brightest)).sum()) / low.numel()
        below, above = (gain, above) if reached < target else (below, gain)
    return above, above * brightest


def _roll_off(light: Tensor, white: float) -> Tensor:
    """Light up to `SHOULDER` as it is; above it, `white` becomes 1. Nothing changes where `white` is at most 1.

    The curve u (1 + u / w²) / (1 + u) is equation 4 of Reinhard et al., "Photographic Tone Reproduction for Digital
    Images" (SIGGRAPH 2002), of the part above the shoulder.
    """
    if white <= 1.0:
        return light
    span = 1.0 - SHOULDER
    above = (light - SHOULDER) / span
    largest = (white - SHOULDER) / span
    rolled = SHOULDER + span * above * (1.0 + above / largest**2) / (1.0 + above)
    return torch.where(light <= SHOULDER, light, rolled)
