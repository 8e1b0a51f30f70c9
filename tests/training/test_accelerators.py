"""Every stage of every recipe on a device that is not the CPU, as far as a machine without one can tell."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lumen_cli.datasets import find_training_files
from lumen_cli.registry.architectures import ARCHITECTURES, network_class
from lumen_cli.training.data import Batches, Mix
from lumen_cli.training.run import Options, run_stage
from tests.accelerator import OnDevice, accelerator
from tests.training.conftest import data  # noqa: F401  (a fixture)
from tests.training.tiny import tiny_recipe

RECIPES = [(name, preset) for name, each in ARCHITECTURES.items() if each.recipes for preset in ("compact", "paper")]


@pytest.mark.parametrize("kind", ["cuda", "mps"])
@pytest.mark.parametrize(("name", "preset"), RECIPES)
def test_a_step_of_each_stage_runs_on_the_device(
    data: Path,  # noqa: F811
    tmp_path: Path,
    name: str,
    preset: str,
    kind: str,
) -> None:
    steps = ["steps=2"] if preset == "paper" and "steps" in inspect.signature(network_class(name)).parameters else []
    recipe = tiny_recipe(name, preset, *steps, crop=64)
    torch.manual_seed(0)
    model = recipe.build()
    with accelerator(kind):
        device = torch.device(kind, 0)
        model.to(device)
        batches = Batches(find_training_files([data / "pairs", data / "bright"]), device, Mix(), seed=0)
        options = Options(device, torch.float32, save_every=99.0)
        for stage in recipe.stages:
            before = {key: value.detach().cpu().clone() for key, value in model.named_parameters()}
            run_stage(recipe, model, replace(stage, steps=1), batches, tmp_path, options)
            assert all(isinstance(value, OnDevice) for value in model.state_dict().values())
            changed = {key for key, value in model.named_parameters() if not torch.equal(value.cpu(), before[key])}
            chosen = {id(parameter) for parameter in recipe.trainable(model, stage)}
            assert changed
            assert changed <= {key for key, value in model.named_parameters() if id(value) in chosen}
