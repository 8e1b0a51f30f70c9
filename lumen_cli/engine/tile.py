"""Run a network on one picture in overlapping tiles that share global statistics.

Three things make a tile differ from the same part of the whole picture. `LowLightModel.global_context` gives what the
network derives from the whole picture first, such as an exposure. `global_statistics` collects over all tiles what
layers take from whole maps. An overlap of `MARGIN` gives the pixels that convolutions see beyond a tile's border.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lumen_cli.engine.global_statistics import Core, EnoughError, Seen, WholeStatistics, merge
from lumen_cli.engine.memory import return_freed_memory
from lumen_cli.networks.base import as_pixels, as_tensor, pad_to_multiple

if TYPE_CHECKING:
    from lumen_cli.networks.base import LowLightModel

MARGIN = 128
"""Pixels that a tile sees beyond its own part on each side; half of them are blended with the neighbour's."""
PASSES = 1
"""Passes over the tiles that collect global statistics before the result is computed."""
_UNIT = 32


@dataclass(frozen=True)
class Span:
    """One tile along one axis in pixels: the network sees `start` to `stop`; `first` to `last` is its own part."""

    start: int
    stop: int
    first: int
    last: int

    @property
    def core(self) -> tuple[int, int]:
        """The own part, counted from `start`."""
        return self.first - self.start, self.last - self.start

    def weights(self, margin: int) -> np.ndarray:
        """The tile's weight at each of its pixels; the weights of all spans of an axis add up to 1."""
        at = np.arange(self.start, self.stop, dtype=np.float32) + 0.5
        weights = np.ones(len(at), np.float32)
        if self.start < self.first:
            weights *= np.clip((at - self.first) / margin + 0.5, 0.0, 1.0)
        if self.stop > self.last:
            weights *= np.clip((self.last - at) / margin + 0.5, 0.0, 1.0)
        return weights


@dataclass(frozen=True)
class Tile:
    """Rows and columns."""

    rows: Span
    columns: Span

    @property
    def core(self) -> Core:
        """The part that belongs to this tile only."""
        size = self.rows.stop - self.rows.start, self.columns.stop - self.columns.start
        return Core(size, self.rows.core, self.columns.core)

    def cut(self, pixels: np.ndarray) -> np.ndarray:
        """The tile's part of H×W×C, as a view."""
        return pixels[self.rows.start : self.rows.stop, self.columns.start : self.columns.stop]


def spans(length: int, side: int, margin: int = MARGIN, unit: int = _UNIT) -> list[Span]:
    """Cut `length` pixels into tiles of about `side`, with own parts that start at multiples of `unit`."""
    if length <= side:
        return [Span(0, length, 0, length)]
    own = max(side - 2 * margin, margin, unit)
    count = math.ceil(length / own)
    bounds = [round(index * length / count / unit) * unit for index in range(count)] + [length]
    margin = -(-margin // unit) * unit
    return [Span(max(0, first - margin), min(length, last + margin), first, last) for first, last in pairwise(bounds)]


def tiles_of(network: LowLightModel, height: int, width: int, side: int) -> list[Tile]:
    """The tiles of a picture; bands of its whole width for a network that reads whole rows."""
    unit = math.lcm(_UNIT, network.size_multiple)
    if network.whole_rows:
        columns = [Span(0, width, 0, width)]
        rows = spans(height, max(side * side // width, 2 * MARGIN + unit), unit=unit)
    else:
        rows, columns = spans(height, side, unit=unit), spans(width, side, unit=unit)
    return [Tile(row, column) for row in rows for column in columns]


def enhance_tiled(
    network: LowLightModel,
    low: np.ndarray,
    noise: Tensor | None,
    side: int,
    *,
    device: str = "cpu",
    steps: int | None = None,
    passes: int = PASSES,
    sample_whole: bool = True,
    **knobs: Any,
) -> np.ndarray:
    """Brighten a picture in tiles, in the caller's precision.

    Args:
        network: on `device`.
        low: H×W×3 float32 in [0, 1].
        noise: C×h×w of the whole picture, on the CPU, or None.
        side: of a tile, pixels.
        device: where the network is.
        steps: sampling steps, None for the network's own.
        passes: see `PASSES`; irrelevant for a network whose layers read no whole map.
        sample_whole: whether a network that samples on a small map may do so for the whole picture at once.
        knobs: further arguments of `enhance`.

    Returns:
        H×W×3 float32 in [0, 1]; if a tile's values are not finite, it stops and returns them.
    """
    settings = {"device": device, "passes": passes, "sample_whole": sample_whole, **knobs}
    if network.members:
        whole = np.zeros_like(low)
        for member in network.members:
            batch = None if noise is None else network.member_noise(member.network, noise[None], *low.shape[:2])
            own = None if batch is None else batch[0]
            whole += member.share * enhance_tiled(member.network, low, own, side, steps=member.steps, **settings)
    else:
        whole = _assemble(network, low, noise, side, steps=steps, **settings)
    grading = network.grading_for(**knobs)
    if grading is not None and whole.shape == low.shape:
        grading.grade_large(as_tensor(low), as_tensor(whole), side, device)
    return whole


def _assemble(
    network: LowLightModel,
    low: np.ndarray,
    noise: Tensor | None,
    side: int,
    *,
    device: str,
    steps: int | None,
    passes: int,
    sample_whole: bool,
    **knobs: Any,
) -> np.ndarray:
    """The joined results of `network.enhance` for the tiles; see `enhance_tiled`."""
    height, width = low.shape[:2]
    tiles = tiles_of(network, height, width, side)
    options = knobs | network.global_context(as_tensor(low), **knobs)
    sample = (
        None
        if noise is None or not sample_whole
        else network.sample_whole(as_tensor(low), noise[None], steps, **options)
    )
    if sample is not None:
        noise, options = sample[0].cpu(), options | {"presampled": True}
    options["steps"] = steps

    def run(tile: Tile) -> Tensor:
        part = pad_to_multiple(as_tensor(tile.cut(low)), network.size_multiple).to(device)
        part = part.contiguous(memory_format=torch.channels_last)
        own = None if noise is None else _cut_noise(noise, tile, network, (height, width)).to(device)
        return_freed_memory()
        result: Tensor = network.enhance(part, noise=own, **options)
        return result[0, :, : tile.rows.stop - tile.rows.start, : tile.columns.stop - tile.columns.start]

    known: list[Seen] = []
    if sample is None:
        usual = _first_look(network, low, noise, side, device, options, tiles)
        known = merge(usual)
        for _ in range(passes if known else 0):
            usual = [_observe(run, tile, known, then) for tile, then in zip(tiles, usual, strict=True)]
            known = merge(usual)
    whole = np.zeros_like(low)
    for tile in tiles:
        with WholeStatistics(known):
            result = as_pixels(run(tile).float())
        if not np.isfinite(result).all():
            return result
        weights = tile.rows.weights(MARGIN)[:, None, None] * tile.columns.weights(MARGIN)[None, :, None]
        tile.cut(whole)[...] += result * weights
    return whole


def _observe(run: Any, tile: Tile, known: list[Seen], then: list[Seen]) -> list[Seen]:
    watching = WholeStatistics(known, then, [tile.core], enough=True)
    try:
        with watching:
            run(tile)
    except EnoughError:
        pass
    return watching.seen[0]


def _first_look(
    network: LowLightModel,
    low: np.ndarray,
    noise: Tensor | None,
    side: int,
    device: str,
    options: dict[str, Any],
    tiles: Sequence[Tile],
) -> list[list[Seen]]:
    """Statistics of each tile's part of the reduced picture; empty where no layer reads a whole map."""
    height, width = low.shape[:2]
    factor = max(1.0, math.sqrt(height * width / side**2))
    size = [max(1, round(length / factor)) for length in (height, width)]
    small = F.interpolate(as_tensor(low), size=size, mode="area")
    small = pad_to_multiple(small, network.size_multiple).to(device).contiguous(memory_format=torch.channels_last)
    own = None
    if noise is not None:
        wanted = network.noise_shape(*small.shape[-2:])
        assert wanted is not None
        own = noise.flatten()[: math.prod(wanted)].view(1, *wanted).to(device)
    cores = [_smaller(tile, (height, width), (size[0], size[1])) for tile in tiles]
    with WholeStatistics(cores=cores) as looking:
        network.enhance(small, noise=own, **options)
    return looking.seen


def _smaller(tile: Tile, size: tuple[int, int], small: tuple[int, int]) -> Core:
    rows, columns = (
        (round(span.first * to / length), round(span.last * to / length))
        for span, to, length in zip((tile.rows, tile.columns), small, size, strict=True)
    )
    return Core(small, rows, columns)


def _cut_noise(noise: Tensor, tile: Tile, network: LowLightModel, size: tuple[int, int]) -> Tensor:
    """The noise under a tile, 1×C×h×w; for the padding it is repeated."""
    wanted = network.noise_shape(tile.rows.stop - tile.rows.start, tile.columns.stop - tile.columns.start)
    assert wanted is not None
    cut = noise[None]
    for axis, span, length, count in zip((-2, -1), (tile.rows, tile.columns), size, wanted[1:], strict=True):
        start = span.start // max(1, round(length / noise.shape[axis]))
        places = torch.arange(start, start + count) % noise.shape[axis]
        cut = cut.index_select(axis, places)
    return cut
