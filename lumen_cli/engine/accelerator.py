"""What a network gets on an accelerator: weights in half precision, cast once, and copies beside the computing.

Autocast under inference mode would cast the weights in each call. Copies to and from a CUDA device run on streams of
their own while the network computes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor, nn


def hold_halves(network: nn.Module, dtype: torch.dtype) -> None:
    """Give the convolutions and linear layers of a network copies of their weights, which autocast of this type takes.

    The numbers are autocast's. Outside autocast, and where it computes in another type, the weights themselves count.
    """
    for layer in list(network.modules()):
        kind = _KINDS.get(type(layer), type(layer))
        if kind in _KINDS.values() and getattr(getattr(layer, "half_weight", None), "dtype", None) != dtype:
            layer.__class__ = kind
            for name in ("weight", "bias"):
                full = getattr(layer, name)
                half = None if full is None else full.detach().to(dtype)
                layer.register_buffer(f"half_{name}", half, persistent=False)


class _Halved(nn.Module):
    half_weight: Tensor
    half_bias: Tensor | None

    def _takes_half(self, input: Tensor) -> bool:
        kind = input.device.type
        return torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == self.half_weight.dtype


class _Conv2d(_Halved, nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        half = self._takes_half(input)
        return self._conv_forward(input, self.half_weight, self.half_bias) if half else super().forward(input)


class _Linear(_Halved, nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        half = self._takes_half(input)
        return nn.functional.linear(input, self.half_weight, self.half_bias) if half else super().forward(input)


_KINDS: dict[type[nn.Module], type[nn.Module]] = {nn.Conv2d: _Conv2d, nn.Linear: _Linear}


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
