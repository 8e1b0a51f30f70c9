"""A decoded picture as a value."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumen_cli.imaging.colour.convert import to_integers, to_unit
from lumen_cli.imaging.colour.native import OwnColours
from lumen_cli.imaging.storage import UNKNOWN, Storage


@dataclass(frozen=True, eq=False)
class Picture:
    """Pixels, and what has to be known to write them back as they came.

    Who makes another picture of it, rather than the same one with other light, drops `own`.
    """

    values: NDArray[Any] | None
    """H×W×3, sRGB (or `icc`), upright (orientation tag applied): uint8, uint16, or float32 in [0, 1]. None: those of
    `own`, as the file has them."""
    alpha: NDArray[np.float32] | None
    """H×W float32 in [0, 1], upright, not multiplied into the pixels; None where the file has none."""
    bit_depth: int
    """8, 16 or 32 (floats): bits a channel in the file."""
    grey: bool
    """The file had one colour channel; it is written back that way."""
    format: str
    """"jpeg", "png", "webp", "tiff", …: what the file's content is, whatever its name says."""
    icc: bytes | None
    """The embedded colour profile where it is one of sRGB (or cannot be understood), carried through untouched."""
    exif: bytes | None
    """The raw EXIF block (beginning with its TIFF header), None where there is none."""
    lost: tuple[str, ...] = ()
    """What reading could not keep ("further pages"), for `losses`."""
    notices: tuple[str, ...] = ()
    """What else has to be said about the reading, each a whole phrase."""
    own: OwnColours | None = None
    """The file's values where its colours are not sRGB. Writing brings what changed in `pixels` into them."""
    stored: Storage = UNKNOWN
    """How the file's container held it."""

    def __post_init__(self) -> None:
        if self.values is None and self.own is None:
            raise ValueError("a picture needs values of its own or those of another colour space")

    @property
    def held(self) -> NDArray[Any]:
        """The values that are there: `values`, or else those of `own`."""
        if self.values is not None:
            return self.values
        assert self.own is not None
        return self.own.values

    @property
    def height(self) -> int:
        """Rows, of the upright picture."""
        return int(self.held.shape[0])

    @property
    def width(self) -> int:
        """Columns, of the upright picture."""
        return int(self.held.shape[1])

    @property
    def pixels(self) -> NDArray[np.float32]:
        """H×W×3 float32 in [0, 1], C-contiguous; computed from the values at each call, unless these are float32."""
        return self.rows(slice(None))

    def rows(self, rows: slice, step: int = 1) -> NDArray[np.float32]:
        """A part of `pixels`: of these rows, which may have a step too, every `step`-th column."""
        values = self.held[rows, ::step]
        if self.values is None:
            assert self.own is not None
            return self.own.in_srgb(values)
        return to_unit(values)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        arrays = self.values, self.alpha, None if self.own is None else self.own.values
        return sum(array.nbytes for array in arrays if array is not None)

    @property
    def profile(self) -> bytes | None:
        """The profile that a file in the original's own colours has embedded."""
        return self.icc if self.own is None else self.own.icc

    def digest(self) -> bytes:
        """16 bytes (BLAKE2b) that stand for size, depth and decoded values, alpha included, and their colour space.

        Equal for equal content, whatever the file's name, tags, compression or lossless format.
        """
        alpha = b"" if self.alpha is None else b"alpha"
        hashed = hashlib.blake2b(b"%d %d %d " % (self.height, self.width, self.bit_depth) + alpha, digest_size=16)
        if self.own is not None:
            hashed.update(self.own.mark)
        rows = max(1, (1 << 20) // max(1, self.width))
        for plane in (self.held if self.own is None else self.own.values, self.alpha):
            for top in range(0, self.height if plane is not None else 0, rows):
                assert plane is not None
                values = plane[top : top + rows]
                if values.dtype == np.float32 and self.bit_depth < 32:
                    values = to_integers(values.astype(np.float32, copy=False), self.bit_depth)
                hashed.update(np.ascontiguousarray(values, values.dtype.newbyteorder("<")).data)
        return hashed.digest()
