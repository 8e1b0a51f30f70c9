"""Grading: white is found, curves keep black, white and the order of values, and input of any size is accepted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lumen_cli.imaging.colour.convert import to_linear, to_srgb
from lumen_cli.networks.grading import (
    BOUND,
    CERTAINTY,
    DISTRUST,
    EXPERTS,
    GRID,
    REGIONS,
    STATISTICS,
    THUMBNAIL,
    AutoExposure,
    Grading,
    agree,
    bend,
    fit_curves,
    limit,
    mean_stops,
    measure,
    summarise,
)


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
    small, large, none = limit(curves)
    torch.testing.assert_close(small, BOUND * curves[0], rtol=1e-3, atol=0)
    torch.testing.assert_close(large, BOUND * torch.tensor([1.0, -2.0]) / 3.0)
    assert none.tolist() == [0.0, 0.0]


def test_the_curves_towards_a_bent_picture_are_those_it_was_bent_by():
    picture = smooth(3)
    curves = torch.tensor([[0.5, -0.3], [-0.6, 0.2], [0.0, 0.4]]).expand(3, 3, 2)
    torch.testing.assert_close(fit_curves(picture, bend(picture, curves)), curves, rtol=0, atol=0.02)
    flat = torch.full((1, 3, 8, 8), 0.4)
    towards = fit_curves(flat, flat + 0.05)
    assert bool(torch.isfinite(towards).all()), "a picture of one tone does not determine two numbers"
    torch.testing.assert_close(bend(flat, towards), flat + 0.05, rtol=0, atol=0.005)


@pytest.mark.parametrize("stops", [1.0, 3.0, 6.0])
def test_an_untrained_auto_exposure_restores_the_white_of_a_picture(stops):
    bright = smooth(2)
    dark = to_srgb(to_linear(bright) * 2.0**-stops)
    auto_exposure = AutoExposure().requires_grad_(False)
    numbers, thumbnail, exposed = auto_exposure(measure(dark))
    torch.testing.assert_close(thumbnail, torch.nn.functional.adaptive_avg_pool2d(dark, THUMBNAIL), rtol=0, atol=0.02)
    assert numbers.shape == (2, STATISTICS)
    assert exposed.shape == (2, 3, THUMBNAIL, THUMBNAIL)
    seen = torch.nn.functional.adaptive_avg_pool2d(bright, THUMBNAIL)
    assert float((exposed - seen).abs().mean()) < 0.05
    again, *_ = auto_exposure(measure(to_srgb(to_linear(bright) * 2.0 ** -(stops + 1.0))))
    torch.testing.assert_close(numbers[:, :11] - again[:, :11], torch.ones(2, 11), rtol=0, atol=1e-3)
    torch.testing.assert_close(numbers[:, 11:], again[:, 11:], rtol=0, atol=1e-3)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_black_and_white_pictures_are_exposed(value):
    numbers, _, exposed = AutoExposure().requires_grad_(False)(measure(torch.full((1, 3, 5, 7), value)))
    assert bool(torch.isfinite(numbers).all())
    assert float(exposed.min()) >= 0.0
    assert float(exposed.max()) <= 1.0
    assert float(exposed.mean()) == pytest.approx(value, abs=0.05)


def test_exposed_pictures_stay_in_range():
    torch.manual_seed(0)
    auto_exposure = AutoExposure().requires_grad_(False)
    torch.nn.init.normal_(auto_exposure.choice[-1].weight, std=5.0)
    exposed = auto_exposure(measure(smooth(4) * 0.2)).exposed
    assert float(exposed.min()) >= 0.0
    assert float(exposed.max()) <= 1.0


def opinionated(channels: int = 8, heads: int = 2, follow: str = "heads") -> Grading:
    """A grading whose heads' curves depend on the picture, and whose gate follows one expert."""
    torch.manual_seed(0)
    grading = Grading(channels, heads)
    for head in grading.heads:
        torch.nn.init.normal_(head.choice[-1].weight)
    grading.gate.choice.bias.data[EXPERTS.index(follow)] = 50.0
    return grading.eval().requires_grad_(False)


def test_an_untrained_grading_has_no_preference():
    grading = Grading().eval()
    light, thumbnail = summarise(*torch.rand(2, 2, 3, 20, 30).unbind())
    assert torch.equal(grading.heads[0](mean_stops(light), thumbnail), torch.zeros(2, 3, 2))
    assert torch.equal(grading.gate(grading.auto_exposure(light)), torch.zeros(2, 3))


def bright_scene() -> torch.Tensor:
    coarse = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(3))
    bright = torch.nn.functional.interpolate(coarse, (96, 96), mode="bilinear", align_corners=True)
    return bright / bright.amax()


def test_the_gate_decides_which_expert_the_result_follows():
    bright = bright_scene()
    made = bend(bright, torch.full((1, 3, 2), -0.25))
    low = to_srgb(to_linear(bright) / 16)
    off = float((made - bright).abs().mean())
    exposed, same, heads = (opinionated(follow=expert) for expert in ("exposed", "input", "heads"))
    assert float((exposed(low, made) - bright).abs().mean()) < 0.4 * off
    torch.testing.assert_close(same(bright, made), bright, rtol=0, atol=0.03)
    torch.testing.assert_close(exposed(bright, bright), bright, rtol=0, atol=0.06)
    assert float((heads(low, made) - exposed(low, made)).abs().mean()) > 0.02


def test_an_undecided_gate_mixes_the_curves():
    shares = []
    for follow in EXPERTS:
        grading = opinionated(follow=follow)
        shares.append(grading.curves(0.1 * bright_scene(), bright_scene()))
    grading.gate.choice.bias.zero_()
    torch.testing.assert_close(grading.curves(0.1 * bright_scene(), bright_scene()), torch.stack(shares).mean(dim=0))


def test_the_residual_leads_large_regions_to_the_expert_that_the_gate_follows():
    bright = bright_scene()
    low, graded = to_srgb(to_linear(bright) / 16), bright.flip(1) * 0.8
    grading = opinionated(follow="exposed")
    residual = grading.residual(low, graded)
    aim, have = (
        torch.nn.functional.adaptive_avg_pool2d(picture, REGIONS)
        for picture in (grading.auto_exposure(measure(low)).exposed, graded)
    )
    torch.testing.assert_close(have + residual, aim, rtol=0, atol=0.01)
    torch.testing.assert_close(opinionated(follow="heads").residual(low, graded), torch.zeros(1, 3, REGIONS, REGIONS))
    grading.gate.choice.bias.zero_()  # undecided: a share of a third each
    assert float(grading.residual(low, graded).abs().max()) < 2 / 3**CERTAINTY


def test_the_residual_brings_lit_regions_back_to_the_input_but_not_dark_ones():
    low = torch.full((1, 3, 96, 96), 0.5)
    low[..., :48] = 0.02
    residual = opinionated(follow="input").residual(low, low + 0.3)
    assert torch.equal(residual[..., :8], torch.zeros(1, 3, REGIONS, 8))
    torch.testing.assert_close(residual[..., 8:], torch.full((1, 3, REGIONS, 8), -0.3), rtol=0, atol=1e-4)


def test_curves_stay_within_the_bound():
    grading = opinionated()
    for head in grading.heads:
        head.choice[-1].weight.data *= 1e3
    curves = grading.curves(torch.rand(8, 3, 16, 16), torch.rand(8, 3, 16, 16))
    lengths = curves.abs().sum(dim=2)
    assert float(lengths.max()) <= BOUND + 1e-6
    assert float(lengths.max()) > 0.1


def test_the_result_follows_what_the_heads_agree_on():
    grading = opinionated(heads=3)
    light, thumbnail = torch.rand(2, 3, GRID, GRID), torch.rand(2, 3, THUMBNAIL, THUMBNAIL)
    each = torch.stack([head(mean_stops(light), thumbnail) for head in grading.heads])
    assert not torch.allclose(each[0], each[1], atol=1e-3)
    torch.testing.assert_close(grading.curves_of(light, thumbnail), agree(each))


def test_curves_count_as_far_as_the_heads_agree():
    same = torch.full((3, 1, 3, 2), 0.4)
    torch.testing.assert_close(agree(same), same[0])
    torch.testing.assert_close(agree(same[:1]), same[0], msg="a single head needs no agreement")
    torn = torch.tensor([-0.4, 0.0, 0.4]).view(3, 1, 1, 1).expand_as(same)
    assert float(agree(torn).abs().max()) == 0.0
    roughly = same + 0.1 * torch.tensor([-1.0, 0.0, 1.0]).view(3, 1, 1, 1)
    torch.testing.assert_close(agree(roughly), torch.full_like(same[0], 0.4 * 0.16 / (0.16 + DISTRUST * 0.01)))


def test_a_pictures_curves_do_not_depend_on_its_batch():
    grading = opinionated()
    low, made = torch.rand(2, 5, 3, 40, 56).unbind()
    together = grading.curves(low, made)
    alone = torch.cat([grading.curves(low[i : i + 1], made[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    assert float((together[0] - together[1]).abs().max()) > 1e-4, "other pictures, other curves"


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (64, 64), (97, 131)])
def test_a_picture_of_any_shape_is_graded(shape):
    low, made = torch.full((2, 3, *shape), 0.125), torch.full((2, 3, *shape), 0.3)
    light, thumbnail = summarise(low, made)
    torch.testing.assert_close(light, to_linear(torch.full((2, 3, GRID, GRID), 0.125)))
    assert thumbnail.shape == (2, 3, THUMBNAIL, THUMBNAIL)
    torch.testing.assert_close(thumbnail, torch.full_like(thumbnail, 0.3))
    graded = opinionated()(low, made)
    assert graded.shape == made.shape
    assert bool(torch.isfinite(graded).all())


def test_light_is_measured_in_stops():
    dark = torch.full((1, 3, 4, 4), 0.05)
    light = mean_stops(measure(torch.cat([dark, 2 * dark, 0 * dark]))).flatten()
    assert float(light[0]) == pytest.approx(np.log2(0.05) + 3.0, abs=1e-4)
    assert float(light[1] - light[0]) == pytest.approx(1.0, abs=1e-4)
    assert bool(torch.isfinite(light).all()), "a black picture has a finite number of stops"


@pytest.mark.parametrize("arguments", [(0, 1), (12, 1), (8, 0)])
def test_impossible_widths_are_refused(arguments):
    with pytest.raises(ValueError, match="multiple of 8"):
        Grading(*arguments)
