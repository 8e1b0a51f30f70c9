"""Noise schedules as small values: the betas of a forward process and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor


@dataclass(frozen=True)
class LinearSchedule:
    """Linearly spaced betas (Ho et al., "Denoising Diffusion Probabilistic Models", section 4).

    The betas are spaced in float64 and rounded to float32; ᾱ is the float32 cumulative product
    of 1 - β, as in the papers' code.
    """

    beta_start: float = 1e-4
    beta_end: float = 0.02
    timesteps: int = 1000

    def betas(self) -> Tensor:
        """Float32 tensor of shape [timesteps]."""
        return torch.linspace(self.beta_start, self.beta_end, self.timesteps, dtype=torch.float64).float()

    def alphas_cumprod(self) -> Tensor:
        """ᾱ_t for t = 0 … timesteps - 1, float32, shape [timesteps]; ᾱ(-1) = 1 by convention."""
        return _alphas_cumprod(self).clone()

    def alpha_bar(self, timestep: int) -> float:
        """ᾱ_t as a Python number; `timestep` -1 is the clean end of the chain (ᾱ = 1)."""
        return 1.0 if timestep < 0 else float(_alphas_cumprod(self)[timestep])

    def diffuse(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t = sqrt(ᾱ_t) x_0 + sqrt(1 - ᾱ_t) ε (DDPM, equation 4).

        `clean`, `noise`: B×…; `timesteps`: integer tensor of shape [B].
        """
        signal, spread = self.coefficients(timesteps, clean)
        return signal * clean + spread * noise

    def coefficients(self, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """(sqrt(ᾱ_t), sqrt(1 - ᾱ_t)), each shaped [B, 1, …] to multiply `like` (B×…)."""
        alpha_bar = _alphas_cumprod(self).to(like.device)[timesteps]
        shape = (-1,) + (1,) * (like.dim() - 1)
        return alpha_bar.sqrt().view(shape), (1.0 - alpha_bar).sqrt().view(shape)

    def respaced(self, steps: int) -> list[int]:
        """The timesteps a sampler of `steps` steps visits, from noisy to clean: 0, skip, 2·skip … reversed.

        skip = timesteps // steps, so that the count differs from `steps` where it does not divide
        `timesteps` (as in the papers' code). Raises ValueError unless 1 ≤ steps ≤ timesteps.
        """
        if not 1 <= steps <= self.timesteps:
            raise ValueError(f"steps must lie in 1 … {self.timesteps}, not {steps}")
        return list(range(0, self.timesteps, self.timesteps // steps))[::-1]


def antithetic_timesteps(count: int, total: int, generator: torch.Generator | None = None) -> Tensor:
    """`count` timesteps in pairs t, total - 1 - t, so that every batch covers early and late ones.

    Integer [count], on the generator's device.
    """
    device = generator.device if generator is not None else None
    half = torch.randint(0, total, (count // 2 + 1,), generator=generator, device=device)
    return torch.cat([half, total - 1 - half])[:count]


@lru_cache(maxsize=16)
def _alphas_cumprod(schedule: LinearSchedule) -> Tensor:
    # A leaf tensor outside inference mode, so that training may use what an evaluation cached.
    with torch.inference_mode(False):
        return (1.0 - schedule.betas()).cumprod(dim=0)
