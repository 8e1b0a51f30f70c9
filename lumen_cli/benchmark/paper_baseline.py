"""The yardstick: a network run as its paper's code runs it.

float32, eager, channels first, one picture at a time, nothing composed, folded, fused, kept or written in place, and
every computation done that the released code does though its result is known already or read by nothing. What is not
known of a release is left out, so the yardstick is never slower than is known.

It is ours in another order: a copy of the network whose forwards of a few blocks are replaced, run with gradients
enabled on parameters that need none (no graph is built), which is how our networks are told to do nothing clever.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lumen_cli.diffusion.sampler import sample
from lumen_cli.networks.anlightendiff.blocks import ResBlock
from lumen_cli.networks.anlightendiff.network import AnlightenDiff
from lumen_cli.networks.base import pad_to_multiple
from lumen_cli.networks.blocks import CrossAttention
from lumen_cli.networks.diffll.network import DiffLL
from lumen_cli.networks.kind.network import KinD
from lumen_cli.networks.lightendiffusion.ctdn import Levels, Pyramid
from lumen_cli.networks.lightendiffusion.network import LightenDiffusion, to_latent
from lumen_cli.networks.lldiffusion.network import LLDiffusion
from lumen_cli.networks.unet import AttentionBlock

if TYPE_CHECKING:
    from lumen_cli.networks.base import LowLightModel


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


Enhance = Callable[[Any, Tensor, "Tensor | None", "int | None"], Tensor]
"""(network, dark picture 1×3×H×W, noise, steps) → bright picture 1×3×H×W."""


@dataclass(frozen=True)
class Way:
    """How one architecture's released code computes. redundant: what it does needlessly, a phrase each."""

    enhance: Enhance
    redundant: tuple[str, ...]


@dataclass(frozen=True)
class PlainNetwork:
    """A network that computes the papers' way; made by `plain_network`."""

    network: LowLightModel
    way: Way

    def enhance(self, low: Tensor, noise: Tensor | None, steps: int | None) -> Tensor:
        """Dark picture 1×3×H×W in [0, 1], noise as `LowLightModel.enhance` takes it → bright picture 1×3×H×W."""
        if low.shape[0] != 1:
            raise ValueError("the papers' code takes one picture at a time")
        with torch.enable_grad():
            return self.network.grade(low, self.way.enhance(self.network, low.contiguous(), noise, steps))


def plain_network(network: LowLightModel) -> PlainNetwork:
    """A copy of `network`, on its device, that computes as the paper's code does. Its results are the same."""
    plain = copy.deepcopy(network).requires_grad_(False).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    replace_blocks(plain)
    return PlainNetwork(plain, next((way for kind, way in _WAYS if isinstance(plain, kind)), _GENERAL))


def _general(network: LowLightModel, low: Tensor, noise: Tensor | None, steps: int | None) -> Tensor:
    """Our own `enhance`: of an architecture that comes from elsewhere no redundancy is known."""
    return network.enhance(low, noise=noise, steps=steps)


def _kind(network: KinD, low: Tensor, noise: Tensor | None, steps: int | None) -> Tensor:
    """KinD and KinD++: each network runs once, and every result is read.

    The releases are TensorFlow graphs; this is their computation in eager torch, so what TensorFlow costs beside that
    is no part of the ratio.
    """
    return network.enhance(low)


def _diffll(network: DiffLL, low: Tensor, noise: Tensor | None, steps: int | None) -> Tensor:
    """DiffLL draws a timestep and noise for a training loss in evaluation too, and noise times zero in every step.

    (Release of July 2024: the forward in evaluation, and the sampler with eta = 0.)
    """
    assert noise is not None
    torch.randint(0, network.schedule.timesteps, (1,))
    torch.randn_like(noise)
    with _noise_after_every_call(network.Unet):
        return network.enhance(low, noise=noise, steps=steps)


def _lightendiffusion(network: LightenDiffusion, low: Tensor, noise: Tensor | None, steps: int | None) -> Tensor:
    """LightenDiffusion encodes the picture three times and takes it apart twice.

    The release's network takes a dark and a bright picture; in evaluation it is given the dark one twice, encodes both
    and sends both latents through the Retinex block, whose results only training reads. To decode, it encodes the
    dark picture once more. Its sampler draws noise times zero in every step.
    """
    assert noise is not None
    height, width = low.shape[-2:]
    padded = pad_to_multiple(low, network.size_multiple)
    latent, _ = network.encode(padded)
    as_bright, _ = network.encode(padded)
    network.retinex(latent)
    network.retinex(as_bright)
    with _noise_after_every_call(network.Unet):
        enhanced = to_latent(network.predict_latent(latent, noise, steps))
    _, levels = network.encode(padded)
    return network.decode(enhanced, levels)[..., :height, :width].clamp(0.0, 1.0)


def _lldiffusion(network: LLDiffusion, low: Tensor, noise: Tensor | None, steps: int | None) -> Tensor:
    """LLDiffusion computes colour map, spectral norms and degradation features anew in every step.

    They are part of the released network's forward, which the sampler calls with the dark picture each time. Where it
    runs by patches, the same holds for every patch. Its sampler draws noise times zero in every step.
    """
    assert noise is not None
    canvas = network.canvas(low)

    def denoise(x: Tensor, timesteps: Tensor) -> Tensor:
        torch.randn_like(x)
        return network.denoiser(canvas)(x, timesteps)

    height, width = low.shape[-2:]
    bright = sample(denoise, noise, network.schedule, network.steps if steps is None else steps, network.sampler)
    return ((bright[..., :height, :width] + 1.0) / 2.0).clamp(0.0, 1.0)


def _anlightendiff(network: AnlightenDiff, low: Tensor, noise: Tensor | None, steps: int | None) -> Tensor:
    """AnlightenDiff norms all kernels in every step, and convolves in every step what never changes.

    Its weight norm is torch's hook, which makes g · v / ‖v‖ anew at every forward. The encoder runs once, but its maps
    are concatenated with the noisy ones and convolved with them in every step.
    """
    return network.enhance(low, noise=noise, steps=steps)


@contextmanager
def _noise_after_every_call(module: nn.Module) -> Iterator[None]:
    """Draw, and throw away, a picture of noise after each call of a module."""

    def draw(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        torch.randn_like(output)

    handle = module.register_forward_hook(draw)
    try:
        yield
    finally:
        handle.remove()


_ATTENTION = "whole attention matrices"
_NOISE = "noise that is multiplied by zero"
_GENERAL = Way(_general, ())
_WAYS: tuple[tuple[type[nn.Module], Way], ...] = (
    (AnlightenDiff, Way(_anlightendiff, ("weight norm in every step", "encoder's maps convolved in every step"))),
    (DiffLL, Way(_diffll, (_ATTENTION, _NOISE))),
    (KinD, Way(_kind, ())),
    (
        LightenDiffusion,
        Way(_lightendiffusion, ("encoder 3 times", "Retinex block twice, for nothing", _ATTENTION, _NOISE)),
    ),
    (LLDiffusion, Way(_lldiffusion, ("encoder, spectral norms and colour map in every step", _ATTENTION, _NOISE))),
)
