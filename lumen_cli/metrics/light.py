"""Brightness, and whether the order of lightness is kept (LOE)."""

from __future__ import annotations

import torch
from torch import Tensor

_SHORT_SIDE = 50
_GRID = 100
_PAIRS_AT_ONCE = 1 << 22
_TABLE_CELLS = 1 << 20


def brightness(output: Tensor) -> float:
    """Mean of all values of a 3×H×W picture, 0 to 1; tables of exposure state it times 255.

    >>> brightness(torch.full((3, 4, 4), 0.25))
    0.25
    """
    return float(output.mean())


def loe(output: Tensor, input: Tensor) -> float:
    """Lightness order error against the dark picture, 0 to the number of samples (Wang et al., 2013, eq. 21 to 24).

    Lightness is the maximum of R, G and B. For each sample it counts the samples whose order with it (≥) differs
    between output and input, and takes the mean. As in the paper, the pictures are first reduced to 50 pixels on the
    shorter side, here by taking the pixel at the centre of each cell, which keeps the values of 8-bit pictures and
    their ties. A shorter side of up to 50 is not reduced. The scale depends on the number of samples: compare it only
    with figures of the same sampling, see `loe_100`.

    >>> dark = torch.rand(3, 20, 30)
    >>> loe(dark / 2, dark)
    0.0
    """
    height, width = input.shape[-2:]
    ratio = min(1.0, _SHORT_SIDE / min(height, width))
    down, across = max(int(height * ratio), 1), max(int(width * ratio), 1)
    rows, columns = _middles(height, down), _middles(width, across)
    return _order_errors(output[:, rows][:, :, columns], input[:, rows][:, :, columns])


def loe_100(output: Tensor, input: Tensor) -> float:
    """LOE as `loe`, on 100×100 pixels spread evenly from edge to edge whatever the shape, 0 to 10000.

    This is the sampling of BIMEF's evaluation code (Ying et al., 2017), which many tables for DICM, LIME, MEF, NPE and
    VV use.
    """
    rows, columns = (_from_edge_to_edge(side) for side in input.shape[-2:])
    return _order_errors(output[:, rows][:, :, columns], input[:, rows][:, :, columns])


def _middles(side: int, samples: int) -> list[int]:
    return [int((index + 0.5) * side / samples) for index in range(samples)]


def _from_edge_to_edge(side: int) -> list[int]:
    return [int((side - 1) * index / (_GRID - 1) + 0.5) for index in range(_GRID)]


def _order_errors(output: Tensor, input: Tensor) -> float:
    after, before = output.amax(dim=0).flatten(), input.amax(dim=0).flatten()
    levels_after, after_rank = after.unique(return_inverse=True)
    levels_before, before_rank = before.unique(return_inverse=True)
    if len(levels_after) * len(levels_before) <= _TABLE_CELLS:
        errors = _errors_by_table(after_rank, before_rank, len(levels_after), len(levels_before))
    else:
        errors = _errors_by_pairs(after_rank, before_rank)
    return errors / len(after)


def _errors_by_table(after: Tensor, before: Tensor, rows: int, columns: int) -> int:
    """For few levels, as in 8 bits: |A xor B| = |A| + |B| - 2 |A and B|, of cumulative histograms."""
    table = torch.bincount(after * columns + before, minlength=rows * columns).view(rows, columns)
    below = table.cumsum(dim=0).cumsum(dim=1)  # samples of at most this rank in both
    in_order_after = (table.sum(dim=1) * below[:, -1]).sum()
    in_order_before = (table.sum(dim=0) * below[-1]).sum()
    return int(in_order_after + in_order_before - 2 * (table * below).sum())


def _errors_by_pairs(after: Tensor, before: Tensor) -> int:
    errors = 0
    for index in torch.arange(len(after), device=after.device).split(max(_PAIRS_AT_ONCE // len(after), 1)):
        changed = (after[index, None] >= after[None]) ^ (before[index, None] >= before[None])
        errors += int(changed.sum())
    return errors
