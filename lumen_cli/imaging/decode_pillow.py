"""Pictures of 8 bits a channel, through Pillow: JPEG, PNG, WebP, BMP and most TIFF files."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from lumen_cli.imaging.decoded import Decoded, UnreadableError, valid_orientation
from lumen_cli.imaging.exif_embed import UNMOVABLE_TAGS

MAXIMUM_PIXELS = 500_000_000
"""6 GB as float32; a small damaged or hostile file can claim any size."""

Image.MAX_IMAGE_PIXELS = None  # the limit above is lumen's own: Pillow's would refuse large panoramas
warnings.filterwarnings("ignore", module=r"PIL\.")  # oddities of tags; what matters arrives as an exception

_MODES = {"L": "L", "1": "L", "LA": "LA", "La": "LA", "PA": "RGBA", "RGB": "RGB", "RGBX": "RGB", "YCbCr": "RGB"}
_MODES |= {"RGBA": "RGBA", "RGBa": "RGBA", "P": "RGB", "CMYK": "CMYK", "LAB": "LAB"}
_DESCRIPTIVE = (0x010E, 0x010F, 0x0110, 0x011A, 0x011B, 0x0128, 0x0131, 0x0132, 0x013B, 0x8298)
"""Tags of a TIFF file's first directory that describe the picture, not how its data lie in the file."""


def decode(data: bytes, kind: str) -> Decoded:
    """Decode a whole file of format `kind` ("jpeg", "png", "webp", "tiff", "bmp").

    Raises:
        UnreadableError: damaged, cut off, too large or of a kind of pixel that lumen does not know.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            check_size(*image.size)
            image.load()
            return _decoded(image, kind)
    except UnidentifiedImageError:
        raise UnreadableError(f"the {kind.upper()} file is damaged or cut off") from None
    except MemoryError:
        raise UnreadableError("the picture does not fit into memory") from None
    except (OSError, SyntaxError, ValueError, EOFError, TypeError, KeyError, IndexError) as error:
        # Pillow reports damage by all of these, depending on where it stumbles.
        text = str(error).split(" (")[0].strip() or type(error).__name__
        cut = "truncated" in text.lower()
        raise UnreadableError(
            f"the {kind.upper()} file is cut off" if cut else f"the {kind.upper()} file is damaged ({text})"
        ) from None


def check_size(width: int, height: int) -> None:
    """Refuse what no photograph is: nothing at all, or more than `MAXIMUM_PIXELS`."""
    if width < 1 or height < 1:
        raise UnreadableError(f"the picture is {width}×{height} pixels")
    if width * height > MAXIMUM_PIXELS:
        raise UnreadableError(
            f"{width}×{height} pixels are more than lumen reads ({MAXIMUM_PIXELS // 1_000_000} megapixels)"
        )


def _decoded(image: Image.Image, kind: str) -> Decoded:
    mode = _MODES.get(image.mode)
    if mode is None:
        raise UnreadableError(f"pixels of kind {image.mode!r}; lumen reads 8 and 16 bits a channel")
    icc: bytes | None = image.info.get("icc_profile") or None
    lost: tuple[str, ...] = ()
    # After load(): a TIFF is already turned by then, and Pillow has taken the tag away.
    orientation = orientation_of(image)
    exif = tiff_exif(image) if kind == "tiff" else without_prefix(image.info.get("exif"))
    if getattr(image, "n_frames", 1) > 1:
        lost += ("further pages" if kind == "tiff" else "further pictures",)
    if mode in ("CMYK", "LAB"):
        image, icc, lost = _to_srgb(image, icc, mode), None, (*lost, "LAB" if mode == "LAB" else "CMYK")
        mode = "RGB"
    if "transparency" in image.info and mode in ("L", "RGB"):
        mode = {"L": "LA", "RGB": "RGBA"}[mode]
    values = np.asarray(image if image.mode == mode else image.convert(mode))
    return Decoded(values if values.ndim == 3 else values[:, :, None], orientation, icc, exif, lost)


def _to_srgb(image: Image.Image, icc: bytes | None, mode: str) -> Image.Image:
    """Print colours through their own profile where there is one: the network and the output know RGB only."""
    srgb = ImageCms.createProfile("sRGB")
    try:
        if mode == "LAB":
            source = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        elif icc:
            source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        else:
            return image.convert("RGB")
        relative = ImageCms.Intent.RELATIVE_COLORIMETRIC
        flags = ImageCms.Flags.BLACKPOINTCOMPENSATION
        turned = ImageCms.profileToProfile(image, source, srgb, relative, outputMode="RGB", flags=flags)
    except (ImageCms.PyCMSError, OSError):
        turned = None
    if turned is None:
        if mode == "LAB":
            raise UnreadableError("Lab pixels; lumen reads grey, RGB and CMYK")
        return image.convert("RGB")
    return turned


def orientation_of(image: Image.Image, exif: bytes | None = None) -> int:
    """The orientation, 1 to 8, that an opened picture's EXIF (or the given block), else its XMP names."""
    try:
        tags = image.getexif()
        if exif and ExifTags.Base.Orientation not in tags:
            tags.load(exif)
        return valid_orientation(tags.get(ExifTags.Base.Orientation))
    except (OSError, SyntaxError, ValueError, TypeError, KeyError):
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
