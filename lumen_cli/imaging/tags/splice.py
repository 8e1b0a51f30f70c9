"""Tags from a JPEG, PNG or WebP to a file of the same format by own code: byte for byte where they stay true."""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from lumen_cli.errors import PictureError
from lumen_cli.imaging.picture import Picture
from lumen_cli.imaging.tags.exif import corrected, processing_software, stamped, with_stamp
from lumen_cli.imaging.tags.pieces import (
    SPLICED,
    NotSplicedError,
    Piece,
    Pieces,
    empty_exif,
    extended_guid,
    read_pieces,
    with_pieces,
)
from lumen_cli.imaging.tags.segments import EXIF, MOST_IN_SEGMENT, size_of
from lumen_cli.imaging.tags.thumbnail import place_of_thumbnail, thumbnail, with_new_previews, with_thumbnail
from lumen_cli.imaging.tags.xmp import made_true, repaired

_NEWER = 0x040C
_THUMBNAILS = (0x0409, _NEWER)
_JPEG_RGB = 1
_KEY = b"8BIM"


def with_thumbnail_if_any(resources: bytes, make: Callable[[], bytes]) -> bytes:
    """The resources with a new thumbnail, where they hold one; all others stay as they are.

    Args:
        resources: all of them, one behind the other.
        make: gives the new thumbnail, a JPEG.
    """
    parts, at, made = [], 0, False
    while resources[at : at + 4] == _KEY and at + 8 <= len(resources):
        (kind,) = struct.unpack_from(">H", resources, at + 4)
        name = resources[at + 6]
        content = at + 6 + 1 + name + (1 - name % 2)
        if content + 4 > len(resources):
            break
        (length,) = struct.unpack_from(">I", resources, content)
        end = content + 4 + length + length % 2
        if kind not in _THUMBNAILS:
            parts.append(resources[at:end])
        elif not made:
            made = True
            parts.append(_thumbnail(make()))
        at = end
    return b"".join(parts) + resources[at:] if made else resources


def _thumbnail(jpeg: bytes) -> bytes:
    width, height = size_of(jpeg, 0) or (0, 0)
    row = (width * 24 + 31) // 32 * 4
    head = struct.pack(">6I2H", _JPEG_RGB, width, height, row, row * height, len(jpeg), 24, 1)
    body = head + jpeg
    return _KEY + struct.pack(">HHI", _NEWER, 0, len(body)) + body + b"\0" * (len(body) % 2)


_NO_PIXELS = b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0" + bytes(10)
_ONE_SEGMENT = MOST_IN_SEGMENT - len(EXIF)


def splice(source: Path, target: Path, format: str, picture: Picture, stamp: str | None) -> list[str]:
    """Copy all tags of `source` into `target`, a finished file of the same format, in place.

    EXIF and XMP become true of the result in their places (orientation, sizes, stamp, small pictures, pointers to what
    lay behind the picture); all else stays as it is, or is left out and named.

    Args:
        source: the original.
        target: the result, with pixels and profile only.
        format: of both, one of `tag_pieces.SPLICED`.
        picture: what is in `target`.
        stamp: what ProcessingSoftware gets, None to leave it alone.

    Returns:
        A line for each thing that is left out.

    Raises:
        NotSplicedError: exiftool has to do it; `target` is as it was.
        PictureError: `target` cannot be written.
    """
    pieces = read_pieces(source, format)
    made = _Maker(pieces, picture, stamp, format).made()
    if made:
        data = with_pieces(target.read_bytes(), format, made, (picture.width, picture.height))
        try:
            target.write_bytes(data)
        except OSError as error:
            raise PictureError(target, f"cannot be written ({error.strerror or error})") from None
    return [f"left out: {what}" for what in pieces.left_out]


def stand_in(source: Path, format: str) -> bytes | None:
    """A small WebP with the tags of a large one, for exiftool: it overlooks EXIF that begins as in a JPEG.

    None for other formats.
    """
    if format != "webp":
        return None
    pieces = [piece for piece in read_pieces(source, format).found if piece.kind in ("exif", "xmp")]
    return with_pieces(_NO_PIXELS, format, pieces, (1, 1))


def repaired_packet(source: Path, format: str) -> bytes | None:
    """The XMP of a JPEG, PNG or WebP that exiftool would refuse to copy as it is, made one that it copies.

    None where it copies it, or where there is none, or several.
    """
    packets = read_pieces(source, format).found if format in SPLICED else []
    found = [piece.body for piece in packets if piece.kind in ("xmp", "extended xmp")]
    return repaired(found[0]) if len(found) == 1 else None


class _Maker:
    """Makes pieces true of a result."""

    def __init__(self, pieces: Pieces, picture: Picture, stamp: str | None, format: str) -> None:
        self._pieces, self._picture, self._stamp, self._format = pieces, picture, stamp, format

    def made(self) -> list[Piece]:
        found = self._pieces.found
        if self._stamp is not None and not any(piece.kind == "exif" for piece in found):
            found = [empty_exif(self._format), *found]
        renamed: list[tuple[bytes, bytes]] = []
        made = []
        for piece in found:
            true = self._true(piece)
            if piece.kind == "extended xmp" and true.body != piece.body:
                renamed.append((piece.name, extended_guid(true.body)))
            made.append(true)
        # The main packet names its extended ones by their checksums.
        return [self._renamed(piece, renamed) if piece.kind == "xmp" else piece for piece in made]

    @staticmethod
    def _renamed(piece: Piece, names: list[tuple[bytes, bytes]]) -> Piece:
        body = piece.body
        for old, new in names:
            body = body.replace(old, new)
        return replace(piece, body=body)

    @functools.cached_property
    def _small(self) -> bytes:
        return thumbnail(self._picture)

    def _true(self, piece: Piece) -> Piece:
        if piece.kind == "exif":
            return replace(piece, body=self._exif(piece.body))
        if piece.kind in ("xmp", "extended xmp"):
            return replace(piece, body=self._xmp(piece.body))
        if piece.kind == "photoshop":
            return replace(piece, body=with_thumbnail_if_any(piece.body, lambda: self._small))
        return piece

    def _exif(self, block: bytes) -> bytes:
        place = place_of_thumbnail(block)
        true = corrected(block, self._picture.width, self._picture.height)
        if true is None:
            raise NotSplicedError("its EXIF is damaged")
        true, fits = with_new_previews(true, self._picture)
        if not fits:
            self._pieces.leave_out("an old preview")
        try:
            if self._stamp is not None:
                true = stamped(true, with_stamp(processing_software(true), self._stamp))
            if place is None:
                shown = true
            else:
                shown = with_thumbnail(true, self._small, place)
                if len(shown) > _ONE_SEGMENT >= len(block) and self._format == "jpeg":
                    self._pieces.leave_out("the old thumbnail; there is no room for a new one")
                    shown = true
        except ValueError as error:
            raise NotSplicedError(str(error)) from None
        if len(shown) > _ONE_SEGMENT >= len(block) and self._format == "jpeg":
            raise NotSplicedError("its EXIF has no room for a stamp")
        return shown

    def _xmp(self, packet: bytes) -> bytes:
        try:
            return made_true(packet, self._picture.width, self._picture.height)
        except UnicodeError:
            raise NotSplicedError("its XMP is no text") from None
