"""The schedule's tables that AnlightenDiff's checkpoints carry beside the noise estimator."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lumen_cli.diffusion.schedule import Schedule
from lumen_cli.networks.anlightendiff_unet import UNet

SMALLEST_VARIANCE = 1e-20


def tables(schedule: Schedule) -> dict[str, Tensor]:
    """The fourteen tables, float64 [timesteps] each, in the checkpoint's order."""
    betas = schedule.betas().double()
    alphas = 1.0 - betas
    product = alphas.cumprod(dim=0)
    before = torch.cat([torch.ones(1, dtype=torch.float64), product[:-1]])
    noise, signal = 1.0 - product, product.sqrt()
    variance = betas * (1.0 - before) / noise
    extra = (1.0 - before.sqrt()) * betas - alphas.sqrt() * (1.0 - alphas.sqrt()) * (1.0 - before)
    return {
        "betas": betas,
        "alphas_cumprod": product,
        "alphas_cumprod_prev": before,
        "sqrt_alphas_cumprod": signal,
        "sqrt_one_minus_alphas_cumprod": noise.sqrt(),
        "log_one_minus_alphas_cumprod": noise.log(),
        "sqrt_recip_alphas_cumprod": (1.0 / product).sqrt(),
        "sqrt_recipm1_alphas_cumprod": (1.0 / product - 1.0).sqrt(),
        "posterior_variance": variance,
        "posterior_log_variance_clipped": variance.clamp(min=SMALLEST_VARIANCE).log(),
        "posterior_mean_coef1": betas * before.sqrt() / noise,
        "posterior_mean_coef2": (1.0 - before) * alphas.sqrt() / noise,
        "extra_term_coef1": (1.0 - signal) / noise.sqrt(),
        "extra_term_coef2": extra / noise,
    }


class ScheduleTables(nn.Module):
    """The noise estimator and, for the sake of the names, the tables of the schedule it was trained with.

    Nothing reads the tables: the sampler takes its numbers from the schedule. So they are never loaded either but stay
    those of the network's own schedule, whatever precision or length a file has them in.
    """

    unet: UNet

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        for name, table in tables(schedule).items():
            self.register_buffer(name, table.float())

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        own = {prefix + name: table for name, table in self.named_buffers(recurse=False)}
        super()._load_from_state_dict(state_dict | own, prefix, *args)
