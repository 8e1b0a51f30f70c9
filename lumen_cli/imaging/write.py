"""From a `Picture` to a file in any of lumen's formats."""

from __future__ import annotations

import contextlib
import importlib
import io
from pathlib import Path

import numpy as np

from lumen_cli.errors import PictureError
from lumen_cli.imaging import render as rendering
from lumen_cli.imaging.formats import LARGEST_SIDE, format_for, png
from lumen_cli.imaging.formats import bmp as encode_bmp
from lumen_cli.imaging.formats import jpeg as encode_jpeg
from lumen_cli.imaging.formats import tiff as encode_tiff
from lumen_cli.imaging.picture import Picture
from lumen_cli.imaging.storage import UNKNOWN, Storage

DEFAULT_QUALITY = 95
"""Of lossy formats, 1 to 100."""


def losses(picture: Picture, format: str) -> list[str]:
    """What a file of this format cannot hold of the picture, in words for one announced line; usually nothing."""
    return rendering.losses(picture, format_for(format))


def changes(picture: Picture, format: str) -> list[str]:
    """What a file of this format stores in another way than the original of the same format; usually nothing."""
    if format_for(format) != picture.format:
        return []
    compression, way = picture.stored.compression, picture.stored.jpeg
    changed = []
    if compression is not None and compression not in encode_tiff.COMPRESSIONS:
        changed.append(f"its {compression} compression became Deflate")
    if way is not None and way.rgb and way.sampling != "4:4:4":
        changed.append("its red, green and blue of different resolution were all written in full (4:4:4)")
    return changed


def write_picture(picture: Picture, path: Path, *, format: str, quality: int | None = None) -> None:
    """Write a picture; equal pictures give equal bytes. Thread-safe.

    Bits stay where the format has them, grey stays grey (WebP has none), alpha stays where the format has it, colours
    go back into the original's own space where the format can say which, and else are written as sRGB. A JPEG of a
    JPEG gets its steps of quantisation, its sampling of colour and its passes; what was stored without loss in WebP,
    AVIF, HEIF or JPEG XL is again; a TIFF of a TIFF gets its compression. Tags are another step, `TagWriter.copy`.

    Args:
        picture: pixels in [0, 1]; what lies outside is clamped.
        path: the file, replaced if it exists. Write beside the target and rename; a failed write leaves nothing.
        format: a name of `formats`; the ending of `path` does not matter.
        quality: 1 to 100 for lossy formats. None: as the original was stored where it is of the same format, else 95
            (JPEG: 4:4:4).

    Raises:
        PictureError: the pixels are not finite, too many for the format, or the file cannot be written.
    """
    format = format_for(format)
    values = picture.held
    if values.dtype.kind == "f" and not np.isfinite([values.min(), values.max()]).all():
        raise PictureError(path, "the result holds values that are no numbers; nothing was written")
    if max(picture.width, picture.height) > LARGEST_SIDE.get(format, 1 << 31):
        size = f"{picture.width}×{picture.height}"
        raise PictureError(path, f"{size} pixels are too many for {format} (at most {LARGEST_SIDE[format]} a side)")
    try:
        data = _encoded(picture, format, quality)
    except (OSError, ValueError, MemoryError) as error:
        raise PictureError(path, f"cannot be encoded as {format} ({error})") from None
    try:
        path.write_bytes(data)
    except OSError as error:
        with contextlib.suppress(OSError):
            path.unlink()
        raise PictureError(path, f"cannot be written ({error.strerror or error})") from None


def _compression(stored: Storage) -> str:
    return stored.compression if stored.compression in encode_tiff.COMPRESSIONS else "deflate"


def _encoded(picture: Picture, format: str, quality: int | None) -> bytes:
    made = rendering.rendered(picture, format)
    values, icc = made.values, made.label.icc
    # How the original lay in its file is of use for a file of the same kind only.
    stored = picture.stored if format == picture.format else UNKNOWN
    lossless = bool(stored.lossless) and quality is None
    chosen = DEFAULT_QUALITY if quality is None else quality
    if format == "png":
        chunks = {**stored.chunks, **made.label.chunks}
        return png.encode(values, icc, chunks)
    if format == "tiff":
        return encode_tiff.encode(values, icc, compression=_compression(stored), cmyk=made.cmyk)
    if format == "jpeg":
        chosen_or_kept = quality if stored.jpeg is not None else chosen
        return encode_jpeg.encode(values, icc, quality=chosen_or_kept, way=stored.jpeg, cmyk=made.cmyk)
    if format in ("avif", "heif", "jxl"):
        encoder = importlib.import_module(f"lumen_cli.imaging.formats.{format}")
        data: bytes = encoder.encode(
            values, icc, quality=chosen, bits=made.bits, lossless=lossless, cicp=made.label.cicp
        )
        return data
    if format == "bmp":
        return encode_bmp.encode(values)
    from PIL import Image

    buffer = io.BytesIO()
    # Effort 2 of 6 takes half the time of Pillow's default for files 2 % larger.
    options = {"lossless": True, "exact": True} if lossless else {"quality": chosen}
    Image.fromarray(values).save(buffer, "WEBP", method=2, icc_profile=icc or b"", **options)
    return buffer.getvalue()
