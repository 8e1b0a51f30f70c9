"""Training the grading that knows LOL's scenes: its examples, what it learns, and interrupted trainings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from lumen_cli.datasets import find_pairs, find_training_files
from lumen_cli.networks.lol_grading import LolGrading
from lumen_cli.registry import find_model
from lumen_cli.training.lol_grading import BRIGHT, DARK, NAME, Bank, Fitting, LolGradingRun, train_lol_grading
from lumen_cli.training.loop import Report

QUICK = Fitting(torch.device("cpu"), torch.float32, heads=1, steps=4, save_every=0.0)


class StopError(Exception):
    """Ends a training."""


def run_of(data: Path, fitting: Fitting = QUICK) -> LolGradingRun:
    files = find_training_files([data / "pairs"])
    models = (find_model("kind"), find_model("diffll"))
    return LolGradingRun(models, (str(data / "pairs"),), files, find_pairs(data / "pairs")[:1], fitting)


def test_examples_hold_the_pictures_and_a_result_of_each_model(data: Path, tmp_path: Path) -> None:
    reports: list[Report] = []
    train_lol_grading(run_of(data), tmp_path, reports.append)
    files = sorted((tmp_path / "examples").iterdir())
    assert len(files) == 4
    tensors = load_file(files[0])
    assert set(tensors) == {DARK, BRIGHT, "kind", "diffll"}
    assert {tuple(each.shape) for each in tensors.values()} == {(3, 56, 64)}
    assert not torch.equal(tensors["kind"], tensors["diffll"])
    assert {"head1", "detail"} <= {report.stage for report in reports}
    assert any(report.validation and {"psnr", "psnr_gt_mean", "ssim"} == set(report.validation) for report in reports)


def test_batches_are_the_same_for_the_same_numbers_and_show_one_window(data: Path, tmp_path: Path) -> None:
    train_lol_grading(run_of(data), tmp_path, lambda report: None)
    bank = Bank(sorted((tmp_path / "examples").iterdir()), ["kind", "diffll"])
    once, again = (bank.crops(np.random.default_rng(3), 2) for _ in range(2))
    assert once[:2] == again[:2]
    assert all(torch.equal(a, b) for a, b in zip(once[2:], again[2:], strict=True))
    # The pairs' dark side is an eighth of the bright one, so a crop of both shows the same place.
    low, high = once[2], once[4]
    assert float((low - high / 8).abs().max()) < 1 / 200
    low, _, high = bank.scenes(np.random.default_rng(4), 8)
    assert low.shape == high.shape == (8, 3, 32, 48)


def test_it_learns_the_light_of_its_scenes(data: Path, tmp_path: Path) -> None:
    dim = tmp_path / "dim/pairs"
    for side in ("low", "high"):
        (dim / side).mkdir(parents=True)
        for path in (data / "pairs" / side).iterdir():
            with Image.open(path) as picture:
                picture.point(lambda value: value // 2).save(dim / side / path.name)
    scores: list[dict[str, float]] = []
    longer = replace(QUICK, steps=40, save_every=3.0)
    out = tmp_path / "out"
    train_lol_grading(
        run_of(tmp_path / "dim", longer), out, lambda r: scores.append(r.validation) if r.validation else None
    )
    tensors = load_file(out / "examples/000000.safetensors")
    raw = (tensors["kind"].float() - tensors[BRIGHT].float()).square().mean() / 255.0**2
    assert scores[-1]["psnr"] > float(-10 * raw.log10()) + 3.0


def test_an_interrupted_training_continues_to_the_same_weights(data: Path, tmp_path: Path) -> None:
    train_lol_grading(run_of(data), tmp_path / "whole", lambda report: None)

    def stop(report: Report) -> None:
        if report.stage == "detail":
            raise StopError

    with pytest.raises(StopError):
        train_lol_grading(run_of(data), tmp_path / "cut", stop)
    train_lol_grading(run_of(data), tmp_path / "cut", lambda report: None)
    whole, cut = (load_file(tmp_path / name / "model" / f"{NAME}.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    LolGrading(heads=1).load_state_dict(whole)
