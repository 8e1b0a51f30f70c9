"""Padding to the multiples a network needs, for pictures of any size from 1×1 up."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def padded_size(height: int, width: int, multiple: int) -> tuple[int, int]:
    """The next multiples of `multiple` that hold `height` × `width`."""
    return -(-height // multiple) * multiple, -(-width // multiple) * multiple


def pad_to_multiple(picture: Tensor, multiple: int) -> Tensor:
    """Pad B×C×H×W at the bottom and the right to the next multiple of `multiple`; see `pad_to_size`."""
    return pad_to_size(picture, *padded_size(picture.shape[-2], picture.shape[-1], multiple))


def pad_to_size(picture: Tensor, height: int, width: int) -> Tensor:
    """Pad B×C×H×W at the bottom and the right to `height` × `width`, neither below H or W.

    Reflection (the papers' choice) as long as the side is longer than the padding; what is still
    missing on a short side is filled by reflecting again, on a single row or column by repeating it.
    """
    while picture.shape[-1] < width:
        picture = _grow(picture, width, horizontal=True)
    while picture.shape[-2] < height:
        picture = _grow(picture, height, horizontal=False)
    return picture


def _grow(picture: Tensor, target: int, *, horizontal: bool) -> Tensor:
    side = picture.shape[-1] if horizontal else picture.shape[-2]
    mode = "reflect" if side > 1 else "replicate"
    amount = min(target - side, side - 1) if side > 1 else target - side
    return F.pad(picture, (0, amount, 0, 0) if horizontal else (0, 0, 0, amount), mode=mode)
