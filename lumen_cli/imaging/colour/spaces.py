"""Colour spaces of files: from a file's own values to sRGB for the network, and the network's change back to them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from lumen_cli.imaging.colour.convert import SRGB, Curve, from_unit, luma, strips, to_integers, to_unit

Floats = NDArray[np.floating]
Values = NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.float32]

D50 = (0.9642, 1.0, 0.8249)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


@dataclass(frozen=True, eq=False)
class Shaper:
    """Tone curves, then a matrix.

    curves: three for RGB, one for grey; matrix: 3×3, linear RGB → XYZ under D50 with Y of white 1, None for grey.
    """

    curves: tuple[Curve, ...]
    matrix: NDArray[np.float64] | None


Point = tuple[float, float]
"""x and y of a colour in the CIE 1931 diagram."""


def compute_matrix(primaries: tuple[Point, Point, Point], white: Point) -> NDArray[np.float64]:
    """Linear RGB → XYZ under D50, from x, y of red, green, blue and white; adapted as Bradford's (ICC.1, annex E).

    Raises:
        ValueError: no such set of lights gives that white.
    """
    if min(y for _, y in (*primaries, white)) <= 0:
        raise ValueError("chromaticities without light")
    colours = np.array([[x / y, 1.0, (1 - x - y) / y] for x, y in primaries]).T
    if abs(np.linalg.det(colours)) < 1e-9:
        raise ValueError("chromaticities that span no gamut")
    source = np.array([white[0] / white[1], 1.0, (1 - white[0] - white[1]) / white[1]])
    matrix = colours * np.linalg.solve(colours, source)
    cones = (_BRADFORD @ np.array(D50)) / (_BRADFORD @ source)
    adapted: NDArray[np.float64] = np.linalg.inv(_BRADFORD) @ np.diag(cones) @ _BRADFORD @ matrix
    return adapted


SRGB_PRIMARIES = (0.640, 0.330), (0.300, 0.600), (0.150, 0.060)
D65 = (0.3127, 0.3290)
_TO_SRGB = np.linalg.inv(compute_matrix(SRGB_PRIMARIES, D65))
_SAME = 1 / 255
"""A space that differs from sRGB by less than a step of 8 bits everywhere counts as sRGB: values stay untouched."""
_SMALLEST = 1e-6
_CONVERSION = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
_FADE = 0.1
"""Share of sRGB's range: a colour that changes by so much keeps nothing of its own separation into inks."""
_UNCHANGED = np.float32(1e-6)
"""A pixel that differs by less did not change: well below a step of 16 bits."""


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

    def apply_change(self, values: Values, result: NDArray[np.float32]) -> NDArray[np.float32]:
        """The values, as floats with 1 for white, after `to_srgb(values)` became `result`.

        Colours outside the space lie outside [0, 1]; storing them as integers clamps them.
        """


@dataclass(frozen=True, eq=False)
class ShaperSpace:
    """Curves and a matrix. Colours outside sRGB are kept; the network sees them clipped."""

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
        return np.broadcast_to(SRGB.from_light(linear).T, (len(values), 3))

    def apply_change(self, values: Values, result: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Space`.

        In linear light a longer exposure multiplies a picture by a number, also the part of it that lies outside sRGB.
        Here the network's change gives that number: of the strongest channel for light above white, of the difference
        between the strongest and the weakest channel, which is saturation, for light below 0.
        """
        linear = self._linear(values)
        wanted = luma(result)[None] if self.grey else np.ascontiguousarray(result.T)
        after = SRGB.to_light(wanted).astype(np.float64)
        if linear.max(initial=0) > 1 or linear.min(initial=0) < 0:
            before = np.clip(linear, 0, 1)
            most, most_before = after.max(axis=0), before.max(axis=0)
            spread, spread_before = most - after.min(axis=0), most_before - before.min(axis=0)
            after += np.maximum(linear - 1, 0) * ((most + _SMALLEST) / (most_before + _SMALLEST))
            after += np.minimum(linear, 0) * ((spread + _SMALLEST) / (spread_before + _SMALLEST))
        own = after if self._matrix is None else np.linalg.inv(self._matrix) @ after
        light = own.astype(np.float32)
        return np.stack([curve.from_light(plane) for curve, plane in zip(self._curves, light, strict=True)], axis=1)

    def _linear(self, values: Values) -> Floats:
        """N×C → C×N linear light in sRGB's primaries, unbounded. Planes, as numpy works along rows."""
        own = np.stack([self._light(i, values[:, i]) for i in range(len(self._curves))])
        return own if self._matrix is None else self._matrix @ own

    def _light(self, index: int, values: Values) -> Floats:
        curve = self._curves[index]
        if values.dtype.kind == "f":
            return curve.to_light(values.astype(np.float64))
        key = index, values.dtype.itemsize
        if key not in self._tables:
            every = np.arange(256**values.dtype.itemsize)
            self._tables[key] = curve.to_light(every / every[-1])
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


@dataclass(frozen=True)
class TableSpace:
    """A profile with tables, relative colorimetric with black point compensation both ways, as Photoshop does it.

    mode: "RGB" or "CMYK".
    """

    icc: bytes
    mode: str
    exact = False

    def __post_init__(self) -> None:
        """ValueError where LittleCMS cannot use the profile in both directions."""
        try:
            _ = self._forth, self._back
        except (ImageCms.PyCMSError, OSError) as error:
            raise ValueError(str(error)) from None

    def __reduce__(self) -> tuple[type[TableSpace], tuple[bytes, str]]:
        return TableSpace, (self.icc, self.mode)

    @property
    def channels(self) -> int:
        """See `Space`."""
        return len(self.mode)

    @cached_property
    def _forth(self) -> ImageCms.ImageCmsTransform:
        return ImageCms.buildTransform(io.BytesIO(self.icc), _srgb(), self.mode, "RGB", *_CONVERSION)

    @cached_property
    def _back(self) -> ImageCms.ImageCmsTransform:
        return ImageCms.buildTransform(_srgb(), io.BytesIO(self.icc), "RGB", self.mode, *_CONVERSION)

    def to_srgb(self, values: Values) -> NDArray[np.float32]:
        """See `Space`."""
        return to_unit(_transform(self._forth, _to_8_bits(values), self.mode, 3))

    def apply_change(self, values: Values, result: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Space`.

        Pixels that did not change keep their inks, which are the printer's choice among many that look alike; changed
        pixels get those of the profile; in between the two are mixed.
        """
        before = self.to_srgb(values)
        fresh, stale = (
            to_unit(_transform(self._back, _to_8_bits(rgb), "RGB", self.channels)) for rgb in (result, before)
        )
        change = np.abs(result - before).max(axis=1, keepdims=True)
        kept = np.maximum(0, 1 - change / np.float32(_FADE))
        return np.clip(fresh + kept * (to_unit(values) - stale), 0, 1)


@dataclass(frozen=True)
class DeviceCmyk:
    """CMYK without a profile: each ink takes its part of the light, as simple programs show it."""

    channels = 4
    exact = True

    def to_srgb(self, values: Values) -> NDArray[np.float32]:
        """See `Space`."""
        light = 1 - np.clip(to_unit(values), 0, 1)
        return light[:, :3] * light[:, 3:]

    def apply_change(self, values: Values, result: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Space`: black stays as far as the wanted light allows, and the colours do the rest."""
        result = np.clip(result, 0, 1)
        black = np.minimum(np.clip(to_unit(values[:, 3:]), 0, 1), 1 - result.max(axis=1, keepdims=True))
        left = 1 - black
        light = np.divide(result, left, out=1 - np.clip(to_unit(values[:, :3]), 0, 1), where=left > 0)
        return np.concatenate([1 - np.minimum(light, 1), black], axis=1)


def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _transform(
    transform: ImageCms.ImageCmsTransform, values: NDArray[np.uint8], mode: str, channels: int
) -> NDArray[np.uint8]:
    image = Image.frombytes(mode, (len(values), 1), np.ascontiguousarray(values).tobytes())
    result = ImageCms.applyTransform(image, transform)
    assert result is not None
    return np.asarray(result).reshape(-1, channels)


def _to_8_bits(values: Values) -> NDArray[np.uint8]:
    return values if values.dtype == np.uint8 else to_integers(to_unit(values), 8)  # type: ignore[return-value]


@dataclass(frozen=True, eq=False)
class NativeColours:
    """The values of a file whose colours are not sRGB."""

    values: Values
    """H×W×C as the file holds them, upright, without alpha; C as the space has channels."""
    space: Space
    icc: bytes | None
    """The profile to embed; None where there is none for the space."""
    source: str = "profile"
    """What names the space in the original: "profile", "chunks" (of a PNG), "tags" (EXIF's mark of Adobe RGB) or
    "nothing"."""
    cicp: tuple[int, int] | None = None
    """Primaries and transfer (ITU-T H.273) where the original names them."""
    chunks: Mapping[bytes, bytes] = field(default_factory=dict)
    """Those of a PNG about colours."""

    @property
    def mark(self) -> bytes:
        """Bytes that differ between colour spaces, for digests."""
        return b"own " + hashlib.blake2b(self.icc or f"{self.source} {self.cicp}".encode(), digest_size=8).digest()

    def to_srgb(self, part: Values | None = None) -> NDArray[np.float32]:
        """H×W×3 in [0, 1], C-contiguous, for the network. part: H×W×C of the values, None for all of them."""
        part = self.values if part is None else part
        pixels = np.empty((*part.shape[:2], 3), np.float32)
        for rows, values in _rows(part):
            pixels[rows] = self.space.to_srgb(values).reshape(pixels[rows].shape)
        return pixels

    def apply_change(self, pixels: NDArray[np.float32], depth: int = 32) -> NDArray[Any]:
        """The values, H×W×C, with the change from `to_srgb()` to `pixels`.

        Pixels that did not change come back exactly. depth: 8 or 16 for integers; 32 for floats with 1 for white, of
        which colours outside the space lie outside [0, 1].
        """
        result = np.empty(self.values.shape, {8: np.uint8, 16: np.uint16, 32: np.float32}[depth])
        for rows, values in _rows(self.values):
            wanted = pixels[rows].reshape(-1, 3)
            native = to_unit(values)
            kept = (np.abs(wanted - self.space.to_srgb(values)) < _UNCHANGED).all(axis=1, keepdims=True)
            if not kept.all():
                native = np.where(kept, native, self.space.apply_change(values, wanted))
            result[rows] = from_unit(native, depth).reshape(result[rows].shape)
        return result


def _rows(values: Values) -> Iterator[tuple[slice, Values]]:
    for rows in strips(values.shape):
        yield rows, values[rows].reshape(-1, values.shape[2])
