"""AnlightenDiff's forward process around a centre and the pictures its loss compares; 2z - 1 maps [0, 1] to [-1, 1]."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lumen_cli.diffusion.schedule import Schedule

ImageLoss = Callable[[Tensor, Tensor], Tensor]
"""(prediction, target), both B×3×H×W in [0, 1] → a scalar, as LPIPS does it."""


def to_residual(high: Tensor, low: Tensor) -> Tensor:
    """What the diffusion is about: 2 (high - low) - 1, in [-3, 1] and not clamped. All B×3×H×W."""
    return 2.0 * (high - low) - 1.0


def to_picture(residual: Tensor, low: Tensor) -> Tensor:
    """Residual → picture in [0, 1]. What is added to `low` is clamped to [0, 1]: no pixel can become darker."""
    return (low + (residual.clamp(-1.0, 1.0) + 1.0) / 2.0).clamp(0.0, 1.0)


@dataclass(frozen=True)
class Diffused:
    """A batch at its timesteps (the paper's DRDA): x_t = signal · x_0 + spread · ε*.

    clean: x_0; shifted: ε* = ε + shift, the noise that the network is to return; shift: (1 - signal) / spread · m' for
    the centre m' in [-1, 1]; noisy: x_t; all B×3×H×W. signal, spread: sqrt(ᾱ_t), sqrt(1 - ᾱ_t), B×1×1×1.
    """

    clean: Tensor
    shifted: Tensor
    shift: Tensor
    noisy: Tensor
    signal: Tensor
    spread: Tensor

    def picture(self, shifted: Tensor, low: Tensor) -> Tensor:
        """The picture that a returned noise stands for, as DFPL compares it: x_t rebuilt with that noise, not x_0.

        The centre's shift, which `shifted` holds already, is added a second time, as in the papers' code. It decides
        which pixels `to_picture` clamps, and so which ones carry a gradient.
        """
        return to_picture(self.signal * self.clean + self.spread * (shifted + self.shift), low)


def diffuse(clean: Tensor, center: Tensor, noise: Tensor, timesteps: Tensor, schedule: Schedule) -> Diffused:
    """Add noise around a centre.

    Args:
        clean: x_0, B×3×H×W.
        center: m of the same shape, around [0, 1]; not clamped.
        noise: ε of the same shape, standard normal.
        timesteps: integers [B].
        schedule: the forward process.
    """
    signal, spread = schedule.coefficients(timesteps, clean)
    # (1 - signal) / spread without the difference of two numbers that are nearly equal.
    shift = spread / (1.0 + signal) * (2.0 * center - 1.0)
    shifted = noise + shift
    return Diffused(clean, shifted, shift, signal * clean + spread * shifted, signal, spread)


def bright_center(generator: torch.Generator | None) -> bool:
    """The coin of the paper's training: is the bright picture this batch's centre, rather than the encoder's?"""
    device = None if generator is None else generator.device
    return bool(torch.rand((), generator=generator, device=device) < 0.5)
