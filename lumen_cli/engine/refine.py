"""Runs the refiner (`networks/refiner.py`) on parts of a full-size picture.

A pixel's value depends only on the margin around it, as long as PyTorch runs the same code for all sizes. For maps
narrower than about 20 squares it runs other code, so parts have at least `_LEAST` pixels a side. Parts of any size then
give the same bytes.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from lumen_cli.engine import Detail
from lumen_cli.engine.device import DevicePolicy, native_bf16_on_cpu
from lumen_cli.networks.refiner import SQUARE, Refiner, see, share_of
from lumen_cli.registry.catalog import bundled_models
from lumen_cli.registry.load import apply_weights, load_weights

if TYPE_CHECKING:
    from lumen_cli.engine.scene import Scene

Floats = NDArray[np.float32]

SHA256 = "f6ba5dd9d44a6c25d6926b5d7562594885e06acf562a5e1dbc4ded45f2332533"
"""Of the weights file."""
_FILE = "refiner/refiner.safetensors"
_LEAST = 128
"""Smallest sides of a part, unless the picture is smaller."""


class Refining:
    """The refiner with its weights, in one precision on the CPU."""

    def __init__(self, network: Refiner, dtype: torch.dtype) -> None:
        self._network = network.to(dtype).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self._dtype = dtype

    def extent(self, start: int, stop: int, length: int) -> tuple[int, int]:
        """The rows (or columns) of a picture of `length` that those from `start` to `stop` depend on."""
        margin = max(self._network.margin, -(-(_LEAST - (stop - start)) // 2))
        first = max(0, start - margin) // SQUARE * SQUARE
        last = min(length, max(-(-(stop + margin) // SQUARE) * SQUARE, first + _LEAST))
        return min(first, max(0, last - _LEAST) // SQUARE * SQUARE), last

    @torch.inference_mode()
    def refine(self, planes: list[Floats], removed: list[Floats], maps: Floats) -> list[Floats]:
        """Refine a part of a picture; values within the margin of its borders differ from those of the whole picture.

        Args:
            planes: Y, Cb and Cr, h×w each, after shrinkage. The part starts at a multiple of `SQUARE` and ends
                at another, or at the end of the picture.
            removed: what shrinkage removed, h×w each.
            maps: (3·LEVELS + 1)×⌈h/4⌉×⌈w/4⌉, the deviation of the noise and, last, the gain in stops.

        Returns:
            Y, Cb and Cr, h×w each.
        """
        height, width = planes[0].shape
        clean, taken = (torch.from_numpy(_fill(np.stack(each)))[None] for each in (planes, removed))
        coarse = torch.from_numpy(np.ascontiguousarray(maps))[None]
        deviation, stops = coarse[:, :-1], coarse[:, -1:]
        seen = see(clean, taken, deviation, stops, self._dtype)
        refined = clean + self._network(seen, share_of(deviation, stops))
        return list(refined[0, :, :height, :width].numpy())


def _fill(planes: Floats) -> Floats:
    """3×h×w, extended by its last row and column to multiples of `SQUARE`."""
    height, width = planes.shape[1:]
    missing = -height % SQUARE, -width % SQUARE
    return np.pad(planes, ((0, 0), (0, missing[0]), (0, missing[1])), "edge") if any(missing) else planes


def refining_of(scene: Scene, detail: Detail, policy: DevicePolicy) -> Refining | None:
    """The refiner for results that are carried to full size with `detail` "auto"; otherwise None."""
    if detail != "auto" or scene.whole:
        return None
    precise = policy.precision_for(scene.picture.bit_depth) == "fp32" or not native_bf16_on_cpu()
    return load_refining(torch.float32 if precise else torch.bfloat16)


@cache
def load_refining(dtype: torch.dtype) -> Refining:
    """The bundled refiner; ModelError where its file is missing or damaged."""
    path = bundled_models() / _FILE
    network = Refiner()
    apply_weights(network, load_weights(path, SHA256, model="refiner"), path, model="refiner")
    return Refining(network, dtype)
