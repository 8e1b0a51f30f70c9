"""Near-duplicates of test pictures among training pictures: found under another exposure, not where scenes differ."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lumen_cli.benchmark.samples import ALIKE, NEAR_DUPLICATE, PICTURES, builtin_samples, check_leak, fingerprint
from lumen_cli.errors import UsageError

SCENES = {sample.name: sample.load() for sample in builtin_samples().items}


def bright(name: str) -> np.ndarray:
    high = SCENES[name].high
    assert high is not None
    return high


def score(first: np.ndarray, second: np.ndarray) -> float:
    one, other = fingerprint(first.astype(np.float32)), fingerprint(second.astype(np.float32))
    return float(one.ranks @ other.ranks + one.gradients @ other.gradients) / 2


CHANGES = {
    "brighter": lambda pixels: pixels**0.4,
    "darker": lambda pixels: pixels**3.0,
    "an eighth of the light": lambda pixels: np.round(255 * pixels / 8) / 255,
    "noise": lambda pixels: np.clip(pixels + np.random.default_rng(0).normal(0, 0.08, pixels.shape), 0, 1),
    "half the size": lambda pixels: pixels[::2, ::2],
    "warmer": lambda pixels: np.clip(pixels * np.array([1.2, 1.0, 0.8]), 0, 1),
    "two percent cut off": lambda pixels: pixels[4:-4, 4:-4],
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["cat", "coffee", "palace"])
def test_another_exposure_size_or_tint_is_a_near_duplicate(name: str, change: str) -> None:
    assert score(CHANGES[change](bright(name)), bright(name)) > NEAR_DUPLICATE


def test_different_scenes_are_not_alike() -> None:
    names = [picture.name for picture in PICTURES]
    for index, first in enumerate(names):
        for second in names[index + 1 :]:
            assert score(bright(first), bright(second)) < ALIKE


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)).save(path)


def test_sides_are_compared_with_their_own_and_both_kinds_of_leak_are_found(tmp_path: Path) -> None:
    """Known answer: two of the six scenes stand in the training pairs, one of them mirrored."""
    write(tmp_path / "high/1.png", bright("cat") ** 0.6)
    write(tmp_path / "low/1.png", SCENES["cat"].low.pixels / 2)
    write(tmp_path / "high/2.png", bright("palace")[:, ::-1] ** 1.5)
    write(tmp_path / "low/2.png", bright("palace")[:, ::-1] / 9)
    write(tmp_path / "high/3.png", np.random.default_rng(0).uniform(0, 1, (40, 60, 3)))
    write(tmp_path / "low/3.png", np.random.default_rng(1).uniform(0, 0.1, (40, 60, 3)))
    report = check_leak(builtin_samples(), tmp_path)
    found = {each.name: each for each in report.of("near-duplicate")}
    assert set(found) == {"cat", "palace"}
    assert found["cat"].train.stem == "1"
    assert not found["cat"].mirrored
    assert found["palace"].train.stem == "2"
    assert found["palace"].mirrored
    assert {each.side for each in report.likenesses} <= {"high", "low"}
    assert report.trained == 3
    assert report.paired
    assert len(report.likenesses) == 6, "the nearest of every test picture is told"


def test_training_pictures_without_sides_are_compared_with_both(tmp_path: Path) -> None:
    write(tmp_path / "photos/x.png", bright("coffee") ** 0.7)
    report = check_leak(builtin_samples(), tmp_path)
    assert [each.name for each in report.of("near-duplicate")] == ["coffee"]
    assert report.likenesses[0].side == "any"


def test_training_pictures_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    write(tmp_path / "a.png", bright("cat"))
    (tmp_path / "b.png").write_bytes(b"nothing")
    report = check_leak(builtin_samples(), tmp_path)
    assert [Path(name).name for name, _ in report.failures] == ["b.png"]
    assert len(report.of("near-duplicate")) == 1


def test_a_picture_of_one_colour_is_like_none(tmp_path: Path) -> None:
    assert score(np.full((9, 9, 3), 0.5), bright("cat")) == 0.0


def test_a_training_folder_without_pictures_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no pictures"):
        check_leak(builtin_samples(), tmp_path)
