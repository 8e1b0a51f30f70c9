"""The parts of JPEG, PNG, WebP and TIFF files that can hold tags: read without the pixels, and written."""

from __future__ import annotations

import mmap
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from lumen_cli.imaging.extent import PNG_SIGNATURE, pack_png_chunk
from lumen_cli.imaging.formats import recognise
from lumen_cli.imaging.tags.exif import entries, read_header
from lumen_cli.imaging.tags.rules import NO_IPTC

EXIF, XMP, EXTENDED_XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"
PHOTOSHOP = b"Photoshop 3.0\0"
APP0, APP1, APP13, COMMENT = 0xE0, 0xE1, 0xED, 0xFE
EXTENSIONS = range(0xF0, 0xFE)
"""Markers that extensions of JPEG use."""
MOST_IN_SEGMENT = 0xFFFF - 2
"""Bytes that one segment of a JPEG holds."""
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
PNG_PIXELS = {
    b"IHDR",
    b"PLTE",
    b"IDAT",
    b"IEND",
    b"tRNS",
    b"iCCP",
    b"sRGB",
    b"gAMA",
    b"cHRM",
    b"sBIT",
    b"bKGD",
    b"hIST",
}
"""Chunks of pixels and their colours."""
PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_IPTC, _PIECE = 0x83BB, 1 << 20


def read_segments(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Marker (0xE1 for APP1) and content of each application segment and comment of a JPEG, up to the first scan."""
    file.seek(2)
    while (marker := _next_marker(file)) not in (_START_OF_SCAN, _END_OF_IMAGE):
        length = int.from_bytes(file.read(2), "big") - 2
        if APP0 <= marker <= 0xEF or marker == COMMENT or marker in EXTENSIONS:
            body = file.read(max(0, length))
            if len(body) == length:
                yield marker, body
        else:
            file.seek(max(0, length), 1)


def _next_marker(file: BinaryIO) -> int:
    """The marker that follows, behind fill bytes as decoders skip them; the end marker where the file ends."""
    byte = file.read(1)
    for _ in range(MOST_IN_SEGMENT):
        if byte == b"\xff":
            while byte == b"\xff":
                byte = file.read(1)
            if byte not in (b"\0", b""):
                return byte[0]
        if not byte:
            break
        byte = file.read(1)
    return _END_OF_IMAGE


def pack_segment(marker: int, body: bytes) -> bytes:
    """The bytes of a segment of a JPEG.

    Raises:
        ValueError: the body is larger than a segment can be.
    """
    if len(body) > MOST_IN_SEGMENT:
        raise ValueError("larger than a segment of a JPEG can be (64 KiB)")
    return bytes((0xFF, marker)) + (len(body) + 2).to_bytes(2, "big") + body


def jpeg_size(data: bytes, at: int = 0) -> tuple[int, int] | None:
    """Width and height from the header of the JPEG that begins there."""
    at += 2
    while data[at : at + 1] == b"\xff" and at + 9 < len(data):
        if data[at + 1] in (0xC0, 0xC1, 0xC2):
            height, width = struct.unpack_from(">HH", data, at + 5)
            return (width, height) if 0 < width <= 65500 and 0 < height <= 65500 else None
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def read_chunks(file: BinaryIO, format: str) -> Iterator[tuple[bytes, int]]:
    """Name and length of each chunk of a PNG or WebP; the file stands where the chunk's content begins."""
    is_png = format == "png"
    file.seek(4)
    at = len(PNG_SIGNATURE) if is_png else 12
    end = 0 if is_png else 8 + int.from_bytes(file.read(4), "little")
    while is_png or at + 8 <= end:
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:
            return
        name, size = (head[4:], head[:4]) if is_png else (head[:4], head[4:])
        length = int.from_bytes(size, "big" if is_png else "little")
        yield name, length
        if name == b"IEND":
            return
        at += 8 + length + (4 if is_png else length % 2)


def pack_webp_chunk(name: bytes, body: bytes) -> bytes:
    """The bytes of a chunk of a WebP."""
    return name + len(body).to_bytes(4, "little") + body + b"\0" * (len(body) % 2)


def unpack_text(name: bytes, body: bytes, most: int) -> tuple[bytes, bytes, Callable[[bytes], bytes]] | None:
    """Keyword and content of a PNG's text, and a function that gives the chunk with another content.

    None where the text is damaged or unpacks to more than `most` bytes.
    """
    keyword, _, rest = body.partition(b"\0")
    start = len(keyword) + 1
    is_packed = name == b"zTXt" or (name == b"iTXt" and rest[:1] == b"\1")
    if name == b"zTXt":
        start += 1
    elif name == b"iTXt":
        language, _, translated = rest[2:].partition(b"\0")
        start += 2 + len(language) + 1 + translated.find(b"\0") + 1
    content = body[start:]
    if is_packed:
        unpacker = zlib.decompressobj()
        try:
            content = unpacker.decompress(content, most)
        except zlib.error:
            return None
        if not unpacker.eof:
            return None

    def pack(new: bytes) -> bytes:
        return pack_png_chunk(name, body[:start] + (zlib.compress(new, 9) if is_packed else new))

    return keyword, content, pack


def unpack_profile(text: bytes) -> bytes | None:
    """What ImageMagick keeps in a PNG's text: a line with its kind, one with its length, then hexadecimal digits."""
    try:
        _, kind, length, *lines = text.split(b"\n", 3)
        content = bytes.fromhex(b"".join(lines).decode("ascii"))
    except ValueError:
        return None
    return content if kind and length.strip().isdigit() and len(content) == int(length) else None


def pack_profile(old: bytes, content: bytes) -> bytes:
    """The text that `unpack_profile` reads as `content`, of the same kind as the old text."""
    digits = content.hex().encode()
    lines = b"\n".join(digits[at : at + 72] for at in range(0, len(digits), 72))
    return b"\n%s\n%8d\n%s\n" % (old.split(b"\n", 2)[1], len(content), lines)


def may_hold_tags(path: Path) -> bool:
    """False only where the structure of a JPEG, PNG or WebP shows no place for tags; profiles do not count.

    Pictures of data sets have none, and exiftool need not read them.
    """
    try:
        with path.open("rb") as file:
            found = recognise(file)
            format = "" if found is None else found.name
            if format == "png":
                names = (name for name, _ in read_chunks(file, format))
                return next((name for name in names if name == b"IEND" or name not in PNG_PIXELS), b"") != b"IEND"
            if format == "jpeg":
                return any(not _is_plain(marker, body) for marker, body in read_segments(file))
            if format == "webp":
                return any(name in (b"EXIF", b"XMP ") for name, _ in read_chunks(file, format))
    except OSError:
        pass
    return True


def _is_plain(marker: int, body: bytes) -> bool:
    """Whether a segment has no tags: JFIF without a resolution in inches or cm, a profile, Adobe's colour transform."""
    return (
        (marker == APP0 and body.startswith(b"JFIF\0") and body[7:8] == b"\0")
        or (marker == 0xE2 and body.startswith(b"ICC_PROFILE\0"))
        or (marker == 0xEE and body.startswith(b"Adobe"))
    )


def find_unsupported(source: Path, target_format: str) -> list[str]:
    """What a file holds that the format has no place for: "IPTC", "a comment", "PNG's texts"."""
    found = []
    try:
        with source.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            recognised = recognise(file)
            format, end = ("", len(data)) if recognised is None else (recognised.name, recognised.find_end(file))
            # IPTC is among Photoshop's resources, or in a tag of TIFF.
            resource = b"8BIM\x04\x04"
            if target_format in NO_IPTC and (contains(file, resource, end) or _tiff_has_iptc(data)):
                found.append("IPTC")
            texts = set(_png_keywords(file)) if format == "png" else set()
            has_comment = b"Comment" in texts or (
                format == "jpeg" and any(marker == COMMENT for marker, _ in read_segments(file))
            )
            if has_comment and target_format not in ("jpeg", "png"):
                found.append("a comment")
            if texts - {b"Comment"} and target_format != "png":
                found.append("PNG's texts")
    except (OSError, ValueError):
        pass
    return found


def contains(file: BinaryIO, sought: bytes, end: int) -> bool:
    """Whether these bytes stand before `end`; the file, however large, is read in pieces."""
    file.seek(0)
    left, before = end, b""
    while left > 0 and (piece := file.read(min(_PIECE, left))):
        if sought in before + piece:
            return True
        left, before = left - len(piece), piece[1 - len(sought) :]
    return False


def _png_keywords(file: BinaryIO) -> Iterator[bytes]:
    """The keywords of a PNG's texts, except those that wrap other tags."""
    for name, length in read_chunks(file, "png"):
        if name in PNG_TEXTS:
            keyword = file.read(min(length, 80)).split(b"\0")[0]
            if not keyword.startswith((b"XML:com.adobe.xmp", b"Raw profile type")):
                yield keyword


def _tiff_has_iptc(data: mmap.mmap) -> bool:
    try:
        order, first = read_header(data[:8])
        return any(entry.tag == _IPTC for entry in entries(data, order, first))
    except (ValueError, struct.error):
        return False
