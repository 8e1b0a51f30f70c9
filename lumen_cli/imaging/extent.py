"""How files are built: where a picture ends, and the trailers, padding and holes behind it, never read into memory."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from lumen_cli.imaging.formats.format import UnreadableError

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PIECE = 1 << 20
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""A JPEG marker that can follow entropy-coded data: no stuffed zero, no restart, no fill byte."""
_END_OF_IMAGE = 0xD9
_ALONE = {0x01, 0xD8, *range(0xD0, 0xD8)}
"""Markers without a length."""
_SKIPPED_BOXES = (b"free", b"skip", b"wide", b"mpvd")
"""Boxes that hold nothing of the still picture; "mpvd" is the video of a motion photo."""
_MOST_BOXES = 10_000
_HEAD_BYTES, _PIXEL_BYTES = 64 << 20, 16
"""More bytes than tags and pixels of a picture take: four channels of 32 bits."""
_MOST_BYTES = 1 << 30


def read_at(file: BinaryIO, at: int, length: int) -> bytes:
    """The bytes there, fewer at the end of the file."""
    file.seek(at)
    return file.read(max(0, length))


def read_bounded(file: BinaryIO, end: int, pixels: int | None = None, *, cut: bool = False) -> bytes:
    """The bytes of a file up to `end`: at most 64 MiB and 16 bytes a pixel, 1 GiB where the size is not known.

    cut: whether to drop the rest where there are more, for decoders that stop where the picture is complete.

    Raises:
        UnreadableError: there are more.
    """
    most = _MOST_BYTES if pixels is None else _HEAD_BYTES + _PIXEL_BYTES * pixels
    if end > most and not cut:
        raise UnreadableError(f"the file holds {end / 1e9:.1f} GB, far more than a picture of its size takes")
    return read_at(file, 0, min(end, most))


def find_jpeg_end(file: BinaryIO, start: int = 0) -> int:
    """The byte behind the end marker of the JPEG that begins at `start`; without one the file's size.

    Reads in pieces.
    """
    size, at = file.seek(0, os.SEEK_END), start + 2
    while (place := _find_marker(file, at)) is not None:
        head = read_at(file, place, 4)
        if head[1] == _END_OF_IMAGE:
            return place + 2
        at = place + 2 + (0 if head[1] in _ALONE else int.from_bytes(head[2:], "big"))
    return size


def _find_marker(file: BinaryIO, at: int) -> int | None:
    """The place of the first marker from `at` on, behind picture data and fill bytes."""
    length = 4096
    while True:
        piece = read_at(file, at, length)
        match = _MARKER.search(piece)
        if match is not None:
            return at + match.start()
        if len(piece) < length:
            return None
        at, length = at + length - 1, _PIECE


def pack_png_chunk(name: bytes, body: bytes) -> bytes:
    """One chunk of a PNG: length, name, body, checksum."""
    return len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")


def find_png_chunk(data: bytes, name: bytes) -> int:
    """Where the first chunk of this name begins, in a whole PNG that has one."""
    at = len(PNG_SIGNATURE)
    while data[at + 4 : at + 8] not in (name, b""):
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return at


def read_brands(start: bytes) -> set[bytes]:
    """The kinds of file that the first box (ISO/IEC 14496-12) announces; empty where a file begins otherwise."""
    if start[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(start[:4], "big"), len(start))
    return {start[8:12], *(start[at : at + 4] for at in range(16, end - 3, 4))}


def walk_boxes(file: BinaryIO, start: int = 0, end: int | None = None) -> Iterator[tuple[bytes, int, int]]:
    """Name, begin and end of the content of boxes that follow each other; stops at the first that cannot be."""
    end = file.seek(0, os.SEEK_END) if end is None else end
    for _ in range(_MOST_BOXES):
        head = read_at(file, start, min(16, end - start)) if start < end else b""
        if len(head) < 8:
            return
        size, name, content = int.from_bytes(head[:4], "big"), head[4:8], start + 8
        if size == 1:
            size, content = int.from_bytes(head[8:], "big"), content + 8
        stop = end if size == 0 else start + size
        if stop > end or stop < content:
            return
        yield name, content, stop
        start = stop


def find_boxes_end(file: BinaryIO) -> int:
    """Behind the last box with something of the still picture; the file's size where other data follow the boxes."""
    size, at, end = file.seek(0, os.SEEK_END), 0, 0
    for name, _, stop in walk_boxes(file):
        if not name.strip(b"\0"):
            break
        at = stop
        if name not in _SKIPPED_BOXES:
            end = stop
    rest = read_at(file, at, 8)
    return size if len(rest) == 8 and rest[4:].strip(b"\0") else end or size


_SEARCHED, _MOST_PADDING = 64 << 20, 1 << 30
"""Bytes behind the end that are searched for a video, and for anything at all; more is reported by its size."""
_PADDING = b"\0\xff\xd9\r\n\t "
_HEAD = 1 << 16
"""Bytes at the beginning of a picture in which its tags mark it as a gain map."""
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
"""Bytes near the end of a file, where they begin counted from the end, and what they belong to."""
_BOXES = {
    b"mpvd": "its video (motion photo)",
    b"sefd": "Samsung's trailer",
    b"jhgm": "its gain map (HDR)",
    b"jumb": "a JUMBF box",
}
"""Boxes (ISO/IEC 14496-12) beside the picture."""
_SIGNED = (b"c2pa", bytes.fromhex("d8fec3d61b0e483c92975828877ec481"))


def note_boxes(file: BinaryIO) -> tuple[str, ...]:
    """What a file made of boxes holds beside the picture: a notice each, usually none."""
    found = []
    for name, begin, end in walk_boxes(file):
        start = read_at(file, begin, min(400, end - begin)) if name in (b"uuid", b"jumb") else b""
        signed = any(word in start for word in _SIGNED)
        what = "content credentials (C2PA), whose signature no longer holds" if signed else _BOXES.get(name)
        if what is not None:
            found.append(f"left out: {what}")
    return tuple(dict.fromkeys(found))


def note_trailers(file: BinaryIO, end: int, counted: bool) -> tuple[str, ...]:
    """What lies in a file behind the picture, which ends at `end`: a notice each, usually none.

    Reads in pieces: however large the file is, little of it comes into memory.

    Args:
        file: open for reading.
        end: where the picture ends.
        counted: another notice gives the number of further pictures.
    """
    size = file.seek(0, os.SEEK_END)
    at, found, pictures = _skip_padding(file, end, size), [], 0
    while read_at(file, at, 3) == b"\xff\xd8\xff":
        if any(word in read_at(file, at, _HEAD) for word in _GAIN_MAPS):
            found.append("left out: its gain map (HDR)")
        else:
            pictures += 1
        at = _skip_padding(file, find_jpeg_end(file, at), size)
    if pictures and not counted:
        found.append(f"left out: {pictures} further picture{'s' * (pictures > 1)} behind it")
    if at < size:
        found += _note_others(file, at, size)
    return tuple(dict.fromkeys(found))


def _note_others(file: BinaryIO, at: int, size: int) -> list[str]:
    found = ["left out: its video (motion photo)"] if _has_video(file, at, size) else []
    for mark, place, what in _TRAILERS:
        if size + place >= at and read_at(file, size + place, len(mark)) == mark:
            return [*found, f"left out: {what}"]
    return found or [f"left out: {size - at} bytes behind its end"]


def _has_video(file: BinaryIO, at: int, size: int) -> bool:
    """Whether a video begins there, or further on."""
    # The zeros of its box's length may have counted as padding.
    for start in range(at - 3, min(size, at + _SEARCHED), _PIECE):
        piece = read_at(file, start, _PIECE + 8)
        place = piece.find(b"ftyp", 4)
        while place >= 0:
            if int.from_bytes(piece[place - 4 : place], "big") in _VIDEO_STARTS:
                return True
            place = piece.find(b"ftyp", place + 4)
    return False


def _skip_padding(file: BinaryIO, at: int, size: int) -> int:
    """The place of the first byte that is more than padding; the end of the file where there is none."""
    stop = min(size, at + _MOST_PADDING)
    while at < stop:
        piece = read_at(file, at, min(_PIECE, stop - at))
        rest = b"" if piece.count(0) == len(piece) else piece.lstrip(_PADDING)
        if rest:
            at += len(piece) - len(rest)
            # An end marker may be padding; a start marker begins with the same byte.
            return at - 1 if read_at(file, at - 1, 2) == b"\xff\xd8" else at
        at += max(1, len(piece))
    return at
