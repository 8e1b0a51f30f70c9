"""Writing JPEG as the original was written: its tables, its sampling of colour and its passes."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumen_cli.imaging.decoded import opencv
from lumen_cli.imaging.storage import JpegWay

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


def encode(
    values: NDArray[np.uint8], icc: bytes | None, *, quality: int | None, way: JpegWay | None, cmyk: bool = False
) -> bytes:
    """A whole file of H×W×C values.

    Args:
        values: C is 1 (grey), 3 (RGB) or 4 (amounts of ink).
        icc: the profile to embed.
        quality: 1 to 100; None takes the steps of `way`.
        way: how the original was stored: its sampling of colour and its passes are kept too. None: 4:4:4, one pass.
        cmyk: whether the values are amounts of ink.

    Raises:
        ValueError: neither quality nor way is given.
    """
    from PIL import Image

    if quality is None and way is None:
        raise ValueError("a JPEG needs a quality")
    way = way or JpegWay(())
    options: dict[str, Any] = {"progressive": way.progressive, "icc_profile": icc}
    if quality is None:
        options["qtables"] = [list(table) for table in way.tables[: values.shape[2]]]
    else:
        options["quality"] = quality
    if values.shape[2] == 3:
        # Encoders know halved colours only where these lie apart from lightness.
        options["subsampling"] = "4:4:4" if way.rgb else way.sampling or "4:4:4"
        options["keep_rgb"] = way.rgb
    elif cmyk:
        options["subsampling"] = "4:4:4"
    if cmyk:
        image = Image.frombytes("CMYK", values.shape[1::-1], values.tobytes())
    elif way.sampling in ("4:2:2", "4:2:0") and values.shape[2] == 3 and not way.rgb:
        halved = with_halved_colours(values, way.sampling == "4:2:0")
        image = Image.frombytes("YCbCr", values.shape[1::-1], halved)
        del halved  # of a picture of 100 megapixels it is 300 megabytes
    else:
        image = Image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    data = buffer.getvalue()
    if way.density is None or data[6:11] != b"JFIF\0":
        return data
    unit, across, down = way.density
    return data[:13] + bytes([unit]) + across.to_bytes(2, "big") + down.to_bytes(2, "big") + data[18:]
