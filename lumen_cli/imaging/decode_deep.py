"""Pictures of 16 bits a channel without an 8-bit step: PNG through OpenCV, TIFF through tifffile or OpenCV."""

from __future__ import annotations

import io
import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lumen_cli.imaging.decode_pillow import check_size, decode, orientation_of, tiff_exif, without_prefix
from lumen_cli.imaging.decoded import Decoded, UnreadableError, opencv, valid_orientation
from lumen_cli.imaging.png import DamagedPngError, PngHead, read_head

_GREY_TYPES = (0, 4)
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2
_SEPARATE_PLANES = 2
_MULTIPLIED_ALPHA = 1


def decode_png(data: bytes) -> Decoded:
    """Decode a PNG file of any depth, after every chunk's checksum has been seen to fit."""
    try:
        head = read_head(data)
    except DamagedPngError as error:
        raise UnreadableError(f"the PNG file is cut off or damaged ({error})") from None
    check_size(head.width, head.height)
    if head.bit_depth != 16:
        return decode(data, "png")
    cv2 = opencv()
    try:
        values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        values = None
    if values is None or values.dtype != np.uint16:
        raise UnreadableError("the PNG file is damaged (its picture data cannot be unpacked)")
    values = _rgb(values[:, :, None] if values.ndim == 2 else values)
    if head.colour_type in _GREY_TYPES:
        values = values[:, :, [0, -1]] if head.colour_type == 4 else values[:, :, :1]
    values = _with_transparent_colour(values, head)
    with Image.open(io.BytesIO(data)) as image:  # the tags only; the pixels would lose their low bytes
        exif = without_prefix(head.chunks.get(b"eXIf") or image.info.get("exif"))
        orientation = orientation_of(image, exif)
    return Decoded(values, orientation, head.icc, exif)


def _with_transparent_colour(values: NDArray[np.uint16], head: PngHead) -> NDArray[np.uint16]:
    """PNG can name one colour that is transparent instead of storing alpha."""
    key = np.frombuffer(head.chunks.get(b"tRNS", b""), ">u2")
    colours = 1 if head.colour_type in _GREY_TYPES else 3
    if head.colour_type not in (0, 2) or len(key) != colours:
        return values
    colour = values[:, :, :colours]
    alpha = np.where((colour == key).all(axis=2, keepdims=True), 0, 65535).astype(np.uint16)
    return np.concatenate([colour, alpha], axis=2)


def decode_tiff(data: bytes) -> Decoded:
    """Decode the first page of a TIFF file of 1 to 16 bits a channel."""
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page = file.pages.first
            tags = {tag.code: tag.value for tag in page.tags if tag.code in (254, 274, 34675, 50706)}
            lost = ("further pages",) if len(file.pages) > 1 else ()
            depth, sample_format = int(page.bitspersample), int(page.sampleformat or 1)
            check_size(page.imagewidth, page.imagelength)
            if 50706 in tags or data[8:10] == b"CR" or int(tags.get(254, 0)) & 1:
                raise UnreadableError("a camera raw file, or one that begins with a preview; develop it first")
            if depth <= 8 and sample_format == 1:
                return decode(data, "tiff")
            if depth != 16 or sample_format != 1:
                kind = {2: " signed", 3: " floating-point"}.get(sample_format, "")
                raise UnreadableError(f"{depth}-bit{kind} values; lumen reads 8 and 16 bits a channel")
            values = _deep_page(page, data)
    except UnreadableError:
        raise
    except MemoryError:
        raise UnreadableError("the picture does not fit into memory") from None
    except Exception as error:  # tifffile lets whatever a damaged structure causes through
        text = (str(error).splitlines() or [type(error).__name__])[0]
        raise UnreadableError(f"the TIFF file is damaged or cut off ({text})") from None
    icc = tags.get(34675)
    orientation = valid_orientation(tags.get(274))
    return Decoded(values, orientation, bytes(icc) if icc else None, _tags_of(data), lost)


def _deep_page(page: Any, data: bytes) -> NDArray[np.uint16]:
    """One 16-bit page of tifffile's as H×W×C values, light upwards, alpha (where there is one) last."""
    photometric = int(page.photometric)
    colours = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3}.get(photometric)
    if colours is None:
        raise UnreadableError(f"16-bit TIFF with {page.photometric.name} colours; lumen reads grey and RGB there")
    try:
        values = page.asarray()
        if values.ndim == 3 and int(page.planarconfig) == _SEPARATE_PLANES:
            values = np.moveaxis(values, 0, 2)
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
        values = _through_opencv(page, data)
    values = values.reshape(page.imagelength, page.imagewidth, -1)
    extra = list(map(int, page.extrasamples))
    values = values[:, :, : colours + min(1, values.shape[2] - colours)]
    if photometric == _WHITE_IS_ZERO:
        values = np.concatenate([65535 - values[:, :, :1], values[:, :, 1:]], axis=2)
    if extra[:1] == [_MULTIPLIED_ALPHA] and values.shape[2] > colours:
        values = _unmultiplied(values)
    return values


def _through_opencv(page: Any, data: bytes) -> NDArray[np.uint16]:
    """LZW and its like, which tifffile leaves to an optional package."""
    cv2 = opencv()
    contiguous = int(page.planarconfig) != _SEPARATE_PLANES
    try:
        values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if contiguous else None
    except cv2.error:
        values = None
    if values is None or values.dtype != np.uint16 or values.shape[:2] != (page.imagelength, page.imagewidth):
        name = getattr(page.compression, "name", page.compression)
        raise UnreadableError(f"the 16-bit TIFF is damaged, or its compression {name} is none that lumen can unpack")
    return _rgb(values[:, :, None] if values.ndim == 2 else values)


def _rgb(values: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """OpenCV's order of colours (blue first) turned round; alpha stays last."""
    return values[:, :, [2, 1, 0, *range(3, values.shape[2])]] if values.shape[2] >= 3 else values


def _unmultiplied(values: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Colours that were multiplied by alpha, divided by it again."""
    alpha = values[:, :, -1:].astype(np.float64)
    colours = np.divide(values[:, :, :-1] * 65535.0, alpha, out=np.zeros(values[:, :, :-1].shape), where=alpha > 0)
    rounded = np.clip(np.floor(colours + 0.5), 0, 65535).astype(np.uint16)
    return np.concatenate([rounded, values[:, :, -1:]], axis=2)


def _tags_of(data: bytes) -> bytes | None:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return tiff_exif(image)
    except (OSError, SyntaxError, ValueError, TypeError, KeyError):
        return None
