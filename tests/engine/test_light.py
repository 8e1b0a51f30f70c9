"""Whether there is anything to brighten, and how much light a picture ends with."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from lumen_cli.engine.light import brightening_share, mean_light, relight, structure
from lumen_cli.imaging.colour.convert import to_srgb
from tests.conftest import dark_pixels

SIZE = (240, 320)
FACTORS = (0.1, 0.2, 0.5, 0.8, 1.0, 1.2, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0)


def tensor(pixels: np.ndarray) -> Tensor:
    """H×W×3, 0 to 255 → 1×3×H×W in [0, 1], as an 8-bit file holds it."""
    return torch.from_numpy(np.rint(pixels.clip(0, 255)).astype(np.float32) / 255).permute(2, 0, 1)[None]


def one_colour(*colour: float, noise: float = 0.0) -> Tensor:
    generator = np.random.default_rng(1)
    return tensor(np.array(colour) + generator.normal(0, noise, (*SIZE, 3)))


def lens_cap(black: float, noise: float, hot: int = 40) -> Tensor:
    generator = np.random.default_rng(2)
    pixels = generator.normal(black, noise, (*SIZE, 3))
    pixels[generator.integers(0, SIZE[0], hot), generator.integers(0, SIZE[1], hot)] = generator.uniform(
        60, 255, (hot, 3)
    )
    return tensor(pixels)


def text(paper: int, ink: int, size: int, bar: tuple[int, int, int] | None = None) -> Tensor:
    image = Image.new("RGB", (640, 480), (paper,) * 3)
    draw = ImageDraw.Draw(image)
    for top in range(20, 440, int(1.6 * size)):
        draw.text((20, top), "the model brightens dark photographs " * 3, (ink,) * 3, ImageFont.load_default(size))
    if bar is not None:
        draw.rectangle((0, 0, 640, 50), bar)
    return tensor(np.asarray(image, np.float64))


def scene(mean: float, seed: int = 0, noise: float = 0.0) -> Tensor:
    """A scene with detail at every scale, as photographs have it, of a mean linear light."""
    generator = np.random.default_rng(seed)
    light = np.zeros((*SIZE, 3))
    for octave in range(1, 7):
        coarse = generator.normal(0, 1, (2**octave, 2**octave, 3)).astype(np.float32)
        layers = [
            Image.fromarray(coarse[..., channel]).resize(SIZE[::-1], Image.Resampling.BICUBIC) for channel in range(3)
        ]
        light += np.stack([np.asarray(layer) for layer in layers], axis=-1) / octave
    light = np.exp(0.7 * light)
    light = (light * mean / light.mean() + generator.normal(0, noise, light.shape)).clip(0, 1)
    return tensor(255 * to_srgb(torch.from_numpy(light)).numpy())


def model(low: Tensor, gain: float = 8.0) -> Tensor:
    """What a network might make of a picture: brighter, with a colour cast, and a neon colour in place of black."""
    return (gain * low / (1 + (gain - 1) * low) + torch.tensor([0.02, 0.0, 0.06]).view(1, 3, 1, 1)).clamp(0, 1)


@pytest.mark.parametrize(
    "picture",
    [
        one_colour(9, 12, 20),
        one_colour(0, 0, 0),
        one_colour(128, 128, 128),
        one_colour(9, 12, 20, noise=2),
        one_colour(90, 60, 30, noise=4),
        lens_cap(1, 1),
        lens_cap(4, 4),
        lens_cap(12, 10),
        text(255, 0, 14),
        text(240, 60, 22),
        text(205, 20, 14),
        text(255, 20, 18, bar=(30, 45, 90)),
        one_colour(9, 12, 20)[..., :5, :7],
        one_colour(9, 12, 20)[..., :1, :1],
    ],
)
def test_a_picture_with_nothing_to_brighten_stays_as_it_is(picture: Tensor) -> None:
    assert brightening_share(picture) == 0.0
    assert torch.equal(relight(picture, model(picture)), picture)


@pytest.mark.parametrize("mean", [0.0015, 0.003, 0.01, 0.05, 0.15])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_dark_scene_is_the_models_alone_bit_for_bit(mean: float, seed: int) -> None:
    low = scene(mean, seed, noise=0.3 * mean)
    assert torch.equal(relight(low, model(low)), model(low))


def test_a_dark_foreground_before_a_bright_sky_is_brightened() -> None:
    low = scene(0.01)
    low[..., : SIZE[0] // 2, :] = 0.95
    assert brightening_share(low) == 1.0


def test_small_dark_pictures_are_brightened() -> None:
    for height, width in ((24, 32), (8, 8), (100, 30)):
        assert brightening_share(tensor(dark_pixels(height, width).astype(float))) == 1.0


def test_the_decision_is_smooth_and_rises_with_the_structure() -> None:
    ramp = np.linspace(-1, 1, SIZE[1])[None, :, None] * np.ones((*SIZE, 3))
    shares = [
        brightening_share(torch.from_numpy(0.05 + k * ramp / 255).float().permute(2, 0, 1)[None])
        for k in np.linspace(1, 2.5, 31)
    ]
    assert shares[0] == 0.0
    assert shares[-1] == 1.0
    steps = np.diff(shares)
    assert (steps >= 0).all()
    assert steps.max() < 0.12


def test_noise_is_no_structure() -> None:
    low = scene(0.01)
    noisy = low + 0.05 * torch.randn(low.shape, generator=torch.Generator().manual_seed(0))
    assert structure(noisy) == pytest.approx(structure(low), rel=0.03)
    assert structure(lens_cap(12, 10)) < 0.5 / 255


@pytest.mark.parametrize("size", [(64, 96), (65, 97), (128, 64)])
def test_the_layout_of_a_picture_changes_nothing(size: tuple[int, int]) -> None:
    rows = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    pixels = rows.contiguous(memory_format=torch.channels_last)
    assert structure(rows) == structure(pixels)
    assert torch.equal(relight(rows, model(rows), 2.0), relight(pixels, model(pixels), 2.0))


@pytest.mark.parametrize("mean", [0.002, 0.01, 0.05, 0.2, 0.35, 0.6])
@pytest.mark.parametrize("gain", [1.0, 1.2, 3.0, 12.0])
def test_brightness_is_a_multiple_of_the_pictures_own_light(mean: float, gain: float) -> None:
    low = scene(mean)
    given = mean_light(low)
    lights = [mean_light(relight(low, model(low, gain), factor)) for factor in FACTORS]
    assert all(later > earlier for earlier, later in pairwise(lights))
    for factor, light in zip(FACTORS, lights, strict=True):
        if factor * given <= 0.6:
            assert light == pytest.approx(factor * given, rel=0.01)
        assert light <= 1.0


def test_a_brightness_of_one_is_the_picture_itself() -> None:
    for low in (scene(0.01), scene(0.4), one_colour(0, 0, 0), one_colour(255, 255, 255)):
        assert torch.equal(relight(low, model(low), 1.0), low)


def test_the_models_own_brightness_is_the_models_result() -> None:
    low = scene(0.01)
    ratio = mean_light(model(low)) / mean_light(low)
    assert torch.allclose(relight(low, model(low), ratio), model(low), atol=1e-5)


def test_what_has_nothing_to_brighten_takes_a_brightness_all_the_same() -> None:
    low = one_colour(90, 60, 30)
    twice = relight(low, model(low), 2.0)
    assert mean_light(twice) == pytest.approx(2 * mean_light(low), rel=1e-4)
    assert float(twice.std(dim=(2, 3)).max()) < 1e-6, "one colour stays one colour"
    black = one_colour(0, 0, 0)
    assert torch.equal(relight(black, model(black), 10.0), black)


def test_values_keep_their_order_and_stay_below_white() -> None:
    low = torch.linspace(0, 1, 256).view(1, 1, 16, 16).repeat(1, 3, 1, 1)
    for factor in FACTORS:
        result = relight(low, low, factor)
        assert float(result.max()) <= 1.0
        assert (result.flatten(2).diff() >= 0).all()
