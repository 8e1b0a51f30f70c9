"""A model that averages others: its members, their noise, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import lumen_cli
from lumen_cli.errors import ModelError
from lumen_cli.networks.base import Mean
from lumen_cli.networks.diffll import DiffLL
from lumen_cli.networks.kind import KinD
from lumen_cli.networks.lightendiffusion import LightenDiffusion
from lumen_cli.networks.lldiffusion import LLDiffusion
from lumen_cli.registry import find_model
from lumen_cli.registry.load import load
from tests.conftest import MakeModel


@pytest.fixture
def make_mean(make_model: MakeModel, models_root: Path):
    """A model folder `name` that averages two tiny models, one of them at three times the other's share."""

    def make(name: str = "both", **changes: object) -> Path:
        folders = [make_model("one", network={"gain": 2.0}), make_model("two", network={"gain": 4.0})]
        configs = [json.loads((folder / "config.json").read_text()) for folder in folders]
        members = [
            {"model": c["name"], "sha256": c["weights"]["network"]["sha256"], "share": s}
            for c, s in zip(configs, (3, 1), strict=True)
        ]
        config = {"name": name, "architecture": "mean", "members": members, "precisions": ["fp32"]}
        config["size_multiple"] = configs[0]["size_multiple"]
        (models_root / name).mkdir()
        (models_root / name / "config.json").write_text(json.dumps(config | changes))
        return models_root / name

    return make


def test_the_result_is_the_mean_of_the_members_results(make_mean):
    make_mean()
    picture = (np.random.default_rng(0).random((20, 30, 3)) * 0.2).astype(np.float32)
    one, two, both = (lumen_cli.enhance(picture, name, precision="fp32") for name in ("one", "two", "both"))
    assert np.abs(one - two).max() > 0.05
    np.testing.assert_allclose(both, 0.75 * one + 0.25 * two, atol=1e-6)


def test_its_settings_are_those_of_its_members_weights(make_mean):
    folder = make_mean()
    first = find_model(folder).weights_sha256
    config = json.loads((folder / "config.json").read_text())
    config["members"][1]["share"] = 2
    (folder / "config.json").write_text(json.dumps(config))
    assert find_model(folder).weights_sha256 != first


def test_a_member_with_other_weights_is_refused(make_mean):
    folder = make_mean()
    config = json.loads((folder / "config.json").read_text())
    config["members"][0]["sha256"] = "0" * 64
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"its member one has other weights here .* expected SHA-256 0000"):
        load(find_model(folder))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"members": [{"model": "one", "sha256": "0" * 64}]}, '"members": expected a list of 2 to 8'),
        ({"members": [{"model": "../one", "sha256": "0" * 64}] * 2}, '"members": expected a list of 2 to 8'),
        ({"members": [{"model": "one", "sha256": "0" * 64, "share": 0}] * 2}, '"members": expected a list of 2 to 8'),
        ({"members": [{"model": "both", "sha256": "0" * 64}] * 2}, "its member both has members itself"),
        ({"members": [{"model": "gone", "sha256": "0" * 64}] * 2}, "there is no model gone"),
        ({"architecture": "tiny"}, '"members" go with the architecture mean'),
        ({"size_multiple": 1000}, '"size_multiple": expected .*, found 1000'),
    ],
)
def test_folders_that_cannot_be_averaged_are_refused(make_mean, changes, complaint):
    folder = make_mean(**changes)
    with pytest.raises(ModelError, match=complaint):
        load(find_model(folder))


def test_members_share_one_noise_that_stays_standard_normal():
    torch.manual_seed(0)
    fine = DiffLL(unet_channels=32, unet_multipliers=(1, 1), detail_channels=8)
    coarse = LightenDiffusion(unet_channels=32, unet_multipliers=(1, 1), ctdn_channels=8)
    mean = Mean([fine, coarse, KinD(decomposition_channels=16, restoration_channels=4, adjustment_channels=8)])
    shape = mean.noise_shape(250, 333)
    assert shape == fine.noise_shape(256, 336), "the finest, for the common multiple"
    noise = torch.randn(1, *shape)
    for member in (fine, coarse):
        own = mean.member_noise(member, noise, 250, 333)
        assert own.shape[1:] == member.noise_shape(250, 333)
        assert float(own.std()) == pytest.approx(1.0, abs=0.04)
    assert mean.member_noise(mean.members[2].network, noise, 250, 333) is None


def test_members_share_the_noise_of_one_with_a_larger_canvas():
    torch.manual_seed(0)
    wide = LLDiffusion(
        unet_channels=32, unet_multipliers=(1,) * 6, blocks=1, encoder_channels=1, feature_channels=(32,) * 6
    )
    coarse = LightenDiffusion(unet_channels=32, unet_multipliers=(1, 1), ctdn_channels=8)
    mean = Mean([wide, coarse])
    for height, width in ((64, 64), (250, 333), (1, 700)):
        shape = mean.noise_shape(height, width)
        assert shape is not None
        noise = torch.randn(1, *shape)
        for member in (wide, coarse):
            own = mean.member_noise(member, noise, height, width)
            assert own is not None
            assert own.shape[1:] == member.noise_shape(height, width)
            assert float(own.std()) == pytest.approx(1.0, abs=0.15)
    with pytest.raises(ValueError, match="does not fit"):
        mean.member_noise(wide, torch.randn(1, 3, 8, 8), 64, 64)


def test_auto_takes_the_preferred_model_that_can_do_it():
    assert find_model("auto").name == "lumen"
    assert find_model("auto", "decompose").name == "kind"


def test_auto_leaves_a_mean_whose_members_are_others_here(make_model: MakeModel):
    make_model("lightendiffusion", summary="a user's, which cannot decompose", abilities=["enhance"])
    assert find_model("auto").summary.startswith("a user's")
    assert find_model("auto", "decompose").name == "kind"
    make_model("kind", summary="a user's, which cannot decompose", abilities=["enhance"])
    with pytest.raises(ModelError, match="no installed model can decompose"):
        find_model("auto", "decompose")


def test_tiles_of_a_mean_are_the_mean_of_its_members_tiles(make_mean):
    from lumen_cli.engine.tile import enhance_tiled

    make_mean()
    network = load(find_model("both"))
    low = (np.random.default_rng(0).random((704, 896, 3)) * 0.2).astype(np.float32)
    noise = torch.randn(network.noise_shape(704, 896), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        tiled = enhance_tiled(network, low, noise, 512)
        batch = torch.from_numpy(low).permute(2, 0, 1)[None]
        whole = network.enhance(batch, noise=noise[None])[0].permute(1, 2, 0).numpy()
    assert network.tiles
    np.testing.assert_allclose(tiled, whole, atol=1e-5)


def test_a_mean_can_be_timed_and_tells_no_steps(make_mean):
    from lumen_cli.benchmark.speed import run_speed
    from lumen_cli.benchmark.speed_request import SpeedRequest

    folder = make_mean()
    request = SpeedRequest(models=(str(folder),), sizes=((64, 48),), device="cpu", repeat=1)
    (result,) = run_speed(request)
    assert result.error is None
    assert result.steps is None
