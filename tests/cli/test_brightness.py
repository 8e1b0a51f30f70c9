"""`lumen enhance --brightness` and `--illumination-ratio`: light that the user asks for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lumen_cli.imaging.colour.convert import to_linear
from tests.conftest import Finished, MakeModel, folder_bytes, read_pixels, write_dark

Lumen = Callable[..., Finished]


def light(path: Path) -> float:
    """Mean linear light of an 8-bit picture."""
    return float(to_linear(torch.from_numpy(read_pixels(path) / 255.0)).mean())


@pytest.fixture
def lamp(make_model: MakeModel) -> Path:
    return make_model("lamp", abilities=["enhance", "illumination-ratio"])


@pytest.mark.parametrize("options", [[], ["--tile", "512"]])
def test_brightness_multiplies_the_light_of_the_picture_with_any_model(
    options: list[str], make_model: MakeModel, tmp_path: Path, lumen: Lumen
) -> None:
    make_model("plain", abilities=["enhance"])
    write_dark(tmp_path / "in.png", 300, 700)
    for ratio in ("0.5", "1", "2", "4"):
        output = tmp_path / f"{ratio}.png"
        finished = lumen("enhance", tmp_path / "in.png", "-m", "plain", "--brightness", ratio, "-o", output, *options)
        assert finished.code == 0, finished.err
        assert f"brightness {ratio}" in finished.err
        assert light(output) == pytest.approx(float(ratio) * light(tmp_path / "in.png"), rel=0.02)
    assert np.array_equal(read_pixels(tmp_path / "1.png"), read_pixels(tmp_path / "in.png"))


def test_more_light_the_higher_the_ratio(lamp: Path, photos: Path, lumen: Lumen) -> None:
    for option in ("--brightness", "--illumination-ratio"):
        means = []
        for ratio in ("0.1", "0.5", "1", "3", "10"):
            output = photos.parent / f"{option[2:]}-{ratio}.png"
            finished = lumen("enhance", photos / "a.png", "-m", "lamp", option, ratio, "-o", output)
            assert finished.code == 0, finished.err
            assert f"{option[2:].replace('-', ' ')} {ratio}" in finished.err
            means.append(read_pixels(output).mean())
        assert means == sorted(means)
        assert means[-1] > 3 * means[0]


def test_auto_leaves_it_to_the_model_as_does_saying_nothing(lamp: Path, photos: Path, lumen: Lumen) -> None:
    for name, arguments in (("said", ["--brightness", "auto"]), ("unsaid", [])):
        lumen("enhance", photos, "-m", "lamp", "-o", photos.parent / name, *arguments)
    assert folder_bytes(photos.parent / "said") == folder_bytes(photos.parent / "unsaid")


def test_another_brightness_makes_outputs_stale(lamp: Path, photos: Path, lumen: Lumen) -> None:
    lumen("enhance", photos, "-m", "lamp", "--brightness", "2")
    again = lumen("enhance", photos, "-m", "lamp", "--brightness", "2.0", "--resume", "--json")
    assert {json.loads(line)["status"] for line in again.out.splitlines()} == {"kept"}
    for other in (["--brightness", "3"], []):
        changed = lumen("enhance", photos, "-m", "lamp", *other, "--resume", "--json")
        assert {json.loads(line)["status"] for line in changed.out.splitlines()} == {"done"}


@pytest.mark.parametrize("option", ["brightness", "illumination-ratio"])
@pytest.mark.parametrize("value", ["0", "0.09", "10.1", "-1", "nan", "inf", "bright", ""])
def test_a_ratio_out_of_range_is_refused_before_any_work(
    value: str, option: str, lamp: Path, photos: Path, lumen: Lumen
) -> None:
    finished = lumen("enhance", photos, "-m", "lamp", f"--{option}={value}")
    assert finished.code == 2
    assert option in finished.err
    assert "Traceback" not in finished.err
    assert not photos.with_name("photos-enhanced").exists()


def test_a_model_without_the_ratio_names_those_that_have_it(
    lamp: Path, make_model: MakeModel, photos: Path, lumen: Lumen
) -> None:
    make_model("plain")
    finished = lumen("enhance", photos, "-m", "plain", "--illumination-ratio", "2")
    assert finished.code == 2
    (line,) = finished.err.splitlines()
    assert line.startswith("lumen: plain takes no illumination ratio; models that can: ")
    assert "lamp" in line.rpartition(": ")[2].split(", ")
    assert lumen("enhance", photos, "-m", "plain", "--illumination-ratio", "auto").code == 0


def test_brightness_and_ratio_cannot_be_combined(lamp: Path, photos: Path, lumen: Lumen) -> None:
    finished = lumen("enhance", photos, "-m", "lamp", "--brightness", "2", "--illumination-ratio", "2")
    assert finished.code == 2
    assert "cannot be combined" in finished.err
    assert not photos.with_name("photos-enhanced").exists()


def test_the_ratio_reaches_the_network_and_nothing_is_added(make_model: MakeModel, photos: Path, lumen: Lumen) -> None:
    from lumen_cli.api import load_model

    lamp = make_model("lamp", abilities=["enhance", "illumination-ratio"], network={"noisy": False})
    lumen("enhance", photos / "a.png", "-m", lamp, "--illumination-ratio", "3", "-o", photos.parent / "three.png")
    low = torch.from_numpy(read_pixels(photos / "a.png").astype(np.float32) / 255).permute(2, 0, 1)[None]
    made = load_model(lamp, device="cpu").enhance(low, illumination_ratio=3.0)[0].permute(1, 2, 0).numpy()
    assert np.abs(255 * made - read_pixels(photos.parent / "three.png")).max() <= 1.0


def test_a_folder_of_the_first_version_names_the_ability_brightness(
    make_model: MakeModel, photos: Path, lumen: Lumen
) -> None:
    make_model("old", abilities=["enhance", "brightness"])
    assert lumen("enhance", photos / "a.png", "-m", "old", "--illumination-ratio", "3").code == 0


def test_the_api_takes_both(lamp: Path, photos: Path, lumen: Lumen) -> None:
    import lumen_cli
    from lumen_cli.errors import UsageError

    for option, name in (("--brightness", "brightness"), ("--illumination-ratio", "illumination_ratio")):
        output = photos.parent / f"{name}.png"
        lumen("enhance", photos / "a.png", "-m", "lamp", option, "3", "-o", output)
        pixels = lumen_cli.enhance(photos / "a.png", "lamp", **{name: 3})
        assert np.array_equal(pixels, read_pixels(output))
        with pytest.raises(UsageError, match=r"from 0\.1 to 10, not 11"):
            lumen_cli.enhance(photos / "a.png", "lamp", **{name: 11})


def test_a_large_noisy_picture_gets_the_light_that_was_asked_for(
    make_model: MakeModel, tmp_path: Path, lumen: Lumen
) -> None:
    make_model("plain", network={"gain": 4.0, "noisy": False})
    generator = np.random.default_rng(0)
    scene = 255 * np.linspace(0.02, 0.2, 1200)[None, :, None] * np.linspace(0.3, 1, 900)[:, None, None]
    noisy = scene + generator.normal(0, 8, (900, 1200, 3))
    Image.fromarray(np.rint(noisy).clip(0, 255).astype(np.uint8)).save(tmp_path / "in.png")
    given = light(tmp_path / "in.png")
    for ratio in (0.1, 0.5, 1, 1.1, 1.5, 2, 4, 10):
        finished = lumen(
            "enhance",
            tmp_path / "in.png",
            "-m",
            "plain",
            "--brightness",
            ratio,
            "-o",
            tmp_path / "out.png",
            "--overwrite",
        )
        assert finished.code == 0, finished.err
        assert light(tmp_path / "out.png") == pytest.approx(ratio * given, rel=0.03)


def test_a_large_picture_with_nothing_to_brighten_stays_as_it_is(
    make_model: MakeModel, tmp_path: Path, lumen: Lumen
) -> None:
    make_model("plain")
    black = np.random.default_rng(0).normal(2, 2, (800, 1000, 3))
    Image.fromarray(np.rint(black).clip(0, 255).astype(np.uint8)).save(tmp_path / "in.png")
    finished = lumen("enhance", tmp_path / "in.png", "-m", "plain", "-o", tmp_path / "out.png")
    assert finished.code == 0, finished.err
    assert np.array_equal(read_pixels(tmp_path / "out.png"), read_pixels(tmp_path / "in.png"))
