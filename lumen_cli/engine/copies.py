"""Copies to and from a CUDA device on streams of their own, so that they run while the network computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor


@cache
def copies_of(device: str) -> Copies:
    """The copies of a device, one object for each."""
    return Copies(device)


class Copies:
    """Two streams beside the current one, on which the network computes. Nothing here waits for the device.

    Memory that one stream allocates and another one uses is recorded there, or it could be given away too early.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._up, self._down = torch.cuda.Stream(device), torch.cuda.Stream(device)

    def upload(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Tensors on the CPU → on the device; copies from page-locked memory overlap with computing."""
        computing = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._up):
            moved = [tensor.to(self._device, non_blocking=True) for tensor in tensors]
        computing.wait_stream(self._up)
        for tensor in moved:
            tensor.record_stream(computing)
        return moved

    def fetch(self, tensors: Sequence[Tensor]) -> Callable[[], list[Tensor]]:
        """Begin to copy tensors from the device; the function waits for the copies, on the CPU, and returns them."""
        self._down.wait_stream(torch.cuda.current_stream(self._device))
        copied = torch.cuda.Event(blocking=True)
        with torch.cuda.stream(self._down):
            hosts = [_page_locked(tensor) for tensor in tensors]
            for host, tensor in zip(hosts, tensors, strict=True):
                host.copy_(tensor, non_blocking=True)
                tensor.record_stream(self._down)
            copied.record(self._down)

        def wait() -> list[Tensor]:
            copied.synchronize()
            return hosts

        return wait


def _page_locked(like: Tensor) -> Tensor:
    """Room on the CPU for a tensor: page-locked, where the system gives such memory."""
    try:
        return torch.empty_like(like, device="cpu", pin_memory=True)
    except RuntimeError:
        return torch.empty_like(like, device="cpu")
