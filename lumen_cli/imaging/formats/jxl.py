"""JPEG XL through pyjpegxl (libjxl), with all its bits and the profile that its values are in."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumen_cli.imaging.colour.curves import SRGB
from lumen_cli.imaging.colour.icc import colour_model, read_shaper
from lumen_cli.imaging.colour.spaces import ShaperSpace
from lumen_cli.imaging.decoded import Decoded, UnreadableError, check_size, extra, unmultiplied
from lumen_cli.imaging.formats.isobmff import boxes
from lumen_cli.imaging.formats.jxl_header import CONTAINER, JxlHead, read_head
from lumen_cli.imaging.formats.pillow import without_prefix

_LINEAR = "_Lin".encode("utf-16-be")
"""Stands in the name of the profile that libjxl makes up for linear light."""
_SRGB = (1, 13)


def decode_jxl(data: bytes, max_pixels: int) -> Decoded:
    """Decode a JPEG XL file; of an animation its first frame. libjxl turns the pixels upright itself.

    Raises:
        MissingExtraError: pyjpegxl is not installed.
        UnreadableError: damaged, cut off or too large.
    """
    pyjpegxl = extra("pyjpegxl", "pyjpegxl", "jxl", "JPEG XL")
    try:
        head = read_head(data)
    except ValueError as error:
        raise UnreadableError(f"the JPEG XL file is damaged or cut off ({error})") from None
    check_size(head.width, head.height, max_pixels)
    try:
        said = pyjpegxl.probe(data)
        check_size(said.width, said.height, max_pixels)
        icc, cicp = said.icc, None
        kind = "float32" if head.floating else "uint16" if head.bits > 8 else "uint8"
        if head.lossy and icc and _LINEAR in icc:
            # libjxl gives what was lossily coded under an embedded profile as linear light: too coarse in 8 bits.
            values = _from_linear(_values(pyjpegxl, data, "float32"), np.uint16 if head.bits > 8 else np.uint8)
            icc, cicp = None, _SRGB
        else:
            values = _values(pyjpegxl, data, kind)
        exif = said.exif
    except MemoryError:
        raise UnreadableError("the picture does not fit into memory") from None
    except UnreadableError:
        raise
    except Exception as error:  # the binding has no error class of its own
        text = (str(error).splitlines() or [type(error).__name__])[0]
        raise UnreadableError(f"the JPEG XL file is damaged or cut off ({text})") from None
    if values.dtype.kind != "f" and head.premultiplied and values.shape[2] in (2, 4):
        values = unmultiplied(values)
    bits = head.bits if head.bits in (10, 12) else None
    notices = ("only the first frame of the animation was read",) if head.animated else ()
    return Decoded(
        values,
        1,
        icc or None,
        _plain(exif),
        (),
        notices + _further(head),
        cicp=cicp,
        bits=bits,
        lossless=not head.lossy and not _from_jpeg(data),
    )


def _from_jpeg(data: bytes) -> bool:
    """Whether the file is a JPEG packed anew, which its values are not worth keeping exactly for."""
    return any(name == b"jbrd" for name, _, _ in boxes(data))


def _values(pyjpegxl: object, data: bytes, kind: str) -> NDArray[Any]:
    values: NDArray[Any] = pyjpegxl.decode_to_numpy(data, dtype=kind)[1]  # type: ignore[attr-defined]
    return values if values.ndim == 3 else values[:, :, None]


def _further(head: JxlHead) -> tuple[str, ...]:
    left = head.extra - head.alpha
    return (f"{left} extra channel{'s' * (left > 1)} of the JPEG XL file left out",) if left else ()


def _from_linear(linear: NDArray[Any], kind: type) -> NDArray[Any]:
    """Linear light of sRGB's primaries under sRGB's transfer function (IEC 61966-2-1), clipped; alpha as it is."""
    values = np.clip(linear.astype(np.float32), 0, 1)
    colours = values[:, :, : 1 if values.shape[2] <= 2 else 3]
    values[:, :, : colours.shape[2]] = SRGB.encoded(colours)
    return np.rint(values * np.iinfo(kind).max).astype(kind)


def _plain(exif: bytes | None) -> bytes | None:
    """The EXIF box without the offset before its TIFF header, where that is still there."""
    if exif and exif[:4] not in (b"II*\0", b"MM\0*") and exif[4:8] in (b"II*\0", b"MM\0*"):
        exif = exif[4:]
    return without_prefix(exif)


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
