"""--only-dark: pictures that are bright enough get no output."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Finished, MakeModel

SAMPLES = Path(__file__).parents[2] / "sample_images"
Lumen = Callable[..., Finished]


@pytest.fixture(autouse=True)
def tiny(make_model: MakeModel) -> Path:
    return make_model("tiny")


def statuses(finished: Finished) -> dict[str, str]:
    return {Path(line["input"]).name: line["status"] for line in map(json.loads, finished.out.splitlines())}


def test_the_dark_samples_are_enhanced_and_the_well_exposed_one_is_left_out(lumen: Lumen, tmp_path: Path) -> None:
    finished = lumen("enhance", SAMPLES, "-o", tmp_path / "out", "-m", "tiny", "--only-dark", "--json")
    assert finished.code == 0, finished.err
    found = statuses(finished)
    assert found.pop("palace-well-exposed.jpg") == "skipped"
    assert set(found.values()) == {"done"}
    assert not (tmp_path / "out" / "palace-well-exposed.jpg").exists()
    assert "1 bright enough" in finished.err
    (line,) = (each for each in map(json.loads, finished.out.splitlines()) if each["status"] == "skipped")
    assert "mean light is 0.3" in line["reason"]
    again = lumen("enhance", SAMPLES, "-o", tmp_path / "out", "-m", "tiny", "--only-dark", "--json")
    assert sorted(set(statuses(again).values())) == ["kept", "skipped"]


def test_the_threshold_can_be_chosen(lumen: Lumen, tmp_path: Path) -> None:
    picture = SAMPLES / "palace-well-exposed.jpg"
    for threshold, status in (("0.3", "skipped"), ("0.5", "done")):
        finished = lumen("enhance", picture, "-o", tmp_path, "-m", "tiny", "--dark-threshold", threshold, "--json")
        assert list(statuses(finished).values()) == [status]


def test_standard_output_needs_a_picture(lumen: Lumen) -> None:
    finished = lumen("enhance", SAMPLES / "palace.jpg", "-o", "-", "--only-dark")
    assert finished.code == 2
    assert "cannot be combined" in finished.err
