"""Forwards of single blocks as the papers' code has them, where ours compute the same in another way."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from lumen_cli.networks.anlightendiff.blocks import ResBlock
from lumen_cli.networks.blocks import CrossAttention
from lumen_cli.networks.lightendiffusion.ctdn import Levels, Pyramid
from lumen_cli.networks.unet import AttentionBlock


def attention_block(block: AttentionBlock, x: Tensor) -> Tensor:
    """Three projections, the whole N×N matrix of scores in memory, its softmax, a product (DDPM's block).

    (DiffLL, LightenDiffusion, LLDiffusion: N = positions of the map. Ours fuses the three, and never holds the matrix.)
    """
    normed = block.norm(x)
    q, k, v = (projection(normed).flatten(2) for projection in (block.q, block.k, block.v))
    scores = torch.bmm(q.transpose(1, 2), k) * q.shape[1] ** -0.5
    attended = torch.bmm(v, torch.softmax(scores, dim=2).transpose(1, 2))
    return x + block.proj_out(attended.reshape(x.shape))


def cross_attention(block: CrossAttention, query_source: Tensor, context: Tensor) -> Tensor:
    """Maps laid out as B×H×C×W, where every row's C×C scores are products over the width (DiffLL, LightenDiffusion)."""
    projected = (block.query(query_source), block.key(context), block.value(context))
    q, k, v = (maps.permute(0, 2, 1, 3) for maps in projected)
    weights = torch.softmax(q @ k.transpose(-2, -1) * block.scale, dim=-1)
    return (weights @ v).permute(0, 2, 1, 3).contiguous()


def pyramid(block: Pyramid, picture: Tensor) -> Levels:
    """The two 5×5 convolutions one after the other (LightenDiffusion). Ours composes them to one of 9×9."""
    first, second = block.convs
    level0 = block.down0(block.block0(second(first(picture))))
    level1 = block.down1(block.block1(level0))
    return level0, level1, block.down2(block.block2(level1))


def conditioned_block(
    block: ResBlock, x: Tensor, embedding: Tensor | None = None, rest: Tensor | None = None
) -> Tensor:
    """The encoder's map concatenated and convolved with the rest, in every step anew (AnlightenDiff)."""
    return ResBlock.forward(block, x if rest is None else torch.cat([x, rest], dim=1), embedding)


def unconvolved(block: ResBlock, x: Tensor) -> Tensor:
    """What `conditioned_block` takes as `rest`: the map itself. Ours convolves it once, for all steps."""
    return x


_REPLACED: dict[type[nn.Module], dict[str, Callable[..., Any]]] = {
    AttentionBlock: {"forward": attention_block},
    CrossAttention: {"forward": cross_attention},
    Pyramid: {"forward": pyramid},
    ResBlock: {"forward": conditioned_block, "rest": unconvolved},
}


def replace_blocks(network: nn.Module) -> None:
    """Give the blocks of `network` the methods above."""
    for module in network.modules():
        for name, function in _REPLACED.get(type(module), {}).items():
            setattr(module, name, MethodType(function, module))
