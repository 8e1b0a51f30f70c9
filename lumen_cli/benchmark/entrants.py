"""Who is measured: models, the dark picture as it is, and plain curves that anybody could apply."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lumen_cli.engine.batch import NetworkError, Shape, enhance_batch, shape_of
from lumen_cli.engine.device import choose_device
from lumen_cli.engine.scene import scene_of
from lumen_cli.errors import UsageError
from lumen_cli.imaging.colour.convert import luma
from lumen_cli.imaging.picture import Picture
from lumen_cli.limits import Detail
from lumen_cli.registry.load import load

if TYPE_CHECKING:
    from lumen_cli.registry.card import ModelCard

WELL_EXPOSED = 0.45
"""Mean luma the baselines aim at: that of well-exposed photographs, and of LOL's bright side (115/255)."""
_BRIGHT_SHARE = 99.5
_BISECTIONS = 30
_FITTED_PIXELS = 50_000


@dataclass(frozen=True)
class Runner:
    """An entrant that is ready. batch: how many pictures at once.

    run: pictures of one `shape_of` → H×W×3 each, floats in [0, 1] or integers of their depth.
    """

    run: Callable[[Sequence[Picture]], Sequence[NDArray[Any] | NetworkError]]
    shape_of: Callable[[Picture], Shape | None]
    batch: Callable[[int, int], int]


@dataclass(frozen=True)
class Entrant:
    """A row of the table. kind: "input", "baseline" or "model"; prepare: loads what it needs."""

    name: str
    kind: str
    prepare: Callable[[], Runner]
    architecture: str = ""
    about: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


def input_entrant() -> Entrant:
    """The dark picture itself: what a model has to improve on."""
    return Entrant("input", "input", lambda: _one_by_one(lambda pixels: pixels), about="the dark picture as it is")


def baseline_entrant(name: str) -> Entrant:
    """A global curve fitted without looking at the reference; UsageError for an unknown name."""
    if name not in BASELINES:
        raise UsageError(f"there is no baseline {name}; known: {', '.join(BASELINES)}")
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
    name: str = "",
) -> Entrant:
    """A model under the settings `lumen enhance` would run it with; the pixels are the same.

    name: in the table, the card's by default; the rest as in `choose_device` and `enhance_batch`.

    Raises:
        UsageError: steps out of the model's range, a precision it does not support, no such device.
    """
    chosen = card.steps_for(steps)
    asked = card.precision_for(precision)
    policy = choose_device(device, asked, precisions=card.precisions, batch_size=batch_size, model=card.name)

    def prepare() -> Runner:
        network = policy.prepare(load(card))
        return Runner(
            lambda pictures: enhance_batch(network, pictures, policy, detail=detail, seed=seed, steps=chosen),
            lambda picture: shape_of(scene_of(picture, detail).seen, network, policy),
            policy.batch_for,
        )

    settings = {
        "steps": chosen,
        "seed": seed,
        "detail": detail,
        "precision": policy.precision,
        "deep_precision": policy.deep_precision,
        "device": policy.device,
        "device_name": policy.device_name,
        "weights": card.weights_sha256,
    }
    shown = (f"{chosen} steps" if chosen else "one pass", f"seed {seed}", policy.precision)
    about = f"{' · '.join(shown)} on {policy.device} ({policy.device_name})"
    return Entrant(name or card.name, "model", prepare, card.architecture, about, settings)


def fit_gain(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Every value times one factor from 1 up that makes the mean luma `WELL_EXPOSED`; what exceeds 1 is cut off."""

    def applied(values: NDArray[np.float32], gain: float) -> NDArray[np.float32]:
        return np.minimum(values * np.float32(gain), np.float32(1.0))

    few = _thinned(pixels)
    return applied(pixels, _solve(lambda gain: float(luma(applied(few, gain)).mean()), 1.0, 1000.0))


def fit_gamma(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """The brightest half percent to 1, then one exponent up to 1 that makes the mean luma `WELL_EXPOSED`.

    As `fit_gain`, it never darkens: of a picture brighter than that only the white point is set.
    """
    white = max(float(np.percentile(pixels.max(axis=2), _BRIGHT_SHARE)), 1.0 / 255.0)
    stretched = np.minimum(pixels / np.float32(white), np.float32(1.0))
    few = _thinned(stretched)
    # A smaller exponent is brighter, so the search runs over its inverse.
    inverse = _solve(lambda inverse: float(luma(few ** np.float32(1.0 / inverse)).mean()), 1.0, 20.0)
    return stretched ** np.float32(1.0 / inverse)


def _thinned(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Some 200,000 pixels at most, evenly spread: enough for a mean."""
    step = max(1, int(np.sqrt(pixels.shape[0] * pixels.shape[1] / _FITTED_PIXELS)))
    return pixels[::step, ::step]


BASELINES: dict[str, tuple[Callable[[NDArray[np.float32]], NDArray[np.float32]], str]] = {
    "gamma": (fit_gamma, f"white point, then exponent for a mean of {WELL_EXPOSED:g}; no reference"),
    "gain": (fit_gain, f"one factor for a mean of {WELL_EXPOSED:g}; no reference"),
}


def _solve(brightness: Callable[[float], float], lowest: float, highest: float) -> float:
    """Where a growing function passes `WELL_EXPOSED`, by bisection of the logarithm; or an end of the range."""
    low, high = float(np.log(lowest)), float(np.log(highest))
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if brightness(float(np.exp(middle))) < WELL_EXPOSED else (low, middle)
    return float(np.exp((low + high) / 2))


def _one_by_one(function: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> Runner:
    return Runner(lambda pictures: [function(picture.pixels) for picture in pictures], lambda _: None, lambda *_: 1)
