"""A step of every stage of every recipe on a CUDA device, interrupted and resumed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lumen_cli.datasets import find_training_files
from lumen_cli.training.data import Batches, Mix
from lumen_cli.training.run import Options, run_stage
from tests.training.conftest import data  # noqa: F401  (a fixture)
from tests.training.test_accelerators import RECIPES
from tests.training.tiny import tiny_recipe

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize(("name", "preset"), RECIPES)
def test_each_stage_runs_and_resumes(
    device: torch.device,
    data: Path,  # noqa: F811
    tmp_path: Path,
    name: str,
    preset: str,
    dtype: torch.dtype,
) -> None:
    recipe = tiny_recipe(name, preset, crop=64)
    batches = Batches(find_training_files([data / "pairs", data / "bright"]), device, Mix(), seed=0)
    torch.manual_seed(0)
    model = recipe.build().to(device)
    for stage in recipe.stages:
        for steps in (1, 2):
            before = {key: value.detach().clone() for key, value in model.state_dict().items()}
            options = Options(device, dtype, steps=steps, save_every=0.0)
            run_stage(recipe, model, replace(stage, steps=steps), batches, tmp_path, options)
            assert any(not torch.equal(value, before[key]) for key, value in model.state_dict().items())
            assert all(torch.isfinite(value).all() for value in model.state_dict().values())
