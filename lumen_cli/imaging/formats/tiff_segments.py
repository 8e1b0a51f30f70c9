"""Unpack strips and tiles of a TIFF page at full depth, in any compression that Pillow's libtiff knows.

tifffile needs a package of 79 MB for LZW and others, and unpacks as many bytes as a hostile strip holds. Here libtiff
unpacks each strip as if its bytes were a grey picture, and never more bytes than belong there.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_SEPARATE_PLANES = 2
_NONE, _DEFLATE = 1, (8, 32946)
_HORIZONTAL, _FLOATING = 2, 3
_SHORT, _LONG = 3, 4
_USUAL_ORDER = 1
_HEAD_BYTES, _LARGEST_GROWTH = 1 << 16, 2
"""No compression makes a strip larger than this: bytes, and times its values."""
_COMPRESSIONS = (_NONE, 5, *_DEFLATE, 32773, 34925, 50000)
"""None, LZW, deflate, PackBits, LZMA, Zstandard."""


def can_unpack(page: Any) -> bool:
    """Whether `unpack` can read this page of tifffile."""
    return int(page.compression) in _COMPRESSIONS and int(page.fillorder or _USUAL_ORDER) == _USUAL_ORDER


def unpack(page: Any, file: BinaryIO) -> NDArray[Any]:
    """The values of a page of tifffile as the file holds them, H×W×C, of the page's own type.

    Raises:
        ValueError: damaged, cut off, or a compression that this libtiff does not know.
    """
    kind = np.dtype(page.dtype).newbyteorder(page.parent.byteorder)
    separate = int(page.planarconfig or 1) == _SEPARATE_PLANES
    samples = 1 if separate else int(page.samplesperpixel)
    result = np.empty((page.imagelength, page.imagewidth, page.samplesperpixel), kind.newbyteorder("="))
    segments = zip(_locate_segments(page, separate), page.dataoffsets, page.databytecounts, strict=True)
    for (plane, top, left, rows, columns), offset, size in segments:
        row_bytes = columns * samples * kind.itemsize
        file.seek(offset)
        packed = file.read(min(size, _HEAD_BYTES + _LARGEST_GROWTH * row_bytes * rows))
        raw = _decompress(packed, int(page.compression), row_bytes, rows)
        values = np.frombuffer(raw, kind, rows * columns * samples).reshape(rows, columns, samples)
        values = _undo_prediction(values, int(page.predictor or 1))
        target = result[top : top + rows, left : left + columns, plane : plane + samples]
        target[...] = values[: target.shape[0], : target.shape[1]]
    return result


def _locate_segments(page: Any, separate: bool) -> Iterator[tuple[int, int, int, int, int]]:
    """First channel, top, left, rows and columns of each segment, in the order of the file."""
    height, width = int(page.imagelength), int(page.imagewidth)
    tall = int(page.tilelength if page.is_tiled else min(page.rowsperstrip, height))
    wide = int(page.tilewidth if page.is_tiled else width)
    if tall < 1 or wide < 1:
        raise ValueError("it has strips without rows")
    for plane in range(int(page.samplesperpixel) if separate else 1):
        for top in range(0, height, tall):
            for left in range(0, width, wide):
                yield plane, top, left, tall if page.is_tiled else min(tall, height - top), wide


def _decompress(packed: bytes, compression: int, row_bytes: int, rows: int) -> bytes:
    if compression == _NONE:
        return packed
    if compression in _DEFLATE:
        try:
            return zlib.decompressobj().decompress(packed, row_bytes * rows)
        except zlib.error as error:
            raise ValueError(str(error)) from None
    try:
        with Image.open(io.BytesIO(_wrap_in_tiff(packed, compression, row_bytes, rows))) as image:
            return image.tobytes()
    except (OSError, SyntaxError, KeyError) as error:
        raise ValueError(f"its compression {compression}: {error}") from None


def _wrap_in_tiff(packed: bytes, compression: int, row_bytes: int, rows: int) -> bytes:
    """A whole file with one strip of 8-bit grey."""
    entries = [
        (256, _LONG, row_bytes),
        (257, _LONG, rows),
        (258, _SHORT, 8),
        (259, _SHORT, compression),
        (262, _SHORT, 1),
        (273, _LONG, 8),
        (277, _SHORT, 1),
        (278, _LONG, rows),
        (279, _LONG, len(packed)),
    ]
    padded = packed + b"\0" * (len(packed) % 2)
    directory = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    head = b"II*\0" + struct.pack("<I", 8 + len(padded))
    return head + padded + struct.pack("<H", len(entries)) + directory + bytes(4)


def _undo_prediction(values: NDArray[Any], predictor: int) -> NDArray[Any]:
    """Rows that were stored as differences to the left (TIFF 6.0, section 14; Adobe's technical note 3 for floats)."""
    if predictor == _HORIZONTAL:
        native = values.astype(values.dtype.newbyteorder("="), copy=False)
        return np.cumsum(native, axis=1, dtype=native.dtype)
    if predictor == _FLOATING:
        rows, columns, samples = values.shape
        size = values.dtype.itemsize
        differences = np.frombuffer(values.tobytes(), np.uint8).reshape(rows, -1, samples)
        planes = np.cumsum(differences, axis=1, dtype=np.uint8).reshape(rows, size, columns * samples)
        # One plane for each byte of a value, the most significant first, whatever the file's order.
        joined = np.ascontiguousarray(planes.transpose(0, 2, 1)).view(values.dtype.newbyteorder(">"))
        return joined.reshape(rows, columns, samples)
    return values
