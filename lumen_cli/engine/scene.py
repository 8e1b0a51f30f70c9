"""Reduces a picture for the network, and carries the result back to the picture's size and kind of values."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from lumen_cli.engine import Detail
from lumen_cli.engine.device import DevicePolicy, native_bf16_on_cpu
from lumen_cli.imaging.colour.convert import to_linear, to_unit
from lumen_cli.imaging.picture import Picture

if TYPE_CHECKING:
    from torch import Tensor

    from lumen_cli.engine.carrier import Carrier
    from lumen_cli.engine.full_resolution import FullResolution, Reader
    from lumen_cli.engine.refine import Refining

Floats = NDArray[np.float32]

_SHORTEST = 64
"""Networks pad shorter sides to about this size, so a narrow picture costs as much as one of this width."""
_MEASURED_PIXELS = 2_000_000
"""Pixels of a picture that its light is measured on."""
_GAINS = (0.5, 2.0)
_FAINTEST = 1e-9
_STRIP, _REFINED_STRIP = 128, 256
"""Rows per strip; any number gives the same values. With the refiner's margin, larger strips are faster."""
_TORCH_THREADS = Lock()


@dataclass(frozen=True)
class Settings:
    """Parameters of the method; lengths in pixels of the small picture, pixel values in [0, 1]."""

    whole_pixels: int = 400_000
    """Pictures up to this size run at full size."""
    scene_pixels: int = 250_000
    """Pixels of the small picture."""
    radius: int = 23
    """Of the windows for fitting colour maps, which are 2·radius + 1 wide."""
    grid: int = 4
    """Side of the squares that share a colour map."""
    regularisation: float = 0.02
    """ε of the guided filter: variance below which a window counts as flat."""
    fine_radius: int = 8
    """Of the windows for fitting the residual; 0 for none."""
    fine_regularisation: float = 0.01
    """ε for the residual."""
    misfit: float = 0.03
    """Residual of which half is fitted; smaller residuals are the network's noise."""
    target: float = 0.66
    """Target mean of `tone`."""
    largest_gain: float = 16.0
    """Of `tone`."""
    levels: int = 2
    """Number of bands that are denoised."""
    light_strength: float = 1.2
    """Threshold for bands of Y, in deviations of the noise."""
    colour_strength: float = 2.0
    """The same for Cb and Cr."""
    faint_gain: float = 1.1
    """Up to this gain of the result over the picture, noise is kept."""
    full_gain: float = 1.8
    """From this gain on, shrinkage has full strength."""


DEFAULTS = Settings()


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture, and what the network sees: the picture itself or a reduced copy.

    input, noise: what `batch.prepare` computed of `seen` before the network's turn, if it did.
    """

    picture: Picture
    seen: Picture
    input: Tensor | None = None
    noise: Tensor | None = None

    @property
    def whole(self) -> bool:
        """Whether the network sees the picture itself."""
        return self.seen is self.picture


def scene_of(picture: Picture, detail: Detail = "auto", settings: Settings = DEFAULTS) -> Scene:
    """Reduce a picture for the network, depending on its size and `detail`."""
    size = (picture.height, picture.width) if detail == "whole" else scene_size(picture.height, picture.width, settings)
    if size == (picture.height, picture.width):
        return Scene(picture, picture)
    small = reduce_by_area(picture, *size)
    return Scene(picture, dataclasses.replace(picture, values=small, alpha=None, native=None))


def scene_size(height: int, width: int, settings: Settings = DEFAULTS) -> tuple[int, int]:
    """The size at which the network sees a picture of this size: its own, or about `scene_pixels`."""
    if _extent(height, width) <= settings.whole_pixels:
        return height, width
    low, high = 1.0, float(max(height, width))
    for _ in range(50):
        middle = math.sqrt(low * high)
        fits = _extent(height / middle, width / middle) <= settings.scene_pixels
        low, high = (low, middle) if fits else (middle, high)
    return max(1, min(height, round(height / high))), max(1, min(width, round(width / high)))


def _extent(height: float, width: float) -> float:
    return max(height, _SHORTEST) * max(width, _SHORTEST)


def refining_of(scene: Scene, detail: Detail, policy: DevicePolicy) -> Refining | None:
    """The refiner for results that are carried to full size with `detail` "auto"; otherwise None."""
    if detail != "auto" or scene.whole:
        return None
    from lumen_cli.engine.refine import load_refining

    precise = policy.precision_for(scene.picture.bit_depth) == "fp32" or not native_bf16_on_cpu()
    return load_refining(torch.float32 if precise else torch.bfloat16)


def reduce_by_area(picture: Picture, height: int, width: int) -> Floats:
    """The picture reduced by averaging areas, height×width×3 float32 in [0, 1]."""
    narrow = np.empty((picture.height, width, 3), np.float32)
    for top in range(0, picture.height, _STRIP):
        rows = slice(top, min(top + _STRIP, picture.height))
        strip = picture.rows(rows)
        narrow[rows] = cv2.resize(strip, (width, len(strip)), interpolation=cv2.INTER_AREA)
    reduced = cv2.resize(narrow, (width, height), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(np.clip(reduced, 0, 1), np.float32)


def finish(
    scene: Scene,
    result: Floats,
    *,
    strength: float = 1.0,
    keep_ratio: bool = False,
    refining: Refining | None = None,
    settings: Settings = DEFAULTS,
    carrier: Carrier | None = None,
    warn: Callable[[str], None] = lambda line: None,
) -> NDArray[Any]:
    """The full-size picture for a network's result on `scene.seen`.

    Args:
        scene: from `scene_of`.
        result: h×w×3 float32, of the size of `scene.seen`.
        strength: 0 returns the picture, 1 the full result, values between blend them.
        keep_ratio: whether the ratio of the result's mean linear light to the picture's must equal that of the small
            pictures, as a requested brightness needs it.
        refining: removes strong noise after shrinkage (see `FullResolution.noisy`).
        settings: parameters of the method.
        carrier: brings the result to full size on a device; None for the CPU.
        warn: called with a line where that device was full or lost, so that the CPU did it.

    Returns:
        H×W×3 of the picture's size: float32 in [0, 1], or for a large sRGB picture the kind of its values.
    """
    picture = scene.picture
    if scene.whole:
        return result if strength == 1.0 else _mix(picture.pixels, result, strength)
    if strength == 0.0 or np.array_equal(result, scene.seen.pixels):  # nothing to brighten
        return picture.pixels if picture.values is None else picture.values
    from lumen_cli.engine.carrier import on_device_or_cpu  # small pictures do without it
    from lumen_cli.engine.colour_maps import fit_maps
    from lumen_cli.engine.full_resolution import plan

    def carry(carrier: Carrier | None) -> NDArray[Any]:
        size, fit = (picture.height, picture.width), fit_maps if carrier is None else carrier.fit
        full = plan(reader_of(picture), scene.seen.pixels, result, size, settings, fit=fit)
        if refining is not None and full.noisy:
            full = dataclasses.replace(full, refining=refining)
        gain = gain_for(scene, result, full, carrier) if keep_ratio else 1.0
        return render(full, picture, strength=strength, gain=gain, carrier=carrier)

    return on_device_or_cpu(carrier, carry, warn)


def render(
    full: FullResolution,
    picture: Picture,
    *,
    strength: float = 1.0,
    gain: float = 1.0,
    carrier: Carrier | None = None,
) -> NDArray[Any]:
    """The full-size result for a picture, strip by strip.

    Args:
        full: reads the picture.
        picture: the original.
        strength: as in `finish`.
        gain: a factor on the result's light.
        carrier: as in `finish`.

    Returns:
        As `finish`, for a large picture.
    """
    if carrier is not None:
        return carrier.render(full, picture, strength=strength, gain=gain)
    kind = np.float32 if picture.native is not None else picture.samples.dtype
    values = np.empty((picture.height, picture.width, 3), kind)
    height, begin = (_STRIP, None) if full.refining is None else (_REFINED_STRIP, _compute_alone)

    def render_strip(top: int) -> None:
        bottom = min(top + height, picture.height)
        strip = full.render(top, bottom)
        if gain != 1.0:
            strip = multiply_light(strip, gain)
        if strength < 1.0:
            strip = _mix(picture.rows(slice(top, bottom)), strip, strength)
        store(strip, values[top:bottom])

    with ThreadPoolExecutor(_threads(), "lumen-render", begin) as threads:
        for _ in threads.map(render_strip, range(0, picture.height, height)):
            pass
    return values


def reader_of(picture: Picture) -> Reader:
    """A function of rows and columns that reads a picture for `full_resolution`."""
    return lambda rows, columns: _part(picture, rows, columns)


def gain_for(scene: Scene, result: Floats, full: FullResolution, carrier: Carrier | None = None) -> float:
    """The factor on the full-size result's light so that its ratio to the picture equals that of the small pictures.

    Noise adds to the mean light of a dark picture, but not to that of the small picture or of a denoised result. Only
    some strips are measured.
    """
    picture = scene.picture
    every = max(1, round(picture.height * picture.width / _MEASURED_PIXELS))
    given = made = 0.0
    for top in range((every // 2) * _STRIP % max(1, picture.height), picture.height, every * _STRIP):
        bottom = min(top + _STRIP, picture.height)
        given += _light(picture.rows(slice(top, bottom)))
        if carrier is None:
            made += _light(full.render(top, bottom))
        else:
            made += carrier.light(full, picture, top, bottom)
    ratio = _light(result) / max(_light(scene.seen.pixels), _FAINTEST)
    least, greatest = _GAINS
    return min(max(ratio * given / max(made, _FAINTEST), least), greatest)


def light_of(picture: Picture) -> float:
    """The mean linear light of a picture, 0 to 1, of a large one on a regular grid of its pixels."""
    step = max(1, round(math.sqrt(picture.height * picture.width / _MEASURED_PIXELS)))
    pixels = np.ascontiguousarray(picture.rows(slice(None, None, step), step))
    return _light(pixels) / pixels.size


def _light(pixels: Floats) -> float:
    """The sum of linear light of sRGB values."""
    # numpy's sum is the same from any number of threads.
    return float(to_linear(torch.from_numpy(pixels).clamp(0, 1)).numpy().sum(dtype=np.float64))


def multiply_light(values: Floats, gain: float) -> Floats:
    """SRGB values with `gain` times their linear light, exact on both pieces of the curve."""
    power = gain ** (1 / 2.4)
    result: Floats = np.where(values > 0.04045, values * power + 0.055 * (power - 1), values * gain).astype(np.float32)
    return result


def store(strip: Floats, values: NDArray[Any]) -> None:
    """Write floats (white is 1) to integers, rounded, or to floats, clamped; `strip` is overwritten."""
    if values.dtype == np.float32:
        np.clip(strip, 0, 1, out=values)
    else:
        kind, maximum = (cv2.CV_8U, 255.0) if values.dtype == np.uint8 else (cv2.CV_16U, 65535.0)
        np.multiply(strip, np.float32(maximum), out=strip)
        # Rounds and saturates. Alternatives use fused multiply-add, where the last bits depend on the strip.
        cv2.addWeighted(strip, 1.0, strip, 0.0, 0.0, values, kind)


def _part(picture: Picture, rows: slice, columns: slice) -> NDArray[Any]:
    """A part of the picture: uint8 for 8-bit sRGB, otherwise float32 in [0, 1]."""
    if picture.values is None:
        assert picture.native is not None
        return picture.native.to_srgb(picture.native.values[rows, columns])
    part = picture.values[rows, columns]
    return part if part.dtype == np.uint8 else to_unit(part)


def _mix(low: Floats, result: Floats, strength: float) -> Floats:
    """Low + strength · (result - low), with both ends exact."""
    share = np.float32(strength)
    difference = result - low
    mixed: Floats = low + share * difference if share < np.float32(0.5) else result - difference * (1 - share)
    return mixed


def _compute_alone() -> None:
    """Make PyTorch use one thread here, because the sibling threads render other strips."""
    with _TORCH_THREADS:
        count = torch.get_num_threads()
        torch.set_num_threads(1)
        # The number applies to this thread, but also to new ones: another thread resets it for them.
        resetting = Thread(target=torch.set_num_threads, args=(count,))
        resetting.start()
        resetting.join()


def _threads() -> int:
    return os.cpu_count() or 1
