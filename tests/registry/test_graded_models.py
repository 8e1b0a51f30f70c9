"""Models with a grading: how it is loaded, when it applies, and which are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import lumen_cli
from lumen_cli.engine.tile import enhance_tiled
from lumen_cli.errors import ModelError
from lumen_cli.networks.grading import Grading, bend
from lumen_cli.networks.kind import KinD
from lumen_cli.registry import find_model
from lumen_cli.registry.load import load, require_loadable, save_weights
from tests.conftest import MakeModel

SETTINGS = {"channels": 8, "heads": 2}


def bright_grading() -> Grading:
    """A grading that brightens every picture."""
    grading = Grading(**SETTINGS)
    for head in grading.heads:
        torch.nn.init.constant_(head.choice[-1].bias, 0.3)
    grading.gate.choice.bias.data[0] = 50.0
    return grading


def add_grading(folder: Path) -> None:
    """Put a grading into a model folder, beside the weights that are there."""
    config = json.loads((folder / "config.json").read_text())
    file = save_weights(bright_grading().state_dict(), folder / "grading.safetensors")
    config |= {"grading": SETTINGS, "weights": config.get("weights", {}) | {"grading": file}}
    (folder / "config.json").write_text(json.dumps(config))


def merge_files(folder: Path) -> None:
    """Turn a folder into one of an earlier version: one weights file, and the names of that time."""
    config = json.loads((folder / "config.json").read_text())
    weights, tensors = config["weights"], {}
    for part in {"network", "grading"} & weights.keys():
        path = folder / weights[part]["file"]
        for name, tensor in load_file(path).items():
            start = "rendition." if part == "grading" else ""
            former = name.replace("auto_exposure.", "development.").replace("gate.", "judge.") if start else name
            tensors[start + former] = tensor
        path.unlink()
    config["weights"] = save_weights(tensors, folder / "model.safetensors")
    config["rendition"] = config.pop("grading")
    (folder / "config.json").write_text(json.dumps(config))


@pytest.fixture
def finished(make_model: MakeModel) -> Path:
    """The tiny model twice: "plain", and "finished" with a grading; returns the folder of the latter."""
    make_model("plain", network={"gain": 4.0})
    folder = make_model("finished", network={"gain": 4.0}, tiling=True)
    add_grading(folder)
    return folder


def test_a_folder_of_an_earlier_version_gives_the_same_pictures(finished):
    expected = lumen_cli.enhance(picture(), "finished", precision="fp32")
    merge_files(finished)
    card = find_model("finished")
    assert [file.file for file in card.files.values()] == ["model.safetensors"]
    assert card.weights_sha256 == card.files["network"].sha256, "as in manifests of that time"
    require_loadable(card)
    assert np.array_equal(lumen_cli.enhance(picture(), "finished", precision="fp32"), expected)


def test_another_grading_alone_makes_other_weights_of_a_model(finished):
    before = find_model("finished")
    file = save_weights(Grading(**SETTINGS).state_dict(), finished / "grading.safetensors")
    config = json.loads((finished / "config.json").read_text())
    config["weights"]["grading"] = file
    (finished / "config.json").write_text(json.dumps(config))
    after = find_model("finished")
    assert after.files["network"] == before.files["network"]
    assert after.weights_sha256 not in (before.weights_sha256, *(each.sha256 for each in after.files.values()))


def picture(height: int = 20, width: int = 30) -> np.ndarray:
    return (np.random.default_rng(0).random((height, width, 3)) * 0.2).astype(np.float32)


def batch(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]


def test_the_pipeline_grades_pictures_and_enhance_does_not(finished):
    plain, bent = (lumen_cli.enhance(picture(), name, precision="fp32") for name in ("plain", "finished"))
    assert (bent >= plain).all()
    assert np.abs(bent - plain).max() > 0.02
    network = load(find_model("finished"))
    assert network.grading is not None
    with torch.inference_mode():
        noise = torch.randn(1, *network.noise_shape(20, 30))
        raw = network.enhance(batch(picture()), noise=noise)
        expected = bend(raw, network.grading.curves(batch(picture()), raw))
        assert torch.equal(network(batch(picture()), noise=noise), expected)
        assert not torch.equal(raw, expected)


def test_a_requested_illumination_ratio_is_not_graded():
    network = KinD(decomposition_channels=16, restoration_channels=4, adjustment_channels=8).eval()
    low = batch(picture(64, 96))
    with torch.inference_mode():
        raw, asked = network(low), network(low, illumination_ratio=2.0)
        network.grading = bright_grading().eval()
        assert not torch.equal(network(low), raw)
        assert torch.equal(network(low, illumination_ratio=2.0), asked)
        tiled = enhance_tiled(network, picture(64, 96), None, 300, illumination_ratio=2.0)
    np.testing.assert_allclose(tiled, asked[0].permute(1, 2, 0).numpy(), atol=1e-5)


def test_tiles_are_graded_as_one_picture(finished):
    network = load(find_model("finished"))
    low = picture(600, 700)
    noise = torch.randn(network.noise_shape(600, 700), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        tiled = enhance_tiled(network, low, noise, 300)
        raw = enhance_tiled(load(find_model("plain")), low, noise, 300)
        assert network.grading is not None
        whole = bend(batch(raw), network.grading.curves(batch(low), batch(raw)))
    np.testing.assert_allclose(tiled, whole[0].permute(1, 2, 0).numpy(), atol=1e-6)


def test_a_mean_averages_graded_pictures_and_may_grade_the_mean(finished, make_model, models_root):
    make_model("other", network={"gain": 2.0})
    sums = {name: find_model(name).weights_sha256 for name in ("finished", "other", "plain")}
    for name, first in (("of-raw", "plain"), ("of-finished", "finished")):
        (models_root / name).mkdir()
        config = {
            "name": name,
            "architecture": "mean",
            "members": [{"model": first, "sha256": sums[first]}, {"model": "other", "sha256": sums["other"]}],
            "precisions": ["fp32"],
            "size_multiple": find_model("plain").size_multiple,
        }
        (models_root / name / "config.json").write_text(json.dumps(config))
    of_raw, of_finished, raw, bent = (
        lumen_cli.enhance(picture(), name, precision="fp32") for name in ("of-raw", "of-finished", "plain", "finished")
    )
    np.testing.assert_allclose(of_finished - of_raw, (bent - raw) / 2, atol=1e-6)
    low = picture(600, 700)
    with torch.inference_mode():
        network = load(find_model("of-finished"))
        shape = network.noise_shape(600, 700)
        assert shape is not None
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        tiled = enhance_tiled(network, low, noise, 300)
        parts = [enhance_tiled(load(find_model(name)), low, noise, 300, steps=2) for name in ("finished", "other")]
    np.testing.assert_allclose(tiled, sum(parts) / 2, atol=1e-6)
    before = find_model("of-raw").weights_sha256

    add_grading(models_root / "of-raw")
    graded = lumen_cli.enhance(picture(), "of-raw", precision="fp32")
    assert find_model("of-raw").weights_sha256 != before
    assert np.abs(graded - of_raw).max() > 0.02
    merge_files(models_root / "of-raw")
    assert np.array_equal(lumen_cli.enhance(picture(), "of-raw", precision="fp32"), graded)
    with (models_root / "of-raw/model.safetensors").open("ab") as file:
        file.write(b"!")
    with pytest.raises(ModelError, match="is damaged: expected SHA-256"):
        load(find_model("of-raw"))


@pytest.mark.parametrize(
    ("grading", "complaint"),
    [
        ({"channels": 8}, '"grading.heads" is missing: expected a whole number from 1 to 256'),
        ({"channels": 8, "heads": 0}, '"grading.heads": expected a whole number from 1 to 256, found 0'),
        ({"channels": 1 << 20, "heads": 1}, '"grading.channels": expected a whole number from 1 to 256, found 1048576'),
        ({"channels": 8, "heads": 1, "tails": 1}, '"grading": expected an object with channels and heads, found'),
        ({"channels": 5, "heads": 1}, "multiple of 8"),
        (
            {"channels": 16, "heads": 2},
            r"grading\.safetensors do not fit the grading of config\.json: .* of another shape: gate\.",
        ),
        (None, r'"grading" is missing: expected an object with channels and heads'),
    ],
)
def test_a_grading_that_does_not_fit_is_refused(finished, grading, complaint):
    config = json.loads((finished / "config.json").read_text())
    (finished / "config.json").write_text(json.dumps(config | {"grading": grading}))
    with pytest.raises(ModelError, match=complaint):
        load(find_model(finished))


def test_a_grading_without_its_field_does_not_fit_the_network(finished):
    merge_files(finished)
    config = json.loads((finished / "config.json").read_text())
    (finished / "config.json").write_text(json.dumps(config | {"rendition": None}))
    with pytest.raises(ModelError, match=r"unknown: rendition\."):
        load(find_model(finished))
