"""HEIC and HEIF, as telephones write them, through pillow-heif (libheif)."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumen_cli.imaging.decoded import (
    Decoded,
    MissingExtraError,
    UnreadableError,
    check_size,
    extra,
    first_of,
    full_range,
    narrowed,
    unmultiplied,
)
from lumen_cli.imaging.formats.pillow import without_prefix

_CHANNELS = {"L": 1, "I": 1, "LA": 2, "La": 2, "RGB": 3, "RGBA": 4, "RGBa": 4}
_IDENTITY = 0


def decode_heif(data: bytes, max_pixels: int) -> Decoded:
    """Decode the main picture of a HEIF file with all its bits; turning and mirroring are the container's.

    Raises:
        MissingExtraError: pillow-heif is not installed.
        UnreadableError: damaged, cut off, too large or of a kind of pixel that lumen does not know.
    """
    pillow_heif = extra("pillow_heif", "pillow-heif", "heif", "HEIC")
    try:
        file = pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=False, hdr_to_16bit=False)
        check_size(file.size[0], file.size[1], max_pixels)
        info, mode = dict(file.info), file.mode.partition(";")[0]
        bits = int(info.get("bit_depth") or 8)
        # A copy: the array that older versions lend dies with the file.
        values: NDArray[Any] = np.array(file)
        notices = first_of(len(file), "pictures") + _left_out(info)
    except MissingExtraError:
        raise
    except MemoryError:
        raise UnreadableError("the picture does not fit into memory") from None
    except (OSError, SyntaxError, ValueError, EOFError, RuntimeError, LookupError, TypeError) as error:
        # pillow-heif reports damage by all of these.
        text = (str(error).splitlines() or [type(error).__name__])[0]
        raise UnreadableError(f"the HEIC file is damaged or cut off ({text})") from None
    if mode not in _CHANNELS:
        raise UnreadableError(f"HEIC pixels of kind {mode!r}; lumen reads grey and RGB")
    values = values.reshape(*values.shape[:2], -1)[:, :, : _CHANNELS[mode]]
    if values.dtype == np.uint16 and 8 < bits < 16:
        values = full_range(values, bits)
    if mode.endswith("a"):
        values = unmultiplied(values)
    nclx = info.get("nclx_profile") or {}
    cicp = (int(nclx["color_primaries"]), int(nclx["transfer_characteristics"])) if nclx else None
    lossless = bool(nclx) and int(nclx.get("matrix_coefficients", 2)) == _IDENTITY
    return Decoded(
        values,
        1,
        info.get("icc_profile") or None,
        without_prefix(_without_offset(info.get("exif"))),
        (),
        notices,
        cicp=cicp,
        bits=bits if bits in (10, 12) else None,
        lossless=lossless,
    )


def _left_out(info: dict[str, object]) -> tuple[str, ...]:
    """What lies beside the picture and is not carried into the result."""
    depth = ("its depth map was left out",) if info.get("depth_images") else ()
    others = ("its auxiliary pictures (gain map, mattes) were left out",) if info.get("aux") else ()
    return depth + others


def _without_offset(exif: bytes | None) -> bytes | None:
    """The EXIF item without the four bytes before its TIFF header, where they are still there."""
    if exif and exif[4:8] in (b"II*\0", b"MM\0*") and exif[:4] not in (b"II*\0", b"MM\0*"):
        return exif[4:]
    return exif


_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_SPEED = "fast"
"""Of x265's presets: less than half the time of its default, and at the same quality as near to the original."""
_LOSSLESS = {"quality": -1, "chroma": 444, "matrix_coefficients": 0}
"""Red, green and blue themselves (ITU-T H.273's identity matrix) without loss."""


def encode(
    values: NDArray[np.uint8] | NDArray[np.uint16],
    icc: bytes | None,
    *,
    quality: int,
    bits: int = 8,
    lossless: bool = False,
    cicp: tuple[int, int] | None = None,
) -> bytes:
    """A whole HEIC file.

    Args:
        values: H×W×C, C of 1 to 4 (grey, grey + alpha, RGB, RGBA), uint8, or uint16 over the full range.
        icc: the profile to embed.
        quality: 1 to 100.
        bits: 8, 10 or 12 a channel.
        lossless: whether every value comes back. Otherwise colours are stored at half the resolution (4:2:0), as
            telephones do, and as all that shows HEIC can show.
        cicp: primaries and transfer (ITU-T H.273) to name.

    Raises:
        MissingExtraError: pillow-heif is not installed.
        ValueError: its encoder is missing, or refuses.
    """
    pillow_heif = extra("pillow_heif", "pillow-heif", "heif", "HEIC")
    mode = _MODES[values.shape[2]]
    if values.dtype == np.uint16:
        # The upper bits of 16 are what the encoder takes.
        values, mode = narrowed(values, bits) << np.uint16(16 - bits), f"{mode};16"
    options: dict[str, Any] = dict(_LOSSLESS) if lossless else {"quality": quality, "chroma": 420}
    if icc:
        options["icc_profile"] = icc
    if cicp is not None:
        options["color_primaries"], options["transfer_characteristics"] = cicp
    height, width = values.shape[:2]
    buffer = io.BytesIO()
    try:
        file = pillow_heif.from_bytes(mode, (width, height), np.ascontiguousarray(values).tobytes())
        file.save(buffer, bit_depth=bits, enc_params={"preset": _SPEED}, **options)
    except (RuntimeError, KeyError, TypeError) as error:
        raise ValueError(f"pillow-heif: {' '.join(str(error).split())}") from None
    return buffer.getvalue()
