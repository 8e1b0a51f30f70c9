"""Where JPEG and PNG keep tags: the segments of a JPEG before its pixels, the texts of a PNG."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

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


def read_segments(file: BinaryIO) -> Iterator[Segment]:
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


@dataclass(frozen=True)
class Text:
    """keyword, content: of a tEXt, zTXt or iTXt chunk, unpacked; head: all that stands before the content."""

    keyword: bytes
    content: bytes
    head: bytes
    is_packed: bool

    def packed(self, content: bytes) -> bytes:
        """The chunk's body with another content."""
        return self.head + (zlib.compress(content, 9) if self.is_packed else content)


def unpacked_text(name: bytes, body: bytes, most: int) -> Text | None:
    """The text in a chunk's body; None where it is damaged or unpacks to more than `most` bytes."""
    keyword, _, rest = body.partition(b"\0")
    head = len(keyword) + 1
    is_packed = name == b"zTXt" or (name == b"iTXt" and rest[:1] == b"\1")
    if name == b"zTXt":
        head += 1
    elif name == b"iTXt":
        language, _, translated = rest[2:].partition(b"\0")
        head += 2 + len(language) + 1 + translated.find(b"\0") + 1
    content = body[head:]
    if is_packed:
        unpacker = zlib.decompressobj()
        try:
            content = unpacker.decompress(content, most)
        except zlib.error:
            return None
        if not unpacker.eof:
            return None
    return Text(keyword, content, body[:head], is_packed)


def raw_profile(text: bytes) -> bytes | None:
    """What ImageMagick keeps in a PNG's text: a line with its kind, one with its length, then hexadecimal digits."""
    try:
        _, kind, length, *lines = text.split(b"\n", 3)
        content = bytes.fromhex(b"".join(lines).decode("ascii"))
    except ValueError:
        return None
    return content if kind and length.strip().isdigit() and len(content) == int(length) else None


def as_raw_profile(old: bytes, content: bytes) -> bytes:
    """The text that `raw_profile` reads as `content`, of the same kind as the old text."""
    digits = content.hex().encode()
    lines = b"\n".join(digits[at : at + 72] for at in range(0, len(digits), 72))
    return b"\n%s\n%8d\n%s\n" % (old.split(b"\n", 2)[1], len(content), lines)
