"""How much of a file is the picture. What lies behind it (trailers, padding, holes) is never read into memory."""

from __future__ import annotations

import os
import re
from typing import BinaryIO

from lumen_cli.imaging.decoded import UnreadableError

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
