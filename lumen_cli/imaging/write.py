"""From a `Picture` to a file in any format that lumen writes, and what such a file cannot hold."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumen_cli.errors import PictureError
from lumen_cli.imaging.colour.convert import convert_depth, from_unit, luma
from lumen_cli.imaging.colour.icc import read_model
from lumen_cli.imaging.formats import find_format
from lumen_cli.imaging.formats.format import UNKNOWN, ColourLabel, Format, Raster
from lumen_cli.imaging.picture import Picture


def write_picture(picture: Picture, path: Path, *, format: str, quality: int | None = None) -> None:
    """Write a picture; equal pictures give equal bytes. Thread-safe.

    Bits, a single channel of grey and alpha are kept where the format has them; colours go back into the original's
    own space where the format can name it, and become sRGB otherwise. A JPEG of a JPEG keeps its quantisation, its
    sampling of colour and its passes; a TIFF of a TIFF keeps its compression; WebP, AVIF, HEIF and JPEG XL without loss
    stay without loss. Tags are another step, `TagWriter.copy`.

    Args:
        picture: pixels in [0, 1]; others are clamped.
        path: the file, replaced if it exists; a failed write leaves none. Write beside the target and rename.
        format: a format's name or file name ending; the ending of `path` does not matter.
        quality: 1 to 100 for lossy formats. None: as the original was stored where it is of the same format, else 95
            (JPEG: 4:4:4).

    Raises:
        PictureError: the pixels are not finite, too many for the format, or the file cannot be written.
    """
    target = find_format(format)
    samples = picture.samples
    if samples.dtype.kind == "f" and not np.isfinite([samples.min(), samples.max()]).all():
        raise PictureError(path, "the result holds NaN or infinity; nothing was written")
    if max(picture.width, picture.height) > target.largest_side:
        size, most = f"{picture.width}×{picture.height}", target.largest_side
        raise PictureError(path, f"{size} pixels are too many for {target.title} (at most {most} a side)")
    try:
        assert target.encode is not None
        data = target.encode(render(picture, target, quality))
    except (OSError, ValueError, MemoryError) as error:
        raise PictureError(path, f"cannot be encoded as {target.title} ({error})") from None
    try:
        path.write_bytes(data)
    except OSError as error:
        with contextlib.suppress(OSError):
            path.unlink()
        raise PictureError(path, f"cannot be written ({error.strerror or error})") from None


def find_losses(picture: Picture, format: str) -> list[str]:
    """What a file of this format cannot hold of the picture, a few words each; usually nothing."""
    target = find_format(format)
    lost = ["alpha"] if picture.alpha is not None and not target.alpha else []
    bits, written = _read_bits(picture), _choose_bits(picture, target)
    if written < bits:
        what = "floating-point values" if bits == 32 else f"{bits} bits"
        lost.append(what if written == 8 else f"{what} ({written} bits are written)")
    if picture.native is not None and _label_native(picture, target) is None:
        what = {4: "CMYK", 1: "a profile for grey"}.get(picture.native.space.channels, "its colour space")
        lost.append(f"{what} (colours became sRGB)")
    elif picture.icc and picture.native is None and not _holds_profile(target, picture.icc, picture.grey):
        lost.append("colour profile")
    if picture.exif and not target.tags:
        lost.append("tags")
    return lost


def find_changes(picture: Picture, format: str) -> list[str]:
    """What a file of this format stores in another way than an original of the same format; usually nothing."""
    return list(picture.storage.changes) if find_format(format).name == picture.format else []


def render(picture: Picture, format: Format, quality: int | None = None) -> Raster:
    """The picture as a file of this format stores it."""
    bits = _choose_bits(picture, format)
    depth = bits if bits in (8, 32) else 16
    native, label = picture.native, _label_native(picture, format)
    grey = picture.grey and format.grey
    values: NDArray[Any]
    if native is not None and label is not None:
        if picture.values is None:
            values = convert_depth(native.values, depth)
        else:
            values = native.apply_change(picture.pixels, depth)
    else:
        if grey:
            values = from_unit(luma(picture.pixels)[:, :, None], depth)
        elif picture.values is None:
            values = from_unit(picture.pixels, depth)
        else:
            values = convert_depth(picture.values, depth)
        label = ColourLabel(picture.icc if _holds_profile(format, picture.icc, picture.grey) else None)
    cmyk = native is not None and native.space.channels == 4 and values.shape[2] == 4
    if picture.alpha is not None and format.alpha:
        values = np.concatenate([values, from_unit(picture.alpha[:, :, None], depth)], axis=2)
    # The storage of the original serves a file of the same format only.
    storage = picture.storage if format.name == picture.format else UNKNOWN
    return Raster(values, bits, label, cmyk, quality, storage)


def _label_native(picture: Picture, format: Format) -> ColourLabel | None:
    """How a file of this format names the original's own space; None where it cannot, or where that is sRGB."""
    native = picture.native
    if native is None:
        return None
    channels = native.space.channels
    if (channels == 4 and not format.cmyk) or (channels == 1 and not format.grey):
        return None
    if native.source == "nothing":
        return ColourLabel()
    if native.chunks and format.name == picture.format:
        return ColourLabel(native.icc if native.source == "profile" else None, None, native.chunks)
    if native.cicp is not None and format.code_points:
        return ColourLabel(None, native.cicp, {b"cICP": bytes((*native.cicp, 0, 1))})
    if native.icc is not None:
        return ColourLabel(native.icc) if _holds_profile(format, native.icc, channels == 1) else None
    return ColourLabel() if channels == 4 else None


def _read_bits(picture: Picture) -> int:
    """The bits of the original's values: 10 or 12 where it was read into 16."""
    return picture.storage.bits if picture.storage.bits and picture.bit_depth == 16 else picture.bit_depth


def _choose_bits(picture: Picture, format: Format) -> int:
    """The fewest bits of the format that hold the original's, else its most."""
    bits = _read_bits(picture)
    return next((depth for depth in format.depths if depth >= bits), format.depths[-1])


def _holds_profile(format: Format, icc: bytes | None, grey: bool) -> bool:
    """Whether a profile can be embedded; one for grey fits no RGB file."""
    fits = icc is not None and (read_model(icc) != "GRAY" or (grey and format.grey))
    return icc is not None and fits and format.holds_profile(icc)
