"""TIFF of 8, 16 and 32 bits a channel at full depth, through Pillow and tifffile.

tifffile needs a package of 79 MB for LZW and others, and unpacks as many bytes as a hostile strip holds. So Pillow's
libtiff unpacks each strip or tile as if its bytes were a grey picture, and never more bytes than belong there.
"""

from __future__ import annotations

import io
import logging
import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lumen_cli.imaging.colour.convert import divide_by_alpha, widen
from lumen_cli.imaging.extent import read_at
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
    check_orientation,
    collect_tiff_tags,
    decode_image,
    open_image,
    read_tiff_tags,
)
from lumen_cli.imaging.formats.raw import TIFF_STARTS

_SUBFILE, _ORIENTATION, _PROFILE = 254, 274, 34675
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _SEPARATED = 0, 1, 2, 5
_COLOURS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _SEPARATED: 4}
_UNSIGNED, _SIGNED, _FLOATING = 1, 2, 3
_SEPARATE_PLANES = 2
_UNSPECIFIED, _MULTIPLIED_ALPHA = 0, 1
_MOST_SAMPLES = 16
_PACKED = (10, 12, 14)
_REDUCED_OR_MASK = 1 | 4
_DIRECTORY_BYTES = 1 << 16
_COUNTED = 256
"""Up to so many pages, previews are not counted; of more pages all are."""
_COMPRESSIONS = {1: "none", 5: "lzw", 8: "deflate", 32946: "deflate"}
"""Those that are written."""


def _decode(file: BinaryIO, max_pixels: int) -> Decoded:
    """The first page: 1 to 8, 16 or 32 bits, or floating point."""
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)
    file.seek(0)
    try:
        with tifffile.TiffFile(file) as tiff:
            page = tiff.pages.first
            check_size(page.imagewidth, page.imagelength, max_pixels)
            if page.samplesperpixel > _MOST_SAMPLES or page.imagedepth > 1:
                raise UnreadableError(f"{page.samplesperpixel} channels, {page.imagedepth} deep; lumen reads pictures")
            notices = note_first_of(_count_pages(tiff), "pages") + _note_left_out(page)
            storage = _read_storage(page)
            if _is_shallow(page):
                with open_image(file, "TIFF", max_pixels) as image:
                    decoded = replace(decode_image(image, frames=""), exif=collect_tiff_tags(image))
            else:
                values, changes = _convert(_read_deep(page, file), int(page.sampleformat or _UNSIGNED))
                icc = page.tags.valueof(_PROFILE)
                orientation = check_orientation(page.tags.valueof(_ORIENTATION))
                cmyk = int(page.photometric) == _SEPARATED
                icc = bytes(icc) if icc else None
                decoded = Decoded(values, orientation, icc, read_tiff_tags(file), changes, cmyk)
    except (UnreadableError, MemoryError):
        raise
    except Exception as error:  # tifffile passes on whatever a damaged structure causes
        text = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise UnreadableError(f"the TIFF file is damaged or cut off ({text})") from None
    return replace(decoded, notices=notices + decoded.notices, storage=storage)


def _read_storage(page: Any) -> Storage:
    number = int(page.compression)
    written = _COMPRESSIONS.get(number)
    if written is not None:
        return Storage(compression=written)
    name = getattr(page.compression, "name", f"number {number}")
    return Storage(compression="deflate", changes=(f"its {name} compression became Deflate",))


def _count_pages(file: Any) -> int:
    """Pages that are pictures of their own, not smaller copies or masks of the first."""
    count = len(file.pages)
    if not 1 < count <= _COUNTED:
        return count
    others = (file.pages[index] for index in range(1, count))
    return 1 + sum(not int(page.tags.valueof(_SUBFILE) or 0) & _REDUCED_OR_MASK for page in others)


def _note_left_out(page: Any) -> tuple[str, ...]:
    """What lies beside colours and alpha: masks, inks, near infrared."""
    colours = _COLOURS.get(int(page.photometric), page.samplesperpixel)
    further = max(0, page.samplesperpixel - colours - (1 if _has_alpha(page) else 0))
    return (f"{further} extra channel{'s' * (further > 1)} of the TIFF file left out",) if further else ()


def _has_alpha(page: Any) -> bool:
    """Whether the first channel behind the colours is alpha; also where the file does not say so."""
    extra = list(map(int, page.extrasamples))
    more = page.samplesperpixel > _COLOURS.get(int(page.photometric), page.samplesperpixel)
    return more and extra[:1] != [_UNSPECIFIED]


def _is_shallow(page: Any) -> bool:
    """Whether Pillow reads all of it: up to 8 bits, and print colours without alpha."""
    depth, kind = int(page.bitspersample), int(page.sampleformat or _UNSIGNED)
    print_with_alpha = int(page.photometric) == _SEPARATED and _has_alpha(page)
    unknown = page.parent.is_bigtiff and page.parent.byteorder == ">"  # Pillow takes it for no TIFF file
    return depth <= 8 and kind == _UNSIGNED and not print_with_alpha and not unknown


def _read_deep(page: Any, file: BinaryIO) -> NDArray[Any]:
    """A page as H×W×C values of its own kind, light upwards (inks: 0 for paper), alpha last where there is one."""
    photometric = int(page.photometric)
    colours = _COLOURS.get(photometric)
    depth, kind = int(page.bitspersample), int(page.sampleformat or _UNSIGNED)
    if kind not in (_UNSIGNED, _FLOATING) or (kind == _UNSIGNED and depth not in (8, 16, 32, *_PACKED)):
        signed = " signed" if kind == _SIGNED else ""
        raise UnreadableError(f"TIFF of {depth}-bit{signed} values; lumen reads up to 16 bits, 32 and floating point")
    if colours is None:
        name = getattr(page.photometric, "name", page.photometric)
        raise UnreadableError(f"{depth}-bit TIFF with {name} colours; lumen reads grey, RGB and CMYK there")
    values = _read_packed(page, file) if depth in _PACKED else _read_channels(page, file)
    values = values.reshape(page.imagelength, page.imagewidth, -1)[:, :, : colours + _has_alpha(page)]
    if photometric == _WHITE_IS_ZERO:
        white = 1 if kind == _FLOATING else np.iinfo(values.dtype).max
        values = np.concatenate([white - values[:, :, :1], values[:, :, 1:]], axis=2)
    if list(map(int, page.extrasamples))[:1] == [_MULTIPLIED_ALPHA] and values.shape[2] > colours:
        values = divide_by_alpha(values)
    return values


def _read_channels(page: Any, file: BinaryIO) -> NDArray[Any]:
    if can_unpack(page):
        return unpack(page, file)
    try:
        values = page.asarray()
    except (ValueError, ImportError) as error:
        if "imagecodecs" not in str(error) and isinstance(error, ValueError):
            raise
        name = getattr(page.compression, "name", page.compression)
        depth = int(page.bitspersample)
        raise UnreadableError(f"a {depth}-bit TIFF with {name} compression needs: pip install imagecodecs") from None
    return np.moveaxis(values, 0, 2) if values.ndim == 3 and int(page.planarconfig) == _SEPARATE_PLANES else values


def _read_packed(page: Any, file: BinaryIO) -> NDArray[Any]:
    """10, 12 and 14 bits, packed without gaps, over the full range of 16."""
    depth = int(page.bitspersample)
    ends = (tag.valueoffset + tag.valuebytecount for tag in page.tags)
    places = zip(page.dataoffsets, page.databytecounts, strict=False)
    end = max(page.offset + _DIRECTORY_BYTES, *ends, *(offset + size for offset, size in places))
    values = decode_by_opencv(read_at(file, 0, end))
    if values is None or values.shape[:2] != (page.imagelength, page.imagewidth):
        raise UnreadableError(f"the {depth}-bit TIFF is damaged, or of a kind that lumen cannot unpack")
    return widen(values >> np.uint16(16 - depth), depth)


def _convert(values: NDArray[Any], kind: int) -> tuple[NDArray[Any], tuple[str, ...]]:
    """8 and 16 bits as they are, everything finer as float32; and the notice about that."""
    if values.dtype.itemsize <= 2 and kind == _UNSIGNED:
        return np.ascontiguousarray(values, values.dtype.newbyteorder("=")), ()
    if kind == _UNSIGNED:
        scaled = (values / np.float64(np.iinfo(values.dtype).max)).astype(np.float32)
        return scaled, ("its 32-bit integers became floating point",)
    bits = values.dtype.itemsize * 8
    notices = (f"its {bits}-bit floats became 32-bit ones",) if bits != 32 else ()
    with np.errstate(over="ignore"):  # larger values than float32 has become infinity, which `make_picture` replaces
        return values.astype(np.float32), notices


_STRIP_BYTES = 1 << 20


def _encode(raster: Raster) -> bytes:
    """The original's compression, else Deflate."""
    import tifffile

    values, compression = raster.values, raster.storage.compression
    colours = 4 if raster.cmyk else 3 if values.shape[2] >= 3 else 1
    rows = max(1, _STRIP_BYTES // max(1, values[0].nbytes))
    predictor = values.dtype.kind == "u"  # differences of floats save nothing as bytes
    options: dict[str, Any] = {
        "photometric": {1: "minisblack", 3: "rgb", 4: "separated"}[colours],
        "planarconfig": "contig" if values.shape[2] > 1 else None,
        "extrasamples": ["unassalpha"] if values.shape[2] > colours else None,
        "rowsperstrip": rows,
        "iccprofile": raster.label.icc,
        "metadata": None,
        "software": False,
    }
    shape = values.shape if values.shape[2] > 1 else values.shape[:2]
    buffer = io.BytesIO()
    if compression == "none":
        tifffile.imwrite(buffer, values.reshape(shape), **options)
    elif compression == "lzw":
        # tifffile writes LZW only with a package of 26 MB, but takes packed strips, which it then calls Deflate.
        strips = _compress_strips(values, rows, predictor)
        tifffile.imwrite(
            buffer, strips, shape=shape, dtype=values.dtype, compression="zlib", predictor=predictor, **options
        )
        buffer.seek(0)
        with tifffile.TiffFile(buffer, mode="r+") as file:
            file.pages.first.tags["Compression"].overwrite(int(tifffile.COMPRESSION.LZW))
    else:
        options |= {"compression": "zlib", "compressionargs": {"level": 1}, "predictor": predictor}
        tifffile.imwrite(buffer, values.reshape(shape), **options)
    return buffer.getvalue()


def _compress_strips(values: NDArray[Any], rows: int, predictor: bool) -> Iterator[bytes]:
    for top in range(0, len(values), rows):
        strip = np.ascontiguousarray(values[top : top + rows], values.dtype.newbyteorder("<"))
        if predictor:
            strip = np.concatenate([strip[:, :1], strip[:, 1:] - strip[:, :-1]], axis=1)
        yield _compress(strip)


def _compress(values: NDArray[Any]) -> bytes:
    """One strip packed by libtiff, which comes with Pillow, as if its bytes were a grey picture."""
    import tifffile

    data = values.reshape(len(values), -1).view(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(data).save(buffer, "TIFF", compression="tiff_lzw", tiffinfo={278: len(data)})
    buffer.seek(0)
    with tifffile.TiffFile(buffer) as file:
        page = file.pages.first
        (offset,), (size,) = page.dataoffsets, page.databytecounts
    return buffer.getvalue()[offset : offset + size]


def _measure(file: BinaryIO) -> tuple[int, int]:
    import tifffile

    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        page = tiff.pages.first
        return int(page.imagewidth), int(page.imagelength)


TIFF = Format(
    name="tiff",
    title="TIFF",
    accepts=lambda start: start.startswith(TIFF_STARTS),
    decode=_decode,
    measure=_measure,
    encode=_encode,
    depths=(8, 16, 32),
    cmyk=True,
)


_NONE, _DEFLATE = 1, (8, 32946)
_HORIZONTAL, _FLOATING_PREDICTOR = 2, 3
_SHORT, _LONG = 3, 4
_USUAL_ORDER = 1
_HEAD_BYTES, _LARGEST_GROWTH = 1 << 16, 2
"""No compression makes a strip larger than this: bytes, and times its values."""
_UNPACKED = (_NONE, 5, *_DEFLATE, 32773, 34925, 50000)
"""None, LZW, deflate, PackBits, LZMA, Zstandard."""


def can_unpack(page: Any) -> bool:
    """Whether `unpack` can read this page of tifffile."""
    return int(page.compression) in _UNPACKED and int(page.fillorder or _USUAL_ORDER) == _USUAL_ORDER


def unpack(page: Any, file: BinaryIO) -> NDArray[Any]:
    """The values of a page of tifffile as the file holds them, H×W×C, of the page's own type.

    Raises:
        ValueError: damaged, cut off, or a compression that this libtiff does not know.
    """
    kind = np.dtype(page.dtype).newbyteorder(page.parent.byteorder)
    separate = int(page.planarconfig or 1) == _SEPARATE_PLANES
    samples = 1 if separate else int(page.samplesperpixel)
    result = np.empty((page.imagelength, page.imagewidth, page.samplesperpixel), kind.newbyteorder("="))
    segments = zip(_locate_segments(page, separate), page.dataoffsets, page.databytecounts, strict=True)
    for (plane, top, left, rows, columns), offset, size in segments:
        row_bytes = columns * samples * kind.itemsize
        file.seek(offset)
        packed = file.read(min(size, _HEAD_BYTES + _LARGEST_GROWTH * row_bytes * rows))
        raw = _decompress(packed, int(page.compression), row_bytes, rows)
        values = np.frombuffer(raw, kind, rows * columns * samples).reshape(rows, columns, samples)
        values = _undo_prediction(values, int(page.predictor or 1))
        target = result[top : top + rows, left : left + columns, plane : plane + samples]
        target[...] = values[: target.shape[0], : target.shape[1]]
    return result


def _locate_segments(page: Any, separate: bool) -> Iterator[tuple[int, int, int, int, int]]:
    """First channel, top, left, rows and columns of each segment, in the order of the file."""
    height, width = int(page.imagelength), int(page.imagewidth)
    tall = int(page.tilelength if page.is_tiled else min(page.rowsperstrip, height))
    wide = int(page.tilewidth if page.is_tiled else width)
    if tall < 1 or wide < 1:
        raise ValueError("it has strips without rows")
    for plane in range(int(page.samplesperpixel) if separate else 1):
        for top in range(0, height, tall):
            for left in range(0, width, wide):
                yield plane, top, left, tall if page.is_tiled else min(tall, height - top), wide


def _decompress(packed: bytes, compression: int, row_bytes: int, rows: int) -> bytes:
    if compression == _NONE:
        return packed
    if compression in _DEFLATE:
        try:
            return zlib.decompressobj().decompress(packed, row_bytes * rows)
        except zlib.error as error:
            raise ValueError(str(error)) from None
    try:
        with Image.open(io.BytesIO(_wrap_in_tiff(packed, compression, row_bytes, rows))) as image:
            return image.tobytes()
    except (OSError, SyntaxError, KeyError) as error:
        raise ValueError(f"its compression {compression}: {error}") from None


def _wrap_in_tiff(packed: bytes, compression: int, row_bytes: int, rows: int) -> bytes:
    """A whole file with one strip of 8-bit grey."""
    entries = [
        (256, _LONG, row_bytes),
        (257, _LONG, rows),
        (258, _SHORT, 8),
        (259, _SHORT, compression),
        (262, _SHORT, 1),
        (273, _LONG, 8),
        (277, _SHORT, 1),
        (278, _LONG, rows),
        (279, _LONG, len(packed)),
    ]
    padded = packed + b"\0" * (len(packed) % 2)
    directory = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    head = b"II*\0" + struct.pack("<I", 8 + len(padded))
    return head + padded + struct.pack("<H", len(entries)) + directory + bytes(4)


def _undo_prediction(values: NDArray[Any], predictor: int) -> NDArray[Any]:
    """Rows that were stored as differences to the left (TIFF 6.0, section 14; Adobe's technical note 3 for floats)."""
    if predictor == _HORIZONTAL:
        native = values.astype(values.dtype.newbyteorder("="), copy=False)
        return np.cumsum(native, axis=1, dtype=native.dtype)
    if predictor == _FLOATING_PREDICTOR:
        rows, columns, samples = values.shape
        size = values.dtype.itemsize
        differences = np.frombuffer(values.tobytes(), np.uint8).reshape(rows, -1, samples)
        planes = np.cumsum(differences, axis=1, dtype=np.uint8).reshape(rows, size, columns * samples)
        # One plane for each byte of a value, the most significant first, whatever the file's order.
        joined = np.ascontiguousarray(planes.transpose(0, 2, 1)).view(values.dtype.newbyteorder(">"))
        return joined.reshape(rows, columns, samples)
    return values
