"""Reading 8 bits a channel through Pillow, for all formats; and the formats that need nothing else: WebP, GIF, BMP."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import warnings
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from lumen_cli.imaging.extent import note_trailers, read_at, read_bounded
from lumen_cli.imaging.formats.format import (
    Decoded,
    Format,
    Raster,
    Storage,
    UnreadableError,
    check_size,
    note_first_of,
)

Image.MAX_IMAGE_PIXELS = None  # `check_size` is lumen's own: Pillow's would refuse large panoramas
warnings.filterwarnings("ignore", module=r"PIL\.")  # oddities of tags; what matters arrives as an exception

_MODES = {"L": "L", "1": "L", "LA": "LA", "La": "LA", "PA": "RGBA", "RGB": "RGB", "RGBX": "RGB", "YCbCr": "RGB"}
_MODES |= {"RGBA": "RGBA", "RGBa": "RGBA", "P": "RGB", "CMYK": "CMYK", "LAB": "LAB"}
INCOMPLETE_PROFILE = "its colour profile is incomplete and was left out"
_DESCRIPTIVE = (0x010E, 0x010F, 0x0110, 0x011A, 0x011B, 0x0128, 0x0131, 0x0132, 0x013B, 0x8298)
"""Tags of a TIFF file's first directory that describe the picture, not how its data lie in the file."""

UNMOVABLE_TAGS = (0x927C, 0xA005)
"""Maker notes and the interoperability folder hold offsets that are true in their old place only."""

_TAG_ERRORS = (OSError, SyntaxError, ValueError, TypeError, LookupError, struct.error)
"""What Pillow raises for damaged tags."""


KINDS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
"""Pillow's own readers of what lumen reads by it. Other libraries register further ones, which accept some of the same
files: imageio those of pillow-heif, which takes an AVIF file for HEIF by its brand."""


@contextlib.contextmanager
def open_image(content: bytes | BinaryIO, title: str, max_pixels: int) -> Iterator[Image.Image]:
    """A picture opened by Pillow and not decoded yet, its size checked.

    Args:
        content: the file's bytes, or the open file, of which only what is needed is read.
        title: the format's, for messages.
        max_pixels: as in `check_size`.

    Raises:
        UnreadableError: inside too: the file is damaged, cut off or too large.
    """
    try:
        with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content, formats=KINDS) as image:
            check_size(image.width, image.height, max_pixels)
            yield image
    except UnidentifiedImageError:
        raise UnreadableError(f"the {title} file is damaged or cut off") from None
    except (*_TAG_ERRORS, EOFError, RuntimeError) as error:
        text = str(error).split(" (")[0].strip() or type(error).__name__
        cut = "truncated" in text.lower()
        raise UnreadableError(
            f"the {title} file is cut off" if cut else f"the {title} file is damaged ({text})"
        ) from None


def measure(file: BinaryIO) -> tuple[int, int]:
    """Columns and rows, from the header."""
    with Image.open(file, formats=KINDS) as image:
        return image.size


def decode_image(image: Image.Image, *, frames: str = "frames") -> Decoded:
    """Decode an opened picture of 8 bits a channel; of several the first.

    frames: what a notice calls several of them; "" for no notice.

    Raises:
        UnreadableError: pixels of a kind that lumen does not know.
    """
    image.load()
    mode = _MODES.get(image.mode)
    if mode is None:
        raise UnreadableError(f"pixels of kind {image.mode!r}; lumen reads 8, 16 and 32 bits a channel")
    icc: bytes | None = image.info.get("icc_profile") or None
    # After load(): a TIFF is already turned by then, and Pillow has taken the tag away.
    orientation = read_orientation(image)
    exif = strip_exif_prefix(image.info.get("exif"))
    notices = note_first_of(count_frames(image), frames) if frames else ()
    if mode == "LAB":
        image, icc, mode = _convert_lab(image), None, "RGB"
        notices += ("its Lab colours became sRGB",)
    if "transparency" in image.info and mode in ("L", "RGB"):
        mode = {"L": "LA", "RGB": "RGBA"}[mode]
    values = np.asarray(image if image.mode == mode else image.convert(mode))
    values = values if values.ndim == 3 else values[:, :, None]
    return Decoded(values, orientation, icc, exif, notices, cmyk=mode == "CMYK")


def count_frames(image: Image.Image) -> int:
    """Pictures in an opened file; 1 where they cannot be counted, as they cannot be read then."""
    try:
        return int(getattr(image, "n_frames", 1))
    except (*_TAG_ERRORS, EOFError):
        return 1


def _convert_lab(image: Image.Image) -> Image.Image:
    """Lab → sRGB: networks and outputs know RGB only."""
    flags = ImageCms.Flags.BLACKPOINTCOMPENSATION
    relative = ImageCms.Intent.RELATIVE_COLORIMETRIC
    try:
        source = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        srgb = ImageCms.createProfile("sRGB")
        result = ImageCms.profileToProfile(image, source, srgb, relative, outputMode="RGB", flags=flags)
    except (ImageCms.PyCMSError, OSError):
        result = None
    if result is None:
        raise UnreadableError("Lab pixels; lumen reads grey, RGB and CMYK")
    return result


def read_orientation(image: Image.Image, exif: bytes | None = None) -> int:
    """The orientation, 1 to 8, in an opened picture's EXIF (or the given block), else in its XMP."""
    try:
        tags = image.getexif()
        if exif and ExifTags.Base.Orientation not in tags:
            tags.load(exif)
        return check_orientation(tags.get(ExifTags.Base.Orientation))
    except _TAG_ERRORS:
        return 1


def check_orientation(value: object) -> int:
    """An orientation tag's value; 1 (upright) where it is missing or none of 1 to 8."""
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def strip_exif_prefix(exif: bytes | None) -> bytes | None:
    """The EXIF block from its TIFF header on, without what JPEG ("Exif") or HEIF (an offset) writes before it."""
    if exif and exif[4:8] in (b"II*\0", b"MM\0*") and exif[:4] not in (b"II*\0", b"MM\0*"):
        exif = exif[4:]
    return (exif or b"").removeprefix(b"Exif\x00\x00") or None


def read_tiff_tags(file: BinaryIO) -> bytes | None:
    """The describing tags of a TIFF file, or of a camera raw file that is built like one, as an EXIF block."""
    try:
        file.seek(0)
        with Image.open(file, formats=("TIFF",)) as image:
            return collect_tiff_tags(image)
    except (*_TAG_ERRORS, MemoryError, RuntimeError):
        return None


def collect_tiff_tags(image: Image.Image) -> bytes | None:
    """As `read_tiff_tags`, of an opened picture."""
    try:
        own, block = image.getexif(), Image.Exif()
        for tag in _DESCRIPTIVE:
            if tag in own:
                block[tag] = own[tag]
        for group in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            if values := {tag: value for tag, value in own.get_ifd(group).items() if tag not in UNMOVABLE_TAGS}:
                block.get_ifd(group).update(values)
        return strip_exif_prefix(block.tobytes()) if len(block) or block._ifds else None
    except Exception:  # Pillow's writer fails in many ways on odd tags; the pixels are good without them
        return None


def find_webp_end(file: BinaryIO) -> int:
    """Where a WebP file says that it ends."""
    size, length = file.seek(0, os.SEEK_END), int.from_bytes(read_at(file, 4, 4), "little")
    return min(size, 8 + length + length % 2)


def _measure_webp(file: BinaryIO) -> tuple[int, int]:
    return measure(io.BytesIO(read_bounded(file, find_webp_end(file))))  # Pillow reads the file whole


def _decode_webp(file: BinaryIO, max_pixels: int) -> Decoded:
    end = find_webp_end(file)
    data = read_bounded(file, end)
    with open_image(data, "WebP", max_pixels) as image:
        decoded = decode_image(image)
    behind = note_trailers(file, end, counted=bool(decoded.notices))
    return decoded.extend(behind, Storage(lossless=_first_image(data) == b"VP8L"))


def _first_image(webp: bytes) -> bytes:
    """The name of the first chunk with pixels."""
    at = 12
    while at + 8 <= len(webp):
        name = webp[at : at + 4]
        if name in (b"VP8 ", b"VP8L"):
            return name
        # An animation's frame holds the picture's chunks behind 16 bytes of its own.
        at += 24 if name == b"ANMF" else 8 + (size := int.from_bytes(webp[at + 4 : at + 8], "little")) + size % 2
    return b""


def _encode_webp(raster: Raster) -> bytes:
    buffer = io.BytesIO()
    options = {"lossless": True, "exact": True} if raster.lossless else {"quality": raster.lossy_quality}
    # Effort 2 of 6 takes half the time of Pillow's default for files 2 % larger.
    Image.fromarray(raster.values).save(buffer, "WEBP", method=2, icc_profile=raster.label.icc or b"", **options)
    return buffer.getvalue()


WEBP = Format(
    name="webp",
    title="WebP",
    accepts=lambda start: start[:4] == b"RIFF" and start[8:12] == b"WEBP",
    decode=_decode_webp,
    measure=_measure_webp,
    find_end=find_webp_end,
    encode=_encode_webp,
    depths=(8,),
    grey=False,
    largest_side=16383,
    is_isolated=False,
)


def _decode_gif(file: BinaryIO, max_pixels: int) -> Decoded:
    with open_image(file, "GIF", max_pixels) as image:
        return decode_image(image)


GIF = Format(
    name="gif",
    title="GIF",
    accepts=lambda start: start[:6] in (b"GIF87a", b"GIF89a"),
    decode=_decode_gif,
    measure=measure,
)

_BMP_HEADERS = (b"\x0c\0\0\0", b"(\0\0\0", b"4\0\0\0", b"8\0\0\0", b"@\0\0\0", b"l\0\0\0", b"|\0\0\0")
_FILE_HEADER, _V4_HEADER, _V5_HEADER = 14, 108, 124
_BITFIELDS = 3
_MASKS = 0x00FF0000, 0x0000FF00, 0x000000FF, 0xFF000000
_DOTS_PER_METRE = 2835
_SRGB = b"BGRs"
_PROFILE_PLACE, _PROFILES = 70, (b"DEBM", b"KNIL")
"""Where the fifth kind of header says that a profile is embedded or linked."""


def _decode_bmp(file: BinaryIO, max_pixels: int) -> Decoded:
    with open_image(file, "BMP", max_pixels) as image:
        decoded = decode_image(image)
    has_profile = read_at(file, _PROFILE_PLACE, 4) in _PROFILES and read_at(file, _FILE_HEADER, 1)[0] == _V5_HEADER
    return decoded.extend(("its colour profile was left out",) if has_profile else ())


def _encode_bmp(raster: Raster) -> bytes:
    """With alpha as 32 bits under the header that has a place for it, grey as RGB then; else through Pillow."""
    values = raster.values
    if values.shape[2] in (1, 3):
        buffer = io.BytesIO()
        Image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values).save(buffer, "BMP")
        return buffer.getvalue()
    order = [0, 0, 0, 1] if values.shape[2] == 2 else [2, 1, 0, 3]
    rows = np.ascontiguousarray(values[::-1, :, order]).tobytes()
    height, width = values.shape[:2]
    start = _FILE_HEADER + _V4_HEADER
    file = b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start)
    size = struct.pack("<IiiHHII", _V4_HEADER, width, height, 1, 32, _BITFIELDS, len(rows))
    colours = struct.pack("<iiII4I", _DOTS_PER_METRE, _DOTS_PER_METRE, 0, 0, *_MASKS) + _SRGB
    return (file + size + colours).ljust(start, b"\0") + rows


BMP = Format(
    name="bmp",
    title="BMP",
    accepts=lambda start: start[:2] == b"BM" and len(start) > 26 and start[14:18] in _BMP_HEADERS,
    decode=_decode_bmp,
    measure=measure,
    encode=_encode_bmp,
    depths=(8,),
    tags=False,
    holds_profile=lambda icc: False,
    is_isolated=False,
)
