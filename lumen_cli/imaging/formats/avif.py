"""AVIF: 8 bits a channel through Pillow, 10 and 12 through OpenCV."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from lumen_cli.imaging.colour.convert import narrow, swap_red_and_blue, widen
from lumen_cli.imaging.extent import find_boxes_end, note_boxes, read_at, read_bounded, read_brands, walk_boxes
from lumen_cli.imaging.formats.format import (
    Decoded,
    Format,
    Raster,
    Storage,
    UnreadableError,
    decode_by_opencv,
    load_opencv,
    note_first_of,
)
from lumen_cli.imaging.formats.pillow import measure, open_image, read_orientation, strip_exif_prefix

_IDENTITY = 0
"""The matrix (ITU-T H.273) of files that store red, green and blue themselves."""
_CONTAINERS = {b"meta": 4, b"iprp": 0}
"""Boxes to look into, and the bytes of version and flags before their content."""
_MOST_ITEMS, _MOST_BYTES = 10_000, 1 << 20


@dataclass(frozen=True)
class MainPicture:
    """What a file says about its main picture, without decoding it."""

    bits: int = 8
    """Of a channel."""
    grey: bool = False
    cicp: tuple[int, int, int] | None = None
    """Colour primaries, transfer and matrix (ITU-T H.273)."""


@dataclass
class _Boxes:
    """properties: of all items; belongs: for each item the numbers of its properties, from 1."""

    primary: int = 0
    properties: list[tuple[bytes, int, int]] = field(default_factory=list)
    belongs: dict[int, list[int]] = field(default_factory=dict)


def read_main_picture(file: BinaryIO) -> MainPicture:
    """The properties of an AVIF file's main picture; of one made of tiles, those its tiles share."""
    found = _Boxes()
    _collect_boxes(file, 0, None, found)
    numbers = found.belongs.get(found.primary, [])
    own = [found.properties[number - 1] for number in numbers if 0 < number <= len(found.properties)]
    config, colours = None, None
    for name, begin, stop in (*own, *found.properties):
        body = read_at(file, begin, min(16, stop - begin))
        if name == b"av1C" and len(body) >= 4 and config is None:
            config = body[2]
        elif name == b"colr" and body[:4] == b"nclx" and len(body) >= 10 and colours is None:
            colours = body[4:10]
    bits = 8 if config is None else 12 if config & 0x20 else 10 if config & 0x40 else 8
    cicp = None
    if colours is not None:
        primaries, transfer, matrix = (int.from_bytes(colours[at : at + 2], "big") for at in (0, 2, 4))
        cicp = primaries, transfer, matrix
    return MainPicture(bits, config is not None and bool(config & 0x10), cicp)


def _collect_boxes(file: BinaryIO, start: int, end: int | None, found: _Boxes) -> None:
    for name, begin, stop in walk_boxes(file, start, end):
        if name == b"ipco":
            found.properties = list(walk_boxes(file, begin, stop))
        elif name in _CONTAINERS:
            _collect_boxes(file, begin + _CONTAINERS[name], stop, found)
        elif name == b"pitm":
            found.primary = int.from_bytes(read_at(file, begin + 4, min(4, stop - begin - 4)), "big")
        elif name == b"ipma":
            found.belongs.update(_read_associations(read_at(file, begin, min(_MOST_BYTES, stop - begin))))


def _read_associations(body: bytes) -> dict[int, list[int]]:
    """For each item the numbers of its properties."""
    item_bytes = 4 if body[:1] >= b"\1" else 2
    wide = bool(body[3:4] and body[3] & 1)
    size, position, result = 2 if wide else 1, 8, dict[int, list[int]]()
    for _ in range(min(int.from_bytes(body[4:8], "big"), _MOST_ITEMS)):
        item = int.from_bytes(body[position : position + item_bytes], "big")
        count = int.from_bytes(body[position + item_bytes : position + item_bytes + 1], "big")
        position += item_bytes + 1
        places = range(position, position + count * size, size)
        result[item] = [int.from_bytes(body[at : at + size], "big") & (0x7FFF if wide else 0x7F) for at in places]
        position += count * size
    return result


def _decode(file: BinaryIO, max_pixels: int) -> Decoded:
    """The main picture, or the first of a sequence, with all its bits."""
    if not features.check("avif"):
        raise UnreadableError("AVIF needs Pillow 11.3 or newer: pip install --upgrade pillow")
    data = read_bounded(file, find_boxes_end(file))
    main = read_main_picture(io.BytesIO(data))
    with open_image(data, "AVIF", max_pixels) as image:
        exif = strip_exif_prefix(image.info.get("exif"))
        # Pillow puts the container's rotation and mirroring, which are what counts, into the EXIF it shows.
        orientation = read_orientation(image, exif)
        icc = image.info.get("icc_profile") or None
        notices = note_first_of(getattr(image, "n_frames", 1), "frames")
        if main.bits > 8:
            values = _decode_deep(data, image, main.bits)
        else:
            image.load()
            values = np.asarray(image)
    values = values if values.ndim == 3 else values[:, :, None]
    if main.grey and values.shape[2] >= 3:
        values = values[:, :, [0, -1]] if values.shape[2] == 4 else values[:, :, :1]
    lossless = main.cicp is not None and main.cicp[2] == _IDENTITY
    storage = Storage(lossless=lossless, bits=main.bits if main.bits > 8 else None)
    cicp = None if main.cicp is None else main.cicp[:2]
    return Decoded(values, orientation, icc, exif, notices + note_boxes(file), cicp=cicp, storage=storage)


def _decode_deep(data: bytes, image: Image.Image, bits: int) -> NDArray[np.uint16]:
    """H×W×C over the full range of 16 bits."""
    values = decode_by_opencv(data)
    if values is None or values.shape[:2] != (image.height, image.width):
        if not load_opencv().haveImageWriter(".avif"):  # OpenCV has both directions or none
            raise UnreadableError("AVIF of more than 8 bits needs opencv-python 4.10 or newer")
        raise UnreadableError("the AVIF file is damaged or cut off")
    if values.shape[2] == 4 and not image.mode.endswith("A"):
        values = values[:, :, :3]
    return widen(values, bits)


def _measure(file: BinaryIO) -> tuple[int, int]:
    return measure(io.BytesIO(read_bounded(file, find_boxes_end(file))))  # Pillow reads the file whole


_SPEED = 9
"""Of 10: 8 takes five times as long for files 3 % smaller."""
_LOSSLESS = 100
_SRGB = (1, 13)


def _encode(raster: Raster) -> bytes:
    """Lossy colours of more than 8 bits get half the resolution (4:2:0), which is OpenCV's only way.

    Without a profile the file names primaries and transfer, those of sRGB where the label has none.

    Raises:
        ValueError: the installed libraries cannot write this.
    """
    values, icc = raster.values, raster.label.icc
    if values.shape[2] == 2:
        values = values[:, :, [0, 0, 0, 1]]
    if raster.bits == 8 and not raster.lossless and values.shape[2] >= 3:
        data = _encode_by_pillow(values, icc, raster.lossy_quality)
    else:
        quality = _LOSSLESS if raster.lossless else min(raster.lossy_quality, _LOSSLESS - 1)
        data = _encode_by_opencv(values, icc, quality, raster.bits)
    cicp = raster.label.cicp or (None if icc else _SRGB)
    return data if cicp is None else _name_colours(data, cicp)


def _encode_by_pillow(values: NDArray[Any], icc: bytes | None, quality: int) -> bytes:
    if not features.check("avif"):
        raise ValueError("writing AVIF needs Pillow 11.3 or newer")
    buffer = io.BytesIO()
    options = {"icc_profile": icc} if icc else {}
    # One thread: the pictures of a batch are encoded side by side.
    Image.fromarray(values).save(
        buffer, "AVIF", quality=quality, subsampling="4:4:4", speed=_SPEED, max_threads=1, **options
    )
    return buffer.getvalue()


def _encode_by_opencv(values: NDArray[Any], icc: bytes | None, quality: int, bits: int) -> bytes:
    cv2 = load_opencv()
    if not cv2.haveImageWriter(".avif") or not hasattr(cv2, "imencodeWithMetadata"):
        raise ValueError("AVIF of this kind (grey, lossless or more than 8 bits) needs opencv-python 4.13 or newer")
    values = narrow(values, bits) if values.dtype == np.uint16 else values
    options = [cv2.IMWRITE_AVIF_QUALITY, quality, cv2.IMWRITE_AVIF_DEPTH, bits, cv2.IMWRITE_AVIF_SPEED, _SPEED]
    kinds, blocks = ([cv2.IMAGE_METADATA_ICCP], [np.frombuffer(icc, np.uint8)]) if icc else ([], [])
    ordered = np.ascontiguousarray(swap_red_and_blue(values))
    try:
        done, data = cv2.imencodeWithMetadata(".avif", ordered, kinds, blocks, options)
    except cv2.error as error:
        raise ValueError(f"OpenCV: {str(error).strip().splitlines()[-1]}") from None
    if not done:
        raise ValueError("OpenCV cannot write it")
    return bytes(data.tobytes())


def _name_colours(data: bytes, cicp: Iterable[int]) -> bytes:
    """Put primaries and transfer into their box, which the encoders write without a way to fill it."""
    at = data.find(b"colrnclx")
    if at < 0:
        return data
    return data[: at + 8] + b"".join(code.to_bytes(2, "big") for code in cicp) + data[at + 12 :]


AVIF = Format(
    name="avif",
    title="AVIF",
    accepts=lambda start: bool(read_brands(start) & {b"avif", b"avis"}),
    decode=_decode,
    measure=_measure,
    find_end=find_boxes_end,
    encode=_encode,
    depths=(8, 10, 12),
    code_points=True,
    largest_side=65536,
)
