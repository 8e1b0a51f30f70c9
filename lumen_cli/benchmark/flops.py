"""How many operations a network does, counted while it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.utils.flop_counter import FlopCounterMode

Returned = TypeVar("Returned")

_ATTENTIONS = (
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_fused_attention_overrideable",
    "_scaled_dot_product_attention_math_for_mps",
)
"""Fused attentions that torch's own counter leaves out."""


def counted(run: Callable[[], Returned]) -> tuple[Returned, int]:
    """Call `run` → (what it returns, floating-point operations of its products).

    Convolutions, matrix products and attention, fused or not; a multiplication and the addition that follows are two.
    Sums, norms and activations are not counted, as everywhere in this field.
    """
    with FlopCounterMode(display=False, custom_mapping=_fused()) as counter:
        returned = run()
    return returned, int(counter.get_total_flops())


def attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Operations of softmax(QKᵀ)V from the shapes B×H×N×C, B×H×M×C and B×H×M×D: the two products."""
    batch, heads, positions, channels = query
    return 2 * batch * heads * positions * key[-2] * (channels + value[-1])


def _fused() -> dict[Any, Any]:
    found = (getattr(torch.ops.aten, name, None) for name in _ATTENTIONS)
    return {operator: attention_flops for operator in found if operator is not None}
