"""One sampling loop, and noise that is the same for every batch, order, worker and device.

Samplers differ only in a small value, `Sampler`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lumen_cli.diffusion.schedule import Schedule, antithetic_timesteps

Prediction = Literal["epsilon", "x0", "v"]
Denoiser = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Sampler:
    """How one step goes from x_t to x_s (s < t).

    eta: share of fresh noise per step; 0 is DDIM, 1 the DDPM posterior (Song et al., "Denoising Diffusion
        Implicit Models", equation 12 and 16).
    prediction: the network's output: the noise ε (the papers' checkpoints), the clean x_0, or
        v = sqrt(ᾱ) ε - sqrt(1 - ᾱ) x_0 (Salimans & Ho, "Progressive Distillation", section 4).
    clip: bound on |x_0| at every step, or None for none (the papers' code).
    temperature: standard deviation of the starting noise: 1 as in training; 0 starts at the noise's mean, where
        nothing is random (Kingma & Dhariwal, "Glow", section 6, sample so from a flow).
    """

    eta: float = 0.0
    prediction: Prediction = "epsilon"
    clip: float | None = None
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature <= 1.0:
            raise ValueError(f"temperature must lie in [0, 1], not {self.temperature}")


DDIM = Sampler()
DDPM = Sampler(eta=1.0)


def split_prediction(
    output: Tensor, noisy: Tensor, signal: Tensor | float, spread: Tensor | float, prediction: Prediction
) -> tuple[Tensor, Tensor]:
    """(x_0, ε) that follow from a network's `output` at x_t = signal·x_0 + spread·ε; all B×C×H×W.

    >>> clean, noise = torch.rand(1, 3, 2, 2), torch.randn(1, 3, 2, 2)
    >>> signal, spread = torch.tensor(0.8), torch.tensor(0.6)
    >>> output = target_of(clean, noise, signal, spread, "v")
    >>> found, _ = split_prediction(output, signal * clean + spread * noise, signal, spread, "v")
    >>> torch.allclose(found, clean, atol=1e-6)
    True
    """
    if prediction == "epsilon":
        return (noisy - spread * output) / signal, output
    clean = output if prediction == "x0" else signal * noisy - spread * output
    return clean, (noisy - signal * clean) / spread


def target_of(clean: Tensor, noise: Tensor, signal: Tensor, spread: Tensor, prediction: Prediction) -> Tensor:
    """The training target of a network of this `prediction` at x_t = signal·clean + spread·noise."""
    if prediction == "epsilon":
        return noise
    return clean if prediction == "x0" else signal * noise - spread * clean


@dataclass(frozen=True)
class Noised:
    """Samples with noise of random timesteps, for training: x_t, the timesteps as float32 [B], and the target."""

    noisy: Tensor
    timesteps: Tensor
    target: Tensor
    """What the network should return."""


def add_noise(
    clean: Tensor,
    noise: Tensor,
    schedule: Schedule,
    prediction: Prediction,
    timesteps: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Noised:
    """Diffuse clean samples B×C×H×W with `noise` of their shape to `timesteps` [B], antithetic ones where None."""
    if timesteps is None:
        timesteps = antithetic_timesteps(len(clean), schedule.timesteps, generator).to(clean.device)
    signal, spread = schedule.coefficients(timesteps, clean)
    target = target_of(clean, noise, signal, spread, prediction)
    return Noised(signal * clean + spread * noise, timesteps.float(), target)


def sample(
    denoise: Denoiser,
    start: Tensor,
    schedule: Schedule,
    steps: int,
    sampler: Sampler = DDIM,
    *,
    center: Tensor | None = None,
    fresh: Iterator[Tensor] | None = None,
) -> Tensor:
    """Walk from `start` to a clean sample (DDIM, equation 12).

    Args:
        denoise: (x_t, t) → the network's output; x_t is B×C×H×W, t a float32 tensor of shape [B].
        start: x at the first timestep, B×C×H×W, float32; without `center` standard normal noise, which is scaled by
            `sampler.temperature`.
        schedule: the forward process the network was trained with.
        steps: number of steps; see the schedule's `respaced`.
        sampler: the rule of a step.
        center: m of a forward process that ends around m and not around zero, B×C×H×W in the sample's range:
            x_t = sqrt(ᾱ_t) x_0 + (1 - sqrt(ᾱ_t)) m + sqrt(1 - ᾱ_t) ε.
            A network that returns noise then returns ε* = ε + m (1 - sqrt(ᾱ_t)) / sqrt(1 - ᾱ_t), so that x_t is
            sqrt(ᾱ_t) x_0 + sqrt(1 - ᾱ_t) ε* as ever (AnlightenDiff's DRDA).
        fresh: source of the noise, B×C×H×W each, that steps with `sampler.eta` > 0 add; None derives it from `start`.

    With a center, x_t - m = sqrt(ᾱ_t) (x_0 - m) + sqrt(1 - ᾱ_t) ε is an ordinary forward process of x_0 - m. Every
    rule of a step therefore holds for x - m, whichever timesteps are visited: a chain of fewer steps has the posterior
    of those ᾱ. Written out for eta = 1, with β, α = 1 - β of the visited timesteps and ᾱ' the next one's, its mean is
        [β sqrt(ᾱ') x_0 + (1 - ᾱ') sqrt(α) x + (β (1 - sqrt(ᾱ')) - sqrt(α) (1 - sqrt(α)) (1 - ᾱ')) m] / (1 - ᾱ),
    DRDS of AnlightenDiff when all timesteps are visited, and DDPM's posterior for m = 0.

    Returns:
        x_0, B×C×H×W. Only `sampler.clip` bounds it. Differentiable.

    >>> from lumen_cli.diffusion.schedule import LinearSchedule
    >>> clean = torch.full((1, 3, 4, 4), 0.25)
    >>> start = torch.randn(1, 3, 4, 4)
    >>> found = sample(lambda x, t: clean, start, LinearSchedule(), 4, Sampler(prediction="x0"))
    >>> torch.allclose(found, clean)
    True
    """
    x = start if center is not None or sampler.temperature == 1.0 else sampler.temperature * start
    fresh = fresh_noise(start) if fresh is None else fresh
    visited = schedule.respaced(steps)
    for timestep, following in zip(visited, [*visited[1:], -1], strict=True):
        alpha, alpha_next = schedule.alpha_bar(timestep), schedule.alpha_bar(following)
        signal, spread = math.sqrt(alpha), math.sqrt(1.0 - alpha)
        output = denoise(x, torch.full((x.shape[0],), float(timestep), device=x.device)).to(x.dtype)
        clean, epsilon = split_prediction(output, x, signal, spread, sampler.prediction)
        if sampler.clip is not None:
            clean = clean.clamp(-sampler.clip, sampler.clip)
            epsilon = (x - signal * clean) / spread
        if center is not None:
            epsilon = epsilon - (1.0 - signal) / spread * center
        added = sampler.eta * math.sqrt((1.0 - alpha / alpha_next) * (1.0 - alpha_next) / (1.0 - alpha))
        x = math.sqrt(alpha_next) * clean + math.sqrt(max(1.0 - alpha_next - added**2, 0.0)) * epsilon
        if center is not None and following >= 0:
            x = x + (1.0 - math.sqrt(alpha_next)) * center
        if added > 0.0:
            x = x + added * next(fresh)
    return x


def picture_noise(seed: int, digest: bytes, shape: tuple[int, ...]) -> Tensor:
    """Standard normal noise for one whole picture, float32, on the CPU.

    Args:
        seed: the run's seed, any integer.
        digest: hash of the picture's decoded content.
        shape: C×H×W of the network's noise for the picture at its full size.

    The same three arguments give the same numbers on every machine.

    >>> first, again = (picture_noise(0, b"digest", (3, 2, 2)) for _ in range(2))
    >>> torch.equal(first, again), torch.equal(first, picture_noise(1, b"digest", (3, 2, 2)))
    (True, False)
    """
    key = hashlib.blake2b(digest, key=str(seed).encode()[:64], digest_size=8).digest()
    generator = torch.Generator(device="cpu").manual_seed(int.from_bytes(key, "little") >> 1)
    # torch fills 16 and more values with another algorithm than fewer: draw a fixed minimum.
    count = max(math.prod(shape), 16)
    return torch.randn(count, generator=generator, dtype=torch.float32)[: math.prod(shape)].view(shape)


def normal(shape: Sequence[int], like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Standard normal values of `like`'s dtype and on its device, drawn on the generator's (or the CPU)."""
    device = None if generator is None else generator.device
    return torch.randn(tuple(shape), generator=generator, device=device, dtype=like.dtype).to(like.device)


def fresh_noise(noise: Tensor) -> Iterator[Tensor]:
    """Endless standard normal noise in the shape of `noise` (B×C×h×w), float32, for samplers that add it in every step.

    It is derived from each picture's own `noise`, so that batch-mates and devices change nothing.

    >>> both = torch.randn(2, 3, 4, 4)
    >>> torch.equal(next(fresh_noise(both))[1:], next(fresh_noise(both[1:])))
    True
    """
    generators = []
    for picture in noise:
        key = hashlib.blake2b(picture.float().cpu().contiguous().numpy().tobytes(), digest_size=8).digest()
        generators.append(torch.Generator(device="cpu").manual_seed(int.from_bytes(key, "little") >> 1))
    while True:
        yield torch.stack([torch.randn(noise.shape[1:], generator=each) for each in generators]).to(noise.device)
