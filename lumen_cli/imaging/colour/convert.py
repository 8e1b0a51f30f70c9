"""Pixel values: integers as files hold them, floats in [0, 1] for networks, luma for grey pictures, order and depth;
and the tone curves between encoded values and linear light, as ICC profiles, PNG and H.273 describe them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

_STRIP_VALUES = 1 << 19
"""In strips of so many values, temporaries stay in the processor's cache and memory stays bounded."""


def to_unit(values: NDArray[np.integer] | NDArray[np.float32]) -> NDArray[np.float32]:
    """uint8 or uint16 values of any shape as float32 in [0, 1], each the float nearest to value / maximum.

    Floats stay as they are. The result is C-contiguous and writable.
    """
    if values.dtype.kind == "f":
        return np.require(values, np.float32, ["C", "W"])
    maximum = np.float32(256**values.dtype.itemsize - 1)
    result = np.empty(values.shape, np.float32)
    np.divide(values, maximum, out=result, dtype=np.float32, casting="unsafe")
    return result


def to_integers(values: NDArray[np.floating], bit_depth: int) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """floor(value · maximum + 0.5) of floats in [0, 1], clamped, as uint8 (depth 8) or uint16 (depth 16).

    `to_integers(to_unit(x), depth_of_x)` is x, exactly.
    """
    kind = np.uint8 if bit_depth == 8 else np.uint16
    maximum = np.float32(np.iinfo(kind).max)
    result = np.empty(values.shape, kind)
    for strip in strips(values.shape):
        scaled = values[strip].astype(np.float32)
        scaled *= maximum
        scaled += np.float32(0.5)
        np.clip(scaled, 0, maximum, out=scaled)
        result[strip] = scaled  # the conversion drops the fraction, which is floor for values that are not negative
    return result


def from_unit(values: NDArray[np.float32], depth: int) -> NDArray[Any]:
    """Floats with 1 for white at a depth: `to_integers` for 8 and 16 bits, unchanged for 32."""
    return values if depth == 32 else to_integers(values, depth)


def convert_depth(values: NDArray[Any], depth: int) -> NDArray[Any]:
    """Integers or floats of any shape at a depth of 8, 16 or 32 bits; values of that depth stay as they are."""
    if values.dtype.itemsize * 8 == depth:
        return values
    result = np.empty(values.shape, {8: np.uint8, 16: np.uint16, 32: np.float32}[depth])
    for strip in strips(values.shape):
        result[strip] = from_unit(to_unit(values[strip]), depth)
    return result


def luma(pixels: NDArray[np.floating]) -> NDArray[np.float32]:
    """…×3 → … float32: the weighted mean of the encoded values (ITU-R BT.601); greys stay exactly as they are."""
    result = np.empty(pixels.shape[:-1], np.float32)
    for strip in strips(pixels.shape):
        red, green, blue = (pixels[strip][..., i].astype(np.float32) for i in range(3))
        # Differences to green rather than three products: equal channels give exactly their own value.
        result[strip] = green + np.float32(0.299) * (red - green) + np.float32(0.114) * (blue - green)
    return result


def strips(shape: tuple[int, ...]) -> Iterator[slice]:
    """Rows of an array, top to bottom, in parts of half a million values or one row."""
    rows = max(1, _STRIP_VALUES // max(1, int(np.prod(shape[1:]))))
    for top in range(0, shape[0], rows):
        yield slice(top, top + rows)


def widen(values: NDArray[Any], bits: int) -> NDArray[np.uint16]:
    """Values of 9 to 15 bits over the full range of 16; `narrow` gives them back exactly."""
    maximum = (1 << bits) - 1
    table = np.rint(np.arange(maximum + 1, dtype=np.float64) * (65535 / maximum)).astype(np.uint16)
    return table[np.minimum(values, maximum)]


def narrow(values: NDArray[Any], bits: int) -> NDArray[np.uint16]:
    """16-bit values rounded to `bits` bits, 0 to 2^bits - 1."""
    table = np.rint(np.arange(65536, dtype=np.float64) * (((1 << bits) - 1) / 65535)).astype(np.uint16)
    return table[values]


def turn_upright(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Apply an EXIF orientation tag (1 to 8) to H×W×C values; a view, nothing is copied."""
    if orientation in (2, 3, 7):
        values = values[:, ::-1]
    if orientation in (3, 4, 7):
        values = values[::-1]
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if orientation == 6:
        values = values[:, ::-1]
    if orientation == 8:
        values = values[::-1]
    return values


def divide_by_alpha(values: NDArray[Any]) -> NDArray[Any]:
    """Undo the multiplication of colours by alpha: H×W×C integers over their full range, or floats; alpha last."""
    if values.dtype.kind == "f":
        alpha = values[:, :, -1:]
        colours = np.divide(values[:, :, :-1], alpha, out=np.zeros_like(values[:, :, :-1]), where=alpha > 0)
        return np.concatenate([colours, alpha], axis=2)
    maximum = float(np.iinfo(values.dtype).max)
    alpha = values[:, :, -1:].astype(np.float64)
    colours = np.divide(values[:, :, :-1] * maximum, alpha, out=np.zeros(values[:, :, :-1].shape), where=alpha > 0)
    rounded = np.clip(np.floor(colours + 0.5), 0, maximum).astype(values.dtype)
    return np.concatenate([rounded, values[:, :, -1:]], axis=2)


def swap_red_and_blue(values: NDArray[Any]) -> NDArray[Any]:
    """H×W×C between RGB and OpenCV's order of colours; alpha stays last, grey stays as it is."""
    return values[:, :, [2, 1, 0, *range(3, values.shape[2])]] if values.shape[2] >= 3 else values


Floats = NDArray[np.floating]


class Curve(Protocol):
    """One channel's curve. Arrays of any shape; the result has their shape and type."""

    def to_light(self, encoded: Floats) -> Floats:
        """Linear light of encoded values."""

    def from_light(self, light: Floats) -> Floats:
        """The encoded values of linear light."""


@dataclass(frozen=True)
class Power:
    """y = (a·x + b)^gamma + e from x = d on, c·x + f below: every parametric curve of ICC.1:2022, section 10.18.

    The curve is odd: values below 0 mirror those above, so that colours outside a gamut have an inverse too.
    """

    gamma: float
    a: float = 1.0
    b: float = 0.0
    c: float = 0.0
    d: float = 0.0
    e: float = 0.0
    f: float = 0.0

    def to_light(self, encoded: Floats) -> Floats:
        """See `Curve.to_light`."""
        size = np.abs(encoded)
        result = np.maximum(self.a * size + self.b, 0) ** self.gamma + self.e
        below = size < self.d
        if below.any():
            result[below] = self.c * size[below] + self.f
        return np.copysign(result, encoded, out=result)

    def from_light(self, light: Floats) -> Floats:
        """See `Curve.from_light`."""
        size = np.abs(light)
        result = (np.maximum(size - self.e, 0) ** (1.0 / self.gamma) - self.b) / self.a
        below = size < max(self.a * self.d + self.b, 0.0) ** self.gamma + self.e
        if self.d > 0 and below.any():
            # Without a slope all values below the bend have its light.
            result[below] = (size[below] - self.f) / self.c if self.c > 0 else self.d
        return np.copysign(np.maximum(result, 0, out=result), light, out=result)


@dataclass(frozen=True)
class Sampled:
    """Samples at equal distances over [0, 1], not falling, straight lines between them; clamped outside."""

    samples: tuple[float, ...]

    def to_light(self, encoded: Floats) -> Floats:
        """See `Curve.to_light`."""
        places = np.linspace(0.0, 1.0, len(self.samples))
        return np.interp(encoded, places, self.samples).astype(encoded.dtype)

    def from_light(self, light: Floats) -> Floats:
        """See `Curve.from_light`; where several values give the same light, the largest of them."""
        return np.interp(light, self.samples, np.linspace(0.0, 1.0, len(self.samples))).astype(light.dtype)


@dataclass(frozen=True)
class Perceptual:
    """PQ, SMPTE ST 2084 (transfer 16 of H.273). Light 1 is a white surface of 203 cd/m² (ITU-R BT.2408)."""

    _WHITE = 203.0 / 10000.0
    _M1, _M2 = 2610 / 16384, 2523 / 4096 * 128
    _C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32

    def to_light(self, encoded: Floats) -> Floats:
        """See `Curve.to_light`; 0 to 49.3."""
        root = np.clip(encoded, 0, 1).astype(np.float64) ** (1 / self._M2)
        result = (np.maximum(root - self._C1, 0) / (self._C2 - self._C3 * root)) ** (1 / self._M1)
        return (result / self._WHITE).astype(encoded.dtype)

    def from_light(self, light: Floats) -> Floats:
        """See `Curve.from_light`."""
        root = np.clip(light.astype(np.float64) * self._WHITE, 0, 1) ** self._M1
        return (((self._C1 + self._C2 * root) / (1 + self._C3 * root)) ** self._M2).astype(light.dtype)


@dataclass(frozen=True)
class HybridLog:
    """HLG, ARIB STD-B67 (transfer 18 of H.273), light of the scene: 1 is the white of signal 0.75 (ITU-R BT.2408)."""

    _A, _B, _C = 0.17883277, 0.28466892, 0.55991073

    def to_light(self, encoded: Floats) -> Floats:
        """See `Curve.to_light`; 0 to 3.77."""
        value = np.maximum(encoded, 0).astype(np.float64)
        upper = (np.exp((np.maximum(value, 0.5) - self._C) / self._A) + self._B) / 12
        return (np.where(value <= 0.5, value**2 / 3, upper) / self._white).astype(encoded.dtype)

    def from_light(self, light: Floats) -> Floats:
        """See `Curve.from_light`."""
        value = np.maximum(light, 0).astype(np.float64) * self._white
        upper = self._A * np.log(np.maximum(12 * value, 1) - self._B) + self._C
        return np.where(value <= 1 / 12, np.sqrt(3 * value), upper).astype(light.dtype)

    @property
    def _white(self) -> float:
        return float((np.exp((0.75 - self._C) / self._A) + self._B) / 12)


LINEAR = Power(1.0)
SRGB = Power(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
"""IEC 61966-2-1."""


def to_linear(srgb: Tensor) -> Tensor:
    """Linear light of a tensor of sRGB values in [0, 1], as `SRGB` gives it for arrays."""
    curved = ((srgb.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4
    return (srgb / 12.92).where(srgb <= 0.04045, curved)


def to_srgb(linear: Tensor) -> Tensor:
    """The sRGB values of a tensor of linear light in [0, 1]."""
    curved = 1.055 * linear.clamp_min(0.0031308) ** (1.0 / 2.4) - 0.055
    return (linear * 12.92).where(linear <= 0.0031308, curved)
