"""Pixel values: integers as files hold them, floats in [0, 1] for networks, luma for grey pictures, order and depth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
