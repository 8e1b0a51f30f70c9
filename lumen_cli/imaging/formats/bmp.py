"""Writing BMP: with alpha as 32 bits under the header that has a place for it, else through Pillow."""

from __future__ import annotations

import io
import struct

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_FILE_HEADER, _V4_HEADER = 14, 108
_BITFIELDS = 3
_MASKS = 0x00FF0000, 0x0000FF00, 0x000000FF, 0xFF000000
_DOTS_PER_METRE = 2835
_SRGB = b"BGRs"


def encode(values: NDArray[np.uint8]) -> bytes:
    """A whole file of H×W×C values, C of 1 to 4 (grey, grey + alpha, RGB, RGBA); grey with alpha is stored as RGBA."""
    if values.shape[2] in (1, 3):
        buffer = io.BytesIO()
        Image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values).save(buffer, "BMP")
        return buffer.getvalue()
    order = [0, 0, 0, 1] if values.shape[2] == 2 else [2, 1, 0, 3]
    rows = np.ascontiguousarray(values[::-1, :, order]).tobytes()
    height, width = values.shape[:2]
    start = _FILE_HEADER + _V4_HEADER
    file = b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start)
    size = struct.pack("<IiiHHII", _V4_HEADER, width, height, 1, 32, _BITFIELDS, len(rows))
    colours = struct.pack("<iiII4I", _DOTS_PER_METRE, _DOTS_PER_METRE, 0, 0, *_MASKS) + _SRGB
    return (file + size + colours).ljust(start, b"\0") + rows
