"""Raw EXIF blocks, from the TIFF header on: corrected for a brightened picture without moving any other value.

Offsets of maker notes stay valid, as values change in place and new data are appended.
"""

from __future__ import annotations

import contextlib
import mmap
import struct
from collections.abc import Iterator
from typing import NamedTuple

EMPTY = b"II*\0" + struct.pack("<IHI", 8, 0, 0)
"""A block without a tag."""

_ORIENTATION, _EXIF_DIRECTORY, _INTEROP_DIRECTORY, _SOFTWARE = 0x0112, 0x8769, 0xA005, 0x000B
_WIDTHS, _HEIGHTS = (0x0100, 0xA002, 0x1001), (0x0101, 0xA003, 0x1002)
"""ImageWidth of the first directory, ExifImageWidth, RelatedImageWidth; and the heights."""
_COMPRESSION, _START, _LENGTH, _STRIP, _STRIP_LENGTH = 0x0103, 0x0201, 0x0202, 0x0111, 0x0117
"""Of a thumbnail: a JPEG, or the strip of an uncompressed one."""
_LAYOUT = {*range(0x0100, 0x0107), _STRIP, 0x0112, 0x0115, 0x0116, _STRIP_LENGTH, 0x011C, _START, _LENGTH}
_LAYOUT |= {0x0211, 0x0212, 0x0213, 0x0214}
"""Tags that say how a thumbnail is stored."""
_ASCII, _SHORT, _LONG, _JPEG = 2, 3, 4, 6
_DAMAGED = "its EXIF is damaged"


class Entry(NamedTuple):
    """A tag of a directory."""

    tag: int
    kind: int
    at: int
    """The place of its value, or of the offset to it."""


class Thumbnail(NamedTuple):
    """Where a block has its second directory, and the small picture that it names."""

    directory: int
    entries: list[bytes]
    start: int
    length: int


def read_header(block: bytes) -> tuple[str, int]:
    """The byte order as `struct` writes it, and the place of the first directory.

    Raises:
        ValueError: there is no TIFF header.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(bytes(block[:4]))
    if order is None or len(block) < 8:
        raise ValueError(_DAMAGED)
    (first,) = struct.unpack_from(f"{order}I", block, 4)
    return order, int(first)


def entries(data: bytes | bytearray | mmap.mmap, order: str, directory: int) -> Iterator[Entry]:
    """The entries of the directory at this place.

    Raises:
        struct.error: the directory is cut off.
    """
    (count,) = struct.unpack_from(f"{order}H", data, directory)
    for at in range(directory + 2, directory + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from(f"{order}HH", data, at)
        yield Entry(tag, kind, at + 8)


def correct(block: bytes, width: int, height: int) -> bytes | None:
    """The block with Orientation 1, this size, and its thumbnail (of the dark picture) blanked and unlinked.

    Returns:
        A block of the same length, or None when it is too damaged to be worth keeping.
    """
    data, interop = bytearray(block), list[int]()
    try:
        order, first = read_header(block)
        for entry in entries(data, order, first):
            if entry.tag == _ORIENTATION:
                _put(data, order, entry, 1)
            elif entry.tag == _EXIF_DIRECTORY:
                for inner in entries(data, order, _long(data, order, entry.at)):
                    _put_size(data, order, inner, width, height)
                    if inner.tag == _INTEROP_DIRECTORY:
                        interop.append(_long(data, order, inner.at))
            else:
                _put_size(data, order, entry, width, height)
        for directory in interop:
            with contextlib.suppress(struct.error):  # some cameras write an offset that leads nowhere
                for entry in list(entries(data, order, directory)):
                    _put_size(data, order, entry, width, height)
        _drop_thumbnail(data, order, first)
    except (ValueError, struct.error):
        return None
    return bytes(data)


def _put_size(data: bytearray, order: str, entry: Entry, width: int, height: int) -> None:
    if entry.tag in _WIDTHS or entry.tag in _HEIGHTS:
        _put(data, order, entry, width if entry.tag in _WIDTHS else height)


def _put(data: bytearray, order: str, entry: Entry, value: int) -> None:
    if entry.kind == _SHORT and value < 65536:
        struct.pack_into(f"{order}HH", data, entry.at, value, 0)
    elif entry.kind in (_SHORT, _LONG):
        struct.pack_into(f"{order}H", data, entry.at - 6, _LONG)
        struct.pack_into(f"{order}I", data, entry.at, value)


def _long(data: bytes | bytearray, order: str, at: int) -> int:
    return int(struct.unpack_from(f"{order}I", data, at)[0])


def _link_place(data: bytes | bytearray, order: str, directory: int) -> int:
    """Where a directory has the offset of the next one."""
    return directory + 2 + 12 * int(struct.unpack_from(f"{order}H", data, directory)[0])


def _second_directory(data: bytes | bytearray, order: str, first: int) -> tuple[int, dict[int, int]]:
    """The place of the second directory and its values by tag; no values where it is missing or damaged.

    Raises:
        struct.error: the first directory is cut off.
    """
    second = _long(data, order, _link_place(data, order, first))
    with contextlib.suppress(struct.error):
        if 8 <= second < len(data) - 2:
            return second, {entry.tag: _long(data, order, entry.at) for entry in entries(data, order, second)}
    return second, {}


def _drop_thumbnail(data: bytearray, order: str, first: int) -> None:
    link = _link_place(data, order, first)
    if link + 4 > len(data):
        return
    _, values = _second_directory(data, order, first)
    struct.pack_into(f"{order}I", data, link, 0)
    for start_tag, length_tag in ((_START, _LENGTH), (_STRIP, _STRIP_LENGTH)):
        start, length = values.get(start_tag, 0), values.get(length_tag, 0)
        if 8 <= start <= start + length <= len(data):
            data[start : start + length] = bytes(length)


def has_thumbnail(block: bytes | None) -> bool:
    """Whether the block names a JPEG as its thumbnail."""
    with contextlib.suppress(ValueError, struct.error):
        return _START in _second_directory(block or b"", *read_header(block or b""))[1]
    return False


def find_thumbnail(block: bytes) -> Thumbnail | None:
    """The thumbnail of a block; None where there is none, or its directory is damaged."""
    try:
        order, first = read_header(block)
        second, values = _second_directory(block, order, first)
    except (ValueError, struct.error):
        return None
    start = values.get(_START, values.get(_STRIP, 0))
    length = values.get(_LENGTH, values.get(_STRIP_LENGTH, 0))
    if not 8 <= start <= start + length <= len(block):
        return None
    return Thumbnail(second, _raw_entries(block, order, second), start, length)


def put_thumbnail(block: bytes, jpeg: bytes, old: Thumbnail | None = None) -> bytes:
    """A block whose second directory is this thumbnail; no other value moves.

    Args:
        block: without a second directory.
        jpeg: the thumbnail.
        old: the block's former thumbnail. A new one that fits takes its place, others are appended.

    Raises:
        ValueError: the block is damaged.
    """
    order, first = read_header(block)
    data = bytearray(block + b"\0" * (len(block) % 2))
    kept = [entry for entry in old.entries if _tag(entry, order) not in _LAYOUT] if old else []
    directory = old.directory if old and len(kept) + 3 <= len(old.entries) else len(data)
    if directory == len(data):
        data += bytes(2 + 12 * (len(kept) + 3) + 4)
    start = old.start if old and len(jpeg) <= old.length else len(data)
    data[start : start + len(jpeg)] = jpeg
    added = [
        struct.pack(f"{order}HHIHH", _COMPRESSION, _SHORT, 1, _JPEG, 0),
        struct.pack(f"{order}HHII", _START, _LONG, 1, start),
        struct.pack(f"{order}HHII", _LENGTH, _LONG, 1, len(jpeg)),
    ]
    body = _pack_directory(order, [*kept, *added], 0)
    data[directory : directory + len(body)] = body
    try:
        struct.pack_into(f"{order}I", data, _link_place(block, order, first), directory)
    except struct.error:
        raise ValueError(_DAMAGED) from None
    return bytes(data)


def read_software(block: bytes | None) -> str | None:
    """The ProcessingSoftware of a block; None where there is none, or the block is damaged."""
    if block is None:
        return None
    with contextlib.suppress(ValueError, struct.error):
        order, first = read_header(block)
        for tag, kind, at in entries(block, order, first):
            length = _long(block, order, at - 4)
            if (tag, kind) == (_SOFTWARE, _ASCII):
                start = _long(block, order, at) if length > 4 else at
                return block[start : start + length].split(b"\0")[0].decode("utf-8", "replace")
    return None


def write_software(block: bytes | None, text: str) -> bytes:
    """A block with this ProcessingSoftware; None makes a block with nothing else.

    Only the first directory moves, to the end: every offset stays valid, also those of maker notes.

    Raises:
        ValueError: the block is damaged.
    """
    block = EMPTY if block is None else block
    try:
        order, first = read_header(block)
        old = _raw_entries(block, order, first)
        link = _long(block, order, _link_place(block, order, first))
    except struct.error:
        raise ValueError(_DAMAGED) from None
    value = text.encode() + b"\0"
    kept = block[:8] if block == EMPTY else block + b"\0" * (len(block) % 2)
    place = struct.pack(f"{order}I", len(kept)) if len(value) > 4 else value.ljust(4, b"\0")
    entry = struct.pack(f"{order}HHI", _SOFTWARE, _ASCII, len(value)) + place
    directory = _pack_directory(order, [*(one for one in old if _tag(one, order) != _SOFTWARE), entry], link)
    value += b"\0" * (len(value) % 2)
    return kept[:4] + struct.pack(f"{order}I", len(kept) + len(value)) + kept[8:] + value + directory


def join_software(earlier: str | None, stamp: str) -> str:
    """The text of ProcessingSoftware with lumen's stamp behind what is there; never the same stamp twice in a row."""
    new, before = " ".join(stamp.split()), " ".join((earlier or "").split())
    if before == new or before.endswith(f"; {new}"):
        return before
    return f"{before}; {new}" if before else new


def _raw_entries(block: bytes, order: str, directory: int) -> list[bytes]:
    return [block[at : at + 12] for at in range(directory + 2, _link_place(block, order, directory), 12)]


def _tag(entry: bytes, order: str) -> int:
    return int(struct.unpack(f"{order}H", entry[:2])[0])


def _pack_directory(order: str, raw: list[bytes], link: int) -> bytes:
    listed = sorted(raw, key=lambda entry: _tag(entry, order))
    return struct.pack(f"{order}H", len(listed)) + b"".join(listed) + struct.pack(f"{order}I", link)
