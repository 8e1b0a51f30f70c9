"""Which values a file of some format stores of a picture, and what it cannot hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumen_cli.imaging.colour.convert import converted, luma, stored
from lumen_cli.imaging.colour.icc import colour_model
from lumen_cli.imaging.formats import DEEPEST_BITS, TRANSPARENT
from lumen_cli.imaging.picture import Picture

_PRINTED = ("jpeg", "tiff")
_GREY = ("jpeg", "png", "tiff", "bmp", "avif", "heif", "jxl")
_WITHOUT_PROFILE = ("bmp",)
_CODE_POINTS = ("png", "avif", "heif")
_ANY_BITS = ("avif", "heif", "jxl")


@dataclass(frozen=True)
class Label:
    """How a file says what its colours mean: a profile to embed, primaries and transfer (H.273), chunks of a PNG."""

    icc: bytes | None = None
    cicp: tuple[int, int] | None = None
    chunks: Mapping[bytes, bytes] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Rendered:
    """H×W×C values as stored (alpha last where it is stored); uint8, uint16 or float32.

    bits: 8, 10, 12, 16 or 32 (floats) of them mean something; cmyk: the first four are amounts of ink.
    """

    values: NDArray[Any]
    bits: int
    cmyk: bool
    label: Label


def rendered(picture: Picture, format: str) -> Rendered:
    """The picture as a file of this format stores it."""
    bits = bits_in(picture, format)
    depth = bits if bits in (8, 32) else 16
    own, label = picture.own, own_label(picture, format)
    grey = picture.grey and format in _GREY
    if own is not None and label is not None:
        values = converted(own.values, depth) if picture.values is None else own.carried(picture.pixels, depth)
    else:
        values = stored(luma(picture.pixels)[:, :, None], depth) if grey else _in_rgb(picture, depth)
        label = Label(picture.icc if _holds(format, picture.icc, grey) else None)
    cmyk = own is not None and own.space.channels == 4 and values.shape[2] == 4
    if picture.alpha is not None and format in TRANSPARENT:
        values = np.concatenate([values, stored(picture.alpha[:, :, None], depth)], axis=2)
    return Rendered(values, bits, cmyk, label)


def _in_rgb(picture: Picture, depth: int) -> NDArray[Any]:
    """H×W×3 in sRGB."""
    return stored(picture.pixels, depth) if picture.values is None else converted(picture.values, depth)


def own_label(picture: Picture, format: str) -> Label | None:
    """How a file of this format says that it is in the original's own space; None where it cannot, or that is sRGB."""
    own = picture.own
    if own is None:
        return None
    grey = own.space.channels == 1
    if (own.space.channels == 4 and format not in _PRINTED) or (grey and format not in _GREY):
        return None
    if own.said_by == "nothing":
        return Label()
    if own.chunks and format == "png":
        return Label(own.icc if own.said_by == "profile" else None, None, own.chunks)
    if own.cicp is not None and format in _CODE_POINTS:
        return Label(None, own.cicp, {b"cICP": bytes((*own.cicp, 0, 1))})
    if own.icc is not None:
        return Label(own.icc) if _holds(format, own.icc, grey) else None
    return Label() if own.space.channels == 4 else None


def bits_in(picture: Picture, format: str) -> int:
    """Bits a channel that a file of this format gets: the picture's own where it can have them."""
    return min(_meant_bits(picture) if format in _ANY_BITS else picture.bit_depth, DEEPEST_BITS[format])


def losses(picture: Picture, format: str) -> list[str]:
    """What a file of this format cannot hold of the picture, in words for one announced line; usually nothing."""
    lost = list(picture.lost)
    if picture.alpha is not None and format not in TRANSPARENT:
        lost.append("alpha")
    written = bits_in(picture, format)
    meant = _meant_bits(picture)
    if written < meant:
        what = "floating-point values" if meant == 32 else f"{meant} bits"
        lost.append(what if written == 8 else f"{what} ({written} bits are written)")
    own = picture.own
    if own is not None and own_label(picture, format) is None:
        what = {4: "CMYK", 1: "a profile for grey"}.get(own.space.channels, "its colour space")
        lost.append(f"{what} (colours became sRGB)")
    elif picture.icc and own is None and not _holds(format, picture.icc, picture.grey and format in _GREY):
        lost.append("colour profile")
    if picture.exif and format == "bmp":
        lost.append("tags")
    return lost


def _meant_bits(picture: Picture) -> int:
    """10 or 12 where a file of that many bits was read into 16."""
    return picture.stored.bits if picture.stored.bits and picture.bit_depth == 16 else picture.bit_depth


def _holds(format: str, icc: bytes | None, grey: bool) -> bool:
    """Whether a profile can be embedded: one for grey fits no RGB file, and BMP holds none."""
    if icc is None or format in _WITHOUT_PROFILE or (colour_model(icc) == "GRAY" and not grey):
        return False
    if format == "jxl":
        from lumen_cli.imaging.formats import jxl as encode_jxl

        return bool(encode_jxl.holds_profile(icc))
    return True
