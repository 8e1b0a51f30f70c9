"""Every model on a device that is not the CPU, as far as a machine without one can tell; see `accelerator`."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lumen_tiny import Tiny
from torch import Tensor

from lumen_cli.engine.batch import decompose_batch, enhance_scenes, prepare
from lumen_cli.engine.device import choose_device
from lumen_cli.engine.memory import TilePlan
from lumen_cli.engine.scene import Settings as SceneSettings
from lumen_cli.engine.scene import scene_of
from lumen_cli.engine.tile import enhance_tiled, tiles_of
from lumen_cli.files.find import find_pictures
from lumen_cli.files.outputs import plan_outputs
from lumen_cli.imaging.picture import Picture
from lumen_cli.imaging.tags import TagWriter
from lumen_cli.networks.base import LowLightModel
from lumen_cli.registry.architectures import ARCHITECTURES, network_class
from lumen_cli.registry.card import read_card
from lumen_cli.registry.load import load
from lumen_cli.run.existing import IfExists
from lumen_cli.run.operation import Enhance, Settings
from lumen_cli.run.plan import make_plan
from lumen_cli.run.run import Run
from tests.accelerator import Calls, OnDevice, accelerator, policy_on
from tests.conftest import dark_pixels, read_pixels, write_dark
from tests.networks.test_grading import opinionated
from tests.test_architectures import DECOMPOSING, KNOWN, STEPS, build_stable, dark, noise_for

CPU = choose_device("cpu", "fp32")
KINDS = ("cuda", "mps")
SHIPPED = sorted(path.parent for path in (Path(__file__).parent.parent / "models").glob("*/config.json"))
TILED, SIDE = (320, 64), 128


def picture(height: int, width: int, seed: int = 0) -> Picture:
    pixels = dark_pixels(height, width, seed).astype(np.float32) / 255
    return Picture(pixels, None, 8, False, "png", None, None)


def on_device(network: LowLightModel, kind: str) -> LowLightModel:
    return policy_on(kind).prepare(network)


def values(results: Any) -> list[np.ndarray]:
    found = [result.value for result in results]
    assert all(isinstance(value, np.ndarray) for value in found), found
    return found


def steps_of(network: LowLightModel) -> int | None:
    return None if network.steps_range() is None else STEPS


def test_the_stand_in_refuses_what_a_device_refuses() -> None:
    with accelerator("cuda") as stand_in:
        ours, theirs = torch.ones(2, 3).to("cuda:0"), torch.ones(2, 3)
        assert (ours + 2.0 * torch.tensor(1.0)).device.type == "cuda"
        with pytest.raises(RuntimeError, match="one device"):
            ours + theirs
        with pytest.raises(RuntimeError, match="generator"):
            torch.rand(3, generator=torch.Generator("cuda:0"))
        with pytest.raises(RuntimeError, match="generator"):
            torch.rand(3, generator=torch.Generator(), device="cuda:0")
        with pytest.raises((RuntimeError, TypeError)):
            ours.numpy()
        assert ours.cpu().numpy().sum() == 6
        assert torch.ops.aten.add.Tensor in stand_in.called
        assert torch.stack([ours, ours]).new_zeros(()).device == ours.device
        assert theirs.to(ours).device == ours.device
    with accelerator("mps"):
        with pytest.raises(TypeError, match="float64"):
            torch.ones(2).to("mps:0").double()
        with pytest.raises(RuntimeError, match="divisible"):
            F.adaptive_avg_pool2d(torch.ones(1, 3, 50, 64).to("mps:0"), 16)
        with pytest.raises(NotImplementedError, match="not currently implemented for the MPS"):
            torch.linalg.eig(torch.eye(3).to("mps:0"))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_autocast_on_the_stand_in_is_that_of_cuda(precision: str) -> None:
    layer = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.GroupNorm(2, 4))
    with accelerator("cuda"), policy_on().running(precision):
        convolved = layer.to("cuda:0")[0](torch.ones(1, 3, 8, 8).to("cuda:0"))
        assert str(convolved.dtype) == {"bf16": "torch.bfloat16", "fp16": "torch.float16"}[precision]
        assert layer[1](convolved).dtype == torch.float32  # the CPU's autocast keeps half precision here


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", KNOWN)
def test_a_batch_of_mixed_sizes_gives_the_cpus_pictures(name: str, kind: str) -> None:
    network = build_stable(name)
    network.grading = opinionated()
    smaller = 1 if network.size_multiple >= 4 else 0  # of the same padded shape
    pictures = [picture(38, 50), picture(38 - smaller, 50 - smaller, 1), picture(70, 110, 2)]
    scenes = [scene_of(each, "auto", SceneSettings(whole_pixels=4096, scene_pixels=4096)) for each in pictures]
    assert [scene.whole for scene in scenes] == [True, True, False]
    for group in (scenes[:2], scenes[2:]):
        expected = values(enhance_scenes(CPU.prepare(network), group, CPU, steps=steps_of(network)))
        with accelerator(kind):
            moved = on_device(network, kind)
            found = values(enhance_scenes(moved, group, policy_on(kind), steps=steps_of(network)))
            network.cpu()
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("kind", "sample_whole"), [("cuda", True), ("mps", False)])
@pytest.mark.parametrize("name", KNOWN)
def test_tiles_give_the_cpus_picture(name: str, sample_whole: bool, kind: str) -> None:
    takes_exposure = "exposure" in inspect.signature(network_class(name)).parameters
    network = build_stable(name, **({"exposure": 0.5} if takes_exposure else {}))
    network.grading = opinionated()
    low, noise = picture(*TILED).pixels, noise_for(network, *TILED)
    options: dict[str, Any] = {"noise": None if noise is None else noise[0], "side": SIDE, "sample_whole": sample_whole}
    assert len(tiles_of(network, *TILED, SIDE)) > 1
    with CPU.running("fp32"):
        expected = enhance_tiled(network, low, steps=steps_of(network), **options)
    with accelerator(kind):
        moved, policy = on_device(network, kind), policy_on(kind)
        with policy.running("fp32"):
            found = enhance_tiled(moved, low, device=policy.device, steps=steps_of(network), **options)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", DECOMPOSING)
def test_a_decomposition_gives_the_cpus_maps(name: str, kind: str) -> None:
    network, pictures = build_stable(name), [picture(38, 50), picture(38, 50, 1)]
    expected = decompose_batch(network, pictures, CPU, reconstruct=True)
    with accelerator(kind):
        found = decompose_batch(on_device(network, kind), pictures, policy_on(kind), reconstruct=True)
    for one, other in zip(found, expected, strict=True):
        for part in ("reflectance", "illumination", "reconstruction", "prepared"):
            np.testing.assert_allclose(getattr(one.value, part), getattr(other.value, part), rtol=0, atol=1e-4)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("name", KNOWN)
def test_mixed_precision_of_cuda_stays_near_single_precision(name: str, precision: str) -> None:
    network, low = build_stable(name), dark(40, 56)
    noise = noise_for(network, 40, 56)
    with CPU.running("fp32"):
        exact = network(low, noise=noise, steps=steps_of(network))
    with accelerator("cuda") as stand_in:
        moved = on_device(network, "cuda")
        with policy_on().running(precision):
            rounded = moved(low.to("cuda:0"), noise=to_device(noise), steps=steps_of(network)).float().cpu()
            assert any("_to_copy" in str(each) for each in stand_in.called)
    assert float((exact - rounded).abs().mean()) < 0.01
    assert not torch.equal(exact, rounded), "nothing was rounded"


def to_device(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.to("cuda:0")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_shipped_models_run(folder: Path, kind: str) -> None:
    network, scenes = load(read_card(folder)), [scene_of(picture(80, 110))]
    expected = values(enhance_scenes(CPU.prepare(network), scenes, CPU))
    with accelerator(kind):
        found = values(enhance_scenes(on_device(network, kind), scenes, policy_on(kind)))
    np.testing.assert_allclose(found[0], expected[0], rtol=0, atol=1 / 255)


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_shipped_models_hold_their_figures_in_each_precision(folder: Path) -> None:
    network, card = load(read_card(folder)), read_card(folder)
    scenes = [scene_of(Picture(dark_pixels(80, 110, seed), None, 8, False, "png", None, None)) for seed in range(2)]
    exact = values(enhance_scenes(CPU.prepare(network), scenes, CPU))
    errors = {}
    for precision in card.precisions:
        with accelerator("cuda"):
            policy = policy_on("cuda", precision)
            results = enhance_scenes(policy.prepare(load(card)), scenes, policy)
        assert not any(result.notes for result in results), "computed again in fp32"
        errors[precision] = max(np.abs(one - two).mean() for one, two in zip(values(results), exact, strict=True))
    assert set(errors) == {"fp32", "bf16", "fp16"}
    assert 255 * errors["bf16"] < 1.0
    assert errors["fp32"] < errors["fp16"] < 0.3 * errors["bf16"]


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((9, 0), "bf16"), ((8, 0), "bf16"), ((7, 5), "fp16"), ((7, 0), "fp16"), ((6, 1), "fp32")],
    ids=["H100", "A100", "T4", "V100", "P40"],
)
def test_auto_takes_the_half_precision_that_the_chip_has(capability: tuple[int, int], expected: str) -> None:
    with accelerator("cuda"), patch.object(torch.cuda, "get_device_capability", lambda device: capability):
        for folder in SHIPPED:
            policy = choose_device("cuda", precisions=read_card(folder).precisions)
            assert (policy.precision, policy.deep_precision) == (expected, "fp32")


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_networks_of_the_published_width_run(name: str) -> None:
    kind = "mps"
    torch.manual_seed(0)
    network = network_class(name)().eval().requires_grad_(False)
    options = {"steps": steps_of(network), "plan": TilePlan("off")}
    with accelerator(kind):
        (result,) = enhance_scenes(on_device(network, kind), [scene_of(picture(60, 70))], policy_on(kind), **options)
    assert isinstance(result.value, np.ndarray), result.value


@pytest.mark.parametrize("name", KNOWN)
def test_losses_and_their_gradients_are_on_the_device_and_those_of_the_cpu(name: str) -> None:
    network = build_stable(name).requires_grad_(True)
    low = dark(64, 64, 2)
    batch = {"low": low, "high": (3.0 * low).clamp(0, 1)}

    def losses(given: dict[str, Tensor], device: str) -> tuple[dict[str, float], Tensor]:
        network.zero_grad()
        terms = network.losses(given, torch.Generator(device).manual_seed(0))
        terms["total"].backward()
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        assert all(gradient.device.type == torch.device(device).type for gradient in gradients)
        return {key: float(term.detach()) for key, term in terms.items()}, torch.cat(
            [each.flatten() for each in gradients]
        )

    expected, gradient = losses(batch, "cpu")
    with accelerator("cuda"):
        network.to("cuda:0")
        found, again = losses({key: value.to("cuda:0") for key, value in batch.items()}, "cuda:0")
        assert isinstance(again, OnDevice)
        again = again.cpu()
    assert found == pytest.approx(expected, rel=1e-4)
    torch.testing.assert_close(again, gradient, rtol=1e-3, atol=1e-5)


def test_pictures_go_up_as_their_own_bytes_and_come_back_in_one_copy() -> None:
    network, dark = build_stable("tiny"), [dark_pixels(38, 50, seed) for seed in range(3)]
    pictures = [Picture(each, None, 8, False, "png", None, None) for each in dark]
    scenes = [scene_of(each) for each in pictures]
    expected = values(enhance_scenes(network, scenes, CPU, steps=STEPS))
    with accelerator("cuda"):
        moved, policy = on_device(network, "cuda"), policy_on("cuda")
        ready = [prepare(scene, moved, policy, 0, scene.picture.digest()) for scene in scenes]
        assert {scene.input.dtype for scene in ready if scene.input is not None} == {torch.uint8}
        pinned = Calls.pinned
        found = values(enhance_scenes(moved, ready, policy, steps=STEPS))
        assert Calls.pinned == pinned + 1
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


def test_a_folder_runs_in_batches_and_a_fault_of_the_network_costs_its_pictures_only(tmp_path: Path) -> None:
    class Faulty(Tiny):
        def enhance(self, low: Tensor, **options: Any) -> Tensor:  # type: ignore[override]
            if low.shape[-2] > 40:
                raise RuntimeError("sizes of tensors must match")
            return super().enhance(low, **options)

    for number in range(5):
        write_dark(tmp_path / "in" / f"{number}.png", 24, 32, seed=number)
    write_dark(tmp_path / "in" / "tall.png", 64, 32)
    settings, outcomes = Settings("tiny", {}, "0" * 64, steps=1), {}
    for policy, kind in ((CPU, "cpu"), (policy_on(batch_size=3), "cuda")):
        jobs = plan_outputs(find_pictures([str(tmp_path / "in")]), f"{tmp_path / kind}/", None)
        plan = make_plan(jobs, settings.fingerprint(), IfExists.REFUSE)
        network = Faulty().eval().requires_grad_(False)
        with accelerator(), TagWriter("pillow") as tags:
            run = Run(None, policy, Enhance(settings, TilePlan()), network=policy.prepare(network), tags=tags)
            outcomes[kind] = {result.task.output: result.status for result in run.results(plan)}
        assert network.largest_batch == (1 if kind == "cpu" else 3)
    assert outcomes["cuda"] == outcomes["cpu"]
    assert [name for name, status in outcomes["cuda"].items() if status == "failed"] == ["tall.png"]
    for number in range(5):
        found, expected = (read_pixels(tmp_path / kind / f"{number}.png").astype(int) for kind in ("cuda", "cpu"))
        assert np.abs(found - expected).max() <= 1
