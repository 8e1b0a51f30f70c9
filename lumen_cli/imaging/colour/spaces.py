"""What a file's colours mean: from its own values to sRGB for the network, and the network's change back into them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lumen_cli.imaging.colour.convert import luma
from lumen_cli.imaging.colour.curves import SRGB, Curve
from lumen_cli.imaging.colour.icc import Shaper, matrix_of

Floats = NDArray[np.floating]
Values = NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.float32]

SRGB_PRIMARIES = (0.640, 0.330), (0.300, 0.600), (0.150, 0.060)
D65 = (0.3127, 0.3290)
_TO_SRGB = np.linalg.inv(matrix_of(SRGB_PRIMARIES, D65))
_SAME = 1 / 255
"""A space that differs from sRGB by less than a step of 8 bits everywhere is taken for it: values stay untouched."""
_SMALLEST = 1e-6


class Space(Protocol):
    """A colour space of pictures with `channels` channels: 1 grey, 3 RGB, 4 CMYK (amounts of ink).

    Values are N×C as the file holds them: integers, or floats with 1 for white (or full ink).
    """

    @property
    def channels(self) -> int:
        """1, 3 or 4."""

    @property
    def exact(self) -> bool:
        """Whether more than 8 bits go through."""

    def to_srgb(self, values: Values) -> NDArray[np.float32]:
        """N×3 sRGB, clipped to [0, 1]."""

    def carried(self, values: Values, result: NDArray[np.float32]) -> NDArray[np.float32]:
        """What `values` have to be, as floats with 1 for white, where `to_srgb(values)` became `result`.

        Colours that the space has not lie outside [0, 1]; who stores integers clamps them.
        """


@dataclass(frozen=True, eq=False)
class ShaperSpace:
    """Curves and a matrix. Colours that sRGB has not are kept beside the clipped ones that the network sees."""

    shaper: Shaper
    grey: bool = False
    exact = True

    def __reduce__(self) -> tuple[type[ShaperSpace], tuple[Shaper, bool]]:
        return ShaperSpace, (self.shaper, self.grey)

    @property
    def channels(self) -> int:
        """See `Space`."""
        return 1 if self.grey else 3

    @cached_property
    def is_srgb(self) -> bool:
        """Whether no value differs visibly from what it would be in sRGB."""
        steps = np.linspace(0, 1, 256 if self.grey else 9, dtype=np.float32)
        grid = steps[:, None] if self.grey else np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3)
        return bool(np.abs(self.to_srgb(grid) - grid).max() < _SAME)

    def to_srgb(self, values: Values) -> NDArray[np.float32]:
        """See `Space`."""
        linear = np.clip(self._linear(values), 0, 1).astype(np.float32)
        return np.broadcast_to(SRGB.encoded(linear).T, (len(values), 3))

    def carried(self, values: Values, result: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Space`.

        In linear light a picture that is only exposed longer is multiplied by a number, and so is what of it lies
        outside sRGB. Here that number is what the network did: to the strongest channel for light above white, to the
        distance between the strongest and the weakest channel, saturation that is, for what lies below 0.
        """
        linear = self._linear(values)
        wanted = luma(result)[None] if self.grey else np.ascontiguousarray(result.T)
        after = SRGB.light(wanted).astype(np.float64)
        if linear.max(initial=0) > 1 or linear.min(initial=0) < 0:
            before = np.clip(linear, 0, 1)
            most, most_before = after.max(axis=0), before.max(axis=0)
            spread, spread_before = most - after.min(axis=0), most_before - before.min(axis=0)
            after += np.maximum(linear - 1, 0) * ((most + _SMALLEST) / (most_before + _SMALLEST))
            after += np.minimum(linear, 0) * ((spread + _SMALLEST) / (spread_before + _SMALLEST))
        own = after if self._matrix is None else np.linalg.inv(self._matrix) @ after
        light = own.astype(np.float32)
        return np.stack([curve.encoded(plane) for curve, plane in zip(self._curves, light, strict=True)], axis=1)

    def _linear(self, values: Values) -> Floats:
        """N×C → C×N linear light in sRGB's primaries, unbounded. Planes, as numpy works along rows."""
        own = np.stack([self._light(i, values[:, i]) for i in range(len(self._curves))])
        return own if self._matrix is None else self._matrix @ own

    def _light(self, index: int, values: Values) -> Floats:
        curve = self._curves[index]
        if values.dtype.kind == "f":
            return curve.light(values.astype(np.float64))
        key = index, values.dtype.itemsize
        if key not in self._tables:
            every = np.arange(256**values.dtype.itemsize)
            self._tables[key] = curve.light(every / every[-1])
        return self._tables[key][values]

    @cached_property
    def _tables(self) -> dict[tuple[int, int], Floats]:
        return {}

    @cached_property
    def _curves(self) -> tuple[Curve, ...]:
        return self.shaper.curves[1:2] if self.grey and len(self.shaper.curves) == 3 else self.shaper.curves

    @cached_property
    def _matrix(self) -> Floats | None:
        return None if self.grey or self.shaper.matrix is None else _TO_SRGB @ self.shaper.matrix
