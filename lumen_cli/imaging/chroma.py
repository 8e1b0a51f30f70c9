"""Halving the colour resolution for JPEG so that the usual decoders, which interpolate, give back what was there.

Encoders average two neighbours; decoders (libjpeg's "fancy upsampling", which browsers use too) weigh a sample and its
neighbour 3 : 1. Both together blur colours a little more with every generation: by 1/8, 3/4, 1/8 along each axis.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_RED, _GREEN, _BLUE = (np.float32(weight) for weight in (0.299, 0.587, 0.114))
_TO_CB, _TO_CR = (np.float32(1 / (2 - 2 * weight)) for weight in (0.114, 0.299))
"""JFIF 1.02: Y is the weighted sum, Cb and Cr are multiples of B - Y and R - Y (and an offset of 128)."""
# The blur's inverse: its z-transform is 8z / (z² + 6z + 1), with one pole inside the unit circle.
_POLE = math.sqrt(8) - 3
_REACH = 5
_SHARPENING = [math.sqrt(2) * _POLE ** abs(step) for step in range(-_REACH, _REACH + 1)]
_ROWS = 64


def with_halved_colours(values: NDArray[np.uint8], down: bool) -> NDArray[np.uint8]:
    """H×W×3 RGB → H×W×3 YCbCr whose Cb and Cr come in pairs along rows, and with `down` along columns too.

    An encoder that averages the pairs finds exactly the samples that are in them.
    """
    height, width, _ = values.shape
    result = np.empty_like(values)
    step = 2 if down else 1
    colours = np.empty((2, -(-height // step), -(-width // 2)), np.float32)
    for top in range(0, height, _ROWS):
        red, green, blue = np.moveaxis(values[top : top + _ROWS], 2, 0).astype(np.float32)
        light = _RED * red + _GREEN * green + _BLUE * blue
        result[top : top + _ROWS, :, 0] = np.rint(light)
        for plane, strip in zip(colours, (_TO_CB * (blue - light), _TO_CR * (red - light)), strict=True):
            half = _averaged(strip)
            half = _averaged(half.T).T if down else half
            plane[top // step : top // step + len(half)] = half
    for index, plane in enumerate(colours):
        sharp = _sharpened(plane)
        sharp = _sharpened(sharp.T).T if down else sharp
        pairs = np.clip(np.rint(sharp + 128), 0, 255).astype(np.uint8)
        for row in range(step):
            for column in range(2):
                fits = result[row::step, column::2, 1 + index]
                fits[:] = pairs[: fits.shape[0], : fits.shape[1]]
    return result


def _averaged(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pairs along rows; a last one alone counts for two."""
    if rows.shape[1] % 2:
        rows = np.concatenate([rows, rows[:, -1:]], axis=1)
    return (rows[:, 0::2] + rows[:, 1::2]) * np.float32(0.5)


def _sharpened(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Along rows, which go on mirrored."""
    width = rows.shape[1]
    padded = np.pad(rows, ((0, 0), (_REACH, _REACH)), mode="symmetric")
    result = np.zeros_like(rows)
    for at, weight in enumerate(_SHARPENING):
        result += np.float32(weight) * padded[:, at : at + width]
    return result
