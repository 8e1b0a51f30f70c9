"""One sampling loop. What differs between samplers is a small value handed to it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lumen_cli.diffusion.noise import normal
from lumen_cli.diffusion.schedule import LinearSchedule

Prediction = Literal["epsilon", "x0", "v"]
Denoiser = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Sampler:
    """How one step goes from x_t to x_s (s < t).

    eta: share of fresh noise per step; 0 is DDIM, 1 the DDPM posterior (Song et al., "Denoising Diffusion
        Implicit Models", equation 12 and 16).
    prediction: what the network returns: the noise ε (the papers' checkpoints), the clean x_0, or
        v = sqrt(ᾱ) ε - sqrt(1 - ᾱ) x_0 (Salimans & Ho, "Progressive Distillation", section 4).
    clip: bound on |x_0| at every step, or None for none (the papers' code).
    """

    eta: float = 0.0
    prediction: Prediction = "epsilon"
    clip: float | None = None


DDIM = Sampler()
DDPM = Sampler(eta=1.0)


def split_prediction(
    output: Tensor, noisy: Tensor, signal: Tensor | float, spread: Tensor | float, prediction: Prediction
) -> tuple[Tensor, Tensor]:
    """(x_0, ε) that a network's `output` stands for at x_t = signal·x_0 + spread·ε; all B×C×H×W."""
    if prediction == "epsilon":
        return (noisy - spread * output) / signal, output
    clean = output if prediction == "x0" else signal * noisy - spread * output
    return clean, (noisy - signal * clean) / spread


def target_of(clean: Tensor, noise: Tensor, signal: Tensor, spread: Tensor, prediction: Prediction) -> Tensor:
    """What a network of this `prediction` should return at x_t = signal·clean + spread·noise."""
    if prediction == "epsilon":
        return noise
    return clean if prediction == "x0" else signal * noise - spread * clean


def sample(
    denoise: Denoiser,
    noise: Tensor,
    schedule: LinearSchedule,
    steps: int,
    sampler: Sampler = DDIM,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Walk from `noise` to a clean sample (DDIM, equation 12).

    Args:
        denoise: (x_t, t) → the network's output; x_t is B×C×H×W, t a float32 tensor of shape [B].
        noise: x at the first timestep, B×C×H×W, standard normal, float32.
        schedule: the forward process the network was trained with.
        steps: number of steps; see `LinearSchedule.respaced`.
        sampler: the rule of a step.
        generator: source of the fresh noise where `sampler.eta` > 0.

    Returns:
        x_0, B×C×H×W. Nothing but `sampler.clip` bounds it. Differentiable.
    """
    x = noise
    visited = schedule.respaced(steps)
    for timestep, following in zip(visited, [*visited[1:], -1], strict=True):
        alpha, alpha_next = schedule.alpha_bar(timestep), schedule.alpha_bar(following)
        signal, spread = math.sqrt(alpha), math.sqrt(1.0 - alpha)
        output = denoise(x, torch.full((x.shape[0],), float(timestep), device=x.device)).to(x.dtype)
        clean, epsilon = split_prediction(output, x, signal, spread, sampler.prediction)
        if sampler.clip is not None:
            clean = clean.clamp(-sampler.clip, sampler.clip)
            epsilon = (x - signal * clean) / spread
        fresh = sampler.eta * math.sqrt((1.0 - alpha / alpha_next) * (1.0 - alpha_next) / (1.0 - alpha))
        x = math.sqrt(alpha_next) * clean + math.sqrt(max(1.0 - alpha_next - fresh**2, 0.0)) * epsilon
        if fresh > 0.0:
            x = x + fresh * normal(x.shape, x, generator)
    return x
