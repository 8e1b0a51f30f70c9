"""Small picture files for the tests, made by libraries other than the code under test."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms


def photo(height: int = 24, width: int = 40, channels: int = 3, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth and lopsided, so that no turn or mirroring of it is itself and JPEG keeps it nearly."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    planes = [40 + 150 * x / width + 40 * (y / height) ** 2, 30 + 120 * y / height, 20 + 100 * x * y / (height * width)]
    planes.append(255 - 200 * x / width)
    offset = np.random.default_rng(seed).integers(0, 20)
    return np.clip(np.stack(planes[:channels], axis=-1) + offset, 0, 255).astype(np.uint8)


def deep(height: int = 24, width: int = 40, channels: int = 3) -> NDArray[np.uint16]:
    """Noise over all 16 bits: an 8-bit step anywhere would change it."""
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(1).integers(0, 65536, shape).astype(np.uint16)


def srgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def png16(path: Path, values: NDArray[np.uint16], *chunks: tuple[bytes, bytes]) -> Path:
    """A 16-bit PNG written chunk by chunk from the specification."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    values = values if values.ndim == 3 else values[:, :, None]
    height, width, channels = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    parts = [
        chunk(b"IHDR", header),
        *(chunk(*c) for c in chunks),
        chunk(b"IDAT", zlib.compress(rows)),
        chunk(b"IEND", b""),
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def stored(upright: NDArray, orientation: int) -> NDArray:
    """How a camera stores an upright picture under an orientation, from the EXIF table of what row and column 0 are."""
    height, width = upright.shape[:2]
    row_is, column_is = {
        1: ("top", "left"),
        2: ("top", "right"),
        3: ("bottom", "right"),
        4: ("bottom", "left"),
        5: ("left", "top"),
        6: ("right", "top"),
        7: ("right", "bottom"),
        8: ("left", "bottom"),
    }[orientation]
    rows, columns = (height, width) if orientation <= 4 else (width, height)
    result = np.empty((rows, columns, *upright.shape[2:]), upright.dtype)
    for r in range(rows):
        for c in range(columns):
            place = {row_is: r, column_is: c}
            x = place["left"] if "left" in place else width - 1 - place["right"]
            y = place["top"] if "top" in place else height - 1 - place["bottom"]
            result[r, c] = upright[y, x]
    return result


def save_oriented(path: Path, upright: NDArray[np.uint8], orientation: int) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 98, "subsampling": 0} if path.suffix in (".jpg", ".webp") else {}
    if path.suffix == ".webp":
        options = {"lossless": True}
    Image.fromarray(stored(upright, orientation)).save(path, exif=exif, **options)
    return path
