"""Runs the refiner (`networks/refiner.py`) on parts of a full-size picture.

The value of a pixel depends on the margin around it and on nothing else, as long as PyTorch runs the same code for all
sizes. For maps narrower than about 20 squares it runs other code, so parts have at least `_LEAST` pixels a side. Parts
of any size then give the same bytes.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from lumen_cli.engine.device import DevicePolicy, native_bf16_on_cpu
from lumen_cli.limits import Detail
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
"""Pixels of a part along each side, where the picture has as many."""


class Refining:
    """The refiner with its weights, in one precision on the CPU."""

    def __init__(self, network: Refiner, dtype: torch.dtype) -> None:
        self._network = network.to(dtype).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self._dtype = dtype

    def extent(self, start: int, stop: int, length: int) -> tuple[int, int]:
        """Rows (or columns) of the picture that are needed for those from `start` to `stop`, of `length` in all."""
        margin = max(self._network.margin, -(-(_LEAST - (stop - start)) // 2))
        first = max(0, start - margin) // SQUARE * SQUARE
        last = min(length, max(-(-(stop + margin) // SQUARE) * SQUARE, first + _LEAST))
        return min(first, max(0, last - _LEAST) // SQUARE * SQUARE), last

    @torch.inference_mode()
    def refine(self, planes: list[Floats], removed: list[Floats], maps: Floats) -> list[Floats]:
        """Refine a part of a picture; values nearer to its borders than the margin are those of a cut-out.

        Args:
            planes: Y, Cb and Cr, h×w each, after shrinkage. The part begins at a multiple of `SQUARE` of the picture
                and ends at another, or at the picture's end.
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
    """3×h×w, continued by its last row and column up to multiples of `SQUARE`."""
    height, width = planes.shape[1:]
    missing = -height % SQUARE, -width % SQUARE
    return np.pad(planes, ((0, 0), (0, missing[0]), (0, missing[1])), "edge") if any(missing) else planes


def refining_of(scene: Scene, detail: Detail, policy: DevicePolicy) -> Refining | None:
    """The refiner for a picture whose result is carried to full size with `detail` "auto"; None for all others."""
    if detail != "auto" or scene.whole:
        return None
    precise = policy.precision_for(scene.picture.bit_depth) == "fp32" or not native_bf16_on_cpu()
    return load_refining(torch.float32 if precise else torch.bfloat16)


@cache
def load_refining(dtype: torch.dtype) -> Refining:
    """The refiner that comes with lumen; ModelError where its file is missing or damaged."""
    path = bundled_models() / _FILE
    network = Refiner()
    apply_weights(network, load_weights(path, SHA256, model="refiner"), path, model="refiner")
    return Refining(network, dtype)
