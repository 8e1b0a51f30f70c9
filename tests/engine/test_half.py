"""Weights that are cast once give the numbers of autocast."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from lumen_cli.engine.acceleration import hold_halves
from lumen_cli.engine.batch import enhance_scenes
from lumen_cli.engine.device import choose_device, dtype_of
from lumen_cli.engine.scene import scene_of
from lumen_cli.imaging.picture import Picture
from lumen_cli.networks.base import LowLightModel
from lumen_cli.registry.card import read_card
from lumen_cli.registry.load import load
from tests.accelerator import accelerator, policy_on
from tests.conftest import dark_pixels
from tests.test_architectures import KNOWN, STEPS, build_stable

SHIPPED = sorted(path.parent for path in (Path(__file__).parents[2] / "models").glob("*/config.json"))
CPU = choose_device("cpu", "bf16", precisions=("fp32", "bf16"))


def run(network: LowLightModel, precision: str) -> Tensor:
    low = torch.rand(1, 3, 40, 56, generator=torch.Generator().manual_seed(0)) * 0.2
    shape = network.noise_shape(40, 56)
    noise = None if shape is None else torch.randn(1, *shape, generator=torch.Generator().manual_seed(1))
    range_of_steps = None if network.members else network.steps_range()
    with CPU.running(precision):
        return network(low, noise=noise, steps=None if range_of_steps is None else range_of_steps[0])


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_shipped_models_give_the_numbers_of_autocast(folder: Path) -> None:
    network = CPU.prepare(load(read_card(folder)))
    halved = copy.deepcopy(network)
    hold_halves(halved, torch.bfloat16)
    assert torch.equal(run(halved, "bf16"), run(network, "bf16"))
    assert torch.equal(run(halved, "fp32"), run(network, "fp32"))
    assert set(halved.state_dict()) == set(network.state_dict())


def test_weights_are_cast_once() -> None:
    network = CPU.prepare(build_stable("diffll"))
    shapes = {tuple(parameter.shape) for parameter in network.parameters()}

    def casts() -> int:
        with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
            run(network, "bf16")
        found = [event for event in profiler.events() if event.name == "aten::_to_copy"]
        return sum(tuple(event.input_shapes[0]) in shapes for event in found)

    before = casts()
    hold_halves(network, torch.bfloat16)
    assert casts() < 0.25 * before


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("name", KNOWN)
def test_a_network_on_a_device_holds_the_weights_of_its_precision(name: str, precision: str) -> None:
    network = build_stable(name)
    scenes = [scene_of(Picture(dark_pixels(38, 50, seed), None, 8, False, "png", None, None)) for seed in range(2)]
    steps = None if network.steps_range() is None else STEPS
    found = []
    with accelerator():
        for prepared in ("fp32", precision):
            moved = policy_on("cuda", prepared).prepare(copy.deepcopy(network))
            dtypes = {str(buffer.dtype) for key, buffer in moved.named_buffers() if "half_" in key}
            assert dtypes == (set() if prepared == "fp32" else {str(dtype_of(precision))})
            found.append(enhance_scenes(moved, scenes, policy_on("cuda", precision), steps=steps))
    for one, other in zip(*found, strict=True):
        assert (one.value == other.value).all()
