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
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lumen_cli.benchmark.plain_blocks import replace_blocks
from lumen_cli.diffusion.sampler import sample
from lumen_cli.networks.anlightendiff.network import AnlightenDiff
from lumen_cli.networks.base import pad_to_multiple
from lumen_cli.networks.diffll.network import DiffLL
from lumen_cli.networks.kind.network import KinD
from lumen_cli.networks.lightendiffusion.network import LightenDiffusion, to_latent
from lumen_cli.networks.lldiffusion.network import LLDiffusion

if TYPE_CHECKING:
    from lumen_cli.networks.base import LowLightModel

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
            return self.network.finish(low, self.way.enhance(self.network, low.contiguous(), noise, steps))


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
