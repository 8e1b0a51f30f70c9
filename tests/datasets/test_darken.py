"""The camera model: physics a photographer would recognise."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
import torch
from PIL import Image

from lumen_cli.datasets.darken import Camera, apply_tone, darken, draw_camera, draw_shade, jpeg, undo_tone
from lumen_cli.imaging.colour.convert import to_linear, to_srgb


def noiseless(count: int, **changes: float) -> Camera:
    """A camera that only exposes."""
    values = {
        "exposure": 0.0,
        "shot": 0.0,
        "read": 0.0,
        "row": 0.0,
        "red": 2.0,
        "blue": 1.6,
        "red_error": 1.0,
        "blue_error": 1.0,
        "black": 0.0,
        "smoothing": 0.0,
        "tone": 0.0,
        "bits": 24.0,
        "quality": 101.0,
        **changes,
    }
    return Camera(**{name: torch.full((count,), float(value)) for name, value in values.items()})


def scene(seed: int = 0, size: int = 64) -> torch.Tensor:
    coarse = torch.rand(1, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic").clamp(0.02, 0.95)


def test_a_camera_without_faults_gives_the_picture_back():
    picture = scene()
    assert (darken(picture, noiseless(1, tone=0.7)) - picture).abs().max() <= 0.51 / 255


@pytest.mark.parametrize("stops", [-1.0, -2.0, -3.0])
def test_one_stop_less_is_half_the_light(stops):
    picture = torch.full((1, 3, 16, 16), 0.8)
    light = to_linear(darken(picture, noiseless(1, exposure=stops)))
    torch.testing.assert_close(light, to_linear(picture) * 2.0**stops, rtol=0.03, atol=0)


def test_lit_places_stay_lit_under_a_shade():
    picture, camera = scene(), noiseless(1, exposure=-3.0)
    shade = torch.zeros(1, 1, 64, 64)
    shade[..., 32:] = 1.0
    dark = darken(picture, camera, shade=shade)
    assert (dark[..., :32] - picture[..., :32]).abs().max() <= 0.51 / 255
    assert torch.equal(dark[..., 32:], darken(picture, camera)[..., 32:])


def test_drawn_shades_are_smooth_and_reach_from_light_to_dark():
    shades = draw_shade(64, 96, torch.Generator().manual_seed(0))
    assert shades.shape == (64, 1, 96, 96)
    assert float(shades.min()) < 0.05
    assert float(shades.max()) > 0.95
    assert float((shades.diff(dim=-1).abs() > 0.2).float().mean()) < 0.01, "edges where no shadow would have one"
    mostly = (shades.amax((1, 2, 3)) - shades.amin((1, 2, 3)) > 0.5).float().mean()
    assert mostly > 0.6, "most of them are uneven"


def test_shot_noise_grows_with_the_root_of_the_light():
    def spread(level: float) -> float:
        picture = torch.full((1, 3, 128, 128), level)
        dark = darken(picture, noiseless(1, shot=1e-3), torch.Generator().manual_seed(0))
        return float(to_linear(dark)[:, 1].std())

    bright, dim = spread(0.7), spread(0.35)
    expected = (to_linear(torch.tensor(0.7)) / to_linear(torch.tensor(0.35))).sqrt()
    assert abs(bright / dim - float(expected)) < 0.15 * float(expected)


def test_row_noise_is_shared_along_rows():
    picture = torch.full((1, 3, 64, 64), 0.5)
    dark = darken(picture, noiseless(1, row=0.02), torch.Generator().manual_seed(0))[0, 1]
    assert dark.mean(dim=1).std() > 5 * dark.std(dim=1).mean()


def test_a_missed_white_balance_tints_the_picture():
    grey = torch.full((1, 3, 8, 8), 0.5)
    dark = darken(grey, noiseless(1, red_error=1.1, blue_error=0.9))[0].mean((1, 2))
    assert dark[0] > dark[1] > dark[2]


def test_drawn_cameras_darken_and_repeat():
    def shot(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return darken(scene().expand(6, -1, -1, -1), draw_camera(6, generator), generator)

    dark = shot(3)
    assert torch.all(dark.mean((1, 2, 3)) < scene().mean() * 0.85)
    assert torch.equal(dark, shot(3))
    assert not torch.equal(dark, shot(4))
    assert dark.min() >= 0
    assert dark.max() <= 1
    torch.testing.assert_close(dark * 255, (dark * 255).round(), rtol=0, atol=1e-3)


def test_exposure_is_drawn_from_the_range_asked_for():
    camera = draw_camera(200, torch.Generator().manual_seed(0), exposure=(-4.0, -2.0))
    assert camera.exposure.min() >= -4
    assert camera.exposure.max() <= -2
    assert all(getattr(camera, field.name).shape == (200,) for field in dataclasses.fields(camera))


def test_curves_are_inverted():
    values = torch.linspace(0, 1, 256).view(1, 1, 16, 16).repeat(3, 1, 1, 1)
    strength = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1)
    torch.testing.assert_close(undo_tone(apply_tone(values, strength), strength), values, rtol=0, atol=1e-4)
    torch.testing.assert_close(to_srgb(to_linear(values)), values, rtol=0, atol=1e-6)


@pytest.mark.parametrize("quality", [60, 80, 95])
def test_jpeg_comes_close_to_what_a_jpeg_library_does(quality):
    picture = (scene(1, 72) * 255).round()
    picture += torch.randn(picture.shape, generator=torch.Generator().manual_seed(0)) * 6
    picture = picture.round().clamp(0, 255) / 255
    array = (picture[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(array).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    library = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)[None].float() / 255
    ours = jpeg(picture, torch.tensor([float(quality)]))
    lost = (library - picture).square().mean().sqrt()
    assert (ours - library).square().mean().sqrt() < 0.5 * lost
    assert 0.8 < (ours - picture).square().mean().sqrt() / lost < 1.25


def test_quality_above_100_means_no_compression():
    picture = scene(2, 33).repeat(2, 1, 1, 1)
    result = jpeg(picture, torch.tensor([101.0, 50.0]))
    assert torch.equal(result[0], picture[0])
    assert not torch.equal(result[1], picture[1])
