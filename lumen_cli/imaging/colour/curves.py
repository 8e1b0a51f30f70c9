"""Tone curves between encoded values in [0, 1] and linear light, as ICC profiles, PNG and H.273 describe them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

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
