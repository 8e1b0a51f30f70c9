"""Training the refiner: its examples, what it learns, and interrupted trainings that continue."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from lumen_cli.cli.app import app
from lumen_cli.datasets import TrainingFiles, find_training_files
from lumen_cli.engine.scene import Floats
from lumen_cli.errors import UsageError
from lumen_cli.networks.refiner import LEVELS, Refiner
from lumen_cli.training.loop import Report
from lumen_cli.training.refiner import (
    Batches,
    Draw,
    Example,
    Fitting,
    RefinerRun,
    Sources,
    collect,
    fit,
    make_example,
    train_refiner,
    validate,
)

QUICK = Fitting(torch.device("cpu"), torch.float32, steps=6, batch=2, crop=32, save_every=0.0)


class StopError(Exception):
    """Ends a training."""


def quiet(report: Report) -> None:
    """Watch a training in silence."""


def files(data: Path) -> TrainingFiles:
    return find_training_files([data / "pairs", data / "bright"])


def noisy_scene(number: int) -> Example:
    """A flat grey picture with a step, darkened to a fifth with strong noise."""
    generator = np.random.default_rng(number)
    bright: Floats = np.full((128, 128, 3), 0.6, np.float32)
    bright[:, 20 + 10 * number :] = 0.3
    dark = bright / 5 + 0.02 * generator.normal(size=bright.shape)
    draw = Draw(torch.Generator().manual_seed(number))
    return make_example(np.rint(np.clip(dark, 0, 1) * 255).astype(np.uint8), bright, draw)


def scenes_in(folder: Path, count: int) -> list[Path]:
    """Files of the first noisy scenes."""
    paths = [folder / f"{number}.safetensors" for number in range(count)]
    for number, path in enumerate(paths):
        noisy_scene(number).save(path)
    return paths


def test_every_picture_gives_its_examples_the_same_for_the_same_seed(data: Path) -> None:
    sources = Sources(files(data), 1, paired=2, photographed=3)
    assert len(sources) == 2 * 4 + 3 * 4
    assert sources.pairs == 8
    for number in (0, 4, 8, 12):
        example, again = sources.example(number), Sources(files(data), 1, 2, 3).example(number)
        count, height, width = example.planes.shape
        assert (count, height % 8, width % 8) == (9, 0, 0)
        assert example.maps.shape == (3 * LEVELS + 1, height // 4, width // 4)
        assert np.isfinite(example.planes).all()
        assert np.isfinite(example.maps).all()
        np.testing.assert_array_equal(example.planes, again.planes)
        np.testing.assert_array_equal(example.maps, again.maps)
    assert not np.array_equal(Sources(files(data), 2, 2, 3).example(12).planes, example.planes)
    assert not np.array_equal(sources.example(8).planes, example.planes)


def test_the_aim_has_the_light_of_the_carried_picture_and_none_of_its_noise() -> None:
    shrunk, removed, aim = noisy_scene(1).planes.astype(np.float32).reshape(3, 3, 128, 128)
    carried = shrunk + removed
    assert np.abs(carried.mean(axis=(1, 2)) - aim.mean(axis=(1, 2))).max() < 0.003
    flat = np.s_[0, 40:90, 80:120]
    assert aim[flat].std() < 0.2 * carried[flat].std()


def test_files_that_exist_are_not_made_again(data: Path, tmp_path: Path) -> None:
    sources = Sources(files(data), 0, 1, 1)
    paths = collect(tmp_path, sources, lambda done: None)
    assert [Example.load(path).planes.shape[0] for path in paths] == [9] * 8
    paths[3].unlink()
    times = {path: path.stat().st_mtime_ns for path in paths if path.exists()}
    numbers: list[int] = []
    assert collect(tmp_path, sources, numbers.append) == paths
    assert numbers == list(range(1, 9))
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert paths[3].exists()


def test_it_learns_to_remove_noise(tmp_path: Path) -> None:
    paths = scenes_in(tmp_path, 4)
    torch.manual_seed(0)
    model, fitting = Refiner(channels=16, blocks=1), replace(QUICK, steps=400, crop=64, save_every=9.0)
    fit(model, Batches(paths[:3], 0, fitting), paths[3:], fitting, tmp_path, quiet)
    assert validate(model, paths[:3], fitting)["psnr_gain"] > 0.1
    assert validate(model, paths[3:], fitting)["ssim_gain"] > 0.05


def test_an_interrupted_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    paths = scenes_in(tmp_path, 3)

    def trained(out: Path, stop_at: int | None = None) -> dict[str, torch.Tensor]:
        def watch(report: Report) -> None:
            if report.step == stop_at:
                raise StopError

        out.mkdir(exist_ok=True)
        torch.manual_seed(0)
        model = Refiner(channels=8, blocks=1)
        fit(model, Batches(paths, 1, QUICK), (), QUICK, out, watch, report_every=1)
        return model.state_dict()

    whole = trained(tmp_path / "whole")
    with pytest.raises(StopError):
        trained(tmp_path / "parts", stop_at=4)
    parts = trained(tmp_path / "parts")
    assert any(tensor.any() for name, tensor in whole.items() if name.startswith("last"))
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, rtol=0, atol=0)


def test_other_settings_need_another_folder(data: Path, tmp_path: Path) -> None:
    run = RefinerRun(("bright",), find_training_files([data / "bright"]), None, replace(QUICK, steps=1))
    folder = train_refiner(run, tmp_path, quiet)
    assert folder == train_refiner(run, tmp_path, quiet)
    with pytest.raises(UsageError, match="other settings"):
        train_refiner(replace(run, fitting=replace(run.fitting, seed=7)), tmp_path, quiet)


def test_the_command_writes_weights_that_fit_the_network(data: Path, tmp_path: Path) -> None:
    command = ["train", "refiner", "--data", str(data / "bright"), "--out", str(tmp_path / "out"), "--steps", "2"]
    command += ["--val", str(data / "pairs"), "--precision", "fp32", "--device", "cpu"]
    outcome = CliRunner().invoke(app, command)
    assert outcome.exit_code == 0, outcome.output
    tensors = load_file(tmp_path / "out" / "model" / "refiner.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    Refiner().load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    refused = CliRunner().invoke(app, [*command, "--init", "lumen"])
    assert "--init does not apply to the refiner" in str(refused.exception)
