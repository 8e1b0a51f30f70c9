"""Pixel values: integers as files hold them, floats in [0, 1] as networks want them, and luma for grey pictures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

_STRIP_VALUES = 1 << 19  # working on strips keeps temporaries in the processor's cache and memory bounded


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
        result[strip] = scaled  # the conversion cuts the fraction off, which is floor for what is not negative
    return result


def stored(values: NDArray[np.float32], depth: int) -> NDArray[Any]:
    """Floats with 1 for white as a file of this depth holds them: `to_integers` for 8 and 16, as they are for 32."""
    return values if depth == 32 else to_integers(values, depth)


def converted(values: NDArray[Any], depth: int) -> NDArray[Any]:
    """Integers or floats of any shape as a file of this depth holds them; those of that depth stay as they are."""
    if values.dtype.itemsize * 8 == depth:
        return values
    result = np.empty(values.shape, {8: np.uint8, 16: np.uint16, 32: np.float32}[depth])
    for strip in strips(values.shape):
        result[strip] = stored(to_unit(values[strip]), depth)
    return result


def luma(pixels: NDArray[np.floating]) -> NDArray[np.float32]:
    """…×3 → … float32: the weighted mean of the encoded values (ITU-R BT.601), which leaves greys as they are."""
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
