"""How much of a file is the picture. What lies behind it (trailers, padding, holes) is never read into memory."""

from __future__ import annotations

import mmap
import os
import re
from typing import BinaryIO

from lumen_cli.imaging.decoded import UnreadableError
from lumen_cli.imaging.formats.isobmff import boxes

READ_IN_PLACE = ("gif", "bmp", "tiff", "raw")
"""Formats whose decoders get the open file: it may hold far more than the one picture that is read."""
_STREAMS = ("jpeg", "jxl")
"""Formats whose decoders stop where the picture is complete, whatever follows."""
_PIECE = 1 << 20
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""A JPEG marker that can follow entropy-coded data: no stuffed zero, no restart, no fill byte."""
_END_OF_IMAGE = 0xD9
_ALONE = {0x01, 0xD8, *range(0xD0, 0xD8)}
_SKIPPED_BOXES = (b"free", b"skip", b"wide", b"mpvd")
"""Boxes that hold nothing of the still picture; "mpvd" is the video of a motion photo."""
_MOST_PARTS = 1_000_000
_HEAD_BYTES, _PIXEL_BYTES = 64 << 20, 16
"""More bytes than tags and pixels of a picture take: four channels of 32 bits."""
_MOST_BYTES = 1 << 30


def read_picture_bytes(file: BinaryIO, kind: str, pixels: int | None) -> bytes:
    """The bytes of the picture that a file of format `kind` begins with, without what lies behind it.

    Args:
        file: open for reading.
        kind: a name of `reading.sniff`, none of `READ_IN_PLACE`.
        pixels: of the picture, from its header; at most 64 MiB and 16 bytes a pixel are read (1 GiB for None).

    Raises:
        UnreadableError: the picture's own part of the file is larger than that.
        OSError: the file cannot be read.
    """
    end, most = picture_end(file, kind), _MOST_BYTES if pixels is None else _HEAD_BYTES + _PIXEL_BYTES * pixels
    if end > most and kind not in _STREAMS:
        raise UnreadableError(f"the file holds {end / 1e9:.1f} GB, far more than a picture of its size takes")
    file.seek(0)
    return file.read(min(end, most))


def picture_end(file: BinaryIO, kind: str) -> int:
    """Where the picture ends in the file, and a trailer may begin; the file's size where the format does not tell.

    Raises:
        OSError: the file cannot be read.
    """
    size = file.seek(0, os.SEEK_END)
    if kind == "jpeg":
        return jpeg_end(file)
    if kind == "png":
        return _png_end(file, size)
    if kind == "webp":
        file.seek(4)
        length = int.from_bytes(file.read(4), "little")
        return min(size, 8 + length + length % 2)
    if kind in ("avif", "heif", "jxl"):
        return _boxes_end(file, size)
    return size


def jpeg_end(file: BinaryIO, start: int = 0) -> int:
    """The byte behind the end marker of a JPEG, of the first one where several follow each other; reads in pieces.

    Without an end marker it is the file's size.

    Args:
        file: open for reading.
        start: where the JPEG begins.

    Raises:
        OSError: the file cannot be read.
    """
    size, at = file.seek(0, os.SEEK_END), start + 2
    while (place := _next_marker(file, at)) is not None:
        file.seek(place)
        head = file.read(4)
        if head[1] == _END_OF_IMAGE:
            return place + 2
        at = place + 2 + (0 if head[1] in _ALONE else int.from_bytes(head[2:], "big"))
    return size


def _next_marker(file: BinaryIO, at: int) -> int | None:
    """The place of the first marker from `at` on; picture data and fill bytes are passed over, as decoders do."""
    length = 4096
    while True:
        file.seek(at)
        piece = file.read(length)
        match = _MARKER.search(piece)
        if match is not None:
            return at + match.start()
        if len(piece) < length:
            return None
        at, length = at + length - 1, _PIECE


def _png_end(file: BinaryIO, size: int) -> int:
    at = 8
    for _ in range(_MOST_PARTS):
        file.seek(at)
        head = file.read(8)
        at += 12 + int.from_bytes(head[:4], "big")
        if len(head) < 8 or at > size:
            break
        if head[4:] == b"IEND":
            return at
    return size


def _boxes_end(file: BinaryIO, size: int) -> int:
    """Behind the last box with something of the still picture; a bare codestream of JPEG XL has no boxes."""
    at = end = 0
    for _ in range(_MOST_PARTS):
        file.seek(at)
        head = file.read(16)
        length, name = int.from_bytes(head[:4], "big"), head[4:8]
        if len(head) < 8 or not name.strip(b"\0"):
            break
        if length == 1:
            length = int.from_bytes(head[8:], "big")
        if length < 8 or at + length > size:  # 0: to the end of the file
            return size
        at += length
        if name not in _SKIPPED_BOXES:
            end = at
    return end or size


_SEARCHED, _MOST_PADDING = 64 << 20, 1 << 30
"""Bytes behind the end that are looked through for a video, and for anything at all; of more there is a line."""
_PADDING = b"\0\xff\xd9\r\n\t "
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
