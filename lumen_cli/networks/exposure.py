"""Brightening without learning, a gain and a tone curve, as the start of networks with our own weights."""

from __future__ import annotations

from torch import Tensor

LARGEST_GAIN = 16.0


def gain_to(low: Tensor, exposure: float) -> Tensor:
    """Factor from 1 to 16 that brings the mean of each picture, B×3×H×W in [0, 1], to `exposure`; B×1×1×1, float32."""
    mean = low.float().mean(dim=(1, 2, 3), keepdim=True)
    return (exposure / mean.clamp_min(1e-4)).clamp(1.0, LARGEST_GAIN)


def tone_map(low: Tensor, gain: Tensor) -> Tensor:
    """The picture times its gain g ≥ 1, then v (1 + v / g²) / (1 + v), under which white stays white.

    (Reinhard et al., "Photographic Tone Reproduction for Digital Images", equation 4.) `low` B×3×H×W in [0, 1], `gain`
    B×1×1×1 → the same shape and range, float32; at g = 1 the picture itself.
    """
    value = low.float() * gain
    return value * (1.0 + value / gain**2) / (1.0 + value)


def check_fade(exposure: float | None, **bounds: float | None) -> None:
    """ValueError with the name of a bound at which `fade` cannot start."""
    for name, above in bounds.items():
        if above is not None and (exposure is None or not 0.0 <= above < 1.0):
            raise ValueError(f"{name} must lie in [0, 1) and needs exposure, not {above}, {exposure}")


def faded(correction: Tensor, brightened: Tensor, above: float | None, colour_above: float | None) -> Tensor:
    """Reduce a network's correction of a brightened picture, both B×3×H×W, where that picture is bright; see `fade`.

    The whole correction fades above `above`, its colour (the difference from the mean of the channels) above
    `colour_above`: noise hides the colour of dark areas, but little of bright ones. None: no fading.
    """
    if colour_above is not None:
        grey = correction.mean(dim=1, keepdim=True)
        correction = grey + fade(brightened, colour_above) * (correction - grey)
    return correction if above is None else fade(brightened, above) * correction


def fade(brightened: Tensor, above: float) -> Tensor:
    """The share of a network's correction that a brightened picture takes: 1 up to `above`, then less, 0 at white.

    Areas that `tone_map` has made nearly white, such as a lamp, are bright enough. Dark pictures have so few of them
    that a network learns little about them and adds grey patches and coloured spots. The brightest channel counts.
    B×3×H×W in [0, 1] → B×1×H×W.
    """
    return ((1.0 - brightened.amax(dim=1, keepdim=True)) / (1.0 - above)).clamp(0.0, 1.0)
