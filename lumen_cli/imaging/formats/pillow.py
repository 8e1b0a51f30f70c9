"""Pictures of 8 bits a channel, through Pillow: JPEG, PNG, WebP, BMP, GIF and most TIFF files."""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from lumen_cli.imaging.decoded import Decoded, UnreadableError, check_size, first_of, valid_orientation

Image.MAX_IMAGE_PIXELS = None  # `check_size` is lumen's own: Pillow's would refuse large panoramas
warnings.filterwarnings("ignore", module=r"PIL\.")  # oddities of tags; what matters arrives as an exception

_MODES = {"L": "L", "1": "L", "LA": "LA", "La": "LA", "PA": "RGBA", "RGB": "RGB", "RGBX": "RGB", "YCbCr": "RGB"}
_MODES |= {"RGBA": "RGBA", "RGBa": "RGBA", "P": "RGB", "CMYK": "CMYK", "LAB": "LAB"}
INCOMPLETE_PROFILE = "its colour profile is incomplete and was left out"
_DESCRIPTIVE = (0x010E, 0x010F, 0x0110, 0x011A, 0x011B, 0x0128, 0x0131, 0x0132, 0x013B, 0x8298)
"""Tags of a TIFF file's first directory that describe the picture, not how its data lie in the file."""

UNMOVABLE_TAGS = (0x927C, 0xA005)
"""Maker notes and the interoperability folder hold offsets that only their old place makes true."""


def decode(content: bytes | BinaryIO, kind: str, max_pixels: int) -> Decoded:
    """Decode a file of format `kind` ("jpeg", "png", "webp", "tiff", "bmp", "gif"); of several pictures the first.

    content: the file's bytes, or the open file, of which only what is needed is read.

    Raises:
        UnreadableError: damaged, cut off, too large or of a kind of pixel that lumen does not know.
    """
    with opened(content, kind, max_pixels) as image:
        image.load()
        return _decoded(image, kind)


@contextlib.contextmanager
def opened(content: bytes | BinaryIO, kind: str, max_pixels: int) -> Iterator[Image.Image]:
    """A picture opened by Pillow and not decoded yet, its size checked; what goes wrong inside is said clearly."""
    try:
        with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as image:
            check_size(image.width, image.height, max_pixels)
            yield image
    except UnidentifiedImageError:
        raise UnreadableError(f"the {kind.upper()} file is damaged or cut off") from None
    except MemoryError:
        raise UnreadableError("the picture does not fit into memory") from None
    except (OSError, SyntaxError, ValueError, EOFError, TypeError, LookupError, struct.error, RuntimeError) as error:
        # Pillow reports damage by all of these, depending on where it stumbles.
        text = str(error).split(" (")[0].strip() or type(error).__name__
        cut = "truncated" in text.lower()
        raise UnreadableError(
            f"the {kind.upper()} file is cut off" if cut else f"the {kind.upper()} file is damaged ({text})"
        ) from None


def _decoded(image: Image.Image, kind: str) -> Decoded:
    mode = _MODES.get(image.mode)
    if mode is None:
        raise UnreadableError(f"pixels of kind {image.mode!r}; lumen reads 8, 16 and 32 bits a channel")
    icc: bytes | None = image.info.get("icc_profile") or None
    # After load(): a TIFF is already turned by then, and Pillow has taken the tag away.
    orientation = orientation_of(image)
    exif = tiff_exif(image) if kind == "tiff" else without_prefix(image.info.get("exif"))
    # A TIFF's pages are counted where it is known which of them are previews.
    notices = () if kind == "tiff" else first_of(frames_of(image), "pictures" if kind == "jpeg" else "frames")
    if kind == "jpeg" and icc is None and "icc_profile" in image.info:  # parts of it are missing
        notices += (INCOMPLETE_PROFILE,)
    if mode == "LAB":
        image, icc, mode = _lab_as_srgb(image), None, "RGB"
        notices += ("its Lab colours became sRGB",)
    if "transparency" in image.info and mode in ("L", "RGB"):
        mode = {"L": "LA", "RGB": "RGBA"}[mode]
    values = np.asarray(image if image.mode == mode else image.convert(mode))
    values = values if values.ndim == 3 else values[:, :, None]
    return Decoded(values, orientation, icc, exif, (), notices, cmyk=mode == "CMYK")


def frames_of(image: Image.Image) -> int:
    """Pictures in an opened file; what cannot be counted is not there to be read either."""
    try:
        return int(getattr(image, "n_frames", 1))
    except (OSError, SyntaxError, ValueError, EOFError, TypeError, LookupError, struct.error):
        return 1


def _lab_as_srgb(image: Image.Image) -> Image.Image:
    """Lab through its definition: networks and outputs know RGB only."""
    flags = ImageCms.Flags.BLACKPOINTCOMPENSATION
    relative = ImageCms.Intent.RELATIVE_COLORIMETRIC
    try:
        source = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        srgb = ImageCms.createProfile("sRGB")
        turned = ImageCms.profileToProfile(image, source, srgb, relative, outputMode="RGB", flags=flags)
    except (ImageCms.PyCMSError, OSError):
        turned = None
    if turned is None:
        raise UnreadableError("Lab pixels; lumen reads grey, RGB and CMYK")
    return turned


def orientation_of(image: Image.Image, exif: bytes | None = None) -> int:
    """The orientation, 1 to 8, that an opened picture's EXIF (or the given block), else its XMP names."""
    try:
        tags = image.getexif()
        if exif and ExifTags.Base.Orientation not in tags:
            tags.load(exif)
        return valid_orientation(tags.get(ExifTags.Base.Orientation))
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, struct.error):
        return 1


def without_prefix(exif: bytes | None) -> bytes | None:
    """A raw EXIF block beginning with its TIFF header."""
    return (exif or b"").removeprefix(b"Exif\x00\x00") or None


def tiff_exif(image: Image.Image) -> bytes | None:
    """The describing tags of a TIFF file as a raw EXIF block of its own."""
    try:
        own, block = image.getexif(), Image.Exif()
        for tag in _DESCRIPTIVE:
            if tag in own:
                block[tag] = own[tag]
        for group in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            if values := {tag: value for tag, value in own.get_ifd(group).items() if tag not in UNMOVABLE_TAGS}:
                block.get_ifd(group).update(values)
        return without_prefix(block.tobytes()) if len(block) or block._ifds else None
    except Exception:  # Pillow's writer stumbles over odd tags in many ways; without it the pixels are still good
        return None


def tags_of(file: BinaryIO) -> bytes | None:
    """The describing tags of a TIFF file or of a camera raw file that is built like one, as `tiff_exif`."""
    try:
        file.seek(0)
        with Image.open(file) as image:
            return tiff_exif(image)
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, struct.error, MemoryError, RuntimeError):
        return None
