"""The refiner on parts of pictures: the same bytes for any parts, the shipped weights, and when it runs."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lumen_cli.benchmark.samples import FOLDER, darken_as_taken
from lumen_cli.engine import refine as module
from lumen_cli.engine.full_resolution import FullResolution, plan
from lumen_cli.engine.refine import Refining, load_refining
from lumen_cli.engine.scene import Floats, Settings, finish, reduce_by_area, scene_of
from lumen_cli.errors import ModelError
from lumen_cli.imaging.picture import read_picture
from lumen_cli.networks.refiner import Refiner
from lumen_cli.registry import bundled_models
from tests.engine.test_full_resolution import brightened, landscape, picture, psnr


def eager(dtype: torch.dtype) -> Refining:
    """A refiner with random weights, which changes every pixel."""
    torch.manual_seed(0)
    network = Refiner()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.05)
    return Refining(network, dtype)


def carried(low: Floats) -> FullResolution:
    scene = scene_of(picture(np.rint(low * 255).astype(np.uint8)))
    values = scene.picture.values
    assert values is not None
    size = scene.picture.height, scene.picture.width
    return plan(lambda rows, columns: values[rows, columns], scene.seen.pixels, brightened(scene.seen.pixels), size)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize(("height", "width"), [(402, 1101), (130, 3203), (3200, 130), (51, 9001)])
def test_strips_of_any_height_give_the_same_bytes(height: int, width: int, dtype: torch.dtype) -> None:
    fast = carried(landscape(height, width, noise=0.01))
    full = replace(fast, refining=eager(dtype))
    whole = full.render(0, height)
    assert np.abs(whole - fast.render(0, height)).mean() > 1e-3
    for strip in (37, 128, 256):
        tops = range(0, height, strip)
        parts = [full.render(top, min(top + strip, height)) for top in tops]
        np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_the_number_of_torch_threads_changes_no_byte_and_is_left_alone() -> None:
    scene = scene_of(picture(np.rint(landscape(700, 900, noise=0.01) * 255).astype(np.uint8)))
    result, refining, before = brightened(scene.seen.pixels), eager(torch.float32), torch.get_num_threads()
    outcomes = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            outcomes.append(finish(scene, result, refining=refining))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(*outcomes)
    assert np.any(outcomes[0] != finish(scene, result))


def test_the_shipped_refiner_removes_noise_and_leaves_light_and_colour() -> None:
    bright = read_picture(FOLDER / "astronaut.webp").pixels
    dark = darken_as_taken(bright, exposure=-3.0, shot=1e-3, seed=1).low.pixels
    settings = Settings(whole_pixels=10_000, scene_pixels=40_000)
    scene = scene_of(picture(np.rint(dark * 255).astype(np.uint8)), settings=settings)
    result = reduce_by_area(picture(bright), *scene.seen.pixels.shape[:2])
    fast, refined = (
        finish(scene, result, refining=each, settings=settings).astype(np.float32) / np.float32(255)
        for each in (None, load_refining(torch.float32))
    )
    assert psnr(refined, bright) > psnr(fast, bright) + 0.2
    fast, refined = (each.reshape(8, 50, 8, 50, 3).mean(axis=(1, 3)) for each in (fast, refined))
    assert np.abs(fast - refined).max() < 0.015


def test_pictures_without_strong_noise_stay_bit_for_bit_as_they_are_without_it() -> None:
    refining = eager(torch.float32)
    bright = scene_of(picture(np.rint(landscape(700, 900, noise=0.02, light=0.8) * 255).astype(np.uint8)))
    dark = scene_of(picture(np.rint(landscape(700, 900) * 255).astype(np.uint8)))
    for scene, result in ((bright, bright.seen.pixels), (dark, brightened(dark.seen.pixels))):
        np.testing.assert_array_equal(finish(scene, result, refining=refining), finish(scene, result))


def test_the_shipped_file_is_small_and_belongs_to_no_model() -> None:
    folder = bundled_models() / "refiner"
    assert (folder / "refiner.safetensors").stat().st_size <= 1 << 20
    assert (folder / "README.md").is_file()
    assert not (folder / "config.json").exists()


def test_a_damaged_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(bundled_models() / "refiner", tmp_path / "refiner")
    file = tmp_path / "refiner" / "refiner.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    monkeypatch.setattr(module, "bundled_models", lambda: tmp_path)
    load_refining.cache_clear()
    try:
        with pytest.raises(ModelError, match="is damaged: expected SHA-256"):
            load_refining(torch.float32)
    finally:
        load_refining.cache_clear()
