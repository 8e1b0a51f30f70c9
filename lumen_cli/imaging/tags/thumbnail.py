"""The small pictures in an EXIF block: where they are, and new ones of the finished picture in their places."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lumen_cli.imaging.colour.convert import to_integers
from lumen_cli.imaging.extent import jpeg_end
from lumen_cli.imaging.picture import Picture
from lumen_cli.imaging.tags.exif import entries, header
from lumen_cli.imaging.tags.segments import size_of

if TYPE_CHECKING:
    from PIL import Image

_LARGEST = (160, 120)
"""Width and height that cameras use (DCF); an upright picture gets one of at most 120×160."""
_QUALITY = 75
_COMPRESSION, _START, _LENGTH = 0x0103, 0x0201, 0x0202
_STRIP, _STRIP_LENGTH = 0x0111, 0x0117
_OF_OLD_THUMBNAIL = {*range(0x0100, 0x0107), _STRIP, 0x0112, 0x0115, 0x0116, _STRIP_LENGTH, 0x011C, _START, _LENGTH}
_OF_OLD_THUMBNAIL |= {0x0211, 0x0212, 0x0213, 0x0214}
_SHORT, _LONG, _JPEG = 3, 4, 6


def has_thumbnail(block: bytes | None) -> bool:
    """Whether the second directory of a raw EXIF block names a JPEG."""
    if not block:
        return False
    try:
        order, first = header(block)
        (count,) = struct.unpack_from(f"{order}H", block, first)
        (second,) = struct.unpack_from(f"{order}I", block, first + 2 + 12 * count)
        return bool(second) and any(tag == _START for tag, _, _ in entries(block, order, second))
    except (ValueError, struct.error):
        return False


def thumbnail(picture: Picture) -> bytes:
    """A small JPEG of the picture, in its own colours; equal pictures give equal bytes."""
    largest = _LARGEST if picture.width >= picture.height else _LARGEST[::-1]
    return _encode(_reduce(picture, largest), _QUALITY)


def _reduce(picture: Picture, largest: tuple[int, int]) -> Image.Image:
    """The picture at no more than this width and height."""
    from PIL import Image

    # Every n-th pixel first: four times the size that is needed is plenty to average over.
    step = max(1, min(picture.width // (4 * largest[0]), picture.height // (4 * largest[1])))
    image = Image.fromarray(to_integers(picture.rows(slice(None, None, step), step), 8))
    image.thumbnail(largest, Image.Resampling.BOX)
    return image


def _encode(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def with_new_previews(block: bytes, picture: Picture) -> tuple[bytes, bool]:
    """The block with the JPEGs in it, which makers keep in their notes, replaced by ones of the finished picture.

    A new one has the old one's place and length (what is left of it is zero), so that no other value moves.

    Returns:
        The block, and whether all found room: one that has none is zero.
    """
    data, fits, at, file = bytearray(block), True, 0, io.BytesIO(block)
    while (at := block.find(b"\xff\xd8\xff", at)) >= 0:
        end, size = jpeg_end(file, at), size_of(block, at)
        if size is None or block[end - 2 : end] != b"\xff\xd9":
            at += 2
            continue
        image = _reduce(picture, size)
        attempts = (_encode(image, quality) for quality in (_QUALITY, 50, 20, 5))
        new = next((small for small in attempts if len(small) <= end - at), b"")
        fits = fits and bool(new)
        data[at:end] = new.ljust(end - at, b"\0")
        at = end
    return bytes(data), fits


@dataclass(frozen=True)
class ThumbnailPlace:
    """Where a block has its second directory, with how many entries, and the JPEG that it names."""

    directory: int
    count: int
    start: int
    length: int


def place_of_thumbnail(block: bytes) -> ThumbnailPlace | None:
    """The thumbnail of a raw EXIF block; None where there is none, or its directory is damaged."""
    try:
        order, first = header(block)
        (count,) = struct.unpack_from(f"{order}H", block, first)
        (second,) = struct.unpack_from(f"{order}I", block, first + 2 + 12 * count)
        if not 8 <= second < len(block) - 2:
            return None
        (count,) = struct.unpack_from(f"{order}H", block, second)
        values = {tag: struct.unpack_from(f"{order}I", block, at)[0] for tag, _, at in entries(block, order, second)}
    except (ValueError, struct.error):
        return None
    start = values.get(_START, values.get(_STRIP, 0))
    length = values.get(_LENGTH, values.get(_STRIP_LENGTH, 0))
    return ThumbnailPlace(second, count, start, length) if 8 <= start <= start + length <= len(block) else None


def with_thumbnail(block: bytes, jpeg: bytes, place: ThumbnailPlace | None = None) -> bytes:
    """A raw EXIF block whose second directory is this thumbnail; no other value moves.

    Args:
        block: without a second directory.
        jpeg: the thumbnail.
        place: of the thumbnail that the block had before, whose bytes are free now; where the new one does not fit, and
            for None, it is appended.

    Raises:
        ValueError: the block is damaged.
    """
    order, first = header(block)
    data = bytearray(block + b"\0" * (len(block) % 2))
    free = place is not None and len(jpeg) <= place.length
    entries_kept = [] if place is None else _entries_kept(block, order, place)
    count = len(entries_kept) + 3
    directory = place.directory if place is not None and count <= place.count else len(data)
    if directory == len(data):
        data += bytes(2 + 12 * count + 4)
    start = place.start if place is not None and free else len(data)
    data[start : start + len(jpeg)] = jpeg
    made = [
        struct.pack(f"{order}HHIHH", _COMPRESSION, _SHORT, 1, _JPEG, 0),
        struct.pack(f"{order}HHII", _START, _LONG, 1, start),
        struct.pack(f"{order}HHII", _LENGTH, _LONG, 1, len(jpeg)),
    ]
    listed = sorted([*entries_kept, *made], key=lambda entry: int(struct.unpack(f"{order}H", entry[:2])[0]))
    body = struct.pack(f"{order}H", count) + b"".join(listed) + bytes(4)
    data[directory : directory + len(body)] = body
    try:
        (main,) = struct.unpack_from(f"{order}H", block, first)
        struct.pack_into(f"{order}I", data, first + 2 + 12 * main, directory)
    except struct.error:
        raise ValueError("its EXIF is damaged") from None
    return bytes(data)


def _entries_kept(block: bytes, order: str, place: ThumbnailPlace) -> list[bytes]:
    """What the old directory says beside how the old thumbnail lay in it."""
    found = (block[place.directory + 2 + 12 * i :][:12] for i in range(place.count))
    return [entry for entry in found if struct.unpack(f"{order}H", entry[:2])[0] not in _OF_OLD_THUMBNAIL]
