"""From a `Picture` to a file in any of lumen's formats."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lumen_cli.errors import PictureError
from lumen_cli.imaging.color import luma, to_integers
from lumen_cli.imaging.formats import format_for
from lumen_cli.imaging.picture import Picture

DEFAULT_QUALITY = 95
"""For JPEG and WebP, 1 to 100."""
_DEEP = ("png", "tiff")
_TRANSPARENT = ("png", "tiff", "webp")
_LARGEST = {"jpeg": 65500, "webp": 16383}


def losses(picture: Picture, format: str) -> list[str]:
    """What a file of this format cannot hold of the picture, in words for one announced line; usually nothing."""
    format = format_for(format)
    lost = list(picture.lost)
    if picture.alpha is not None and format not in _TRANSPARENT:
        lost.append("alpha")
    if picture.bit_depth == 16 and format not in _DEEP:
        lost.append("16 bits")
    if picture.icc and _profile(picture, format) is None:
        lost.append("colour profile")
    if picture.exif and format == "bmp":
        lost.append("tags")
    return lost


def write_picture(picture: Picture, path: Path, *, format: str, quality: int | None = None) -> None:
    """Write a picture; equal pictures give equal bytes. Thread-safe.

    16 bits stay 16 in PNG and TIFF and are rounded to 8 in the others; grey stays grey (WebP has no grey), alpha stays
    where the format has it, the profile is embedded. Tags are another step, `TagWriter.copy`.

    Args:
        picture: pixels in [0, 1]; what lies outside is clamped.
        path: the file, replaced if it exists. Write beside the target and rename; a failed write leaves nothing.
        format: "jpeg", "png", "webp", "tiff" or "bmp"; the ending of `path` does not matter.
        quality: 1 to 100 for JPEG (stored 4:4:4) and WebP, 95 when None; the others lose nothing.

    Raises:
        PictureError: the pixels are not finite, too many for the format, or the file cannot be written.
    """
    format = format_for(format)
    if not np.isfinite([picture.pixels.min(), picture.pixels.max()]).all():
        raise PictureError(path, "the result holds values that are no numbers; nothing was written")
    if max(picture.width, picture.height) > _LARGEST.get(format, 1 << 31):
        size = f"{picture.width}×{picture.height}"
        raise PictureError(path, f"{size} pixels are too many for {format} (at most {_LARGEST[format]} a side)")
    try:
        data = _encoded(picture, format, DEFAULT_QUALITY if quality is None else quality)
    except (OSError, ValueError, MemoryError) as error:
        raise PictureError(path, f"cannot be encoded as {format} ({error})") from None
    try:
        path.write_bytes(data)
    except OSError as error:
        with contextlib.suppress(OSError):
            path.unlink()
        raise PictureError(path, f"cannot be written ({error.strerror or error})") from None


def _encoded(picture: Picture, format: str, quality: int) -> bytes:
    values = _values(picture, format)
    icc = _profile(picture, format)
    if format == "png":
        from lumen_cli.imaging import png

        return png.encode(values, icc)
    if format == "tiff":
        return _tiff(values, icc)
    from PIL import Image

    image = Image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values)
    buffer = io.BytesIO()
    profile = {"icc_profile": icc} if icc else {}
    if format == "jpeg":
        image.save(buffer, "JPEG", quality=quality, subsampling=0, **profile)
    elif format == "webp":
        # Effort 2 of 6 takes half the time of Pillow's default for files 2 % larger.
        image.save(buffer, "WEBP", quality=quality, method=2, **profile)
    else:
        image.save(buffer, "BMP")
    return buffer.getvalue()


def _values(picture: Picture, format: str) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """H×W×C integers as the format stores them."""
    depth = 16 if picture.bit_depth == 16 and format in _DEEP else 8
    if picture.grey and format != "webp":
        colours = to_integers(luma(picture.pixels)[:, :, None], depth)
    else:
        colours = to_integers(picture.pixels, depth)
    if picture.alpha is None or format not in _TRANSPARENT:
        return colours
    return np.concatenate([colours, to_integers(picture.alpha[:, :, None], depth)], axis=2)


def _tiff(values: NDArray[np.uint8] | NDArray[np.uint16], icc: bytes | None) -> bytes:
    import tifffile

    channels = values.shape[2]
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        values[:, :, 0] if channels == 1 else values,
        photometric="minisblack" if channels <= 2 else "rgb",
        planarconfig="contig" if channels > 1 else None,
        extrasamples=["unassalpha"] if channels in (2, 4) else None,
        compression="zlib",
        compressionargs={"level": 1},
        predictor=True,
        rowsperstrip=max(1, (1 << 20) // max(1, values[0].nbytes)),
        iccprofile=icc,
        metadata=None,
        software=False,
    )
    return buffer.getvalue()


def _profile(picture: Picture, format: str) -> bytes | None:
    """The profile if the format can hold it: a profile for grey fits no RGB file, and BMP holds none."""
    grey_profile = picture.icc is not None and picture.icc[16:20] == b"GRAY"
    if format == "bmp" or (grey_profile and (format == "webp" or not picture.grey)):
        return None
    return picture.icc
