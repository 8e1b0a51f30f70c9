from __future__ import annotations

import torch

from lumen_cli.networks import fade, faded, gain_to, tone_map


def test_a_dark_picture_is_brought_to_its_exposure_and_a_bright_one_left_alone():
    tones = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.1, 1.0, 0.0]).view(
        3, 1, 1, 1
    )
    gain = gain_to(tones, 0.4)
    torch.testing.assert_close(gain[0], 0.4 / tones[0].mean().view(1, 1, 1))
    assert gain[1:].flatten().tolist() == [1.0, 16.0], "bright as it is; black: no more than the largest gain"
    torch.testing.assert_close(tone_map(tones, gain)[1], tones[1])


def test_the_tone_curve_keeps_black_white_and_the_order_of_tones():
    tones = torch.linspace(0, 1, 48).view(1, 3, 4, 4)
    for gain in (1.0, 4.0, 16.0):
        mapped = tone_map(tones, torch.full((1, 1, 1, 1), gain)).flatten()
        assert mapped[0] == 0
        torch.testing.assert_close(mapped[-1], torch.tensor(1.0))
        assert bool((mapped.diff() > 0).all())
        assert bool((mapped >= tones.flatten() - 1e-6).all())


def test_corrections_fade_between_their_bound_and_white_by_the_brightest_channel():
    grey = torch.tensor([0.0, 0.6, 0.7, 0.9, 1.0]).view(1, 1, 1, 5).expand(1, 3, 1, 5)
    torch.testing.assert_close(fade(grey, 0.6).flatten(), torch.tensor([1.0, 1.0, 0.75, 0.25, 0.0]))
    red = grey * torch.tensor([1.0, 0.1, 0.0]).view(1, 3, 1, 1)
    torch.testing.assert_close(fade(red, 0.6), fade(grey, 0.6))


def test_colour_fades_by_itself_and_with_all_the_rest():
    brightened = torch.tensor([0.0, 0.5, 0.8, 1.0]).view(1, 1, 1, 4).expand(1, 3, 1, 4)
    correction = torch.tensor([0.3, 0.0, -0.1]).view(1, 3, 1, 1).expand_as(brightened)
    assert faded(correction, brightened, None, None) is correction
    colour = faded(correction, brightened, None, 0.5)
    torch.testing.assert_close(
        colour.mean(dim=1), correction.mean(dim=1), msg="its brightness is corrected all the same"
    )
    torch.testing.assert_close(colour[0, :, 0, 1], correction[0, :, 0, 1], msg="up to the bound all")
    grey = correction.mean(dim=1, keepdim=True)
    torch.testing.assert_close(colour - grey, fade(brightened, 0.5) * (correction - grey))
    torch.testing.assert_close(faded(correction, brightened, 0.6, 0.5), fade(brightened, 0.6) * colour)
