"""The rendition: its curves keep black, white and the order of values; what it looks at has any size."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lumen_cli.networks.grading.auto_exposure import BOUND, GRID, THUMBNAIL, bend, measured
from lumen_cli.networks.grading.grading import DISTRUST, GUIDES, Rendition, agreed, look, stops
from lumen_cli.srgb import to_linear, to_srgb


def opinionated(channels: int = 8, heads: int = 2, follow: str = "own") -> Rendition:
    """One whose heads' last layers are no longer zero, so that what they see matters; its judge is decided."""
    torch.manual_seed(0)
    rendition = Rendition(channels, heads)
    for head in rendition.heads:
        torch.nn.init.normal_(head.choice[-1].weight)
    rendition.judge.choice.bias.data[GUIDES.index(follow)] = 50.0
    return rendition.eval().requires_grad_(False)


def test_a_fresh_rendition_is_undecided():
    rendition = Rendition().eval()
    light, thumbnail = look(*torch.rand(2, 2, 3, 20, 30).unbind())
    assert torch.equal(rendition.heads[0](stops(light), thumbnail), torch.zeros(2, 3, 2))
    assert torch.equal(rendition.judge(rendition.development(light)), torch.zeros(2, 3))


def bright_scene() -> torch.Tensor:
    coarse = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(3))
    bright = torch.nn.functional.interpolate(coarse, (96, 96), mode="bilinear", align_corners=True)
    return bright / bright.amax()


def test_the_judge_decides_whom_the_result_follows():
    bright = bright_scene()
    made = bend(bright, torch.full((1, 3, 2), -0.25))
    low = to_srgb(to_linear(bright) / 16)
    off = float((made - bright).abs().mean())
    developed, given, own = (opinionated(follow=guide) for guide in ("developed", "given", "own"))
    assert float((developed(low, made) - bright).abs().mean()) < 0.4 * off
    torch.testing.assert_close(given(bright, made), bright, rtol=0, atol=0.03)
    torch.testing.assert_close(developed(bright, bright), bright, rtol=0, atol=0.06)
    assert float((own(low, made) - developed(low, made)).abs().mean()) > 0.02


def test_an_undecided_judge_mixes_the_curves():
    shares = []
    for follow in GUIDES:
        rendition = opinionated(follow=follow)
        shares.append(rendition.curves(0.1 * bright_scene(), bright_scene()))
    rendition.judge.choice.bias.zero_()
    torch.testing.assert_close(rendition.curves(0.1 * bright_scene(), bright_scene()), torch.stack(shares).mean(dim=0))


def test_curves_stay_within_the_bound():
    rendition = opinionated()
    for head in rendition.heads:
        head.choice[-1].weight.data *= 1e3
    curves = rendition.curves(torch.rand(8, 3, 16, 16), torch.rand(8, 3, 16, 16))
    lengths = curves.abs().sum(dim=2)
    assert float(lengths.max()) <= BOUND + 1e-6
    assert float(lengths.max()) > 0.1


def test_heads_have_to_agree():
    rendition = opinionated(heads=3)
    light, thumbnail = torch.rand(2, 3, GRID, GRID), torch.rand(2, 3, THUMBNAIL, THUMBNAIL)
    each = torch.stack([head(stops(light), thumbnail) for head in rendition.heads])
    assert not torch.allclose(each[0], each[1], atol=1e-3)
    torch.testing.assert_close(rendition.curves_of(light, thumbnail), agreed(each))


def test_what_heads_agree_on_counts_and_what_they_do_not_does_not():
    same = torch.full((3, 1, 3, 2), 0.4)
    torch.testing.assert_close(agreed(same), same[0])
    torch.testing.assert_close(agreed(same[:1]), same[0], msg="a single head has nobody to agree with")
    torn = torch.tensor([-0.4, 0.0, 0.4]).view(3, 1, 1, 1).expand_as(same)
    assert float(agreed(torn).abs().max()) == 0.0
    roughly = same + 0.1 * torch.tensor([-1.0, 0.0, 1.0]).view(3, 1, 1, 1)
    torch.testing.assert_close(agreed(roughly), torch.full_like(same[0], 0.4 * 0.16 / (0.16 + DISTRUST * 0.01)))


def test_a_pictures_curves_do_not_depend_on_its_batch():
    rendition = opinionated()
    low, made = torch.rand(2, 5, 3, 40, 56).unbind()
    together = rendition.curves(low, made)
    alone = torch.cat([rendition.curves(low[i : i + 1], made[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    assert float((together[0] - together[1]).abs().max()) > 1e-4, "other pictures, other curves"


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (64, 64), (97, 131)])
def test_a_picture_of_any_shape_is_looked_at(shape):
    low, made = torch.full((2, 3, *shape), 0.125), torch.full((2, 3, *shape), 0.3)
    light, thumbnail = look(low, made)
    torch.testing.assert_close(light, to_linear(torch.full((2, 3, GRID, GRID), 0.125)))
    assert thumbnail.shape == (2, 3, THUMBNAIL, THUMBNAIL)
    torch.testing.assert_close(thumbnail, torch.full_like(thumbnail, 0.3))
    finished = opinionated()(low, made)
    assert finished.shape == made.shape
    assert bool(torch.isfinite(finished).all())


def test_light_is_counted_in_stops():
    dark = torch.full((1, 3, 4, 4), 0.05)
    light = stops(measured(torch.cat([dark, 2 * dark, 0 * dark]))).flatten()
    assert float(light[0]) == pytest.approx(np.log2(0.05) + 3.0, abs=1e-4)
    assert float(light[1] - light[0]) == pytest.approx(1.0, abs=1e-4)
    assert bool(torch.isfinite(light).all()), "a black picture has some light, too"


@pytest.mark.parametrize("arguments", [(0, 1), (12, 1), (8, 0)])
def test_widths_that_cannot_be_are_refused(arguments):
    with pytest.raises(ValueError, match="channels in eights"):
        Rendition(*arguments)
