"""Where a file can hold tags, if at all: pictures of data sets have none, and exiftool need not be asked about them."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import BinaryIO

from lumen_cli.imaging.extent import picture_end
from lumen_cli.imaging.formats.png import SIGNATURE
from lumen_cli.imaging.picture import Picture
from lumen_cli.imaging.read import sniff
from lumen_cli.imaging.tags.exif import entries, header
from lumen_cli.imaging.tags.rules import NO_IPTC
from lumen_cli.imaging.tags.xmp import STARTS

_WITHOUT_TAGS = {
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
_TABLES = {0xDB, 0xC4, 0xDD, *range(0xC0, 0xC4), *range(0xC5, 0xD0)}
_START_OF_SCAN = 0xDA
_COMMENT = 0xFE
_IPTC = 0x83BB
MOST_IN_JPEG = 64000
"""Bytes of EXIF that fit into a JPEG with room for a stamp."""
_PIECE = 1 << 20
_WHOLE_EXIF = ("jpeg", "png", "webp", "heif", "avif", "jxl")


def may_hold_tags(path: Path) -> bool:
    """False only when the structure of a PNG, JPEG or WebP file shows no place for tags; profiles do not count."""
    try:
        with path.open("rb") as file:
            start = file.read(12)
            if start.startswith(SIGNATURE):
                file.seek(len(SIGNATURE))
                return _png_may(file)
            if start.startswith(b"\xff\xd8"):
                file.seek(2)
                return _jpeg_may(file)
            if start[:4] == b"RIFF" and start[8:] == b"WEBP":
                return _webp_may(file)
    except OSError:
        pass
    return True


def whole_blocks(source: Path, picture: Picture, target_format: str) -> list[str]:
    """Which of EXIF, XMP and IPTC exiftool can copy from this file as a whole, byte for byte.

    In TIFF the tags of EXIF stand among the picture's own; a PNG may hold EXIF as text; JPEG may spread XMP over
    several segments, and its EXIF has to fit into one.
    """
    fits = target_format != "jpeg" or len(picture.exif or b"") < MOST_IN_JPEG
    try:
        with source.open("rb") as file:
            end = picture_end(file, picture.format)
            blocks = []
            whole = picture.format in _WHOLE_EXIF and (picture.format != "png" or holds(file, b"eXIf", end))
            if whole and fits and target_format != "tiff":
                blocks.append("EXIF")
            extended = b"http://ns.adobe.com/xmp/extension/"
            if any(holds(file, start, end) for start in STARTS) and not holds(file, extended, end):
                blocks.append("XMP")
            if target_format in ("jpeg", "tiff") and holds(file, b"\x1c\x02", end):
                blocks.append("IPTC")
            return blocks
    except (OSError, ValueError):
        return []


def unheld(source: Path, target_format: str) -> list[str]:
    """What a file holds that a file of this format has no place for: "IPTC", "a comment", "PNG's texts"."""
    names = []
    try:
        with source.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            # Among Photoshop's resources, or in a tag of TIFF's.
            end = picture_end(file, sniff(data[:512]) or "")
            if target_format in NO_IPTC and (holds(file, b"8BIM\x04\x04", end) or _tiff_has_iptc(data)):
                names.append("IPTC")
            texts = _png_texts(data) if data[: len(SIGNATURE)] == SIGNATURE else set()
            comment = b"Comment" in texts or (data[:2] == b"\xff\xd8" and _has_comment(data))
            if comment and target_format not in ("jpeg", "png"):
                names.append("a comment")
            if texts - {b"Comment"} and target_format != "png":
                names.append("PNG's texts")
    except (OSError, ValueError):
        pass
    return names


def holds(file: BinaryIO, sought: bytes, end: int) -> bool:
    """Whether these bytes stand before `end` in the file, which is read in pieces."""
    file.seek(0)
    left, before = end, b""
    while left > 0 and (piece := file.read(min(_PIECE, left))):
        if sought in before + piece:
            return True
        left, before = left - len(piece), piece[1 - len(sought) :]
    return False


def _png_texts(data: mmap.mmap) -> set[bytes]:
    """The keywords of a PNG's texts, without those that are only other tags' wrapping."""
    found, at = set(), len(SIGNATURE)
    while len(head := data[at : at + 8]) == 8:
        if head[4:] in (b"tEXt", b"zTXt", b"iTXt"):
            keyword = data[at + 8 : at + 88].split(b"\0")[0]
            if not keyword.startswith((b"XML:com.adobe.xmp", b"Raw profile type")):
                found.add(keyword)
        if head[4:] == b"IEND":
            break
        at += 12 + int.from_bytes(head[:4], "big")
    return found


def _tiff_has_iptc(data: mmap.mmap) -> bool:
    try:
        order, first = header(data[:8])
        return any(tag == _IPTC for tag, _, _ in entries(data, order, first))
    except (ValueError, struct.error):
        return False


def _has_comment(data: mmap.mmap) -> bool:
    at = 2
    while len(head := data[at : at + 4]) == 4 and head[0] == 0xFF and head[1] not in (_START_OF_SCAN, _COMMENT):
        at += 2 + int.from_bytes(head[2:], "big")
    return head[:2] == bytes((0xFF, _COMMENT))


def _png_may(file: BinaryIO) -> bool:
    while len(head := file.read(8)) == 8:
        if head[4:] not in _WITHOUT_TAGS:
            return True
        if head[4:] == b"IEND":
            return False
        file.seek(int.from_bytes(head[:4], "big") + 4, 1)
    return True


def _jpeg_may(file: BinaryIO) -> bool:
    while len(head := file.read(4)) == 4 and head[0] == 0xFF:
        marker, length = head[1], int.from_bytes(head[2:], "big")
        if marker == _START_OF_SCAN:
            return False
        body = file.read(max(0, length - 2))
        plain = (
            marker in _TABLES
            or (marker == 0xE0 and body.startswith(b"JFIF\0") and body[7:8] == b"\0")  # no resolution in inches or cm
            or (marker == 0xE2 and body.startswith(b"ICC_PROFILE\0"))
            or (marker == 0xEE and body.startswith(b"Adobe"))
        )
        if not plain:
            return True
    return True


def _webp_may(file: BinaryIO) -> bool:
    end = picture_end(file, "webp")
    file.seek(12)
    while file.tell() < end and len(head := file.read(8)) == 8:
        if head[:4] in (b"EXIF", b"XMP "):
            return True
        length = int.from_bytes(head[4:], "little")
        file.seek(length + length % 2, 1)
    return False
