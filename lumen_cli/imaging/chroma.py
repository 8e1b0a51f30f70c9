"""Halving the colour resolution for JPEG so that the usual decoders, which interpolate, give back what was there.

Encoders average two neighbours; decoders (libjpeg's "fancy upsampling", which browsers use too) weigh a sample and its
neighbour 3 : 1. Both together blur colours a little more with every generation: by 1/8, 3/4, 1/8 along each axis.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from lumen_cli.imaging.decoded import opencv

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
    cv2 = opencv()
    height, width, _ = values.shape
    result = np.empty_like(values)
    step = 2 if down else 1
    colours = np.empty((2, -(-height // step), -(-width // 2)), np.float32)
    for top in range(0, height, _ROWS):
        red, green, blue = (plane.astype(np.float32) for plane in cv2.split(values[top : top + _ROWS]))
        light = _RED * red + _GREEN * green + _BLUE * blue
        result[top : top + _ROWS, :, 0] = np.rint(light)
        for plane, strip in zip(colours, (_TO_CB * (blue - light), _TO_CR * (red - light)), strict=True):
            half = _average_rows(strip)
            half = _average_rows(half.T).T if down else half
            rows = slice(top // step, top // step + len(half))
            padded = np.pad(half, ((0, 0), (_REACH, _REACH)), mode="symmetric")
            plane[rows] = _sharpen(padded, [np.s_[:, at : at + half.shape[1]] for at in range(len(_SHARPENING))])
    for index, plane in enumerate(colours):
        padded = np.pad(plane, ((_REACH, _REACH), (0, 0)), mode="symmetric") if down else plane
        for top in range(0, len(plane), _ROWS):
            bottom = min(top + _ROWS, len(plane))
            shifted = [np.s_[at + top : at + bottom, :] for at in range(len(_SHARPENING))]
            sharp = _sharpen(padded, shifted) if down else plane[top:bottom]
            pairs = np.clip(np.rint(sharp + 128), 0, 255).astype(np.uint8)
            wide = np.repeat(np.repeat(pairs, step, axis=0), 2, axis=1)
            fits = result[top * step : bottom * step, :, 1 + index]
            fits[:] = wide[: len(fits), :width]
    return result


def _average_rows(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pairs along rows; a last one alone counts for two."""
    if rows.shape[1] % 2:
        rows = np.concatenate([rows, rows[:, -1:]], axis=1)
    return (rows[:, 0::2] + rows[:, 1::2]) * np.float32(0.5)


def _sharpen(padded: NDArray[np.float32], shifted: list[tuple[slice, slice]]) -> NDArray[np.float32]:
    """The blur's inverse along one axis: the weighted sum of parts of `padded`, one for each weight."""
    result = np.zeros_like(padded[shifted[0]])
    product = np.empty_like(result)
    for part, weight in zip(shifted, _SHARPENING, strict=True):
        np.multiply(padded[part], np.float32(weight), out=product)
        result += product
    return result
