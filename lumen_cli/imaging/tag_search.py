"""Where a file can hold tags, if at all: pictures of data sets have none, and exiftool need not be asked about them."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import BinaryIO

from lumen_cli.imaging.picture import Picture
from lumen_cli.imaging.png import SIGNATURE

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
_SEGMENT = 64000
"""Bytes of EXIF that fit into a JPEG with room for a stamp."""
_WHOLE_EXIF = ("jpeg", "png", "webp", "heic", "heif", "avif")


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
    fits = target_format != "jpeg" or len(picture.exif or b"") < _SEGMENT
    try:
        with source.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            blocks = []
            whole = picture.format in _WHOLE_EXIF and (picture.format != "png" or data.find(b"eXIf") >= 0)
            if whole and fits and target_format != "tiff":
                blocks.append("EXIF")
            if data.find(b"adobe:ns:meta/") >= 0 and data.find(b"http://ns.adobe.com/xmp/extension/") < 0:
                blocks.append("XMP")
            if target_format in ("jpeg", "tiff") and data.find(b"\x1c\x02") >= 0:
                blocks.append("IPTC")
            return blocks
    except (OSError, ValueError):
        return []


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
    while len(head := file.read(8)) == 8:
        if head[:4] in (b"EXIF", b"XMP "):
            return True
        length = int.from_bytes(head[4:], "little")
        file.seek(length + length % 2, 1)
    return False
