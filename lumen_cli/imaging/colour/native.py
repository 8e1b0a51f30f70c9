"""The values of a file whose colours are not sRGB, and the way between them and the network's pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumen_cli.imaging.colour.convert import stored, strips, to_unit
from lumen_cli.imaging.colour.spaces import Space, Values

_UNCHANGED = np.float32(1e-6)
"""A pixel that differs by less was left as it was: well below a step of 16 bits."""


@dataclass(frozen=True, eq=False)
class OwnColours:
    """values: H×W×C as the file holds them, upright, without alpha; C as the space has channels.

    space: what they mean; icc: the profile to embed, None where there is none for it; said_by: "profile", "chunks" (of
    a PNG), "tags" (EXIF's mark of Adobe RGB) or "nothing", whatever tells other programs about the space in the
    original; cicp: primaries and transfer (ITU-T H.273) where the original named them; chunks: a PNG's about colours.
    """

    values: Values
    space: Space
    icc: bytes | None
    said_by: str = "profile"
    cicp: tuple[int, int] | None = None
    chunks: Mapping[bytes, bytes] = field(default_factory=dict)

    @property
    def mark(self) -> bytes:
        """Tells one colour space from another, for digests."""
        return b"own " + hashlib.blake2b(self.icc or f"{self.said_by} {self.cicp}".encode(), digest_size=8).digest()

    def in_srgb(self, part: Values | None = None) -> NDArray[np.float32]:
        """H×W×3 in [0, 1], C-contiguous: what the network is given. part: H×W×C of the values, None for all of them."""
        part = self.values if part is None else part
        pixels = np.empty((*part.shape[:2], 3), np.float32)
        for rows, values in _rows(part):
            pixels[rows] = self.space.to_srgb(values).reshape(pixels[rows].shape)
        return pixels

    def carried(self, pixels: NDArray[np.float32], depth: int = 32) -> NDArray[Any]:
        """The values, H×W×C, with all that changed between `in_srgb()` and `pixels`.

        What did not change comes back exactly. depth: 8 or 16 for integers; 32 for floats with 1 for white, among
        which what the space cannot show lies outside [0, 1].
        """
        result = np.empty(self.values.shape, {8: np.uint8, 16: np.uint16, 32: np.float32}[depth])
        for rows, values in _rows(self.values):
            wanted = pixels[rows].reshape(-1, 3)
            own = to_unit(values)
            kept = (np.abs(wanted - self.space.to_srgb(values)) < _UNCHANGED).all(axis=1, keepdims=True)
            if not kept.all():
                own = np.where(kept, own, self.space.carried(values, wanted))
            result[rows] = stored(own, depth).reshape(result[rows].shape)
        return result


def _rows(values: Values) -> Iterator[tuple[slice, Values]]:
    for rows in strips(values.shape):
        yield rows, values[rows].reshape(-1, values.shape[2])
