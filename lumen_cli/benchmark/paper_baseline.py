"""The reference for speed: a network that computes as the code of its paper does.

It computes in float32, eagerly, channels first and one picture at a time. It composes, folds, fuses and caches nothing
and writes nothing in place. It repeats what the released code computes needlessly. What is not known of a release is
left out, so the baseline is never slower than what is known. KinD's releases are TensorFlow graphs that run each
network once and read every result: their baseline is the network itself.

The baseline is a copy of our network in which the forwards of a few blocks are replaced. It runs with gradients enabled
on parameters that need none: no graph is built, and our networks then take none of their shortcuts.
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

from lumen_cli.diffusion import sample
from lumen_cli.networks import CrossAttention
from lumen_cli.networks.anlightendiff.blocks import ResBlock
from lumen_cli.networks.base import pad_to_multiple
from lumen_cli.networks.lightendiffusion import Levels, LightenDiffusion, Pyramid, to_latent
from lumen_cli.networks.lldiffusion import LLDiffusion
from lumen_cli.networks.unet import AttentionBlock
from lumen_cli.registry.architectures import architectures, import_object

if TYPE_CHECKING:
    from lumen_cli.networks.base import LowLightModel

Enhance = Callable[[Any, Tensor, "Tensor | None", "int | None"], Tensor]
"""(network, dark picture 1×3×H×W, noise, steps) → bright picture 1×3×H×W."""


def enhance_ours(network: LowLightModel, low: Tensor, noise: Tensor | None, steps: int | None) -> Tensor:
    """The network's own `enhance`."""
    return network.enhance(low, noise=noise, steps=steps)


@dataclass(frozen=True)
class Baseline:
    """How the released code of an architecture computes."""

    enhance: Enhance = enhance_ours
    redundant: tuple[str, ...] = ()
    """What the released code computes needlessly, as short phrases."""


@dataclass(frozen=True)
class PaperNetwork:
    """A network that computes as the paper's code does; see `paper_network`."""

    network: LowLightModel
    baseline: Baseline

    def enhance(self, low: Tensor, noise: Tensor | None, steps: int | None) -> Tensor:
        """Dark picture 1×3×H×W in [0, 1], noise as `LowLightModel.enhance` takes it → bright picture 1×3×H×W."""
        if low.shape[0] != 1:
            raise ValueError("the papers' code takes one picture at a time")
        with torch.enable_grad():
            return self.network.grade(low, self.baseline.enhance(self.network, low.contiguous(), noise, steps))


def paper_network(network: LowLightModel, architecture: str) -> PaperNetwork:
    """A copy of `network`, on its device, that computes as the paper's code does. Its results are the same.

    Args:
        network: the network to copy.
        architecture: its architecture's id; one without a known baseline runs as it is.
    """
    copied = copy.deepcopy(network).requires_grad_(False).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    for module in copied.modules():
        for name, function in _REPLACED.get(type(module), {}).items():
            setattr(module, name, MethodType(function, module))
    known = architectures().get(architecture)
    return PaperNetwork(copied, import_object(known.paper_baseline) if known and known.paper_baseline else Baseline())


def _attention_block(block: AttentionBlock, x: Tensor) -> Tensor:
    """DDPM's block: three projections, the whole N×N matrix of scores, its softmax, a product.

    (DiffLL, LightenDiffusion, LLDiffusion; N positions of the map. Ours fuses the three and never holds the matrix.)
    """
    normed = block.norm(x)
    q, k, v = (projection(normed).flatten(2) for projection in (block.q, block.k, block.v))
    scores = torch.bmm(q.transpose(1, 2), k) * q.shape[1] ** -0.5
    attended = torch.bmm(v, torch.softmax(scores, dim=2).transpose(1, 2))
    return x + block.proj_out(attended.reshape(x.shape))


def _cross_attention(block: CrossAttention, query_source: Tensor, context: Tensor) -> Tensor:
    """Maps as B×H×C×W: the C×C scores of each row are products over the width (DiffLL, LightenDiffusion)."""
    projected = (block.query(query_source), block.key(context), block.value(context))
    q, k, v = (maps.permute(0, 2, 1, 3) for maps in projected)
    weights = torch.softmax(q @ k.transpose(-2, -1) * block.scale, dim=-1)
    return (weights @ v).permute(0, 2, 1, 3).contiguous()


def _pyramid(block: Pyramid, picture: Tensor) -> Levels:
    """The two 5×5 convolutions one after the other (LightenDiffusion). Ours composes them to one of 9×9."""
    first, second = block.convs
    level0 = block.down0(block.block0(second(first(picture))))
    level1 = block.down1(block.block1(level0))
    return level0, level1, block.down2(block.block2(level1))


def _conditioned_block(
    block: ResBlock, x: Tensor, embedding: Tensor | None = None, rest: Tensor | None = None
) -> Tensor:
    """The encoder's map, concatenated and convolved with the rest in every step (AnlightenDiff)."""
    return ResBlock.forward(block, x if rest is None else torch.cat([x, rest], dim=1), embedding)


def _unconvolved(block: ResBlock, x: Tensor) -> Tensor:
    """The `rest` of `_conditioned_block`: the map itself. Ours convolves it once for all steps."""
    return x


_REPLACED: dict[type[nn.Module], dict[str, Callable[..., Any]]] = {
    AttentionBlock: {"forward": _attention_block},
    CrossAttention: {"forward": _cross_attention},
    Pyramid: {"forward": _pyramid},
    ResBlock: {"forward": _conditioned_block, "rest": _unconvolved},
}
"""Blocks whose forwards compute the same as the papers' code in another way."""


def _diffll(network: Any, low: Tensor, noise: Tensor | None, steps: int | None) -> Tensor:
    """DiffLL also draws a timestep and noise for a training loss in evaluation, and noise times zero in every step.

    (Release of July 2024: the forward in evaluation, and the sampler with eta = 0.)
    """
    assert noise is not None
    torch.randint(0, network.schedule.timesteps, (1,))
    torch.randn_like(noise)
    with _noise_after_every_call(network.Unet):
        return enhance_ours(network, low, noise, steps)


def _lightendiffusion(network: LightenDiffusion, low: Tensor, noise: Tensor | None, steps: int | None) -> Tensor:
    """LightenDiffusion encodes the picture three times and decomposes it twice.

    The release's network takes a dark and a bright picture. In evaluation it takes the dark one twice, encodes both
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
    """LLDiffusion computes colour map, spectral norms and degradation features again in every step.

    They are part of the released network's forward, which the sampler calls with the dark picture each time. By
    patches the same holds for every patch. Its sampler draws noise times zero in every step.
    """
    assert noise is not None
    canvas = network.canvas(low)

    def denoise(x: Tensor, timesteps: Tensor) -> Tensor:
        torch.randn_like(x)
        return network.denoiser(canvas)(x, timesteps)

    height, width = low.shape[-2:]
    bright = sample(denoise, noise, network.schedule, network.steps if steps is None else steps, network.sampler)
    return ((bright[..., :height, :width] + 1.0) / 2.0).clamp(0.0, 1.0)


@contextmanager
def _noise_after_every_call(module: nn.Module) -> Iterator[None]:
    """Draw a picture of noise after each call of a module, and drop it."""

    def draw(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        torch.randn_like(output)

    handle = module.register_forward_hook(draw)
    try:
        yield
    finally:
        handle.remove()


_ATTENTION, _NOISE = "whole attention matrices", "noise that is multiplied by zero"

# Its weight norm is torch's hook, which computes g · v / ‖v‖ at every forward. The encoder runs once, but its maps are
# concatenated with the noisy ones and convolved with them in every step. `_REPLACED` does both.
ANLIGHTENDIFF = Baseline(redundant=("weight norm in every step", "encoder's maps convolved in every step"))
DIFFLL = Baseline(_diffll, (_ATTENTION, _NOISE))
LIGHTENDIFFUSION = Baseline(
    _lightendiffusion, ("encoder 3 times", "Retinex block twice, for nothing", _ATTENTION, _NOISE)
)
LLDIFFUSION = Baseline(_lldiffusion, ("encoder, spectral norms and colour map in every step", _ATTENTION, _NOISE))
