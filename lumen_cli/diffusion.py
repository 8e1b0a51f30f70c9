"""Noise schedules, one sampling loop, and noise that is the same for every batch, order, worker and device.

A schedule is a small value, the betas of a forward process and what follows from them; so is a `Sampler`.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

import torch
from torch import Tensor


class Schedule(ABC):
    """The forward process x_t = sqrt(ᾱ_t) x_0 + sqrt(1 - ᾱ_t) ε, t = 0 … timesteps - 1 (DDPM, equation 4)."""

    timesteps: int

    fewest_steps: ClassVar[int] = 1
    """With fewer steps, a sampler would not start from noise."""

    @abstractmethod
    def betas(self) -> Tensor:
        """β_t, shape [timesteps]."""

    @abstractmethod
    def alphas_cumprod(self) -> Tensor:
        """ᾱ_t, the product of 1 - β up to t, shape [timesteps]; ᾱ(-1) = 1 by convention."""

    @abstractmethod
    def respaced(self, steps: int) -> list[int]:
        """The timesteps that a sampler of `steps` steps visits, from noisy to clean.

        Raises ValueError unless 1 ≤ steps ≤ timesteps.
        """

    def alpha_bar(self, timestep: int) -> float:
        """ᾱ_t as a Python number; `timestep` -1 is the clean end of the chain (ᾱ = 1).

        >>> schedule = LinearSchedule()
        >>> [round(schedule.alpha_bar(timestep), 4) for timestep in (-1, 0, 999)]
        [1.0, 0.9999, 0.0]
        """
        return 1.0 if timestep < 0 else _alpha_bars(self)[timestep]

    def diffuse(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t = sqrt(ᾱ_t) x_0 + sqrt(1 - ᾱ_t) ε (DDPM, equation 4).

        `clean`, `noise`: B×…; `timesteps`: integer tensor of shape [B].
        """
        signal, spread = self.coefficients(timesteps, clean)
        return signal * clean + spread * noise

    def coefficients(self, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """(sqrt(ᾱ_t), sqrt(1 - ᾱ_t)), float32, each shaped [B, 1, …] to multiply `like` (B×…)."""
        alpha_bar, shape = _alphas_cumprod(self), (-1,) + (1,) * (like.dim() - 1)
        signal, spread = (table.float().to(like.device) for table in (alpha_bar.sqrt(), (1.0 - alpha_bar).sqrt()))
        return signal[timesteps].view(shape), spread[timesteps].view(shape)

    def _check(self, steps: int) -> None:
        if not 1 <= steps <= self.timesteps:
            raise ValueError(f"steps must lie in 1 … {self.timesteps}, not {steps}")


@dataclass(frozen=True)
class LinearSchedule(Schedule):
    """Linearly spaced betas (Ho et al., "Denoising Diffusion Probabilistic Models", section 4).

    The betas are spaced in float64 and rounded to float32; ᾱ is the float32 cumulative product
    of 1 - β, as in the papers' code.
    """

    # A single step would only visit timestep 0 and treat the starting noise as a picture.
    fewest_steps = 2

    beta_start: float = 1e-4
    beta_end: float = 0.02
    timesteps: int = 1000

    def betas(self) -> Tensor:
        """β_t, float32, shape [timesteps]."""
        return torch.linspace(self.beta_start, self.beta_end, self.timesteps, dtype=torch.float64).float()

    def alphas_cumprod(self) -> Tensor:
        """ᾱ_t, float32, shape [timesteps]."""
        return _alphas_cumprod(self).clone()

    def respaced(self, steps: int) -> list[int]:
        """0, skip, 2·skip … reversed, skip = timesteps // steps.

        Their count differs from `steps` where it does not divide `timesteps`, as in the papers' code.

        >>> LinearSchedule().respaced(4)
        [750, 500, 250, 0]
        """
        self._check(steps)
        return list(range(0, self.timesteps, self.timesteps // steps))[::-1]


@dataclass(frozen=True)
class CosineSchedule(Schedule):
    """ᾱ_t by a squared cosine (Nichol & Dhariwal, "Improved Denoising Diffusion", equation 17), in float64.

    offset: s of the paper; largest_beta: bound on β, which leaves sqrt(ᾱ) = 5e-4 at the last of 100 timesteps.
    """

    timesteps: int = 100
    offset: float = 0.008
    largest_beta: float = 0.999

    def betas(self) -> Tensor:
        """β_t, float64, shape [timesteps]."""
        places = torch.arange(self.timesteps + 1, dtype=torch.float64) / self.timesteps
        product = torch.cos((places + self.offset) / (1.0 + self.offset) * math.pi / 2.0) ** 2
        return (1.0 - product[1:] / product[:-1]).clamp(0.0, self.largest_beta)

    def alphas_cumprod(self) -> Tensor:
        """ᾱ_t, float64, shape [timesteps]."""
        return _alphas_cumprod(self).clone()

    def respaced(self, steps: int) -> list[int]:
        """Evenly spaced from the last timestep down, where a chain without starting noise must start.

        (Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed", section 3.3: trailing.)

        >>> CosineSchedule().respaced(4)
        [99, 74, 49, 24]
        """
        self._check(steps)
        return [-(-self.timesteps * (k + 1) // steps) - 1 for k in reversed(range(steps))]


def antithetic_timesteps(count: int, total: int, generator: torch.Generator | None = None) -> Tensor:
    """`count` timesteps in pairs t, total - 1 - t, so that every batch covers early and late ones.

    Integer [count], on the generator's device.
    """
    device = generator.device if generator is not None else None
    half = torch.randint(0, total, (count // 2 + 1,), generator=generator, device=device)
    return torch.cat([half, total - 1 - half])[:count]


@lru_cache(maxsize=16)
def _alphas_cumprod(schedule: Schedule) -> Tensor:
    # A leaf tensor outside inference mode, so that training may use what an evaluation cached.
    with torch.inference_mode(False):
        return (1.0 - schedule.betas()).cumprod(dim=0)


@lru_cache(maxsize=16)
def _alpha_bars(schedule: Schedule) -> list[float]:
    return _alphas_cumprod(schedule).tolist()


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

    >>> from lumen_cli.diffusion import LinearSchedule
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
