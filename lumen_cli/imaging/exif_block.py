"""A raw EXIF block corrected where a brightened picture has made it untrue, and left alone everywhere else.

Changing values in their places keeps every offset, so even maker notes stay readable.
"""

from __future__ import annotations

import contextlib
import mmap
import struct
from collections.abc import Iterator

_ORIENTATION, _EXIF_FOLDER, _INTEROP_FOLDER = 0x0112, 0x8769, 0xA005
_WIDTHS, _HEIGHTS = (0x0100, 0xA002, 0x1001), (0x0101, 0xA003, 0x1002)
"""ImageWidth of the first folder, ExifImageWidth, RelatedImageWidth; and their heights."""
_THUMBNAILS = ((0x0201, 0x0202), (0x0111, 0x0117))
"""Offset and length of a JPEG, of the strip of an uncompressed one."""
_SHORT, _LONG = 3, 4


def corrected(block: bytes, width: int, height: int) -> bytes | None:
    """The block with Orientation 1, this size, and its thumbnail (of the dark picture) blanked and unlinked.

    Args:
        block: EXIF beginning with its TIFF header ("II*" or "MM*").
        width: columns of the picture it shall describe.
        height: its rows.

    Returns:
        A block of the same length, or None when it is too damaged to be worth keeping.
    """
    data, interop = bytearray(block), list[int]()
    try:
        order, first = header(block)
        for tag, kind, at in entries(data, order, first):
            if tag == _ORIENTATION:
                _put(data, order, kind, at, 1)
            elif tag == _EXIF_FOLDER:
                (folder,) = struct.unpack_from(f"{order}I", data, at)
                for inner, inner_kind, inner_at in entries(data, order, folder):
                    _put_size(data, order, inner, inner_kind, inner_at, width, height)
                    if inner == _INTEROP_FOLDER:
                        interop.extend(struct.unpack_from(f"{order}I", data, inner_at))
            else:
                _put_size(data, order, tag, kind, at, width, height)
        for folder in interop:
            with contextlib.suppress(struct.error):  # cameras leave a place here that leads nowhere
                for tag, kind, at in list(entries(data, order, folder)):
                    _put_size(data, order, tag, kind, at, width, height)
        _drop_thumbnail(data, order, first)
    except (ValueError, struct.error):
        return None
    return bytes(data)


def header(block: bytes) -> tuple[str, int]:
    """The byte order of a raw EXIF block as `struct` writes it, and where its first directory begins.

    Raises:
        ValueError: there is no TIFF header.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(bytes(block[:4]))
    if order is None or len(block) < 8:
        raise ValueError("its EXIF is damaged")
    (first,) = struct.unpack_from(f"{order}I", block, 4)
    return order, int(first)


def entries(data: bytes | bytearray | mmap.mmap, order: str, offset: int) -> Iterator[tuple[int, int, int]]:
    """Tag, type and the place of the value (or of the offset to it) of each entry of a directory.

    Raises:
        struct.error: the directory is cut off.
    """
    (count,) = struct.unpack_from(f"{order}H", data, offset)
    for i in range(count):
        tag, kind = struct.unpack_from(f"{order}HH", data, offset + 2 + 12 * i)
        yield tag, kind, offset + 2 + 12 * i + 8


def _put_size(data: bytearray, order: str, tag: int, kind: int, at: int, width: int, height: int) -> None:
    if tag in _WIDTHS or tag in _HEIGHTS:
        _put(data, order, kind, at, width if tag in _WIDTHS else height)


def _put(data: bytearray, order: str, kind: int, at: int, value: int) -> None:
    if kind == _SHORT and value < 65536:
        struct.pack_into(f"{order}HH", data, at, value, 0)
    elif kind in (_SHORT, _LONG):
        struct.pack_into(f"{order}H", data, at - 6, _LONG)
        struct.pack_into(f"{order}I", data, at, value)


def _drop_thumbnail(data: bytearray, order: str, first: int) -> None:
    (count,) = struct.unpack_from(f"{order}H", data, first)
    link = first + 2 + 12 * count
    if link + 4 > len(data):
        return
    (second,) = struct.unpack_from(f"{order}I", data, link)
    struct.pack_into(f"{order}I", data, link, 0)
    if not 8 <= second < len(data) - 2:
        return
    try:
        places = {tag: struct.unpack_from(f"{order}I", data, at)[0] for tag, _, at in entries(data, order, second)}
    except struct.error:
        return
    for at, size in _THUMBNAILS:
        start, length = places.get(at, 0), places.get(size, 0)
        if 8 <= start <= start + length <= len(data):
            data[start : start + length] = bytes(length)
