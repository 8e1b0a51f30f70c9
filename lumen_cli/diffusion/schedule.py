"""Noise schedules as small values: the betas of a forward process and what follows from them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

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
        return 1.0 if timestep < 0 else float(_alphas_cumprod(self)[timestep])

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
