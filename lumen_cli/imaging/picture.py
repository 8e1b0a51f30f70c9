"""A decoded picture as a value."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lumen_cli.imaging.color import to_integers


@dataclass(frozen=True, eq=False)
class Picture:
    """Pixels, and what has to be known to write them back as they came."""

    pixels: NDArray[np.float32]
    """H×W×3 float32 in [0, 1], RGB, C-contiguous, in the file's own profile, upright (orientation tag applied)."""
    alpha: NDArray[np.float32] | None
    """H×W float32 in [0, 1], upright, not multiplied into the pixels; None where the file has none."""
    bit_depth: int
    """8 or 16: bits a channel in the file."""
    grey: bool
    """The file had one colour channel; it is written back that way."""
    format: str
    """"jpeg", "png", "webp", "tiff" or "bmp": what the file's content is, whatever its name says."""
    icc: bytes | None
    """The embedded colour profile, carried through untouched."""
    exif: bytes | None
    """The raw EXIF block (beginning with its TIFF header), None where there is none."""
    lost: tuple[str, ...] = ()
    """What reading could not keep ("CMYK", "further pages"), for `losses`."""

    @property
    def height(self) -> int:
        """Rows, of the upright picture."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Columns, of the upright picture."""
        return int(self.pixels.shape[1])

    def digest(self) -> bytes:
        """16 bytes (BLAKE2b) that stand for size, depth and decoded values, alpha included.

        Equal for equal content, whatever the file's name, tags, compression or lossless format.
        """
        alpha = b"" if self.alpha is None else b"alpha"
        hashed = hashlib.blake2b(b"%d %d %d " % (self.height, self.width, self.bit_depth) + alpha, digest_size=16)
        rows = max(1, (1 << 20) // max(1, self.width))
        for plane in (self.pixels, self.alpha):
            for top in range(0, self.height if plane is not None else 0, rows):
                assert plane is not None
                values = to_integers(plane[top : top + rows], self.bit_depth)
                hashed.update(np.ascontiguousarray(values, values.dtype.newbyteorder("<")).data)
        return hashed.digest()
