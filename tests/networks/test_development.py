"""The development: white is found, curves keep black, white and the order of values, and are fitted exactly."""

from __future__ import annotations

import pytest
import torch

from lumen_cli.networks.grading.auto_exposure import (
    BOUND,
    GRID,
    NUMBERS,
    THUMBNAIL,
    Development,
    bend,
    bounded,
    curves_towards,
    measured,
)
from lumen_cli.srgb import to_linear, to_srgb


def smooth(count: int, seed: int = 0, side: int = GRID) -> torch.Tensor:
    """Pictures of soft colours that reach from near black to white, count×3×side×side."""
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    pictures = torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear", align_corners=True)
    return pictures / pictures.amax(dim=(1, 2, 3), keepdim=True)


@pytest.mark.parametrize("curve", [(BOUND, 0.0), (-BOUND, 0.0), (0.0, BOUND), (0.0, -BOUND), (0.5, -0.45)])
def test_a_curve_keeps_black_white_and_the_order_of_values(curve):
    ramp = torch.linspace(0.0, 1.0, 1001).view(1, 1, 1, -1).expand(1, 3, 1, -1)
    bent = bend(ramp, torch.tensor(curve).expand(1, 3, 2))
    assert torch.equal(bent[..., 0], torch.zeros(1, 3, 1))
    assert torch.equal(bent[..., -1], torch.ones(1, 3, 1))
    assert float(bent.diff(dim=3).min()) > 0.0
    assert float((bent - ramp).abs().max()) > 0.05


def test_channels_are_bent_apart():
    picture = torch.full((1, 3, 2, 2), 0.5)
    curves = torch.tensor([[[0.5, 0.0], [0.0, 0.0], [-0.5, 0.0]]])
    assert bend(picture, curves)[0, :, 0, 0].tolist() == pytest.approx([0.625, 0.5, 0.375])


def test_values_out_of_range_are_clamped_first():
    picture = torch.tensor([-0.5, 1.5]).view(1, 1, 1, 2).expand(1, 3, 1, 2)
    assert bend(picture, torch.full((1, 3, 2), 0.4))[0, 0, 0].tolist() == [0.0, 1.0]


def test_small_curves_hardly_change_and_large_ones_end_at_the_bound():
    curves = torch.tensor([[0.01, -0.02], [30.0, -60.0], [0.0, 0.0]])
    small, large, none = bounded(curves)
    torch.testing.assert_close(small, BOUND * curves[0], rtol=1e-3, atol=0)
    torch.testing.assert_close(large, BOUND * torch.tensor([1.0, -2.0]) / 3.0)
    assert none.tolist() == [0.0, 0.0]


def test_the_curves_towards_a_bent_picture_are_those_it_was_bent_by():
    picture = smooth(3)
    curves = torch.tensor([[0.5, -0.3], [-0.6, 0.2], [0.0, 0.4]]).expand(3, 3, 2)
    torch.testing.assert_close(curves_towards(picture, bend(picture, curves)), curves, rtol=0, atol=0.02)
    flat = torch.full((1, 3, 8, 8), 0.4)
    towards = curves_towards(flat, flat + 0.05)
    assert bool(torch.isfinite(towards).all()), "one tone alone is no equation for two numbers"
    torch.testing.assert_close(bend(flat, towards), flat + 0.05, rtol=0, atol=0.005)


@pytest.mark.parametrize("stops", [1.0, 3.0, 6.0])
def test_a_fresh_development_takes_a_picture_back_to_its_white(stops):
    bright = smooth(2)
    dark = to_srgb(to_linear(bright) * 2.0**-stops)
    development = Development().requires_grad_(False)
    numbers, given, developed = development(measured(dark))
    torch.testing.assert_close(given, torch.nn.functional.adaptive_avg_pool2d(dark, THUMBNAIL), rtol=0, atol=0.02)
    assert numbers.shape == (2, NUMBERS)
    assert developed.shape == (2, 3, THUMBNAIL, THUMBNAIL)
    seen = torch.nn.functional.adaptive_avg_pool2d(bright, THUMBNAIL)
    assert float((developed - seen).abs().mean()) < 0.05
    again, *_ = development(measured(to_srgb(to_linear(bright) * 2.0 ** -(stops + 1.0))))
    torch.testing.assert_close(numbers[:, :11] - again[:, :11], torch.ones(2, 11), rtol=0, atol=1e-3)
    torch.testing.assert_close(numbers[:, 11:], again[:, 11:], rtol=0, atol=1e-3)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_black_and_white_pictures_are_developed(value):
    numbers, _, developed = Development().requires_grad_(False)(measured(torch.full((1, 3, 5, 7), value)))
    assert bool(torch.isfinite(numbers).all())
    assert float(developed.min()) >= 0.0
    assert float(developed.max()) <= 1.0
    assert float(developed.mean()) == pytest.approx(value, abs=0.05)


def test_what_is_chosen_stays_in_range():
    torch.manual_seed(0)
    development = Development().requires_grad_(False)
    torch.nn.init.normal_(development.choice[-1].weight, std=5.0)
    developed = development(measured(smooth(4) * 0.2)).picture
    assert float(developed.min()) >= 0.0
    assert float(developed.max()) <= 1.0
