"""The segments of a JPEG before its pixels: which of them a brightened copy keeps, and why others are left out."""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from lumen_cli.imaging.decoded import opencv
from lumen_cli.imaging.storage import JpegWay

EXIF, XMP, EXTENDED_XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"
PHOTOSHOP = b"Photoshop 3.0\0"
APP0, APP1, APP13, COMMENT = 0xE0, 0xE1, 0xED, 0xFE
MOST_IN_SEGMENT = 0xFFFF - 2
"""Bytes that one segment holds."""
_START_OF_SCAN = 0xDA
_OTHER_MARKERS = {*range(0xF0, 0xFE)}


@dataclass(frozen=True)
class Segment:
    """marker: its second byte, 0xE1 for APP1; body: what follows the length."""

    marker: int
    body: bytes


_OLD_PREVIEW = "an old preview"
_LEFT_OUT: tuple[tuple[int, bytes, str], ...] = (
    (0xE0, b"JFXX\0", _OLD_PREVIEW),
    (0xE0, b"AVI1", "the frame order of a video (AVI1)"),
    (0xE4, b"SCALADO\0", "an index into its old data (Scalado)"),
    (0xE8, b"SPIFF\0", "its SPIFF header"),
    (0xE8, b"SEAL\0", "a signature (SEAL) that no longer holds"),
    (0xE9, b"SEAL\0", "a signature (SEAL) that no longer holds"),
    (0xEA, b"AROT\0\0", "the curve of a gain map (AROT)"),
    (0xEB, b"HDR_RI", "a high dynamic range layer (JPEG-HDR)"),
)
"""Untrue of another picture: marker, first bytes, and what it is."""
_WRITTEN_BY_THE_ENCODER = (
    (0xE0, b"JFIF\0"),
    (0xE2, b"ICC_PROFILE\0"),
    (0xEE, b"Adobe"),
    # Where the pictures behind this one lie. They are left out and reported by `behind`.
    (0xE2, b"MPF\0"),
    (0xE2, b"urn:iso:std:iso:ts:21496:-1\0"),
)
_JPEG_START = b"\xff\xd8\xff"
_JUMBF, _CONTENT_CREDENTIALS = b"JP", (b"c2pa", b"c2ma", b"c2cl", b"cai")
_PREVIEW_PLACES = range(0xE2, 0xEB)


def segments(file: BinaryIO) -> Iterator[Segment]:
    """Application segments and comments up to the first scan, from a file that stands behind the start marker."""
    while True:
        marker = _next_marker(file)
        if marker in (None, _START_OF_SCAN, 0xD9):
            return
        length = int.from_bytes(file.read(2), "big")
        assert marker is not None
        if APP0 <= marker <= 0xEF or marker == COMMENT or marker in _OTHER_MARKERS:
            body = file.read(max(0, length - 2))
            if len(body) == length - 2:
                yield Segment(marker, body)
        else:
            file.seek(max(0, length - 2), 1)


def _next_marker(file: BinaryIO) -> int | None:
    """The marker that follows; decoders skip fill bytes, and so does this. None at the end."""
    byte = file.read(1)
    for _ in range(MOST_IN_SEGMENT):
        if byte == b"\xff":
            byte = file.read(1)
            while byte == b"\xff":
                byte = file.read(1)
            if byte not in (b"\0", b""):
                return byte[0]
        if not byte:
            return None
        byte = file.read(1)
    return None


def is_of_the_encoder(segment: Segment) -> bool:
    """Whether the encoder writes this segment by itself, or what it points at is gone."""
    return any(segment.marker == marker and segment.body.startswith(start) for marker, start in _WRITTEN_BY_THE_ENCODER)


def why_left_out(segment: Segment, in_preview: bool = False) -> str | None:
    """What a segment is that is untrue of another picture, in words; None for one that stays.

    Args:
        segment: neither EXIF, XMP, Photoshop's nor `is_of_the_encoder`.
        in_preview: the segment before, of the same marker, was a part of a preview.
    """
    if segment.marker in _OTHER_MARKERS:
        return "an extension of JPEG"
    if segment.marker in _PREVIEW_PLACES and (segment.body.startswith(_JPEG_START) or in_preview):
        return _OLD_PREVIEW
    if segment.marker == 0xEB and segment.body.startswith(_JUMBF):
        signed = any(word in segment.body[:400] for word in _CONTENT_CREDENTIALS)
        return "content credentials (C2PA), whose signature no longer holds" if signed else "a JUMBF box"
    for marker, start, what in _LEFT_OUT:
        if segment.marker == marker and segment.body.startswith(start):
            return what
    return None


def is_preview(why: str | None) -> bool:
    """Whether `why_left_out` gave that."""
    return why == _OLD_PREVIEW


def as_segment(marker: int, body: bytes) -> bytes:
    """The bytes of a segment.

    Raises:
        ValueError: the body is larger than a segment can be.
    """
    if len(body) > MOST_IN_SEGMENT:
        raise ValueError("larger than a segment of a JPEG can be (64 KiB)")
    return bytes((0xFF, marker)) + (len(body) + 2).to_bytes(2, "big") + body


def size_of(data: bytes, at: int) -> tuple[int, int] | None:
    """Width and height from the header of the JPEG that begins there."""
    at += 2
    while data[at : at + 1] == b"\xff" and at + 9 < len(data):
        if data[at + 1] in (0xC0, 0xC1, 0xC2):
            height, width = struct.unpack_from(">HH", data, at + 5)
            return (width, height) if 0 < width <= 65500 and 0 < height <= 65500 else None
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


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
