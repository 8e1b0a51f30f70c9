"""Large pictures: reduced for the network, its result carried to full size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lumen_cli.engine import scene as scenes
from lumen_cli.engine.colour_maps import Grid, Tone, fit_maps
from lumen_cli.engine.refine import survey_of
from lumen_cli.engine.scene import DEFAULTS, Floats, Settings, finish, reduce_by_area, scene_of, scene_size
from lumen_cli.imaging.colour.convert import convert_depth
from lumen_cli.imaging.picture import Picture


def picture(values: NDArray[Any], depth: int | None = None) -> Picture:
    return Picture(values, None, depth or 8 * values.dtype.itemsize, False, "png", None, None)


def landscape(height: int = 700, width: int = 1000, *, noise: float = 0.0, light: float = 0.2) -> Floats:
    """A dark picture with a gradient, hard edges, fine lines and colours, and noise where asked for."""
    generator = np.random.default_rng(4)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / np.float32([[[height]], [[width]]])
    pixels = np.stack([0.3 + 0.6 * x, 0.2 + 0.7 * y, 0.9 - 0.5 * x], axis=2)
    pixels[height // 3 : height // 2, width // 4 : width // 2] *= 0.3
    pixels[:, width // 2 :: 16] *= 0.5
    pixels = light * pixels + noise * generator.normal(size=pixels.shape)
    return np.clip(pixels, 0, 1).astype(np.float32)


def brightened(pixels: Floats) -> Floats:
    """What a network might do: a tone curve and a change of colours."""
    return np.clip(Tone(4.0)(pixels) * np.float32([1.0, 0.95, 0.9]), 0, 1)


def psnr(one: Floats, other: Floats) -> float:
    return float(-10 * np.log10(np.mean((one - other) ** 2, dtype=np.float64)))


def test_pictures_up_to_the_limit_are_seen_whole() -> None:
    assert scene_size(400, 600) == (400, 600)
    assert scene_size(512, 768) == (512, 768)
    assert scene_of(picture(landscape(400, 600))).whole
    assert scene_of(picture(landscape(700, 1000)), "whole").whole


@pytest.mark.parametrize(("height", "width"), [(3000, 4000), (4000, 6000), (8660, 11547), (700, 700)])
def test_large_pictures_are_seen_at_a_quarter_of_a_megapixel_in_their_own_shape(height: int, width: int) -> None:
    rows, columns = scene_size(height, width)
    assert 0.9 * DEFAULTS.scene_pixels < rows * columns < 1.1 * DEFAULTS.scene_pixels
    assert abs(columns / rows - width / height) < 0.02 * width / height


@pytest.mark.parametrize(("height", "width"), [(60, 20000), (20000, 60), (1, 65000), (65000, 1), (3, 400_000)])
def test_narrow_pictures_cost_no_more_than_others(height: int, width: int) -> None:
    rows, columns = scene_size(height, width)
    assert 1 <= rows <= height
    assert 1 <= columns <= width
    assert max(rows, 64) * max(columns, 64) <= 1.1 * DEFAULTS.whole_pixels


def test_reducing_takes_the_mean_of_areas_without_rounding_to_8_bits() -> None:
    dark = np.random.default_rng(1).integers(0, 3, (600, 900, 3), dtype=np.uint8)
    small = reduce_by_area(picture(dark), 200, 300)
    expected = dark.reshape(200, 3, 300, 3, 3).astype(np.float64).mean(axis=(1, 3)) / 255
    assert np.abs(small - expected).max() < 1e-6


def test_what_the_network_leaves_alone_stays_as_it_is() -> None:
    values = convert_depth(landscape(noise=0.01), 8)
    scene = scene_of(picture(values))
    result = finish(scene, scene.seen.pixels)
    assert np.abs(result.astype(int) - values).max() <= 1


def test_a_result_reaches_full_size_with_its_detail() -> None:
    low = landscape()
    scene = scene_of(picture(low, 32))
    result = finish(scene, brightened(scene.seen.pixels))
    assert result.dtype == np.float32
    assert psnr(result, brightened(low)) > 38
    enlarged = np.repeat(np.repeat(brightened(scene.seen.pixels), 2, axis=0), 2, axis=1)[:700, :1000]
    assert enlarged.shape != low.shape or psnr(result, brightened(low)) > psnr(enlarged, brightened(low)) + 6


def test_noise_is_removed_and_edges_stay() -> None:
    clean, noisy = landscape(), landscape(noise=0.01)
    scene = scene_of(picture(noisy, 32))
    result = finish(scene, brightened(scene.seen.pixels))
    wanted = brightened(clean)
    flat = np.s_[300:330, 300:480]  # inside the dark rectangle
    assert np.std(result[flat] - wanted[flat]) < 0.4 * np.std(brightened(noisy)[flat] - wanted[flat])
    assert psnr(result, wanted) > psnr(brightened(noisy), wanted) + 4
    step = result[330, 245:255].mean(axis=1) - result[330, 235:245].mean(axis=1)
    assert (
        np.abs(step).min() > 0.5 * np.abs(wanted[330, 245:255].mean(axis=1) - wanted[330, 235:245].mean(axis=1)).min()
    )


def test_noise_stays_where_a_picture_is_hardly_brightened() -> None:
    noisy = landscape(noise=0.02, light=0.9)
    scene = scene_of(picture(noisy, 32))
    result = finish(scene, np.clip(scene.seen.pixels * np.float32(1.05), 0, 1))
    assert np.abs(result - np.clip(noisy * 1.05, 0, 1)).max() < 0.02
    assert np.abs(result - np.clip(noisy * 1.05, 0, 1)).mean() < 0.003


@pytest.mark.parametrize("sigma", [0.01, 0.05])
def test_the_level_of_white_noise_is_measured(sigma: float) -> None:
    clean = np.broadcast_to(np.linspace(0.2, 0.8, 1024, dtype=np.float32)[None, :, None], (1024, 1024, 3))
    noise = sigma * np.random.default_rng(2).normal(size=clean.shape).astype(np.float32)
    level = survey_of([clean + noise])
    for scale in range(3):
        assert level.at(np.full((1, 3), 0.5))[scale] == pytest.approx(np.full((1, 3), sigma), rel=0.2)


def test_noise_in_squares_shows_at_the_coarser_scale() -> None:
    fine = np.random.default_rng(3).normal(size=(256, 256, 3)).astype(np.float32)
    squares = 0.5 + 0.05 * np.repeat(np.repeat(fine, 2, axis=0), 2, axis=1)
    level = survey_of([squares])
    at = level.at(np.full((1, 3), 0.5))
    assert at[0].max() < 0.005
    assert at[1].min() > 0.08  # the deviation of white noise that would be as strong once halved


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_pictures_without_noise_have_none(value: float) -> None:
    flat = np.full((512, 512, 3), value, np.float32)
    assert not survey_of([flat]).sigma.any()


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
def test_strips_and_threads_change_nothing(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    depth = np.dtype(kind).itemsize * 8
    scene = scene_of(picture(convert_depth(landscape(noise=0.01), depth)))
    made = []
    for strip, threads in ((128, 2), (31, 1), (1000, 3)):
        monkeypatch.setattr(scenes, "_STRIP", strip)
        monkeypatch.setattr(scenes, "_threads", lambda threads=threads: threads)
        made.append(finish(scene, brightened(scene.seen.pixels)))
        assert made[-1].dtype == kind
        assert made[-1].tobytes() == made[0].tobytes()


def test_more_bits_are_kept() -> None:
    low = landscape()
    results = {}
    for depth in (8, 16, 32):
        scene = scene_of(picture(convert_depth(low, depth)))
        results[depth] = finish(scene, brightened(scene.seen.pixels))
        results[depth] = results[depth] / (2.0 ** min(depth, 16) - 1 if depth < 32 else 1.0)
    assert np.abs(results[16] - results[32]).max() < 2e-4
    assert len(np.unique(results[16])) > 4 * len(np.unique(results[8]))


@pytest.mark.parametrize("depth", [8, 16, 32])
def test_strength_mixes_at_the_end(depth: int) -> None:
    values = convert_depth(landscape(), depth)
    scene = scene_of(picture(values))
    bright = brightened(scene.seen.pixels)
    assert finish(scene, bright, strength=0.0).tobytes() == values.tobytes()
    full = finish(scene, bright).astype(np.float64)
    half = finish(scene, bright, strength=0.5).astype(np.float64)
    steps = 1.01 if depth < 32 else 1e-6
    assert np.abs(half - (full + values) / 2).max() <= steps


def test_maps_of_an_exact_affine_change_are_that_change() -> None:
    guide = np.random.default_rng(8).random((300, 400, 3), dtype=np.float32)
    matrix = np.array([[1.2, 0.1, 0.0], [0.0, 0.9, 0.1], [0.1, 0.0, 1.0]], np.float32)
    result = guide @ matrix.T + np.float32(0.05)
    maps = fit_maps(guide, result, Grid((1200, 1600), (300, 400), 16), Settings(regularisation=1e-9))
    assert maps.shape == (75, 100, 3, 4)
    assert np.abs(maps[..., :3] - matrix).max() < 1e-2
    assert np.abs(maps[..., 3] - 0.05).max() < 1e-2


@pytest.mark.parametrize(
    "values",
    [
        np.full((700, 700, 3), (9, 12, 20), np.uint8),
        np.zeros((700, 700, 3), np.uint8),
        np.full((700, 700, 3), 255, np.uint8),
        np.where(np.random.default_rng(5).random((700, 700, 1)) > 0.999, 255, 0).astype(np.uint8).repeat(3, axis=2),
        (np.indices((800, 600)).sum(axis=0) % 2 * 255).astype(np.uint8)[:, :, None].repeat(3, axis=2),
        np.random.default_rng(6).integers(0, 40, (60, 20000, 3), dtype=np.uint8),
        np.random.default_rng(7).integers(0, 40, (1, 500_000, 3), dtype=np.uint8),
    ],
    ids=["one colour", "black", "white", "hot pixels", "chequered", "panorama", "one row"],
)
def test_odd_pictures_come_out(values: NDArray[np.uint8]) -> None:
    scene = scene_of(picture(values))
    assert not scene.whole
    result = finish(scene, np.clip(scene.seen.pixels * 4, 0, 1))
    assert result.shape == values.shape
    assert result.dtype == np.uint8
    if values.max() == values.min():
        assert int(result.max()) - int(result.min()) <= 1
        assert np.abs(result.astype(int) - np.clip(values.astype(int) * 4, 0, 255)).max() <= 2
