"""The streams of a stand-in for CUDA: they forget no order, and copies to the CPU are done when someone waits for them.

A tensor that another stream made may be used after `wait_stream` only, and has to be recorded there at some time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


class Stream:
    """A queue of a device. seen: how much of other streams it has waited for."""

    def __init__(self, device: Any) -> None:
        self.device = torch.device(device)
        self.length = 0
        self.seen: dict[Stream, int] = {}
        self.copies: list[tuple[Tensor, Tensor]] = []

    def wait_stream(self, other: Stream) -> None:
        """What follows here comes after what is on the other one by now."""
        for each, length in ((other, other.length), *other.seen.items()):
            self.seen[each] = max(length, self.seen.get(each, 0))

    def copy(self, host: Tensor, values: Tensor) -> Tensor:
        """Fill a tensor on the CPU later."""
        self.copies.append((host, values.clone()))
        return host.fill_(float("nan") if host.is_floating_point() else 99)


class Event:
    """A place in a stream."""

    waited = 0

    def __init__(self, blocking: bool = False, enable_timing: bool = False) -> None:
        self.timed, self.at = enable_timing, 0.0
        self.copies: list[tuple[Tensor, Tensor]] = []

    def record(self, stream: Stream) -> None:
        self.at = time.perf_counter()
        self.copies, stream.copies = stream.copies, []

    def elapsed_time(self, end: Event) -> float:
        assert self.timed
        assert end.timed
        return 1000 * (end.at - self.at)

    def synchronize(self) -> None:
        Event.waited += 1
        with torch.inference_mode():
            for host, values in self.copies:
                host.copy_(values)


class _Current(threading.local):
    stream: Stream | None = None


_CURRENT = _Current()
_DEFAULTS: dict[torch.device, Stream] = {}


def current_stream(device: Any) -> Stream:
    """The stream of this thread on a device."""
    device = torch.device(device)
    if _CURRENT.stream is not None and _CURRENT.stream.device == device:
        return _CURRENT.stream
    return _DEFAULTS.setdefault(device, Stream(device))


@contextmanager
def on_stream(stream: Stream) -> Iterator[None]:
    """As `torch.cuda.stream`."""
    before, _CURRENT.stream = _CURRENT.stream, stream
    try:
        yield
    finally:
        _CURRENT.stream = before


class Mark:
    """When a tensor was made, and on which streams it was used and recorded."""

    def __init__(self, place: torch.device) -> None:
        self.stream = current_stream(place)
        self.stream.length += 1
        self.made = self.stream.length
        self.used: set[Stream] = set()
        self.recorded = {self.stream}

    def use(self, func: Any) -> None:
        """RuntimeError where the current stream has not waited for the tensor."""
        here = current_stream(self.stream.device)
        if here is not self.stream and here.seen.get(self.stream, 0) < self.made:
            raise RuntimeError(f"{func}: a tensor is used on a stream that has not waited for it")
        self.used.add(here)
