"""`lumen train` as a user types it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import Finished

Lumen = Callable[..., Finished]


@pytest.fixture
def bright(tmp_path: Path) -> Path:
    folder = tmp_path / "bright"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for i in range(2):
        coarse = generator.integers(30, 255, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((130, 130), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    return folder


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nosuch"], "no training recipe for nosuch"),
        (["lightendiffusion", "--minutes", "1", "--steps", "5"], "give one of them"),
        (["lightendiffusion", "--stage", "dreaming"], "no stage dreaming"),
        (["lightendiffusion", "--network", "unet_channels=33"], "multiple of 32"),
        (["lightendiffusion", "--network", "depth=3"], "unet_channels"),
        (["kind", "--reference", "unpaired"], "kind has no reference"),
        (["lightendiffusion", "--steps", "0"], "--steps"),
    ],
)
def test_what_cannot_be_trained_is_said_before_any_work(lumen: Lumen, bright, tmp_path, arguments, said):
    finished = lumen("train", *arguments, "--data", str(bright), "--out", str(tmp_path / "out"))
    assert finished.code == 2
    assert said in finished.err
    assert not (tmp_path / "out").exists()


def test_missing_and_empty_folders_are_named(lumen: Lumen, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in ("missing", "empty"):
        finished = lumen("train", "lightendiffusion", "--data", str(tmp_path / folder), "--out", str(tmp_path / "out"))
        assert finished.code == 2
        assert folder in finished.err


@pytest.mark.slow
def test_a_training_from_photographs_alone_gives_a_model_that_enhances(lumen: Lumen, bright, tmp_path):
    out = tmp_path / "out"
    common = ["--network", "ctdn_channels=8", "--precision", "fp32", "--device", "cpu"]
    finished = lumen("train", "lightendiffusion", "--data", str(bright), "--out", str(out), "--steps", "3", *common)
    assert finished.code == 0, finished.err
    assert "0 pairs and 2 bright pictures" in finished.err
    assert (out / "train.json").is_file()
    picture, model = str(bright / "0.png"), str(out / "model")
    finished = lumen("enhance", picture, "--model", model, "-o", str(tmp_path / "x.png"))
    assert finished.code == 0, finished.err
    with Image.open(tmp_path / "x.png") as enhanced:
        assert enhanced.size == (130, 130)
