"""LPIPS and DISTS against torchmetrics' networks, both looking through the same AlexNet or VGG16 of random weights."""

import hashlib
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from lumen_cli.errors import UsageError
from lumen_cli.metrics import METRICS, NEEDED, measure, perceptual, torchmetrics_file
from lumen_cli.metrics import perceptual as backbone
from tests.metrics.pictures import noisy, scene


@pytest.fixture(scope="module")
def networks() -> dict[str, nn.Sequential]:
    torch.manual_seed(0)
    return {name: backbone.build(name).requires_grad_(False).eval() for name in ("alexnet", "vgg16")}


@pytest.fixture
def at_hand(networks: dict[str, nn.Sequential], monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the weights had been put where they belong."""
    monkeypatch.setattr(perceptual, "load_backbone", lambda name, device: networks[name])
    for name in ("lpips_alex", "lpips_vgg", "dists"):
        monkeypatch.setattr("lumen_cli.metrics._find", lambda name: Path(name))
        assert METRICS[name].unavailable() is None


def one(name: str, output: Tensor, reference: Tensor) -> float:
    (value,) = measure(METRICS[name], output[None], reference[None])
    return value


@pytest.mark.parametrize(("net", "name"), [("alex", "alexnet"), ("vgg", "vgg16")])
def test_lpips_is_torchmetrics(
    net: str, name: str, networks: dict[str, nn.Sequential], at_hand: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchmetrics.functional.image import lpips

    monkeypatch.setattr(lpips, "_get_tv_model_features", lambda net, pretrained=False: networks[name])
    judge = lpips._NoTrainLpips(net=net)
    output, reference = noisy(scene(70, 93), 25), scene(70, 93)
    with torch.no_grad():
        expected = float(judge(output[None], reference[None], normalize=True))
    assert expected > 1e-3
    assert one(f"lpips_{net}", output, reference) == pytest.approx(expected, rel=1e-4)
    assert one(f"lpips_{net}", reference, reference) == 0.0


def test_dists_is_torchmetrics(
    networks: dict[str, nn.Sequential], at_hand: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchmetrics.functional.image import dists

    monkeypatch.setattr(dists, "_TORCHVISION_AVAILABLE", True)
    monkeypatch.setattr(dists, "VGG16_Weights", SimpleNamespace(DEFAULT=None), raising=False)
    monkeypatch.setattr(dists, "vgg16", lambda weights: SimpleNamespace(features=networks["vgg16"]), raising=False)
    stored = torch.load
    monkeypatch.setattr(torch, "load", lambda path, **options: stored(path, **{"map_location": "cpu", **options}))
    judge = dists.DISTSNetwork()
    output, reference = noisy(scene(70, 93), 25), scene(70, 93)
    with torch.no_grad():
        expected = float(judge(output[None], reference[None]))
    assert expected > 1e-3
    assert one("dists", output, reference) == pytest.approx(expected, abs=1e-5)
    assert one("dists", reference, reference) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("name", ["lpips_alex", "lpips_vgg", "dists"])
def test_tiles_change_nothing(name: str, at_hand: None, monkeypatch: pytest.MonkeyPatch) -> None:
    output, reference = noisy(scene(40, 331), 25), scene(40, 331)
    whole = one(name, output, reference)
    monkeypatch.setattr(backbone, "_CORE", 32)
    assert len(list(backbone.tiles(40, 331))) > 2
    assert one(name, output, reference) == pytest.approx(whole, rel=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (1024, 769), (1025, 1), (1500, 2900), (4000, 6000)])
def test_the_tiles_cores_cover_every_pixel_once(size: tuple[int, int]) -> None:
    height, width = size
    count = torch.zeros(height, width, dtype=torch.int8)
    for tile in backbone.tiles(height, width):
        assert max(tile.rows.stop - tile.rows.start, tile.columns.stop - tile.columns.start) <= 1152
        tile.core(count[None, None, tile.rows, tile.columns], 1).add_(1)
    assert torch.equal(count, torch.ones_like(count))


@pytest.mark.parametrize("name", ["lpips_alex", "lpips_vgg", "dists"])
def test_a_picture_the_network_swallows_whole_has_none(name: str, at_hand: None) -> None:
    assert math.isnan(one(name, scene(31, 200), scene(31, 200)))
    assert math.isfinite(one(name, scene(32, 33, seed=1), scene(32, 33)))


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("lpips_alex", "alexnet-owt-7be5be79.pth"),
        ("lpips_vgg", "vgg16-397923af.pth"),
        ("dists", "vgg16-397923af.pth"),
        ("brisque", "brisque_model_live.yml"),
    ],
)
def test_missing_weights_are_one_line_that_says_what_to_put_where(
    name: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models_root: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("LUMEN_METRIC_WEIGHTS", raising=False)
    reason = METRICS[name].unavailable()
    assert reason is not None
    assert f"put {file} into " in reason
    assert "LUMEN_METRIC_WEIGHTS" in reason
    assert "\n" not in reason
    with pytest.raises(UsageError, match=f"{name} needs"):
        one(name, scene(), scene())
    monkeypatch.setenv("LUMEN_METRIC_WEIGHTS", str(tmp_path / "mine"))
    assert f"put {file} into {tmp_path / 'mine'};" in str(METRICS[name].unavailable())
    for needed in NEEDED[name].files:
        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / "mine" / needed).touch()
    assert METRICS[name].unavailable() is None


def test_weights_are_loaded_by_torchvisions_names_and_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, networks: dict[str, nn.Sequential]
) -> None:
    monkeypatch.setenv("LUMEN_METRIC_WEIGHTS", str(tmp_path))
    backbone.load_backbone.cache_clear()
    path = tmp_path / "alexnet-owt-7be5be79.pth"
    tensors = {f"features.{name}": value for name, value in networks["alexnet"].state_dict().items()}
    torch.save(tensors | {"classifier.1.weight": torch.zeros(2)}, path)
    with pytest.raises(UsageError, match=r"alexnet-owt-7be5be79\.pth is damaged"):
        backbone.load_backbone("alexnet", torch.device("cpu"))
    real = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    path = path.rename(tmp_path / f"alexnet-owt-{real}.pth")
    monkeypatch.setattr(backbone, "weight_files", lambda metric: [path])
    loaded = backbone.load_backbone("alexnet", torch.device("cpu"))
    backbone.load_backbone.cache_clear()
    expected = networks["alexnet"].state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())


def test_torchmetrics_brings_what_the_metrics_have_learnt() -> None:
    for name in ("lpips_alex", "lpips_vgg", "dists"):
        assert torchmetrics_file(NEEDED[name].trained).is_file()
        assert all(value.numel() for value in backbone.trained_weights(name).values())
