"""The contract of every architecture, of lumen's own and of the example plugin alike, at a tiny size."""

from __future__ import annotations

import inspect
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import lumen_cli
from lumen_cli.api import picture_from_array
from lumen_cli.benchmark.paper_baseline import paper_network
from lumen_cli.diffusion import picture_noise
from lumen_cli.engine.device import choose_device
from lumen_cli.engine.tile import enhance_tiled, tiles_of
from lumen_cli.networks.base import LowLightModel, pad_to_multiple, padded_size
from lumen_cli.registry.architectures import ARCHITECTURES, architectures, import_object, network_class
from lumen_cli.registry.card import read_card
from lumen_cli.registry.checkpoints.importing import import_checkpoint
from lumen_cli.registry.checkpoints.reading_process import read_source
from lumen_cli.registry.load import load, save_weights
from lumen_cli.training.run import Options, run_stage
from tests.conftest import dark_pixels
from tests.reference import published_keys
from tests.registry.checkpoints.checkpoints import write_authors_checkpoint
from tests.training.conftest import batches, data  # noqa: F401  (fixtures)
from tests.training.tiny import tiny_recipe

KNOWN = architectures()
TRAINED = [name for name, each in KNOWN.items() if each.recipes]
DECOMPOSING = [name for name in KNOWN if "decompose" in network_class(name)(**KNOWN[name].tiny).abilities()]
CPU = choose_device("cpu", "fp32")
STEPS = 2


def build(name: str, **changes: Any) -> LowLightModel:
    """The tiny network with random values."""
    torch.manual_seed(0)
    return network_class(name)(**{**KNOWN[name].tiny, **changes}).eval().requires_grad_(False)


def build_stable(name: str, **changes: Any) -> LowLightModel:
    """The same, predicting the clean picture: sampling by an untrained noise estimate multiplies rounding errors."""
    predicts = "prediction" in inspect.signature(network_class(name)).parameters
    return build(name, **({"prediction": "x0"} if predicts else {}), **changes)


def dark(height: int, width: int, count: int = 1) -> Tensor:
    """Pictures of which each is darker than the one before."""
    levels = 0.3 ** torch.arange(1, count + 1).view(-1, 1, 1, 1)
    return levels * torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def noise_for(network: LowLightModel, height: int, width: int, count: int = 1) -> Tensor | None:
    shape = network.noise_shape(height, width)
    return None if shape is None else torch.randn(count, *shape, generator=torch.Generator().manual_seed(2))


def enhance(network: LowLightModel, low: Tensor, noise: Tensor | None, **options: Any) -> Tensor:
    with torch.inference_mode():
        return network.enhance(low, noise=noise, steps=STEPS, **options)


def test_the_example_plugin_is_one_of_them() -> None:
    assert set(KNOWN) == {*ARCHITECTURES, "tiny"}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_named_part_exists_and_published_figures_are_listed_or_explained(name: str) -> None:
    known = ARCHITECTURES[name]
    for where in (known.layout, known.paper_baseline):
        assert not where or import_object(where)
    for preset in ("COMPACT", "PAPER") if known.recipes else ():
        assert import_object(f"{known.recipes}:{preset}").architecture == name
    assert known.id == name
    assert known.release is not None


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_published_network_has_the_official_names_and_shapes(name: str) -> None:
    with torch.device("meta"):
        state = network_class(name)().state_dict()
    assert [(key, list(value.shape)) for key, value in state.items()] == published_keys()[name]


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (33, 47), (64, 64), (65, 3)], ids=str)
@pytest.mark.parametrize("name", KNOWN)
def test_any_size_gives_a_bright_picture_of_that_size(name: str, size: tuple[int, int]) -> None:
    network, low = build(name), dark(*size)
    noise = noise_for(network, *size)
    before = low.clone()
    ratios = (None, 0.0, 3.0) if "illumination-ratio" in network.abilities() else (None,)
    for options in ({} if ratio is None else {"illumination_ratio": ratio} for ratio in ratios):
        bright = enhance(network, low, noise, **options)
        assert bright.shape == low.shape
        assert torch.isfinite(bright).all()
        assert 0 <= bright.min() <= bright.max() <= 1
        assert torch.equal(low, before)
        assert torch.equal(enhance(network, low, noise, **options), bright)
        # The engine pads pictures to the size multiple first.
        padded = enhance(network, pad_to_multiple(low, network.size_multiple), noise, **options)
        torch.testing.assert_close(padded[..., : size[0], : size[1]], bright, rtol=0, atol=1e-5)
    assert network.noise_shape(*padded_size(*size, network.size_multiple)) == network.noise_shape(*size)


@pytest.mark.parametrize("name", KNOWN)
def test_a_picture_does_not_depend_on_its_batch_and_noise_is_required(name: str) -> None:
    network, low = build(name), dark(48, 64, 2)
    noise = noise_for(network, 48, 64, 2)
    together = enhance(network, low, noise)
    for index in range(2):
        alone = enhance(network, low[index : index + 1], None if noise is None else noise[index : index + 1])
        torch.testing.assert_close(together[index : index + 1], alone, rtol=0, atol=1e-4)
    if noise is not None and name in ARCHITECTURES:
        with pytest.raises(ValueError, match="noise"):
            network.enhance(low)


@pytest.mark.parametrize("size", [(1, 1), (33, 47), (64, 64)], ids=str)
@pytest.mark.parametrize("name", DECOMPOSING)
def test_a_decomposition_is_two_pictures_whose_product_rebuilds_one(name: str, size: tuple[int, int]) -> None:
    network, low = build(name), dark(*size, 2)
    with torch.inference_mode():
        found, again = network.decompose(low), network.decompose(low)
        rebuilt = found.reconstruction
    assert found.reflectance.shape == network.prepare(low).shape == rebuilt.shape == low.shape
    assert found.illumination.shape == (2, 1, *size)
    assert torch.equal(found.reflectance, again.reflectance)
    for picture in (found.reflectance, found.illumination, rebuilt):
        assert picture.dtype == torch.float32
        assert 0 <= picture.min() <= picture.max() <= 1
    if found.latents is None:
        assert torch.equal(rebuilt, found.reflectance * found.illumination)
    else:
        assert found.latents.keys() == {"reflectance", "illumination", "latent"}


def test_a_network_that_does_not_decompose_says_so() -> None:
    for name in KNOWN.keys() - set(DECOMPOSING):
        with pytest.raises(NotImplementedError, match="does not decompose"):
            build(name).decompose(dark(8, 8))


@pytest.mark.parametrize("name", KNOWN)
def test_the_papers_losses_repeat_add_up_and_train(name: str) -> None:
    network = build(name).requires_grad_(True)
    low = dark(64, 64, 2)
    batch = {"low": low, "high": (3.0 * low).clamp(0, 1)}
    losses, again = (network.losses(batch, torch.Generator().manual_seed(0)) for _ in range(2))
    parts = [losses[term] for term in losses.keys() - {"total"}]
    assert parts
    torch.testing.assert_close(losses["total"], torch.stack(parts).sum())
    assert all(torch.isfinite(term) and torch.equal(term.detach(), again[key].detach()) for key, term in losses.items())
    before = {key: value.clone() for key, value in network.named_parameters()}
    losses["total"].backward()
    torch.optim.SGD(network.parameters(), lr=0.1).step()
    changed = [key for key, value in network.named_parameters() if not torch.equal(value, before[key])]
    assert changed


@pytest.mark.parametrize("preset", ["compact", "paper"])
@pytest.mark.parametrize("name", TRAINED)
def test_a_step_of_each_stage_changes_what_the_stage_trains(
    batches: Any,  # noqa: F811
    tmp_path: Path,
    name: str,
    preset: str,
) -> None:
    steps = ["steps=2"] if preset == "paper" and "steps" in inspect.signature(network_class(name)).parameters else []
    recipe = tiny_recipe(name, preset, *steps, crop=64)
    torch.manual_seed(0)
    model = recipe.build()
    options = Options(torch.device("cpu"), torch.float32, save_every=99.0)
    trained: list[set[str]] = []
    for stage in recipe.stages:
        before = {key: value.clone() for key, value in model.named_parameters()}
        run_stage(recipe, model, replace(stage, steps=2), batches, tmp_path, options)
        changed = {key for key, value in model.named_parameters() if not torch.equal(value, before[key])}
        chosen = {id(parameter) for parameter in recipe.trainable(model, stage)}
        trained.append({key for key, value in model.named_parameters() if id(value) in chosen})
        assert changed
        assert changed <= trained[-1]
    assert preset == "compact" or len(trained) == 1 or not set.intersection(*trained), "each its own network"


@pytest.mark.parametrize("name", [name for name, each in KNOWN.items() if each.layout])
def test_a_checkpoint_in_the_authors_layout_becomes_a_model_that_gives_their_picture(
    name: str, tmp_path: Path, models_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lumen_cli.registry.checkpoints.importing.read_apart", read_source)  # no helper process
    torch.manual_seed(0)
    theirs = network_class(name)(**KNOWN[name].tiny).eval().requires_grad_(False)
    imported = import_checkpoint(name, write_authors_checkpoint(tmp_path, name, theirs), tmp_path / "model")
    expected = {key: value for key, value in theirs.state_dict().items() if not key.startswith(theirs.training_only)}
    ours = load(imported.card)
    found = ours.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], value) for key, value in expected.items())
    assert imported.card.architecture == name
    assert set(imported.match.ignored) <= {"for training only"}
    low, noise = dark(40, 56), noise_for(ours, 40, 56)
    options = {"illumination_ratio": 2.0} if "illumination-ratio" in imported.card.abilities else {}
    bright = enhance(ours, low, noise, **options)
    assert torch.equal(bright, enhance(theirs, low, noise, **options))
    assert bright.std() > 0.01


TILED: dict[str, tuple[dict[str, Any], float]] = {
    # Changes of the network, and the PSNR of its tiles against the whole picture in dB.
    "anlightendiff": ({"eta": 0.0}, 40.0),
    "diffll": ({"exposure": 0.5}, 60.0),
    "lldiffusion": ({}, 25.0),
}
SIDE = 256


@pytest.mark.parametrize("name", KNOWN)
def test_tiles_reproduce_the_whole_picture(name: str) -> None:
    changes, least = TILED.get(name, ({}, 80.0))
    network = build_stable(name, **changes)
    assert network.tiles
    low = dark_pixels(512, 160).astype(np.float32) / 255
    low[:140, :60] *= 2.5
    noise = noise_for(network, 512, 160)
    batch = torch.from_numpy(low).permute(2, 0, 1)[None]
    assert len(tiles_of(network, 512, 160, SIDE)) > 1
    with torch.inference_mode():
        tiled = enhance_tiled(network, low, None if noise is None else noise[0], SIDE, steps=STEPS)
    whole = enhance(network, batch, noise)[0]
    error = np.square(tiled - whole.permute(1, 2, 0).numpy(), dtype=np.float64).mean()
    assert -10 * np.log10(error + 1e-12) > least


@pytest.mark.parametrize("name", KNOWN)
def test_bfloat16_stays_near_single_precision(name: str) -> None:
    network, low = build_stable(name), dark(64, 96)
    noise = noise_for(network, 64, 96)
    exact = enhance(network, low, noise)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = enhance(network, low, noise)
    assert rounded.dtype == torch.float32
    assert float((exact - rounded).abs().mean()) < 0.01


@pytest.mark.parametrize("name", KNOWN)
def test_the_papers_way_gives_the_same_picture(name: str) -> None:
    network, low = CPU.prepare(build_stable(name)), dark(48, 64)
    noise = noise_for(network, 48, 64)
    paper = paper_network(network, name)
    with CPU.running("fp32"):
        ours = network.enhance(low.contiguous(memory_format=torch.channels_last), noise=noise, steps=STEPS)
        theirs = paper.enhance(low, noise, STEPS)
        again = network.enhance(low.contiguous(memory_format=torch.channels_last), noise=noise, steps=STEPS)
    assert torch.equal(ours, again), "the copy must not change the network"
    torch.testing.assert_close(theirs.detach(), ours, rtol=0, atol=1e-3)
    assert theirs.grad_fn is None
    assert float(ours.std()) > 0.01


@pytest.mark.parametrize("name", KNOWN)
def test_a_model_folder_gives_the_networks_picture(name: str, models_root: Path) -> None:
    network, folder = build_stable(name), models_root / "night"
    folder.mkdir()
    settings = {"prediction": "x0"} if getattr(network, "sampler", None) else {}
    steps = {"defaults": {"steps": STEPS}, "steps_range": [1, 10]} if network.steps_range() or name == "tiny" else {}
    config = {
        "name": "night",
        "architecture": name,
        "network": {**KNOWN[name].tiny, **settings},
        "size_multiple": network.size_multiple,
        "abilities": network.abilities(),
        "weights": {"network": save_weights(network.state_dict(), folder / "network.safetensors")},
    }
    (folder / "config.json").write_text(json.dumps(config | steps))
    again = load(read_card(folder))
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in network.state_dict().items())
    pixels = (dark_pixels(40, 56) / np.float32(255)).astype(np.float32)
    low = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    shape = network.noise_shape(40, 56)
    noise = None if shape is None else picture_noise(0, picture_from_array(pixels).digest(), shape)[None]
    alone = enhance(network, pad_to_multiple(low, network.size_multiple), noise)[0, :, :40, :56]
    through = lumen_cli.enhance(pixels, "night", device="cpu", precision="fp32", seed=0)
    np.testing.assert_allclose(through, alone.permute(1, 2, 0).numpy(), rtol=0, atol=1e-4)
