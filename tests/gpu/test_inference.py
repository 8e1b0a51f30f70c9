"""Every model on a CUDA device, against the papers' figures and against the CPU."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lumen_cli.engine.batch import decompose_batch, enhance_scenes
from lumen_cli.engine.carrier import carrier_of
from lumen_cli.engine.device import DevicePolicy, choose_device
from lumen_cli.engine.memory import BatchSizes, TilePlan
from lumen_cli.engine.parts import shape_of
from lumen_cli.engine.refine import load_refining
from lumen_cli.engine.scene import finish, scene_of
from lumen_cli.imaging.colour.convert import convert_depth
from lumen_cli.imaging.picture import Picture
from lumen_cli.networks.base import LowLightModel
from lumen_cli.networks.diffll import DiffLL
from lumen_cli.networks.lightendiffusion import LightenDiffusion
from lumen_cli.registry.architectures import ARCHITECTURES, network_class
from lumen_cli.registry.card import read_card
from lumen_cli.registry.load import load
from tests.conftest import dark_pixels
from tests.engine.test_full_resolution import brightened, landscape
from tests.networks import test_kind, test_lldiffusion
from tests.reference import Figures, fill_by_formula
from tests.test_architectures import DECOMPOSING, build_stable

pytestmark = pytest.mark.gpu

CPU = choose_device("cpu", "fp32")
LEVEL = 1 / 255
SHIPPED = sorted(path.parent for path in (Path(__file__).parents[2] / "models").glob("*/config.json"))


def picture(height: int = 80, width: int = 120, seed: int = 0) -> Picture:
    return Picture(dark_pixels(height, width, seed), None, 8, False, "png", None, None)


def run(network: LowLightModel, policy: DevicePolicy, *pictures: Picture, **options: Any) -> list[np.ndarray]:
    scenes = [scene_of(each, "whole") for each in pictures]
    results = [result.value for result in enhance_scenes(policy.prepare(network), scenes, policy, **options)]
    assert all(isinstance(result, np.ndarray) for result in results), results
    return results  # type: ignore[return-value]


@pytest.mark.parametrize(("architecture", "steps"), [(DiffLL, 10), (LightenDiffusion, 20)])
def test_figures_of_the_diffusion_models_hold(gpu: DevicePolicy, architecture: Any, steps: int) -> None:
    figures = Figures(architecture.__name__.lower())
    network = gpu.prepare(fill_by_formula(architecture()).eval())  # type: ignore[arg-type]
    low, noise = figures["in/low_unpadded"].to(gpu.device), figures["infer/noise_T_padded"].to(gpu.device)
    with gpu.running("fp32"):
        found = network.enhance(low, noise=noise, steps=steps).cpu()
    name = f"infer_ch64/padded_S{steps}/pred_x"
    wanted = figures[name]
    figures.check(name, torch.where(wanted.clamp(0, 1) == wanted, found, wanted))  # `enhance` clamps


def test_figures_of_kind_hold(gpu: DevicePolicy) -> None:
    network = gpu.prepare(test_kind.build(contrast=True, fusion="pairs"))
    low = test_kind.unit("lol/low_u8").to(gpu.device)
    with gpu.running("fp32"):
        found = network.enhance(low, illumination_ratio=test_kind.FIGURES["lol/alpha"].to(gpu.device))  # type: ignore[call-arg]
    test_kind.FIGURES.check("lol/result", found.cpu())


def test_figures_of_lldiffusion_hold(gpu: DevicePolicy) -> None:
    network, low = gpu.prepare(test_lldiffusion.build("full")), test_lldiffusion.picture().to(gpu.device)
    noise = test_lldiffusion.FIGURES["in.noise_whole"].to(gpu.device)
    with gpu.running("fp32"):
        found = network.enhance(low, noise=noise, steps=4)[0].cpu()
    test_lldiffusion.FIGURES.check("full.sample.whole.steps4.restored", found)


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_shipped_models_give_the_cpus_pictures(gpu: DevicePolicy, folder: Path) -> None:
    pictures = [picture(seed=seed) for seed in range(2)]
    expected = run(load(read_card(folder)), CPU, *pictures)
    found = run(load(read_card(folder)), gpu, *pictures)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=LEVEL)
    half = choose_device(gpu.device, "auto", precisions=("fp32", "bf16"))
    for one, other in zip(run(load(read_card(folder)), half, *pictures), expected, strict=True):
        assert np.abs(one - other).mean() < 4 * LEVEL


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_networks_of_the_published_width_give_the_cpus_picture(gpu: DevicePolicy, name: str) -> None:
    torch.manual_seed(0)
    network = network_class(name)().eval().requires_grad_(False)
    if hasattr(network, "sampler"):  # an untrained estimate of noise multiplies rounding errors
        network.sampler = dataclasses.replace(network.sampler, prediction="x0")
    steps = None if network.steps_range() is None else 2
    (expected,), (found,) = (run(network, policy, picture(), steps=steps) for policy in (CPU, gpu))
    np.testing.assert_allclose(found, expected, rtol=0, atol=LEVEL)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_batches_sizes_and_repetition_change_nothing_to_see(gpu: DevicePolicy, name: str) -> None:
    network = build_stable(name)
    smaller = 1 if network.size_multiple >= 4 else 0
    pictures = [picture(80 - smaller * (seed % 2), 120, seed) for seed in range(16)]
    steps = None if network.steps_range() is None else 2
    together, again = (run(network, gpu, *pictures, steps=steps) for _ in range(2))
    for each, one, other in zip(pictures, together, again, strict=True):
        assert np.array_equal(one, other)
        (alone,) = run(network, gpu, each, steps=steps)
        np.testing.assert_allclose(one, alone, rtol=0, atol=LEVEL)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_tiles_give_the_cpus_tiles(gpu: DevicePolicy, name: str) -> None:
    network = build_stable(name)
    steps = None if network.steps_range() is None else 2
    whole = picture(1200, 320)
    (expected,), (found,) = (run(network, policy, whole, steps=steps, plan=TilePlan(512)) for policy in (CPU, gpu))
    np.testing.assert_allclose(found, expected, rtol=0, atol=LEVEL)


@pytest.mark.parametrize("name", DECOMPOSING)
def test_decompositions_are_the_cpus(gpu: DevicePolicy, name: str) -> None:
    (expected,), (found,) = (
        decompose_batch(policy.prepare(build_stable(name)), [picture()], policy, reconstruct=True)
        for policy in (CPU, gpu)
    )
    for part in ("reflectance", "illumination", "reconstruction"):
        np.testing.assert_allclose(getattr(found.value, part), getattr(expected.value, part), rtol=0, atol=LEVEL)


def test_too_little_memory_ends_in_smaller_batches_and_the_same_pictures(gpu: DevicePolicy) -> None:
    network = gpu.prepare(build_stable("diffll", unet_channels=64, detail_channels=64))
    scenes = [scene_of(picture(600, 640, seed), "whole") for seed in range(8)]
    (alone,) = enhance_scenes(network, scenes[:1], gpu, steps=1, plan=TilePlan("off"))
    peak = torch.cuda.max_memory_reserved()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, 2.5 * peak / total))
    try:
        results = enhance_scenes(network, scenes, gpu, steps=1, plan=TilePlan("off"))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert any("run in smaller batches" in note for note in results[0].notes)
    np.testing.assert_allclose(results[0].value, alone.value, rtol=0, atol=LEVEL)  # type: ignore[arg-type]


@pytest.mark.parametrize("depth", [8, 16])
def test_photographs_reach_full_size_on_the_device_as_on_the_cpu(gpu: DevicePolicy, depth: int) -> None:
    scene = scene_of(
        Picture(convert_depth(landscape(1001, 1503, noise=0.02), depth), None, depth, False, "png", None, None)
    )
    result, lines = brightened(scene.seen.pixels), list[str]()
    for refining in (None, load_refining(torch.float32)):
        expected = finish(scene, result, refining=refining, keep_ratio=True)
        found = finish(scene, result, refining=refining, keep_ratio=True, carrier=carrier_of(gpu), warn=lines.append)
        assert not lines
        assert np.abs(found.astype(int) - expected.astype(int)).max() <= (1 if depth == 8 else 257)


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_a_batch_of_the_measured_size_fits(gpu: DevicePolicy, folder: Path) -> None:
    network = gpu.prepare(load(read_card(folder)))
    low = picture(400, 600)
    size = BatchSizes(network, gpu).at(shape_of(low, network, gpu))
    scenes = [scene_of(low)] * size
    assert not any(result.notes for result in enhance_scenes(network, scenes, gpu))
    assert torch.cuda.max_memory_allocated(gpu.device) < torch.cuda.get_device_properties(gpu.device).total_memory * 0.6
