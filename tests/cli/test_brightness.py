"""`lumen enhance --brightness`: the ratio of light, for models that take one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Finished, MakeModel, folder_bytes, read_pixels

Lumen = Callable[..., Finished]


@pytest.fixture
def lamp(make_model: MakeModel) -> Path:
    return make_model("lamp", abilities=["enhance", "brightness"])


def test_more_light_the_higher_the_ratio(lamp: Path, photos: Path, lumen: Lumen) -> None:
    means = []
    for ratio in ("0.1", "0.5", "1", "3", "10"):
        output = photos.parent / f"{ratio}.png"
        finished = lumen("enhance", photos / "a.png", "-m", "lamp", "--brightness", ratio, "-o", output)
        assert finished.code == 0, finished.err
        assert f"brightness {ratio}" in finished.err
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


@pytest.mark.parametrize("value", ["0", "0.09", "10.1", "-1", "nan", "inf", "bright", ""])
def test_a_ratio_out_of_range_is_refused_before_any_work(value: str, lamp: Path, photos: Path, lumen: Lumen) -> None:
    finished = lumen("enhance", photos, "-m", "lamp", f"--brightness={value}")
    assert finished.code == 2
    assert "brightness" in finished.err
    assert "Traceback" not in finished.err
    assert not photos.with_name("photos-enhanced").exists()


def test_a_model_without_the_knob_names_those_that_have_it(
    lamp: Path, make_model: MakeModel, photos: Path, lumen: Lumen
) -> None:
    make_model("plain")
    finished = lumen("enhance", photos, "-m", "plain", "--brightness", "2")
    assert finished.code == 2
    (line,) = finished.err.splitlines()
    assert line.startswith("lumen: plain takes no brightness; models that can: ")
    assert "lamp" in line.rpartition(": ")[2].split(", ")
    assert lumen("enhance", photos, "-m", "plain", "--brightness", "auto").code == 0


def test_the_api_takes_it_too(lamp: Path, make_model: MakeModel, photos: Path, lumen: Lumen) -> None:
    import lumen_cli
    from lumen_cli.errors import UsageError

    lumen("enhance", photos / "a.png", "-m", "lamp", "--brightness", "3", "-o", photos.parent / "three.png")
    pixels = lumen_cli.enhance(photos / "a.png", "lamp", brightness=3)
    assert np.array_equal(pixels, read_pixels(photos.parent / "three.png"))
    with pytest.raises(UsageError, match=r"from 0\.1 to 10, not 11"):
        lumen_cli.enhance(photos / "a.png", "lamp", brightness=11)
    make_model("plain")
    with pytest.raises(UsageError, match="plain takes no brightness"):
        lumen_cli.enhance(photos / "a.png", "plain", brightness=2)
