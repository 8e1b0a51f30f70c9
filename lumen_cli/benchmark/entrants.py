"""The rows of a quality benchmark: models, the unchanged input, and simple global curves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lumen_cli.engine import Detail
from lumen_cli.engine.batch import enhance_batch
from lumen_cli.engine.device import DevicePolicy, choose_device
from lumen_cli.engine.memory import BatchSizes
from lumen_cli.engine.parts import NetworkError, Shape, shape_of
from lumen_cli.engine.scene import scene_of
from lumen_cli.errors import UsageError
from lumen_cli.imaging.colour.convert import luma
from lumen_cli.imaging.picture import Picture
from lumen_cli.registry import GradingName
from lumen_cli.registry.load import load

if TYPE_CHECKING:
    from lumen_cli.registry.card import ModelCard

WELL_EXPOSED = 0.45
"""Target mean luma of the baselines: that of well-exposed photographs and of LOL's references (115/255)."""
_BRIGHT_SHARE = 99.5
_BISECTIONS = 30
_FITTED_PIXELS = 50_000


@dataclass(frozen=True)
class Runner:
    """A loaded entrant.

    run: pictures of one `shape_of` → H×W×3 each, floats in [0, 1] or integers of their depth; batch: pictures of a
    shape that run together.
    """

    run: Callable[[Sequence[Picture]], Sequence[NDArray[Any] | NetworkError]]
    shape_of: Callable[[Picture], Shape | None]
    batch: Callable[[Shape], int]


@dataclass(frozen=True)
class Entrant:
    """A row of the table. kind: "input", "baseline" or "model"; prepare: loads it."""

    name: str
    kind: str
    prepare: Callable[[], Runner]
    architecture: str = ""
    about: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


def input_entrant() -> Entrant:
    """The dark picture itself."""
    return Entrant("input", "input", lambda: _one_by_one(lambda pixels: pixels), about="the dark picture as it is")


def baseline_entrant(name: str) -> Entrant:
    """A global curve, fitted without the reference; UsageError for an unknown name."""
    if name not in BASELINES:
        raise UsageError(f"unknown baseline {name!r}. Known: {', '.join(BASELINES)}")
    function, about = BASELINES[name]
    return Entrant(name, "baseline", lambda: _one_by_one(function), about=about)


def model_entrant(
    card: ModelCard,
    *,
    steps: int | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    batch_size: int | None = None,
    detail: Detail = "auto",
    grading: GradingName = "photo",
    name: str = "",
    choose: Callable[..., DevicePolicy] = choose_device,
) -> Entrant:
    """A model with the settings of `lumen enhance`: the pixels are the same.

    name: in the table, by default the card's; grading: see `load`; choose: chooses the device, as `choose_device` does;
    others as in `choose_device` and `enhance_batch`.

    Raises:
        UsageError: the model does not support these steps or this precision, or the device does not exist.
    """
    chosen = card.steps_for(steps)
    asked = card.precision_for(precision)
    policy = choose(device, asked, precisions=card.precisions, batch_size=batch_size, model=card.name)

    def prepare() -> Runner:
        network = policy.prepare(load(card, grading))
        return Runner(
            lambda pictures: enhance_batch(network, pictures, policy, detail=detail, seed=seed, steps=chosen),
            lambda picture: shape_of(scene_of(picture, detail).seen, network, policy),
            BatchSizes(network, policy).at,
        )

    settings = {
        "steps": chosen,
        "seed": seed,
        "detail": detail,
        "grading": grading,
        "precision": policy.precision,
        "deep_precision": policy.deep_precision,
        "device": policy.device,
        "device_name": policy.device_name,
        "weights": card.weights_sha256,
    }
    shown = (f"{chosen} steps" if chosen else "one pass", f"seed {seed}", f"{grading} grading", policy.precision)
    about = f"{' · '.join(shown)} on {policy.device} ({policy.device_name})"
    return Entrant(name or card.name, "model", prepare, card.architecture, about, settings)


def fit_gain(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Multiply by one factor from 1 up so that the mean luma is `WELL_EXPOSED`; values above 1 are clipped."""

    def apply(values: NDArray[np.float32], gain: float) -> NDArray[np.float32]:
        return np.minimum(values * np.float32(gain), np.float32(1.0))

    few = _thin(pixels)
    return apply(pixels, _solve(lambda gain: float(luma(apply(few, gain)).mean()), 1.0, 1000.0))


def fit_gamma(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale the brightest half percent to 1, then apply one exponent up to 1 so that the mean luma is `WELL_EXPOSED`.

    Like `fit_gain` it never darkens: a brighter picture only gets the white point.
    """
    white = max(float(np.percentile(pixels.max(axis=2), _BRIGHT_SHARE)), 1.0 / 255.0)
    stretched = np.minimum(pixels / np.float32(white), np.float32(1.0))
    few = _thin(stretched)
    # A smaller exponent is brighter, so the search runs over its inverse.
    inverse = _solve(lambda inverse: float(luma(few ** np.float32(1.0 / inverse)).mean()), 1.0, 20.0)
    return stretched ** np.float32(1.0 / inverse)


def _thin(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """At most 200,000 pixels, evenly spread: enough for a mean."""
    step = max(1, int(np.sqrt(pixels.shape[0] * pixels.shape[1] / _FITTED_PIXELS)))
    return pixels[::step, ::step]


BASELINES: dict[str, tuple[Callable[[NDArray[np.float32]], NDArray[np.float32]], str]] = {
    "gamma": (fit_gamma, f"white point, then exponent for a mean of {WELL_EXPOSED:g}; no reference"),
    "gain": (fit_gain, f"one factor for a mean of {WELL_EXPOSED:g}; no reference"),
}


def _solve(brightness: Callable[[float], float], lowest: float, highest: float) -> float:
    """Where an increasing function reaches `WELL_EXPOSED`, by bisection of the logarithm; or an end of the range."""
    low, high = float(np.log(lowest)), float(np.log(highest))
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if brightness(float(np.exp(middle))) < WELL_EXPOSED else (low, middle)
    return float(np.exp((low + high) / 2))


def _one_by_one(function: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> Runner:
    return Runner(lambda pictures: [function(picture.pixels) for picture in pictures], lambda _: None, lambda _: 1)
