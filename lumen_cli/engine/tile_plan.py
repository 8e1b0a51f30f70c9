"""Decides which pictures run in tiles and how large the tiles are: as requested, or by the free memory."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, Protocol

from lumen_cli.engine.memory import bytes_per_pixel, free_memory
from lumen_cli.limits import SMALLEST_TILE

if TYPE_CHECKING:
    from lumen_cli.engine.device import DevicePolicy
    from lumen_cli.networks.base import LowLightModel

Tiling = Literal["auto", "off"] | int
LARGEST_TILE = 4096
_STEP = 32
_WORST_BYTES_PER_PIXEL = 4096
"""More than any network needs: a picture that fits with this needs no measurement."""
_SHARE = 0.6
"""Share of the free memory for the network and a whole picture; other pictures are read and written meanwhile."""
_TILE_SHARE = 0.5
"""Share of that for a tile: where memory is short, the next large picture is already being decoded."""
_PICTURE_BYTES_PER_PIXEL = 36
"""The whole picture, its noise and its result, three float32 channels each."""


def tiling_of(text: str) -> Tiling:
    """From "auto", "off" or a number as text."""
    if text == "auto":
        return "auto"
    return "off" if text == "off" else int(text)


class Sized(Protocol):
    """Height and width in pixels."""

    @property
    def height(self) -> int:
        """Rows."""

    @property
    def width(self) -> int:
        """Columns."""


class TilePlan:
    """Decides for each shape. One object per run: it remembers which sizes did not fit.

    Args:
        tile: "auto" (tiles where memory is short), "off", or the side of a tile in pixels, for all larger pictures.
        memory: bytes for the network, None for the free memory.
    """

    def __init__(self, tile: Tiling = "auto", memory: int | None = None) -> None:
        self.tile = tile
        self._memory = memory
        self._too_many: int | None = None
        self._costs: dict[tuple[int, str, bool], float] = {}

    @property
    def why(self) -> str:
        """The reason for tiles, as the end of a sentence."""
        return "there is too little memory for the whole picture" if self.tile == "auto" else "requested"

    def side_for(self, network: LowLightModel, policy: DevicePolicy, shape: Sized, precision: str) -> int | None:
        """The side of the tiles for a picture of this shape, None where it runs whole."""
        pixels = shape.height * shape.width
        if not network.tiles or self.tile == "off":
            return None
        if isinstance(self.tile, int):
            return self.tile if max(shape.height, shape.width) > self.tile else None
        if self._too_many is not None and pixels >= self._too_many:
            return self._side(network, pixels)
        room = self._room(policy.device)
        if pixels * _WORST_BYTES_PER_PIXEL <= room:
            return None
        cost = self._cost(network, policy, precision)
        if pixels * cost <= room:
            return None
        fitting = max(0.0, _TILE_SHARE * room - pixels * _PICTURE_BYTES_PER_PIXEL) / cost
        side = int(math.sqrt(fitting)) // _STEP * _STEP
        return min(max(side, SMALLEST_TILE), LARGEST_TILE)

    def whole_sample_fits(self, network: LowLightModel, policy: DevicePolicy, shape: Sized, precision: str) -> bool:
        """Whether the network's `sample_whole` of a whole picture of this shape finds room."""
        pixels, room = shape.height * shape.width, self._room(policy.device)
        if pixels * _WORST_BYTES_PER_PIXEL <= room:
            return True
        return pixels * self._cost(network, policy, precision, sample_whole=True) <= room

    def after_failure(self, network: LowLightModel, shape: Sized) -> int | None:
        """The side to try after a picture of this shape did not fit; equally large pictures now run in tiles."""
        pixels = shape.height * shape.width
        if not network.tiles or self.tile == "off":
            return None
        self._too_many = min(pixels, self._too_many or pixels)
        return self._side(network, pixels)

    def _side(self, network: LowLightModel, pixels: int) -> int:
        half = int(math.sqrt(pixels / 4)) // _STEP * _STEP
        return min(max(half, SMALLEST_TILE), LARGEST_TILE)

    def _room(self, device: str) -> float:
        return _SHARE * free_memory(device) if self._memory is None else self._memory

    def _cost(
        self, network: LowLightModel, policy: DevicePolicy, precision: str, *, sample_whole: bool = False
    ) -> float:
        key = id(network), precision, sample_whole
        if key not in self._costs:
            self._costs[key] = bytes_per_pixel(network, policy, precision, sample_whole=sample_whole)
        return self._costs[key]


def smaller(side: int) -> int:
    """The next smaller side, 0 where there is none."""
    return 0 if side <= SMALLEST_TILE else max(SMALLEST_TILE, side // 2 // _STEP * _STEP)
