"""Measures the memory of a network's tensors on a small picture."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

if TYPE_CHECKING:
    from lumen_cli.engine.device import DevicePolicy
    from lumen_cli.networks.base import LowLightModel

PROBE_SIDE = 256
SPARE = 1.25
"""Factor for the temporary memory of the libraries beside the tensors themselves."""


def bytes_per_pixel(
    network: LowLightModel, policy: DevicePolicy, precision: str, *, sample_whole: bool = False
) -> float:
    """Peak memory of a network's tensors per pixel of the picture, measured on a small one.

    sample_whole: only its `sample_whole`; of a mean, the dearest of its members', which are run one after the other.
    """
    if sample_whole and network.members:
        return max(bytes_per_pixel(member.network, policy, precision, sample_whole=True) for member in network.members)
    device = torch.device(policy.device)
    side = -(-PROBE_SIDE // network.size_multiple) * network.size_multiple
    low = torch.full((1, 3, side, side), 0.1, device=device).contiguous(memory_format=torch.channels_last)
    wanted = network.noise_shape(side, side)
    with policy.running(precision):
        noise = None if wanted is None else torch.zeros(1, *wanted, device=device)
        steps = network.steps_range()
        with _Watch() as watch:
            fewest = None if steps is None else steps[0]
            if not sample_whole:
                network(low, noise=noise, steps=fewest)
            elif noise is not None:
                network.sample_whole(low, noise, fewest)
    return SPARE * watch.most / side**2


class _Watch(TorchDispatchMode):
    """Tracks the bytes of the live tensors that were created inside; `most` is the peak."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._add(leaf.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size
