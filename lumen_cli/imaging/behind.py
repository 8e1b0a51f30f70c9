"""What lies behind the end of a JPEG, PNG or WebP: gain maps, videos, trailers. None of it is copied, all is named."""

from __future__ import annotations

import mmap
import os
from typing import BinaryIO

from lumen_cli.imaging.extent import jpeg_end, picture_end
from lumen_cli.imaging.isobmff import boxes

_SEARCHED, _MOST_PADDING = 64 << 20, 1 << 30
"""Bytes behind the end that are looked through for a video, and for anything at all; of more there is a line."""
_PADDING = b"\0\xff\xd9\r\n\t "
_PIECE = 1 << 20
_HEAD = 1 << 16
"""Bytes at the beginning of a picture in which its tags say that it is a gain map."""
_GAIN_MAPS = (b"hdr-gain-map/1.0/", b"HDRGainMap", b"urn:iso:std:iso:ts:21496:-1")
_VIDEO_STARTS = range(8, 65)
"""Lengths of the box that a video begins with."""
_TRAILERS = (
    (b"SEFT", -4, "Samsung's trailer"),
    (b"AXS!", -12, "an AFCP trailer"),
    (b"AXS*", -12, "an AFCP trailer"),
    (b"cbipcbbl", -8, "Photo Mechanic's trailer"),
    (b"CANON OPTIONAL DATA\0", -64, "a recipe of Canon's program (VRD)"),
    (b"\xa1\xb2\xc3\xd4", -4, "FotoStation's trailer"),
    (b"8db42d694ccc418790edff439fe026bf", -32, "Insta360's trailer"),
)
"""What the last bytes of a file say: them, where they begin counted from the end, and what it is."""

_BOXES = {
    b"mpvd": "its video (motion photo)",
    b"sefd": "Samsung's trailer",
    b"jhgm": "its gain map (HDR)",
    b"jumb": "a JUMBF box",
}
"""Boxes of ISO/IEC 14496-12 beside the picture."""
_BMP_SPACE, _BMP_PROFILES = 70, (b"DEBM", b"KNIL")
"""Where a BMP's fifth kind of header (124 bytes) says that a profile is embedded or linked."""
_SIGNED = (b"c2pa", bytes.fromhex("d8fec3d61b0e483c92975828877ec481"))


def behind_picture(file: BinaryIO, kind: str, counted: bool = False) -> tuple[str, ...]:
    """What lies in a file behind the picture that is read from it: one phrase each, usually none.

    It reads in pieces: however large the file is, little of it comes into memory.

    Args:
        file: open for reading.
        kind: its format. Of AVIF, HEIC and JPEG XL the boxes beside the picture are looked at.
        counted: further pictures have been announced already.

    Raises:
        OSError: the file cannot be read.
    """
    if kind in ("avif", "heif", "jxl"):
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _boxes(data)
    if kind == "bmp" and _read(file, _BMP_SPACE, 4) in _BMP_PROFILES and _read(file, 14, 1) == b"|":
        return ("its colour profile was left out",)
    if kind not in ("jpeg", "png", "webp"):
        return ()
    size = file.seek(0, os.SEEK_END)
    at, found, pictures = _without_padding(file, picture_end(file, kind), size), [], 0
    while _read(file, at, 3) == b"\xff\xd8\xff":
        if any(word in _read(file, at, _HEAD) for word in _GAIN_MAPS):
            found.append("left out: its gain map (HDR)")
        else:
            pictures += 1
        at = _without_padding(file, jpeg_end(file, at), size)
    if pictures and not counted:
        found.append(f"left out: {pictures} further picture{'s' * (pictures > 1)} behind it")
    if at < size:
        found += _others(file, at, size)
    return tuple(dict.fromkeys(found))


def _read(file: BinaryIO, at: int, length: int) -> bytes:
    file.seek(at)
    return file.read(length)


def _boxes(data: mmap.mmap) -> tuple[str, ...]:
    found = []
    for name, begin, end in boxes(data):  # type: ignore[arg-type]
        signed = name in (b"uuid", b"jumb") and any(word in data[begin : min(end, begin + 400)] for word in _SIGNED)
        what = "content credentials (C2PA), whose signature no longer holds" if signed else _BOXES.get(name)
        if what is not None:
            found.append(f"left out: {what}")
    return tuple(dict.fromkeys(found))


def _others(file: BinaryIO, at: int, size: int) -> list[str]:
    found = ["left out: its video (motion photo)"] if _video(file, at, size) else []
    for mark, place, what in _TRAILERS:
        if size + place >= at and _read(file, size + place, len(mark)) == mark:
            return [*found, f"left out: {what}"]
    return found or [f"left out: {size - at} bytes behind its end"]


def _video(file: BinaryIO, at: int, size: int) -> bool:
    """Whether a video begins there, or further on."""
    # The zeros of its box's length may have been taken for padding.
    for start in range(at - 3, min(size, at + _SEARCHED), _PIECE):
        piece = _read(file, start, _PIECE + 8)
        place = piece.find(b"ftyp", 4)
        while place >= 0:
            if int.from_bytes(piece[place - 4 : place], "big") in _VIDEO_STARTS:
                return True
            place = piece.find(b"ftyp", place + 4)
    return False


def _without_padding(file: BinaryIO, at: int, size: int) -> int:
    """Where something begins that is not only there to fill; the end where nothing does."""
    stop = min(size, at + _MOST_PADDING)
    while at < stop:
        piece = _read(file, at, min(_PIECE, stop - at))
        rest = b"" if piece.count(0) == len(piece) else piece.lstrip(_PADDING)
        if rest:
            at += len(piece) - len(rest)
            # An end marker may be padding; a start marker begins with the same byte.
            return at - 1 if _read(file, at - 1, 2) == b"\xff\xd8" else at
        at += max(1, len(piece))
    return at
