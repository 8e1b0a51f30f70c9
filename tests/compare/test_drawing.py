from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image
from skimage.color import rgb2lab

from lumen_cli.compare import drawing
from lumen_cli.compare.comparison import ContactSheet
from lumen_cli.imaging.colour.convert import to_unit
from lumen_cli.imaging.picture import Picture
from tests.compare.conftest import scene
from tests.imaging.make import srgb_profile


def picture(values: np.ndarray) -> Picture:
    return Picture(to_unit(values), None, 8, False, "png", None, None)


def decoded(data: str) -> Image.Image:
    head, _, content = data.partition(",")
    assert head == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


def test_a_copy_is_no_longer_than_asked_and_keeps_shape_and_profile() -> None:
    image = drawing.reduce(picture(np.full((300, 450, 3), 99, np.uint8)), 150)
    shown = drawing.encode(image, 90, srgb_profile())
    assert (shown.width, shown.height) == decoded(shown.data).size == (150, 100)
    assert decoded(shown.data).info["icc_profile"] == srgb_profile()
    assert drawing.reduce(picture(scene(0)), 1600).size == (96, 64), "small pictures are not enlarged"


def test_quality_100_loses_nothing() -> None:
    values = scene(3, noise=0.2)
    assert np.array_equal(decoded(drawing.encode(Image.fromarray(values), 100).data), values)
    assert not np.array_equal(decoded(drawing.encode(Image.fromarray(values), 90).data), values)


def test_the_difference_is_the_mean_over_the_channels() -> None:
    one, other = scene(1), scene(1, 0.5, 0.1)
    wanted = np.abs(one.astype(float) - other).mean(axis=2) / 255
    assert np.allclose(drawing.difference(picture(one), picture(other), (96, 64)), wanted, atol=1e-6)
    reduced = drawing.difference(picture(one), picture(other), (48, 32))
    assert np.allclose(reduced, wanted.reshape(32, 2, 48, 2).mean(axis=(1, 3)), atol=1e-6)


def test_the_colours_of_a_heat_map_grow_lighter_with_the_difference() -> None:
    lightness = rgb2lab(drawing.colours()[None] / 255.0)[0, :, 0]
    assert np.diff(lightness).min() > -0.05
    assert lightness[0] < 2
    assert lightness[-1] > 95


@pytest.mark.parametrize(("error", "scale"), [(0.0, 0.02), (0.015, 0.02), (0.03, 0.05), (0.3, 0.5), (0.9, 1.0)])
def test_the_scale_of_heat_maps_is_a_round_number_above_them(error: float, scale: float) -> None:
    assert drawing.heat_scale([np.full((4, 4), error, np.float32), np.zeros((4, 4), np.float32)]) == scale


def test_heat_maps_end_at_their_scale() -> None:
    error = np.repeat(np.array([[0.0, 0.1, 0.4]], np.float32), 32, axis=0).repeat(32, axis=1)
    seen = np.asarray(decoded(drawing.heat_map(error, 0.1).data).convert("RGB")).astype(int)
    assert np.abs(seen[16, [16, 48, 80]] - drawing.colours()[[0, 255, 255]]).max() < 12


def test_histograms_count_every_pixel() -> None:
    values = np.zeros((10, 10, 3), np.uint8)
    values[:5] = (255, 128, 0)
    found = drawing.histogram(picture(values))
    assert {name: curve.sum() for name, curve in found.curves.items()} == dict.fromkeys(found.curves, 1.0)
    assert found.curves["red"][[0, 63]].tolist() == [0.5, 0.5]
    assert found.curves["green"][[0, 32]].tolist() == [0.5, 0.5]
    assert found.curves["blue"][0] == 1.0
    assert found.mean == pytest.approx((0.299 * 255 + 0.587 * 128) / 255 / 2, abs=1e-3)


def test_heights_of_curves_are_square_roots() -> None:
    curves = {"luminance": np.array([0.0, 0.25, 1.0]), "red": np.array([0.0, 0.0, 0.5])}
    heights = base64.b64decode(drawing.encode_curves(drawing.Histogram(curves, 0.5)))
    assert list(heights) == [0, 128, 255, 0, 0, 180]


def test_histograms_of_large_pictures_are_those_of_all_pixels() -> None:
    ramp = np.linspace(0, 255, 3000).astype(np.uint8)[None, :, None] * np.ones((2000, 1, 3), np.uint8)
    found = drawing.histogram(picture(ramp))
    exact = np.bincount(ramp[:, :, 0].ravel() // 4, minlength=64) / ramp[:, :, 0].size
    assert np.abs(found.curves["red"] - exact).max() < 1e-3
    assert found.mean == pytest.approx(ramp.mean() / 255, abs=1e-3)


def test_a_thumbnail_shows_both_versions() -> None:
    dark, bright = (Image.new("RGB", (300, 200), (level,) * 3) for level in (10, 240))
    small = np.asarray(decoded(drawing.thumbnail(dark, bright).data).convert("L"))
    assert small[:, 4].mean() < 30
    assert small[:, -5].mean() > 220


def test_a_contact_sheet_holds_every_version_and_stays_within_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    def filled() -> ContactSheet:
        sheet = ContactSheet(("low", "high"), 30)
        for level in range(30):
            versions = [Image.new("RGB", (30, 20), colour) for colour in ((level, 0, 0), (0, 200 + level, 0))]
            sheet.add(f"picture {level}", versions)
        return sheet

    monkeypatch.setattr("lumen_cli.compare.comparison.LARGEST", 3_000_000)
    wide, pixels = filled().width, filled().picture().pixels
    found = {tuple(colour) for colour in (pixels * 255).round().astype(int).reshape(-1, 3)[::29].tolist()}
    assert {(level, 0, 0) for level in range(30)} | {(0, 200 + level, 0) for level in range(30)} <= found
    monkeypatch.setattr("lumen_cli.compare.comparison.LARGEST", 1_000_000)
    assert filled().width < wide
    assert filled().picture().pixels[..., 0].size < 1_100_000
