"""How long a network computes during a run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class Busy:
    """Seconds of a network's calls: on a CUDA device by its events, elsewhere by the clock of the calling thread."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._spans: list[tuple[Any, Any]] = []

    @contextmanager
    def watch(self, network: nn.Module) -> Iterator[Busy]:
        """Count the calls of a network, which is called in one thread at a time, within the block."""
        begun: list[Any] = []
        before = network.register_forward_pre_hook(lambda *_: begun.append(self._now()))
        after = network.register_forward_hook(lambda *_: self._spans.append((begun[-1], self._now())))
        try:
            yield self
        finally:
            before.remove()
            after.remove()

    @property
    def seconds(self) -> float:
        """The sum so far; waits for the device. On a device that waits for its thread the gaps within a call count."""
        if not self._device.startswith("cuda"):
            return float(sum(end - begin for begin, end in self._spans))
        torch.cuda.synchronize(self._device)
        return sum(begin.elapsed_time(end) for begin, end in self._spans) / 1000

    def _now(self) -> Any:
        if not self._device.startswith("cuda"):
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event
