"""Tags that lumen copies by itself: all of them between files of one format, else the EXIF block.

Blocks stay byte for byte where they hold for the result.
"""

from __future__ import annotations

import contextlib
import functools
import io
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lumen_cli.errors import PictureError
from lumen_cli.imaging.colour.convert import to_integers
from lumen_cli.imaging.extent import find_jpeg_end
from lumen_cli.imaging.formats.pillow import UNMOVABLE_TAGS
from lumen_cli.imaging.picture import Picture
from lumen_cli.imaging.tags.containers import EXIF, MOST_IN_SEGMENT, jpeg_size
from lumen_cli.imaging.tags.exif import (
    correct,
    find_thumbnail,
    join_software,
    put_thumbnail,
    read_software,
    write_software,
)
from lumen_cli.imaging.tags.pieces import (
    SPLICED,
    NotSplicedError,
    Piece,
    Pieces,
    exif_piece,
    extended_name,
    put_pieces,
    read_pieces,
)
from lumen_cli.imaging.tags.xmp import repair_xmp, update_xmp

if TYPE_CHECKING:
    from PIL import Image

EMBEDDABLE = ("jpeg", "png", "webp", "tiff")
"""Formats that `embed_exif` knows."""
MOST_IN_JPEG = 64000
"""Bytes of EXIF that fit into a JPEG with room for a stamp."""
_ONE_SEGMENT = MOST_IN_SEGMENT - len(EXIF)
_LARGEST, _QUALITY = (160, 120), 75
"""Width and height of thumbnails as cameras make them (DCF; 120×160 for upright pictures), and their JPEG quality."""
_NO_PIXELS = b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0" + bytes(10)


def splice_tags(source: Path, target: Path, format: str, picture: Picture, stamp: str | None) -> list[str]:
    """Copy all tags of `source` into `target`, a finished file of the same format, in place.

    EXIF and XMP are corrected for the result (orientation, sizes, stamp, small pictures, pointers to what lay behind
    the picture). Other tags stay as they are, or are left out: a line for each.

    Raises:
        NotSplicedError: exiftool has to copy them; `target` is unchanged.
        PictureError: `target` cannot be written.
    """
    pieces = read_pieces(source, format)
    old = pieces.found
    if stamp is not None and not any(piece.kind == "exif" for piece in old):
        old = [exif_piece(format), *old]
    new = _update_pieces(old, pieces, format, picture, stamp)
    if new:
        write(target, put_pieces(target.read_bytes(), format, new, (picture.width, picture.height)))
    return [f"left out: {what}" for what in pieces.left_out]


def _update_pieces(old: list[Piece], pieces: Pieces, format: str, picture: Picture, stamp: str | None) -> list[Piece]:
    small = functools.cache(lambda: make_thumbnail(picture))

    def update(piece: Piece) -> bytes:
        if piece.kind == "exif":
            limit = _ONE_SEGMENT if format == "jpeg" and len(piece.body) <= _ONE_SEGMENT else None
            return _update_exif(piece.body, picture, stamp, small, limit, pieces)
        if piece.kind in ("xmp", "extended xmp"):
            try:
                return update_xmp(piece.body, picture.width, picture.height)
            except UnicodeError:
                raise NotSplicedError("its XMP is not text") from None
        return _update_photoshop(piece.body, small) if piece.kind == "photoshop" else piece.body

    new = [replace(piece, body=update(piece)) for piece in old]
    for before, after in zip(old, new, strict=True):
        if after.kind == "extended xmp" and after.body != before.body:
            name = extended_name(after.body)
            new = [replace(p, body=p.body.replace(before.name, name)) if p.kind == "xmp" else p for p in new]
    return new


def _update_exif(
    block: bytes, picture: Picture, stamp: str | None, small: Callable[[], bytes], limit: int | None, pieces: Pieces
) -> bytes:
    """The block as it holds for the picture, of no more bytes than `limit`."""
    old = find_thumbnail(block)
    corrected = correct(block, picture.width, picture.height)
    if corrected is None:
        raise NotSplicedError("its EXIF is damaged")
    new, all_fit = _replace_previews(corrected, picture)
    if not all_fit:
        pieces.leave_out("an old preview")
    try:
        if stamp is not None:
            new = write_software(new, join_software(read_software(new), stamp))
        if old is not None:
            shown = put_thumbnail(new, small(), old)
            if limit is None or len(shown) <= limit:
                return shown
            pieces.leave_out("the old thumbnail; there is no room for a new one")
    except ValueError as error:
        raise NotSplicedError(str(error)) from None
    if limit is not None and len(new) > limit:
        raise NotSplicedError("its EXIF has no room for a stamp")
    return new


def _update_photoshop(resources: bytes, small: Callable[[], bytes]) -> bytes:
    """Photoshop's resources with a new thumbnail, where they hold one; all others stay as they are."""
    parts, at, found = [], 0, False
    while resources[at : at + 4] == b"8BIM" and at + 8 <= len(resources):
        (kind,) = struct.unpack_from(">H", resources, at + 4)
        name = resources[at + 6]
        content = at + 6 + 1 + name + (1 - name % 2)
        if content + 4 > len(resources):
            break
        (length,) = struct.unpack_from(">I", resources, content)
        end = content + 4 + length + length % 2
        if kind not in (0x0409, 0x040C):
            parts.append(resources[at:end])
        elif not found:
            found = True
            width, height = jpeg_size(small()) or (0, 0)
            row = (width * 24 + 31) // 32 * 4
            body = struct.pack(">6I2H", 1, width, height, row, row * height, len(small()), 24, 1) + small()
            parts.append(b"8BIM" + struct.pack(">HHI", 0x040C, 0, len(body)) + body + b"\0" * (len(body) % 2))
        at = end
    return b"".join(parts) + resources[at:] if found else resources


def embed_exif(target: Path, format: str, picture: Picture, software: str | None, small: bytes | None) -> list[str]:
    """Write the original's EXIF block, corrected, with the stamp and a thumbnail, into the finished file; warnings."""
    warnings = []
    block = None if picture.exif is None else correct(picture.exif, picture.width, picture.height)
    if picture.exif is not None and block is None:
        warnings = ["its EXIF is damaged and was left out"]
    if software is not None:
        try:
            block = write_software(block, software)
        except ValueError as error:
            warnings, block = [f"{error} and was left out"], write_software(None, software)
    if small is not None and block is not None and len(block) + len(small) < MOST_IN_JPEG:
        with contextlib.suppress(ValueError):
            block = put_thumbnail(block, small)
    return warnings if block is None else [*warnings, *write_exif(target, format, picture, block)]


def write_exif(target: Path, format: str, picture: Picture, block: bytes) -> list[str]:
    """Write an EXIF block into a finished file that has none; a warning where it cannot be."""
    try:
        if format not in EMBEDDABLE:
            raise ValueError("only exiftool writes EXIF into this format")
        data = target.read_bytes()
        if format == "tiff":
            data = _put_in_tiff(data, block)
        else:
            data = put_pieces(data, format, [exif_piece(format, block)], (picture.width, picture.height))
    except Exception as error:  # Pillow's TIFF writer fails in many ways on odd tags; the picture itself is good
        return [f"its EXIF could not be copied ({error})"]
    write(target, data)
    return []


def write(target: Path, data: bytes) -> None:
    """Write the file.

    Raises:
        PictureError: it cannot be written.
    """
    try:
        target.write_bytes(data)
    except OSError as error:
        raise PictureError(target, f"cannot be written ({error.strerror or error})") from None


def _put_in_tiff(data: bytes, block: bytes) -> bytes:
    """Append a new first directory with the file's own entries and the block's; all other data stay in place."""
    from PIL import ExifTags, Image
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    exif = Image.Exif()
    exif.load(block)
    resolution = {tag.to_bytes(2, "little") for tag in (0x011A, 0x011B, 0x0128) if tag in exif}
    first = int.from_bytes(data[4:8], "little")
    own = [entry for entry in _tiff_entries(data, first) if entry[:2] not in resolution]
    present = {entry[:2] for entry in own}
    groups = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
    added = ImageFileDirectory_v2(data[:8])
    for tag, value in exif.items():
        if tag.to_bytes(2, "little") not in present and tag not in groups:
            added[tag] = value
    for group in groups:
        values = {tag: value for tag, value in exif.get_ifd(group).items() if tag not in UNMOVABLE_TAGS}
        if values:
            added[group] = values
            added.tagtype[group] = 4  # a LONG makes Pillow write the directory
    padded = data + b"\0" * (len(data) % 2)
    # Pillow's offsets are right when it starts behind the file's own entries.
    written = added.tobytes(len(padded) + 12 * len(own))
    fresh = _tiff_entries(written, 0)
    listed = sorted([*own, *fresh], key=lambda entry: int.from_bytes(entry[:2], "little"))
    directory = len(listed).to_bytes(2, "little") + b"".join(listed) + bytes(4) + written[2 + 12 * len(fresh) + 4 :]
    return padded[:4] + len(padded).to_bytes(4, "little") + padded[8:] + directory


def _tiff_entries(data: bytes, at: int) -> list[bytes]:
    count = int.from_bytes(data[at : at + 2], "little")
    return [data[at + 2 + 12 * i : at + 14 + 12 * i] for i in range(count)]


def stand_in(source: Path, format: str) -> bytes | None:
    """A small WebP with the tags of a large one, because exiftool misses EXIF that begins as in a JPEG; else None."""
    if format != "webp":
        return None
    pieces = [piece for piece in read_pieces(source, format).found if piece.kind in ("exif", "xmp")]
    return put_pieces(_NO_PIXELS, format, pieces, (1, 1))


def repair_packet(source: Path, format: str) -> bytes | None:
    """The XMP of a JPEG, PNG or WebP, repaired where exiftool would refuse to copy it as it is.

    None where exiftool copies it, or where there is no packet, or several.
    """
    found = read_pieces(source, format).found if format in SPLICED else []
    packets = [piece.body for piece in found if piece.kind in ("xmp", "extended xmp")]
    return repair_xmp(packets[0]) if len(packets) == 1 else None


def make_thumbnail(picture: Picture) -> bytes:
    """A small JPEG of the picture, in its own colours; equal pictures give equal bytes."""
    largest = _LARGEST if picture.width >= picture.height else _LARGEST[::-1]
    return _encode(_reduce(picture, largest), _QUALITY)


def _reduce(picture: Picture, largest: tuple[int, int]) -> Image.Image:
    """The picture at no more than this width and height."""
    from PIL import Image

    # Every n-th pixel first: four times the needed size is enough to average over.
    step = max(1, min(picture.width // (4 * largest[0]), picture.height // (4 * largest[1])))
    image = Image.fromarray(to_integers(picture.rows(slice(None, None, step), step), 8))
    image.thumbnail(largest, Image.Resampling.BOX)
    return image


def _encode(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _replace_previews(block: bytes, picture: Picture) -> tuple[bytes, bool]:
    """The block with the JPEGs in it, which maker notes hold, replaced by ones of the finished picture.

    A new one has the place and length of the old one, padded with zeros, so that no other value moves.

    Returns:
        The block, and whether all new ones fit; the place of one that does not is zeroed.
    """
    data, all_fit, at, file = bytearray(block), True, 0, io.BytesIO(block)
    while (at := block.find(b"\xff\xd8\xff", at)) >= 0:
        end, size = find_jpeg_end(file, at), jpeg_size(block, at)
        if size is None or block[end - 2 : end] != b"\xff\xd9":
            at += 2
            continue
        image = _reduce(picture, size)
        attempts = (_encode(image, quality) for quality in (_QUALITY, 50, 20, 5))
        new = next((small for small in attempts if len(small) <= end - at), b"")
        all_fit = all_fit and bool(new)
        data[at:end] = new.ljust(end - at, b"\0")
        at = end
    return bytes(data), all_fit
