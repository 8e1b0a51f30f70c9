"""PNG: checks the integrity of files by their chunks, and writes 8 and 16 bits a channel with a profile.

No installed library writes 16-bit colour together with a profile. Filtering rows with numpy and compressing them with
zlib does, and at 8 bits takes about half the time of Pillow's encoder for the same size.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lumen_cli.imaging.colour import COLOUR_CHUNKS
from lumen_cli.imaging.extent import PNG_SIGNATURE, note_trailers, pack_png_chunk, read_at, read_bounded
from lumen_cli.imaging.formats.format import (
    Decoded,
    Format,
    Raster,
    Storage,
    UnreadableError,
    check_size,
    decode_by_opencv,
    note_first_of,
)
from lumen_cli.imaging.formats.pillow import (
    INCOMPLETE_PROFILE,
    decode_image,
    measure,
    open_image,
    read_orientation,
    strip_exif_prefix,
)

_LARGEST_PROFILE = 16 << 20
"""Bytes; a few kilobytes of a hostile file could unpack to gigabytes."""
_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
"""PNG's colour type for each number of channels: grey, grey and alpha, RGB, RGBA."""
_GREY_TYPES = (0, 4)
_KEPT_CHUNKS = (*COLOUR_CHUNKS, b"pHYs")
_MOST_CHUNKS = 1_000_000


class DamagedPngError(ValueError):
    """The file ends early or a chunk's checksum does not fit; the text says which."""


@dataclass(frozen=True)
class PngHead:
    """What a PNG says about itself beside its pixels; chunks by name, the first of each."""

    width: int
    height: int
    bit_depth: int
    colour_type: int
    chunks: dict[bytes, bytes] = field(default_factory=dict)
    """All that are not picture data."""
    before_pixels: dict[bytes, bytes] = field(default_factory=dict)
    """Those that stand before the picture data."""

    @property
    def icc(self) -> bytes | None:
        """The embedded profile; None where there is none or it is damaged."""
        packed = self.chunks.get(b"iCCP", b"").partition(b"\0")[2][1:]
        try:
            unpacker = zlib.decompressobj()
            profile = unpacker.decompress(packed, _LARGEST_PROFILE)
            return profile if unpacker.eof else None
        except zlib.error:
            return None


def read_head(data: bytes) -> PngHead:
    """Walk all chunks of a whole PNG file.

    Raises:
        DamagedPngError: a chunk is cut off, a checksum is wrong, or the end chunk is missing.
    """
    chunks: dict[bytes, bytes] = {}
    before: dict[bytes, bytes] | None = None
    for name, body in walk_chunks(data):
        if name == b"IDAT":
            before = dict(chunks) if before is None else before
        elif name != b"IEND":
            chunks.setdefault(name, bytes(body))
    header = chunks.pop(b"IHDR", b"")
    if len(header) != 13 or before is None:
        raise DamagedPngError("the header or the picture data are missing")
    width, height = int.from_bytes(header[0:4], "big"), int.from_bytes(header[4:8], "big")
    return PngHead(width, height, header[8], header[9], chunks, before)


def walk_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Name and content of each chunk of a whole file up to the end chunk; DamagedPngError as in `read_head`."""
    view = memoryview(data)
    position = len(PNG_SIGNATURE)
    while True:
        end = position + 12 + int.from_bytes(view[position : position + 4], "big")
        if position + 12 > len(view) or end > len(view):
            raise DamagedPngError("the file ends early")
        name, body = bytes(view[position + 4 : position + 8]), view[position + 8 : end - 4]
        if zlib.crc32(view[position + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise DamagedPngError(f"checksum error in chunk {name.decode('latin-1')!r}")
        yield name, body
        if name == b"IEND":
            return
        position = end


def _drop_animation(data: bytes) -> bytes:
    """A whole PNG file without the chunks of an animation: what programs without APNG show."""
    still = ((name, body) for name, body in walk_chunks(data) if name not in (b"acTL", b"fcTL", b"fdAT"))
    return PNG_SIGNATURE + b"".join(pack_png_chunk(name, bytes(body)) for name, body in still)


def _find_end(file: BinaryIO) -> int:
    size, at = file.seek(0, os.SEEK_END), len(PNG_SIGNATURE)
    for _ in range(_MOST_CHUNKS):
        head = read_at(file, at, 8)
        at += 12 + int.from_bytes(head[:4], "big")
        if len(head) < 8 or at > size:
            break
        if head[4:] == b"IEND":
            return at
    return size


def _encode(raster: Raster) -> bytes:
    """8 or 16 bits by the type of the values; chunks of the original, then of the label, before the picture data."""
    values, label = raster.values, raster.label
    height, width, channels = values.shape
    depth = values.dtype.itemsize * 8
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes((depth, _COLOUR_TYPES[channels], 0, 0, 0))
    parts = [PNG_SIGNATURE, pack_png_chunk(b"IHDR", header)]
    if label.icc:
        parts.append(pack_png_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(label.icc, 9)))
    parts += [pack_png_chunk(name, body) for name, body in {**raster.storage.chunks, **label.chunks}.items()]
    parts += [pack_png_chunk(b"IDAT", _compress(values)), pack_png_chunk(b"IEND", b"")]
    return b"".join(parts)


def _compress(values: NDArray[np.uint8] | NDArray[np.uint16]) -> bytes:
    """The rows, each as differences to a neighbour, as one zlib stream."""
    height, width, channels = values.shape
    pixel_bytes = channels * values.dtype.itemsize
    # At 16 bits the low bytes are noise: run lengths alone are three times as fast and no larger.
    strategy = zlib.Z_RLE if values.dtype.itemsize == 2 else zlib.Z_DEFAULT_STRATEGY
    packer = zlib.compressobj(1, zlib.DEFLATED, 15, 9, strategy)
    packed = []
    rows_at_once = max(1, (1 << 20) // max(1, width * pixel_bytes))
    for top in range(0, height, rows_at_once):
        strip = values[top : top + rows_at_once]
        rows = np.ascontiguousarray(strip, strip.dtype.newbyteorder(">")).view(np.uint8).reshape(len(strip), -1)
        filtered = np.empty((rows.shape[0], rows.shape[1] + 1), np.uint8)
        filtered[:, 0] = 1  # filter "Sub": the difference to the pixel on the left
        filtered[:, 1 : pixel_bytes + 1] = rows[:, :pixel_bytes]
        np.subtract(rows[:, pixel_bytes:], rows[:, :-pixel_bytes], out=filtered[:, pixel_bytes + 1 :])
        packed.append(packer.compress(filtered.data))
    packed.append(packer.flush())
    return b"".join(packed)


def _decode(file: BinaryIO, max_pixels: int) -> Decoded:
    """Any depth, after every chunk's checksum was found right; of an animation the still."""
    end, start = _find_end(file), read_at(file, 12, 12)
    width, height = int.from_bytes(start[4:8], "big"), int.from_bytes(start[8:], "big")
    data = read_bounded(file, end, width * height if start[:4] == b"IHDR" else None)
    try:
        head = read_head(data)
    except DamagedPngError as error:
        raise UnreadableError(f"the PNG file is cut off or damaged ({error})") from None
    check_size(head.width, head.height, max_pixels)
    notices = note_first_of(int.from_bytes(head.chunks.get(b"acTL", b"")[:4], "big"), "frames")
    counted = bool(notices)
    if b"iCCP" in head.chunks and head.icc is None:
        notices += (INCOMPLETE_PROFILE,)
    if b"acTL" in head.chunks:
        data = _drop_animation(data)
    with open_image(data, "PNG", max_pixels) as image:
        decoded = decode_image(image, frames="") if head.bit_depth != 16 else _decode_deep(data, head, image)
    storage = Storage(chunks={name: head.before_pixels[name] for name in _KEPT_CHUNKS if name in head.before_pixels})
    return decoded.extend(notices + note_trailers(file, end, counted), storage)


def _decode_deep(data: bytes, head: PngHead, image: Image.Image) -> Decoded:
    """16 bits a channel through OpenCV; Pillow's `image`, whose pixels lack the low bytes, has the tags."""
    values = decode_by_opencv(data)
    if values is None:
        raise UnreadableError("the PNG file is damaged (its picture data cannot be unpacked)")
    if head.colour_type in _GREY_TYPES:
        values = values[:, :, [0, -1]] if head.colour_type == 4 else values[:, :, :1]
    exif = strip_exif_prefix(head.chunks.get(b"eXIf") or image.info.get("exif"))
    return Decoded(_apply_transparent_colour(values, head), read_orientation(image, exif), head.icc, exif)


def _apply_transparent_colour(values: NDArray[np.uint16], head: PngHead) -> NDArray[np.uint16]:
    """PNG can name one colour that is transparent instead of storing alpha."""
    key = np.frombuffer(head.chunks.get(b"tRNS", b""), ">u2")
    colours = 1 if head.colour_type in _GREY_TYPES else 3
    if head.colour_type not in (0, 2) or len(key) != colours:
        return values
    colour = values[:, :, :colours]
    alpha = np.where((colour == key).all(axis=2, keepdims=True), 0, 65535).astype(np.uint16)
    return np.concatenate([colour, alpha], axis=2)


PNG = Format(
    name="png",
    title="PNG",
    accepts=lambda start: start.startswith(PNG_SIGNATURE),
    decode=_decode,
    measure=measure,
    find_end=_find_end,
    encode=_encode,
    depths=(8, 16),
    code_points=True,
    is_isolated=False,
)
