"""The rendition: its curves keep black, white and the order of values; what it looks at has any size."""

from __future__ import annotations

import pytest
import torch

from lumen_cli.networks.rendition import BOUND, DISTRUST, THUMBNAIL, Rendition, agreed, bend, look


def opinionated(channels: int = 4, heads: int = 2) -> Rendition:
    """One whose last layers are no longer zero, so that what it sees matters."""
    torch.manual_seed(0)
    rendition = Rendition(channels, heads)
    for head in rendition.heads:
        torch.nn.init.normal_(head.choice[-1].weight)
    return rendition.eval().requires_grad_(False)


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


def test_a_fresh_rendition_changes_nothing():
    low, made = torch.rand(2, 2, 3, 20, 30).unbind()
    assert torch.equal(Rendition().eval()(low, made), made)


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
    light, thumbnail = torch.randn(2, 1), torch.rand(2, 3, THUMBNAIL, THUMBNAIL)
    each = torch.stack([head(light, thumbnail) for head in rendition.heads])
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
    assert light.shape == (2, 1)
    assert light.flatten().tolist() == pytest.approx([0.0, 0.0], abs=1e-5)
    assert thumbnail.shape == (2, 3, THUMBNAIL, THUMBNAIL)
    torch.testing.assert_close(thumbnail, torch.full_like(thumbnail, 0.3))
    finished = opinionated()(low, made)
    assert finished.shape == made.shape
    assert bool(torch.isfinite(finished).all())


def test_light_is_counted_in_stops():
    dark = torch.full((1, 3, 4, 4), 0.05)
    low = torch.cat([dark, 2 * dark, 0 * dark])
    light = look(low, low)[0].flatten()
    assert float(light[1] - light[0]) == pytest.approx(1.0, abs=1e-5)
    assert bool(torch.isfinite(light).all()), "a black picture has some light, too"


@pytest.mark.parametrize("arguments", [(0, 1), (6, 1), (8, 0)])
def test_widths_that_cannot_be_are_refused(arguments):
    with pytest.raises(ValueError, match="channels in fours"):
        Rendition(*arguments)
