"""Writing HEIC through pillow-heif (libheif and x265)."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumen_cli.imaging.decoded import extra, narrowed

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
