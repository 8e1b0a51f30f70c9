"""The way to full size on a device gives the CPU's pictures within one of 255 levels, whatever the picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lumen_tiny import Tiny
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from lumen_cli.engine import carrier as module
from lumen_cli.engine.carrier import Carrier, carrier_of
from lumen_cli.engine.colour_maps import Grid, fit_maps
from lumen_cli.engine.device import choose_device
from lumen_cli.engine.full_resolution import plan
from lumen_cli.engine.refine import Refining, load_refining
from lumen_cli.engine.scene import Floats, Scene, finish, reader_of, scene_of
from lumen_cli.engine.scene import Settings as SceneSettings
from lumen_cli.engine.video import KeyFrame, finish_frame
from lumen_cli.files.find import find_pictures
from lumen_cli.files.outputs import plan_outputs
from lumen_cli.imaging.colour.convert import convert_depth
from lumen_cli.imaging.picture import Picture, read_picture
from lumen_cli.imaging.tags import TagWriter
from lumen_cli.run.existing import IfExists
from lumen_cli.run.operation import Enhance, Settings
from lumen_cli.run.plan import make_plan
from lumen_cli.run.run import Run
from tests.accelerator import ATEN, accelerator, policy_on
from tests.conftest import dark_pixels, write_dark
from tests.engine.test_full_resolution import brightened, landscape, picture
from tests.engine.test_refine import eager
from tests.imaging.profiles import display_p3

CPU = Carrier(choose_device("cpu", "fp32"))
"""The device's functions, on tensors of the CPU."""
SMALL = SceneSettings(whole_pixels=8000, scene_pixels=8000)
"""So small pictures are reduced too."""


def reduced(values: NDArray[Any] | Picture) -> Scene:
    """The scene of a picture that the network sees at a smaller size."""
    scene = scene_of(values if isinstance(values, Picture) else picture(values), settings=SMALL)
    assert not scene.whole
    return scene


def noisy(height: int, width: int, depth: int = 8, *, noise: float = 0.02) -> Scene:
    return reduced(convert_depth(landscape(height, width, noise=noise), depth))


def levels(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.float64]:
    """How far two pictures of one kind differ, in steps of 1/255."""
    assert one.dtype == other.dtype
    assert one.shape == other.shape
    unit = 1.0 if one.dtype.kind == "f" else np.iinfo(one.dtype).max
    return np.abs(one.astype(np.float64) - other.astype(np.float64)) * (255.0 / unit)


def both(scene: Scene, result: Floats, carrier: Carrier | None = CPU, **options: Any) -> list[NDArray[Any]]:
    """The results of the CPU and of a carrier."""
    return [finish(scene, result, carrier=each, **options) for each in (None, carrier)]


ODD = {
    "one colour": np.full((101, 103, 3), (9, 12, 20), np.uint8),
    "black": np.zeros((100, 100, 3), np.uint8),
    "white": np.full((100, 100, 3), 255, np.uint8),
    "hot pixels": (np.random.default_rng(5).random((100, 101, 1)) > 0.999).astype(np.uint8).repeat(3, axis=2) * 255,
    "chequered": (np.indices((141, 90)).sum(axis=0) % 2 * 255).astype(np.uint8)[:, :, None].repeat(3, axis=2),
    "panorama": np.random.default_rng(6).integers(0, 40, (33, 2001, 3), dtype=np.uint8),
    "one row": np.random.default_rng(7).integers(0, 40, (1, 9001, 3), dtype=np.uint8),
    "two columns": np.random.default_rng(8).integers(0, 9000, (9001, 2, 3), dtype=np.uint16),
}


@pytest.mark.parametrize("values", ODD.values(), ids=ODD)
def test_odd_pictures_are_those_of_the_cpu(values: NDArray[Any]) -> None:
    scene, refining = reduced(values), eager(torch.float32)
    for gain in (0.5, 4, 60):
        result = np.clip(scene.seen.pixels * np.float32(gain), 0, 1)
        expected, found = both(scene, result, refining=refining)
        assert levels(expected, found).max() <= 1.001


@pytest.mark.parametrize("noise", [0.0, 0.01])
@pytest.mark.parametrize("depth", [8, 16, 32])
def test_photographs_are_those_of_the_cpu(depth: int, noise: float) -> None:
    scene = noisy(203, 301, depth, noise=noise)
    result, most = brightened(scene.seen.pixels), 1.001 if depth == 8 else 0.005
    for refining in (None, load_refining(torch.float32)):
        for options in ({}, {"strength": 0.3}, {"keep_ratio": True}, {"strength": 0.8, "keep_ratio": True}):
            expected, found = both(scene, result, refining=refining, **options)
            assert levels(expected, found).max() <= most
            assert (levels(expected, found) > 0.5).mean() < 1e-3


def test_the_maps_are_those_of_the_cpu() -> None:
    for size in ((37, 211), (1, 90), (200, 101)):
        guide, result = np.random.default_rng(3).random((2, *size, 3), dtype=np.float32)
        grid = Grid((size[0] * 5 + 2, size[1] * 5 + 1), size, 19)
        np.testing.assert_allclose(CPU.fit(guide, result, grid), fit_maps(guide, result, grid), rtol=0, atol=1e-4)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "RGB"])
def test_files_of_every_kind_are_those_of_the_cpu(tmp_path: Path, mode: str) -> None:
    pixels = convert_depth(landscape(141, 202, noise=0.01), 8)
    profile = {"icc_profile": display_p3()} if mode == "RGB" else {}
    Image.fromarray(pixels).convert(mode).save(tmp_path / "picture.png", **profile)
    scene = reduced(read_picture(tmp_path / "picture.png"))
    assert (scene.picture.native is not None) == (mode == "RGB")
    expected, found = both(scene, brightened(scene.seen.pixels), refining=load_refining(torch.float32))
    assert levels(expected, found).max() <= 1.001


@pytest.mark.parametrize("refining", [None, eager(torch.float32)], ids=["fast", "refined"])
def test_strips_of_any_height_give_the_same_picture(monkeypatch: pytest.MonkeyPatch, refining: Refining | None) -> None:
    scene, made = noisy(301, 403, 32), []
    monkeypatch.setattr(module, "_STRIP_PIXELS", 0)
    for rows in (1000, 128, 37, 5):
        monkeypatch.setattr(module, "_FEWEST_ROWS", rows)
        made.append(finish(scene, brightened(scene.seen.pixels), refining=refining, carrier=CPU))
    for other in made[1:]:
        np.testing.assert_allclose(other, made[0], rtol=0, atol=1e-5)


def test_the_refiner_runs_in_the_precision_of_the_network() -> None:
    scene, refining = noisy(203, 301), load_refining(torch.float32)
    result = brightened(scene.seen.pixels)
    expected = finish(scene, result, refining=refining)
    assert (expected != finish(scene, result)).any()
    for precision in ("bf16", "fp16"):
        policy = choose_device("cpu", precision, precisions=(precision,))
        rounded = finish(scene, result, refining=refining, carrier=Carrier(policy))
        assert 0 < levels(expected, rounded).mean() < 0.1
        assert levels(expected, rounded).max() <= 2


def test_a_device_gives_the_cpus_picture() -> None:
    scene, refining = noisy(203, 301), load_refining(torch.float32)
    result, options = brightened(scene.seen.pixels), {"refining": refining, "keep_ratio": True, "strength": 0.9}
    expected = finish(scene, result, **options)
    lines: list[str] = []
    with accelerator() as stand_in:
        carrier = carrier_of(policy_on())
        found = finish(scene, result, **options, carrier=carrier, warn=lines.append)
        assert carrier_of(policy_on()) is carrier
        assert ATEN.convolution.default in stand_in.called
        assert not stand_in.machine.unrecorded
        assert not stand_in.machine.synchronized
    assert not lines
    assert levels(expected, found).max() <= 1


def test_the_memory_on_the_device_does_not_grow_with_the_height(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_STRIP_PIXELS", 301 * 40)
    largest = []
    for height in (110, 640):
        scene = noisy(height, 301)
        full = plan(reader_of(scene.picture), scene.seen.pixels, brightened(scene.seen.pixels), (height, 301))
        with accelerator() as stand_in:
            carrier = carrier_of(policy_on())
            assert carrier is not None
            carrier.render(full, scene.picture)
        largest.append(stand_in.machine.largest)
    assert largest[0] == largest[1] < 4 * 3 * 640 * 301


def test_pictures_reach_their_size_on_the_cpu_where_no_cuda_device_runs_the_network() -> None:
    assert carrier_of(choose_device("cpu")) is None
    assert carrier_of(policy_on("mps")) is None


def test_a_full_or_lost_device_leaves_the_picture_to_the_cpu_with_a_line_and_a_fault_does_not() -> None:
    scene, refining = noisy(203, 301), load_refining(torch.float32)
    result = brightened(scene.seen.pixels)
    expected = finish(scene, result, refining=refining)
    for state, why in (("full", "has too little memory"), ("lost", "no longer computes")):
        lines: list[str] = []
        with accelerator() as stand_in:
            carrier = carrier_of(policy_on())
            getattr(stand_in.machine, state).add("cuda:0")
            found = finish(scene, result, refining=refining, carrier=carrier, warn=lines.append)
        assert lines == [f"brought to full size on the CPU: cuda:0 {why}"]
        np.testing.assert_array_equal(found, expected)
    with accelerator(), pytest.raises(RuntimeError, match="size of tensor"):
        finish(scene, result[:, :-1], carrier=carrier_of(policy_on()))


def test_frames_of_a_clip_are_those_of_the_cpu() -> None:
    scenes = [reduced(convert_depth(landscape(141, 202, light=light), 8)) for light in (0.2, 0.24)]
    for keep_ratio in (False, True):

        def keys(keep_ratio: bool = keep_ratio) -> list[KeyFrame]:
            return [KeyFrame(scene, brightened(scene.seen.pixels), keep_ratio=keep_ratio) for scene in scenes]

        expected = finish_frame(scenes[0].picture, *keys(), 0.3)
        with accelerator() as stand_in:
            found = finish_frame(scenes[0].picture, *keys(), 0.3, carrier=carrier_of(policy_on()))
            assert stand_in.called
        assert expected is not None
        assert found is not None
        assert levels(expected, found).max() <= 1


@pytest.mark.parametrize("room", [True, False], ids=["room", "no room"])
def test_a_run_brings_pictures_and_animations_to_full_size_on_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: bool
) -> None:
    for number in range(3):
        write_dark(tmp_path / "in" / f"{number}.png", 640, 701, seed=number)
    first, second = (Image.fromarray(dark_pixels(48, 64, seed)) for seed in range(2))
    first.save(tmp_path / "in" / "moving.png", save_all=True, append_images=[second])
    settings, made = Settings("tiny", {}, "0" * 64, steps=1), []
    render = Carrier.render

    def perhaps(carrier: Carrier, *given: Any, **options: Any) -> NDArray[Any]:
        if not room:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        made.append(carrier)
        return render(carrier, *given, **options)

    monkeypatch.setattr(Carrier, "render", perhaps)
    for policy in (choose_device("cpu", "fp32"), policy_on(batch_size=2)):
        jobs = plan_outputs(find_pictures([str(tmp_path / "in")]), f"{tmp_path / policy.device[:4]}/", None)
        with accelerator() as stand_in, TagWriter("pillow") as tags:
            network = policy.prepare(Tiny().eval().requires_grad_(False))
            run = Run(None, policy, Enhance(settings), network=network, tags=tags)
            results = list(run.results(make_plan(jobs, settings.fingerprint(), IfExists.REFUSE)))
        assert [result.status for result in results] == ["done"] * 4
        line = "brought to full size on the CPU: cuda:0 has too little memory"
        assert all(result.notices.count(line) == (policy.device != "cpu" and not room) for result in results)
        assert not stand_in.machine.unrecorded
    assert len(made) == (5 if room else 0)
    for path in sorted((tmp_path / "in").iterdir()):
        with Image.open(tmp_path / "cpu" / path.name) as one, Image.open(tmp_path / "cuda" / path.name) as other:
            assert getattr(one, "n_frames", 1) == getattr(other, "n_frames", 1) == (2 if path.stem == "moving" else 1)
            for expected, found in zip(ImageSequence.Iterator(one), ImageSequence.Iterator(other), strict=True):
                assert levels(np.array(expected), np.array(found)).max() <= 1
