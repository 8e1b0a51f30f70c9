"""Weights in half precision, cast once. Autocast under inference mode casts them in each call."""

from __future__ import annotations

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
