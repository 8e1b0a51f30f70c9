"""A raw EXIF block corrected where a brightened picture has made it untrue, and left alone everywhere else.

Changing values in their places keeps every offset, so even maker notes stay readable.
"""

from __future__ import annotations

import contextlib
import mmap
import struct
from collections.abc import Iterator

from lumen_cli.imaging.formats import png
from lumen_cli.imaging.formats.pillow import UNMOVABLE_TAGS

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


EMBEDDABLE = ("jpeg", "png", "webp", "tiff")
"""Formats that `embedded` knows."""

_RESOLUTION = (0x011A, 0x011B, 0x0128)


def embedded(data: bytes, block: bytes, size: tuple[int, int]) -> bytes:
    """The file with the EXIF block (beginning with its TIFF header) in it.

    Args:
        data: a whole file as `write_picture` makes it, without EXIF.
        block: the raw EXIF block.
        size: width and height of the picture.

    Raises:
        ValueError: the format is none of `EMBEDDABLE`, or the block is too large for it.
    """
    if data.startswith(b"\xff\xd8"):
        return _in_jpeg(data, block)
    if data.startswith(png.SIGNATURE):
        at = data.index(b"IDAT", len(png.SIGNATURE)) - 4
        return data[:at] + png.chunk(b"eXIf", block) + data[at:]
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _in_webp(data, block, size)
    if data[:4] == b"II*\0":
        return _in_tiff(data, block)
    raise ValueError("only exiftool writes EXIF into this format")


def _in_jpeg(data: bytes, block: bytes) -> bytes:
    body = b"Exif\0\0" + block
    if len(body) + 2 > 0xFFFF:
        raise ValueError("the EXIF block is larger than JPEG allows (64 KiB)")
    at = 2
    if data[2:4] == b"\xff\xe0":  # JFIF's segment stays first
        at += 2 + int.from_bytes(data[4:6], "big")
    return data[:at] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + data[at:]


def _in_webp(data: bytes, block: bytes, size: tuple[int, int]) -> bytes:
    chunks = data[12:]
    if chunks[:4] == b"VP8X":
        chunks = chunks[:8] + bytes((chunks[8] | 0x08,)) + chunks[9:]
    else:  # the simple format becomes the extended one
        has_alpha = chunks[:4] == b"VP8L" and bool(chunks[12] & 0x10)
        flags = bytes((0x08 | (0x10 if has_alpha else 0), 0, 0, 0))
        canvas = (size[0] - 1).to_bytes(3, "little") + (size[1] - 1).to_bytes(3, "little")
        chunks = b"VP8X" + (10).to_bytes(4, "little") + flags + canvas + chunks
    chunks += b"EXIF" + len(block).to_bytes(4, "little") + block + b"\0" * (len(block) % 2)
    return b"RIFF" + (len(chunks) + 4).to_bytes(4, "little") + b"WEBP" + chunks


def _in_tiff(data: bytes, block: bytes) -> bytes:
    """Append a new first directory of the file's own entries, unchanged, and the block's; all data stay in place."""
    from PIL import ExifTags, Image
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    first = int.from_bytes(data[4:8], "little")
    exif = Image.Exif()
    exif.load(block)
    replaced = {tag.to_bytes(2, "little") for tag in _RESOLUTION if tag in exif}
    own = [entry for entry in _entries(data, first) if entry[:2] not in replaced]
    added = ImageFileDirectory_v2(data[:8])
    present = {entry[:2] for entry in own}
    for tag, value in exif.items():
        if tag.to_bytes(2, "little") not in present and tag not in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            added[tag] = value
    for group in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        values = {tag: value for tag, value in exif.get_ifd(group).items() if tag not in UNMOVABLE_TAGS}
        if values:
            added[group] = values
            added.tagtype[group] = 4  # a LONG, which is what makes Pillow write the folder of tags
    padded = data + b"\0" * (len(data) % 2)
    # Where Pillow must believe to write for its offsets to be right once the file's own entries lie before.
    written = added.tobytes(len(padded) + 12 * len(own))
    fresh = _entries(written, 0)
    entries = sorted([*own, *fresh], key=lambda entry: int.from_bytes(entry[:2], "little"))
    directory = len(entries).to_bytes(2, "little") + b"".join(entries) + bytes(4) + written[2 + 12 * len(fresh) + 4 :]
    return padded[:4] + len(padded).to_bytes(4, "little") + padded[8:] + directory


def _entries(data: bytes, at: int) -> list[bytes]:
    count = int.from_bytes(data[at : at + 2], "little")
    return [data[at + 2 + 12 * i : at + 14 + 12 * i] for i in range(count)]


_PROCESSING_SOFTWARE = 0x000B
_ASCII = 2
EMPTY = b"II*\0" + struct.pack("<IHI", 8, 0, 0)
"""A block without a tag."""


def with_stamp(earlier: str | None, stamp: str) -> str:
    """The tag's new text: what was there, then the stamp; said once when the same run is made of its own result."""
    said = " ".join(stamp.split())
    before = " ".join((earlier or "").split())
    if before == said or before.endswith(f"; {said}"):
        return before
    return f"{before}; {said}" if before else said


def processing_software(block: bytes | None) -> str | None:
    """The ProcessingSoftware of a raw EXIF block; None where there is none, or the block is damaged."""
    if block is None:
        return None
    try:
        order, first = header(block)
        (count,) = struct.unpack_from(f"{order}H", block, first)
        for i in range(count):
            tag, kind, length = struct.unpack_from(f"{order}HHI", block, first + 2 + 12 * i)
            if (tag, kind) == (_PROCESSING_SOFTWARE, _ASCII):
                at = first + 10 + 12 * i
                if length > 4:
                    (at,) = struct.unpack_from(f"{order}I", block, at)
                return block[at : at + length].split(b"\0")[0].decode("utf-8", "replace")
    except (ValueError, struct.error):
        pass
    return None


def stamped(block: bytes | None, text: str) -> bytes:
    """A raw EXIF block with this ProcessingSoftware; None makes a block with nothing else.

    Only the main directory moves, to the end: every other offset stays true, those of maker notes as well.

    Raises:
        ValueError: the block is damaged.
    """
    block = EMPTY if block is None else block
    try:
        order, first = header(block)
        (count,) = struct.unpack_from(f"{order}H", block, first)
        link_at = first + 2 + 12 * count
        entries = [block[at : at + 12] for at in range(first + 2, link_at, 12)]
        (link,) = struct.unpack_from(f"{order}I", block, link_at)
    except struct.error:
        raise ValueError("its EXIF is damaged") from None
    value = text.encode() + b"\0"
    kept = block[:8] if block == EMPTY else block + b"\0" * (len(block) % 2)
    place = struct.pack(f"{order}I", len(kept)) if len(value) > 4 else value.ljust(4, b"\0")
    entry = struct.pack(f"{order}HHI", _PROCESSING_SOFTWARE, _ASCII, len(value)) + place
    others = [old for old in entries if struct.unpack(f"{order}H", old[:2])[0] != _PROCESSING_SOFTWARE]
    entries = sorted([*others, entry], key=lambda one: int(struct.unpack(f"{order}H", one[:2])[0]))
    value += b"\0" * (len(value) % 2)
    directory = struct.pack(f"{order}H", len(entries)) + b"".join(entries) + struct.pack(f"{order}I", link)
    return kept[:4] + struct.pack(f"{order}I", len(kept) + len(value)) + kept[8:] + value + directory
