"""The light of the result: how much a picture needs brightening, and the target brightness.

Both rules apply to every model. They are pure functions of the input and of the graded result, at the size at which the
network ran.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lumen_cli.imaging.colour.convert import to_linear, to_srgb

GRID = 32
"""Rows and columns of the map on which a picture's structure is measured."""
STRUCTURE = (0.7 / 255, 1.2 / 255)
"""Structure (see `structure`) up to which a picture counts as empty, and from which the result is used unchanged.

Pictures of one colour and black frames of a capped camera have less than 0.5 / 255. The least of 485 dark pictures of
LOL-v1 is 1.38 / 255.
"""
BRIGHT_QUARTER = (0.42, 0.58)
"""Lower quartile of brightness up to which the result is used unchanged, and from which a picture counts as bright."""
BRIGHT_HALF = (0.6, 0.75)
"""The same for the median. Both must be bright: a dark foreground before a bright sky needs brightening."""
PLACES = 96
"""Rows and columns of the map on which brightness is measured."""
LEAST_RATIO = 1.5
"""Smallest ratio of the result's light to the picture's that counts as the model's own brightness."""
KNEE = 0.6
"""Mean light up to which a target is met exactly; higher targets approach 1, which is white."""
SHOULDER = 0.5
"""Light up to which an exposure is a plain factor; above it, highlights are rolled off to white."""
LARGEST_CORRECTION = 16.0
"""Greatest correction of an exposure's factor, to compensate for the shoulder."""
LEVELS = 4096
ROWS = 256


def relight(low: Tensor, finished: Tensor, brightness: float | None = None) -> Tensor:
    """Apply both rules of this file.

    Args:
        low: the input picture, 1×3×H×W sRGB values in [0, 1], without padding.
        finished: the graded result, the same shape and range, finite.
        brightness: target mean linear light, as a multiple of the picture's own; None leaves it to the model.

    Returns:
        The same shape and range, float32. Where no rule applies, exactly the values of `finished`; for a picture
        that needs no brightening, or a brightness of 1, those of `low`.
    """
    finished, share = finished.float(), brightening_share(low)
    if share == 0.0:
        finished = low.float()
    elif share < 1.0:
        finished = torch.lerp(low.float(), finished, share)
    return finished if brightness is None else expose(low, finished, brightness)


def brightening_share(low: Tensor) -> float:
    """The share of the model's change to apply: 1 for a dark photograph, 0 for one that needs no brightening.

    A picture without structure (one colour, or a black frame with noise and hot pixels) needs none, nor does one that
    is bright nearly everywhere (a page of text, a photograph of snow). In between the share rises smoothly.
    `low`: 1×3×H×W in [0, 1].
    """
    # Averages of planes take half the time, and NumPy makes them in a third of PyTorch's.
    planes = torch.from_numpy(np.ascontiguousarray(low.float().numpy()))
    brightest = F.adaptive_avg_pool2d(planes, PLACES).amax(dim=1).flatten()
    quarter, half = brightest.quantile(brightest.new_tensor((0.25, 0.5))).tolist()
    bright = smooth_step(quarter, *BRIGHT_QUARTER) * smooth_step(half, *BRIGHT_HALF)
    return smooth_step(structure(planes), *STRUCTURE) * (1.0 - bright)


def structure(low: Tensor) -> float:
    """Standard deviation of a picture's tones without noise, on a map of `GRID` × `GRID` places.

    The pixels are split into two halves like the squares of a chessboard. Their noise is independent, so the covariance
    of their maps contains only the scene. `low`: 1×3×H×W in [0, 1].
    """
    low = low.float()
    if min(low.shape[-2:]) < 2 * GRID:  # too few pixels per place to separate noise from structure
        return float(low.double().var(dim=(2, 3), correction=0).mean().sqrt())
    low = _halve(low)
    low = low[..., : low.shape[-2] // 2 * 2, : low.shape[-1] // 2 * 2]
    black = 0.5 * (low[..., 0::2, 0::2] + low[..., 1::2, 1::2])
    white = 0.5 * (low[..., 0::2, 1::2] + low[..., 1::2, 0::2])
    one, other = (F.adaptive_avg_pool2d(half, GRID).double() for half in (black, white))
    one, other = (half - half.mean(dim=(2, 3), keepdim=True) for half in (one, other))
    return max(float((one * other).mean()), 0.0) ** 0.5


def _halve(low: Tensor) -> Tensor:
    """`F.avg_pool2d(low, 2)` in a third of the time."""
    low = low[..., : low.shape[-2] // 2 * 2, : low.shape[-1] // 2 * 2]
    sums = low[..., 0::2, 0::2] + low[..., 0::2, 1::2]
    return (sums.add_(low[..., 1::2, 0::2]).add_(low[..., 1::2, 1::2])).mul_(0.25)


def smooth_step(value: float, start: float, stop: float) -> float:
    """0 up to `start`, 1 from `stop` on, between them 3 t² - 2 t³."""
    t = min(max((value - start) / (stop - start), 0.0), 1.0)
    return t * t * (3.0 - 2.0 * t)


def expose(low: Tensor, finished: Tensor, brightness: float) -> Tensor:
    """Give a picture `brightness` times its own mean linear light.

    Below 1 the picture itself is darkened. From 1 up to the brightness of the model's result, picture and result are
    blended in linear light. Above that the result is exposed further, with highlights rolled off. The target is met up
    to `KNEE`; beyond it the mean approaches white.

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
    for rows, mixed in _mix(low, finished, share):
        result[..., rows, :] = to_srgb(_roll_off(gain * mixed, white))
    return result.clamp_(0.0, 1.0)


def mean_light(picture: Tensor) -> float:
    """Mean linear light of sRGB values, 1×3×H×W in [0, 1], over pixels and channels."""
    total = sum(float(to_linear(part.float()).double().sum()) for part in picture.split(ROWS, dim=-2))
    return total / picture.numel()


def _reachable(light: float, knee: float) -> float:
    """A mean light, unchanged up to the knee; beyond it, it approaches 1."""
    if light <= knee or knee >= 1.0:
        return min(light, knee)
    excess = (light - knee) / (1.0 - knee)
    return knee + (1.0 - knee) * excess / (1.0 + excess)


def _mix(low: Tensor, finished: Tensor, share: float) -> Iterator[tuple[slice, Tensor]]:
    """Picture and result blended in linear light, in bands of rows: `share` 0 is the picture, 1 the result."""
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
    """The factor that gives a blend of picture and result the mean light `target`, and the resulting white.

    plain: the mean light without a shoulder, where the search starts. Bisection on a histogram of the blend finds the
    factor, so that the same pictures give the same one.
    """
    counts = torch.zeros(LEVELS, dtype=torch.int64)
    brightest, total = 0.0, 0.0
    for _, mixed in _mix(low, finished, share):
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
    """Light, unchanged up to `SHOULDER`; above it, compressed so that `white` becomes 1. No change if `white` ≤ 1.

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
