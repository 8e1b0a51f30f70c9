from __future__ import annotations

import torch

from lumen_cli.metrics import psnr, ssim
from lumen_cli.training.recipes import fidelity, smoothness, structure


def picture(seed: int) -> torch.Tensor:
    coarse = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=(64, 64), mode="bilinear")


def test_equal_pictures_cost_nothing_and_noise_costs_more_the_more_there_is():
    clean = picture(0)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    assert structure(clean, clean).abs() < 1e-5
    assert fidelity(clean, clean).abs() < 1e-5
    assert structure(clean + 0.02 * noise, clean) < structure(clean + 0.1 * noise, clean)


def test_structure_comes_close_to_the_metric():
    clean = picture(0)
    noisy = clean + 0.05 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    assert abs(float(1 - structure(noisy, clean)) - ssim(noisy, clean)) < 0.12


def test_a_step_in_the_illumination_is_free_only_where_the_guide_has_one():
    step = torch.zeros(1, 1, 16, 16)
    step[..., 8:] = 1.0
    flat = torch.zeros(1, 3, 16, 16)
    assert smoothness(step, step.expand(-1, 3, -1, -1)) < 0.01 * smoothness(step, flat)
    assert smoothness(flat[:, :1], step.expand(-1, 3, -1, -1)) == 0


def test_psnr_is_that_of_the_textbook():
    assert abs(psnr(torch.full((1, 3, 8, 8), 0.5), torch.full((1, 3, 8, 8), 0.6)) - 20.0) < 1e-4
