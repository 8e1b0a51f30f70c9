"""Writing JPEG XL through pyjpegxl (libjxl)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lumen_cli.imaging.decoded import extra
from lumen_cli.imaging.icc import colour_model, read_shaper
from lumen_cli.imaging.jxl_header import CONTAINER
from lumen_cli.imaging.spaces import ShaperSpace

_TYPE = b"\0\0\0\x14ftypjxl \0\0\0\0jxl "
"""What follows in a container, which has room for tags; a bare codestream has none."""
_FINEST, _COARSEST = 0.1, 25.0
"""Distances in libjxl's measure: 1 is what an eye just does not see."""


def holds_profile(icc: bytes) -> bool:
    """Only one of sRGB: the codestream names that itself, and pyjpegxl puts no profile where programs look for it."""
    shaper = read_shaper(icc)
    return shaper is not None and ShaperSpace(shaper, colour_model(icc) == "GRAY").is_srgb


def encode(
    values: NDArray[np.uint8] | NDArray[np.uint16],
    icc: bytes | None,
    *,
    quality: int,
    bits: int = 8,
    lossless: bool = False,
    cicp: tuple[int, int] | None = None,
) -> bytes:
    """A whole JPEG XL file, whose colours are sRGB.

    Args:
        values: H×W×C, C of 1 to 4 (grey, grey + alpha, RGB, RGBA), uint8 or uint16.
        icc: one that `holds_profile`, or None.
        quality: 1 to 100; 100 is lossless.
        bits: 8 or 16, as `values`; 10 and 12 are stored as 16.
        lossless: whether every value comes back.
        cicp: only that of sRGB.

    Raises:
        MissingExtraError: pyjpegxl is not installed.
        ValueError: it refuses.
    """
    pyjpegxl = extra("pyjpegxl", "pyjpegxl", "jxl", "JPEG XL")
    exact = lossless or quality >= 100
    speed = pyjpegxl.EncoderSpeed.Thunder if exact else pyjpegxl.EncoderSpeed.Cheetah
    # A keyword called quality, but the distance of libjxl.
    options = {"lossless": True} if exact else {"quality": _distance(quality)}
    try:
        data: bytes = pyjpegxl.encode_from_numpy(np.ascontiguousarray(values), speed=speed, **options)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"pyjpegxl: {' '.join(str(error).split())}") from None
    return data if data.startswith(CONTAINER) else CONTAINER + _TYPE + _box(b"jxlc", data)


def _box(name: bytes, body: bytes) -> bytes:
    return (len(body) + 8).to_bytes(4, "big") + name + body


def _distance(quality: int) -> float:
    """The rule of libjxl's own tools for what a JPEG's quality is worth."""
    if quality >= 30:
        return max(_FINEST, 0.1 + (100 - quality) * 0.09)
    return min(_COARSEST, 53 / 3000 * quality * quality - 23 / 20 * quality + 25)
