"""The thumbnail in an EXIF block: whether there is one, and a new one of the finished picture."""

from __future__ import annotations

import io
import struct

from lumen_cli.imaging.color import to_integers
from lumen_cli.imaging.exif_block import entries, header
from lumen_cli.imaging.picture import Picture

_LARGEST = (160, 120)
"""Width and height that cameras use (DCF); an upright picture gets one of at most 120×160."""
_QUALITY = 75
_COMPRESSION, _START, _LENGTH = 0x0103, 0x0201, 0x0202
_SHORT, _LONG, _JPEG = 3, 4, 6


def has_thumbnail(block: bytes | None) -> bool:
    """Whether the second directory of a raw EXIF block names a JPEG."""
    if not block:
        return False
    try:
        order, first = header(block)
        (count,) = struct.unpack_from(f"{order}H", block, first)
        (second,) = struct.unpack_from(f"{order}I", block, first + 2 + 12 * count)
        return bool(second) and any(tag == _START for tag, _, _ in entries(block, order, second))
    except (ValueError, struct.error):
        return False


def thumbnail(picture: Picture) -> bytes:
    """A small JPEG of the picture, in its own colours; equal pictures give equal bytes."""
    from PIL import Image

    largest = _LARGEST if picture.width >= picture.height else _LARGEST[::-1]
    # Every n-th pixel first: four times the size that is needed is plenty to average over.
    step = max(1, min(picture.width // (4 * largest[0]), picture.height // (4 * largest[1])))
    image = Image.fromarray(to_integers(picture.rows(slice(None, None, step), step), 8))
    image.thumbnail(largest, Image.Resampling.BOX)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


def with_thumbnail(block: bytes, jpeg: bytes) -> bytes:
    """A raw EXIF block whose second directory is this thumbnail, appended: no other value moves.

    Raises:
        ValueError: the block is damaged.
    """
    order, first = header(block)
    try:
        (count,) = struct.unpack_from(f"{order}H", block, first)
        link = first + 2 + 12 * count
        data = bytearray(block + b"\0" * (len(block) % 2))
        struct.pack_into(f"{order}I", data, link, len(data))
    except struct.error:
        raise ValueError("its EXIF is damaged") from None
    start = len(data) + 2 + 3 * 12 + 4
    data += struct.pack(f"{order}H", 3)
    data += struct.pack(f"{order}HHIHH", _COMPRESSION, _SHORT, 1, _JPEG, 0)
    data += struct.pack(f"{order}HHII", _START, _LONG, 1, start)
    data += struct.pack(f"{order}HHII", _LENGTH, _LONG, 1, len(jpeg))
    return bytes(data) + bytes(4) + jpeg
