"""Checkpoints as the authors publish them → model folders that work."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lumen_cli.networks.diffll import DiffLL
from lumen_cli.networks.kind import KinD, KinDPlus
from lumen_cli.networks.lightendiffusion import LightenDiffusion
from lumen_cli.registry.card import read_card
from lumen_cli.registry.load import load
from tests.conftest import Finished, dark_pixels, read_pixels, write_dark
from tests.registry.checkpoints.checkpoints import filled, training_state, wrapped, write_kind_bundles

Lumen = Callable[..., Finished]
SMALL_DIFFLL: dict[str, Any] = {"unet_channels": 32, "unet_multipliers": (1, 1, 1), "detail_channels": 16}
SMALL_LIGHTEN: dict[str, Any] = {"unet_channels": 32, "unet_multipliers": (1, 1, 1), "ctdn_channels": 8}
SMALL_KIND: dict[str, Any] = {
    "decomposition_channels": 8,
    "restoration_channels": 4,
    "restoration_multipliers": (1, 2, 2, 2, 3),
    "adjustment_channels": 8,
    "ratio_limits": (5.0, 5.0),
}
SMALL_PLUS: dict[str, Any] = {"decomposition_channels": 8, "restoration_channels": 2, "adjustment_channels": 8}


def imported(lumen: Lumen, *arguments: str | Path) -> dict[str, Any]:
    finished = lumen("models", "import", *arguments, "--json")
    assert finished.code == 0, finished.err
    result: dict[str, Any] = json.loads(finished.out)
    return result


def test_diffll_takes_the_averages_which_its_authors_evaluate(tmp_path: Path, lumen: Lumen, same_picture: Any) -> None:
    last, average = filled(DiffLL(**SMALL_DIFFLL), "last"), filled(DiffLL(**SMALL_DIFFLL), "average")
    path = tmp_path / "model.pth.tar"
    torch.save(training_state(last.state_dict(), average.state_dict()), path)
    result = imported(lumen, "diffll", path)
    assert result["averaged"] is True
    assert {part: value["tensors"] for part, value in result["parts"].items()} == {
        "Unet": sum(name.startswith("Unet.") for name in last.state_dict()),
        "high_enhance0": 64,
        "high_enhance1": 64,
    }
    same_picture("diffll-official", average, steps=2)
    same_picture(result["folder"], average, steps=2)
    assert imported(lumen, "diffll", path, "--no-ema", "-o", tmp_path / "last")["averaged"] is False
    same_picture(tmp_path / "last", last, steps=2)


def test_enhance_finds_an_imported_model_by_name(tmp_path: Path, lumen: Lumen) -> None:
    network = filled(DiffLL(**SMALL_DIFFLL))
    torch.save(training_state(network.state_dict()), tmp_path / "model.pth.tar")
    imported(lumen, "diffll", tmp_path / "model.pth.tar", "--name", "theirs")
    write_dark(tmp_path / "in.png", 40, 56)
    run = lumen("enhance", tmp_path / "in.png", "-m", "theirs", "-o", tmp_path / "out.png", "--device", "cpu")
    assert run.code == 0, run.err
    import lumen_cli

    assert np.array_equal(
        read_pixels(tmp_path / "out.png"), lumen_cli.enhance(dark_pixels(40, 56), "theirs", device="cpu")
    )
    assert "theirs" in lumen("models").out


def test_lightendiffusion_takes_the_last_parameters(tmp_path: Path, lumen: Lumen, same_picture: Any) -> None:
    network = filled(LightenDiffusion(**SMALL_LIGHTEN))
    untrained = filled(LightenDiffusion(**SMALL_LIGHTEN), "untrained")
    torch.save(training_state(network.state_dict(), untrained.state_dict()), tmp_path / "stage2_weight.pth.tar")
    result = imported(lumen, "lightendiffusion", tmp_path / "stage2_weight.pth.tar")
    assert result["averaged"] is False
    same_picture("lightendiffusion-official", network, steps=2)


def test_lightendiffusions_averages_leave_the_decomposition_alone(tmp_path: Path, lumen: Lumen) -> None:
    """Its training averages the noise estimator only, but stores an untrained copy of the decomposition with it."""
    last, average = (filled(LightenDiffusion(**SMALL_LIGHTEN), tag).state_dict() for tag in ("last", "average"))
    torch.save(training_state(last, average), tmp_path / "w.pth.tar")
    result = imported(lumen, "lightendiffusion", tmp_path / "w.pth.tar", "--ema", "-o", tmp_path / "m")
    taken = load(read_card(Path(result["folder"]))).state_dict()
    for name, tensor in taken.items():
        assert torch.equal(tensor, (average if name.startswith("Unet.") else last)[name]), name


def test_lightendiffusions_first_stage_alone_lacks_the_noise_estimator(tmp_path: Path, lumen: Lumen) -> None:
    state = filled(LightenDiffusion(**SMALL_LIGHTEN)).state_dict()
    stage1 = {name.removeprefix("decom."): tensor for name, tensor in state.items() if name.startswith("decom.")}
    torch.save({"model": stage1}, tmp_path / "stage1_weight.pth.tar")
    finished = lumen("models", "import", "lightendiffusion", tmp_path / "stage1_weight.pth.tar")
    assert finished.code == 2
    assert "missing: Unet.temb.dense.0.weight" in finished.err
    assert "left over" not in finished.err


@pytest.mark.parametrize(
    ("architecture", "network"),
    [("kind", lambda: KinD(**SMALL_KIND)), ("kind-plus", lambda: KinDPlus(**SMALL_PLUS))],
    ids=["kind", "kind-plus"],
)
def test_kinds_three_tensorflow_checkpoints(
    architecture: str, network: Callable[[], KinD], tmp_path: Path, lumen: Lumen, same_picture: Any
) -> None:
    theirs = filled(network())
    write_kind_bundles(tmp_path / "checkpoint", theirs, architecture)
    result = imported(lumen, architecture, tmp_path)
    assert result["rebuilt"] == [name for name in theirs.state_dict() if name.endswith("num_batches_tracked")]
    same_picture(f"{architecture}-official", theirs)
    same_picture(f"{architecture}-official", theirs, illumination_ratio=2.0)
    files = {file["file"] for file in result["imported_from"]}
    trained = ("decom_net_train", "illumination_adjust_net_train", "Restoration_net_train")
    assert files == {f"{folder}/model.ckpt.data-00000-of-00001" for folder in trained}
    assert len({file["sha256"] for file in result["imported_from"]}) == 3


@pytest.mark.parametrize("ending", ["", ".index", ".data-00000-of-00001"])
def test_kinds_checkpoints_can_be_named_one_by_one(ending: str, tmp_path: Path, lumen: Lumen) -> None:
    theirs = filled(KinD(**SMALL_KIND))
    write_kind_bundles(tmp_path, theirs, "kind")
    folders = ("Restoration_net_train", "decom_net_train", "illumination_adjust_net_train")
    result = imported(
        lumen, "kind", *(tmp_path / folder / f"model.ckpt{ending}" for folder in folders), "-o", tmp_path / "m"
    )
    state = load(read_card(Path(result["folder"]))).state_dict()
    assert all(torch.equal(tensor, theirs.state_dict()[name]) for name, tensor in state.items())


def test_kind_at_published_size_needs_no_index(tmp_path: Path, lumen: Lumen) -> None:
    theirs = filled(KinD())
    write_kind_bundles(tmp_path, theirs, "kind", index=False)
    sizes = {path.parent.name: path.stat().st_size for path in tmp_path.rglob("*.data-*")}
    assert sizes == {
        "decom_net_train": 943_504,
        "illumination_adjust_net_train": 77_572,
        "Restoration_net_train": 31_042_956,
    }
    result = imported(lumen, "kind", tmp_path, "-o", tmp_path / "m")
    assert result["same_shapes_as"]
    state = load(read_card(tmp_path / "m")).state_dict()
    assert all(torch.equal(tensor, theirs.state_dict()[name]) for name, tensor in state.items())


def test_kind_trained_together_is_one_file(tmp_path: Path, lumen: Lumen, same_picture: Any) -> None:
    from lumen_cli.registry.load import save_weights

    theirs = filled(KinD(**SMALL_KIND))
    save_weights(theirs.state_dict(), tmp_path / "kind.safetensors")
    imported(lumen, "kind", tmp_path / "kind.safetensors")
    same_picture("kind-official", theirs)


def test_one_of_kinds_networks_is_not_enough(tmp_path: Path, lumen: Lumen) -> None:
    write_kind_bundles(tmp_path, filled(KinD(**SMALL_KIND)), "kind")
    finished = lumen("models", "import", "kind", tmp_path / "decom_net_train")
    assert finished.code == 2
    assert "missing: restoration.de_conv1_1.weight" in finished.err
    assert "publish several files" in finished.err


def test_two_trainings_of_one_network_are_not_mixed(tmp_path: Path, lumen: Lumen) -> None:
    write_kind_bundles(tmp_path, filled(KinD(**SMALL_KIND)), "kind")
    (tmp_path / "decom_net_retrain").mkdir()
    for path in (tmp_path / "decom_net_train").iterdir():
        (tmp_path / "decom_net_retrain" / path.name).write_bytes(path.read_bytes())
    finished = lumen("models", "import", "kind", tmp_path)
    assert finished.code == 2
    assert "decom_net_retrain" in finished.err
    assert "decom_net_train" in finished.err


def test_of_several_epochs_the_noted_one_is_taken(tmp_path: Path, lumen: Lumen) -> None:
    old, new = filled(KinD(**SMALL_KIND), "old"), filled(KinD(**SMALL_KIND), "new")
    write_kind_bundles(tmp_path, old, "kind")
    write_kind_bundles(tmp_path / "again", new, "kind")
    folder = tmp_path / "Restoration_net_train"
    for path in (tmp_path / "again" / "Restoration_net_train").glob("model*"):
        path.rename(folder / path.name.replace("model.ckpt", "model.ckpt-1000"))
    paths = [tmp_path / "decom_net_train", tmp_path / "illumination_adjust_net_train", folder]
    (folder / "checkpoint").unlink()
    ambiguous = lumen("models", "import", "kind", *paths)
    assert ambiguous.code == 2
    assert "model.ckpt-1000" in ambiguous.err
    (folder / "checkpoint").write_text('model_checkpoint_path: "/home/they/model.ckpt-1000"\n')
    imported(lumen, "kind", *paths, "-o", tmp_path / "m")
    state = load(read_card(tmp_path / "m")).state_dict()
    name = "restoration.de_conv1_1.weight"
    assert torch.equal(state[name], new.state_dict()[name])


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_other_precisions_become_float32(kind: torch.dtype, tmp_path: Path, lumen: Lumen) -> None:
    state = {name: tensor.to(kind) for name, tensor in filled(DiffLL(**SMALL_DIFFLL)).state_dict().items()}
    torch.save({"state_dict": wrapped(state)}, tmp_path / "half.pth")
    result = imported(lumen, "diffll", tmp_path / "half.pth")
    from safetensors.torch import load_file

    stored = load_file(Path(result["folder"]) / "network.safetensors")
    assert all(stored[name].dtype == torch.float32 for name in state)
    assert all(torch.equal(stored[name], tensor.float()) for name, tensor in state.items())


@pytest.mark.parametrize("under", ["state_dict", "model", "params", "net", None])
@pytest.mark.parametrize("old", [False, True], ids=["zip", "legacy"])
def test_the_dictionary_is_found_wherever_it_is(under: str | None, old: bool, tmp_path: Path, lumen: Lumen) -> None:
    state = dict(filled(DiffLL(**SMALL_DIFFLL)).state_dict())
    content = {under: state, "epoch": 3} if under else state
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=not old)
    result = imported(lumen, "diffll", tmp_path / "w.pth")
    assert (result["matched"], result["averaged"]) == (len(state), False)


def test_the_model_folder_says_where_it_comes_from(tmp_path: Path, lumen: Lumen) -> None:
    import hashlib

    torch.save(training_state(filled(DiffLL(**SMALL_DIFFLL)).state_dict()), tmp_path / "model.pth.tar")
    finished = lumen("models", "import", "diffll", tmp_path / "model.pth.tar")
    assert finished.code == 0
    assert finished.out == ""
    checksum = hashlib.sha256((tmp_path / "model.pth.tar").read_bytes()).hexdigest()
    for said in ("high_enhance0", "Unet", "averaged", "model.pth.tar", "lumen enhance PICTURE --model diffll-official"):
        assert said in finished.err
    info = json.loads(lumen("models", "info", "diffll-official", "--json").out)
    assert info["imported_from"] == [{"file": "model.pth.tar", "sha256": checksum}]
    assert (info["defaults"], info["steps_range"]) == ({"steps": 10, "precision": "fp32"}, [2, 200])
    folder = Path(info["folder"])
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "network.safetensors"]
    assert checksum in (folder / "README.md").read_text()
    assert checksum in "".join(lumen("models", "info", "diffll-official").out.split())


def test_released_widths_are_recognised_and_others_are_not_called_a_release(tmp_path: Path, lumen: Lumen) -> None:
    torch.save(filled(DiffLL(**SMALL_DIFFLL)).state_dict(), tmp_path / "w.pth")
    result = imported(lumen, "diffll", tmp_path / "w.pth")
    assert result["same_shapes_as"] is None
    assert "not known" in result["licence"]


SMALL_ANLIGHTEN: dict[str, Any] = {"dim": 8, "multipliers": (1, 2, 2), "steps": 4, "schedule": {"timesteps": 4}}


def lightning(state: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint as PyTorch Lightning 1.9 writes it, with the metrics' networks that hang on the module."""
    metrics = {"lpips.net.lin0.model.1.weight": torch.ones(1, 64, 1, 1), "loss_fn_alex.net.net.slice1.0.bias": state}
    metrics["loss_fn_alex.net.net.slice1.0.bias"] = torch.ones(64)
    return {
        "epoch": 999,
        "global_step": 12345,
        "pytorch-lightning_version": "1.9.5",
        "state_dict": {**state, **metrics},
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(0.8), "dirpath": "/tmp"}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 4e-4}]}],
        "lr_schedulers": [],
        "hparams_name": "config",
        "hyper_parameters": {"unet_dim": 64, "dim_mults": (1, 2, 2, 4, 4, 8), "timesteps": 100},
    }


@pytest.mark.parametrize("variant", ["from-scratch", "two-step"])
def test_anlightendiffs_lightning_checkpoints(variant: Any, tmp_path: Path, lumen: Lumen, same_picture: Any) -> None:
    from lumen_cli.networks.anlightendiff import AnlightenDiff

    theirs = AnlightenDiff(variant=variant, **SMALL_ANLIGHTEN)
    schedule = {name: tensor.clone() for name, tensor in theirs.named_buffers()}
    state = dict(filled(theirs).state_dict()) | schedule
    if variant == "two-step":
        state |= {f"histroEncoder.{name}": state[name] for name in state if name.startswith("encoder.model.")}
    torch.save(lightning(state), tmp_path / "final.ckpt")
    result = imported(lumen, "anlightendiff", tmp_path / "final.ckpt")
    assert result["network"]["variant"] == variant
    assert sum(map(len, result["ignored"].values())) == 2
    same_picture(result["name"], theirs)
    for name in schedule:
        del state[name]
    torch.save(state, tmp_path / "bare.ckpt")
    finished = lumen("models", "import", "anlightendiff", tmp_path / "bare.ckpt", "-o", tmp_path / "bare")
    assert finished.code == 0, "the schedule's tables can be rebuilt"


def test_anlightendiff_trained_on_another_schedule_is_refused(tmp_path: Path, lumen: Lumen) -> None:
    from lumen_cli.networks.anlightendiff import AnlightenDiff

    state = dict(filled(AnlightenDiff(**SMALL_ANLIGHTEN)).state_dict()) | {"model.betas": torch.linspace(1e-4, 0.02, 4)}
    torch.save(lightning(state), tmp_path / "final.ckpt")
    finished = lumen("models", "import", "anlightendiff", tmp_path / "final.ckpt")
    assert finished.code == 2
    assert "another noise schedule" in finished.err


SMALL_LLDIFFUSION: dict[str, Any] = {
    "unet_channels": 32,
    "unet_multipliers": (1, 1, 1, 1, 2, 2),
    "blocks": 1,
    "encoder_channels": 2,
    "feature_channels": (32, 32, 32),
    "degradation_channels": 32,
}


def lldiffusion(tag: str = "a", **changes: Any) -> Any:
    """Formula weights, and vectors of the spectral norm that are near the largest singular ones, as training leaves."""
    from lumen_cli.networks.lldiffusion import LLDiffusion

    network = filled(LLDiffusion(**(SMALL_LLDIFFUSION | changes)), tag)
    state = network.state_dict()
    for name in state:
        if name.endswith("weight_u"):
            matrix = state[name.replace("_u", "_orig")].flatten(1)
            for _ in range(5):
                v = torch.nn.functional.normalize(matrix.T @ state[name], dim=0)
                state[name].copy_(torch.nn.functional.normalize(matrix @ v, dim=0))
            state[name.replace("_u", "_v")].copy_(v)
    return network


@pytest.mark.parametrize("changes", [{}, {"fusion": "cat"}], ids=["weighed", "joined"])
def test_lldiffusion_leaves_out_what_only_training_needs(
    changes: dict[str, Any], tmp_path: Path, lumen: Lumen, same_picture: Any
) -> None:
    theirs = lldiffusion(**changes)
    torch.save(training_state(theirs.state_dict()), tmp_path / "best-355-23.32.pth")
    result = imported(lumen, "lldiffusion", tmp_path / "best-355-23.32.pth")
    assert set(result["parts"]) == {"encoder", "diff_unet"}
    assert set(result["ignored"]) == {"for training only"}
    same_picture("lldiffusion-official", theirs, steps=2)


def test_lldiffusions_averages_hold_parameters_only(tmp_path: Path, lumen: Lumen) -> None:
    last, average = lldiffusion("last").state_dict(), lldiffusion("average").state_dict()
    parameters = {name: value for name, value in average.items() if not name.endswith(("_u", "_v"))}
    torch.save(training_state(last, parameters), tmp_path / "w.pth")
    imported(lumen, "lldiffusion", tmp_path / "w.pth", "--ema", "-o", tmp_path / "m")
    for name, tensor in load(read_card(tmp_path / "m")).state_dict().items():
        assert torch.equal(tensor, (average if name in parameters else last)[name]), name


def test_lldiffusions_older_order_of_levels_is_turned(tmp_path: Path, lumen: Lumen) -> None:
    state = lldiffusion().state_dict()

    def older(name: str) -> str:
        head, up, rest = name.partition("_unet.up.")
        number, _, tail = rest.partition(".")
        return f"{head}{up}{5 - int(number)}.{tail}" if number.isdigit() else name

    old = {older(name): tensor for name, tensor in state.items()}
    assert old["diff_unet.up.5.block.0.conv1.weight"].shape == state["diff_unet.up.0.block.0.conv1.weight"].shape
    torch.save(training_state(old), tmp_path / "old.pth")
    imported(lumen, "lldiffusion", tmp_path / "old.pth", "-o", tmp_path / "m")
    for name, tensor in load(read_card(tmp_path / "m")).state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_lldiffusion_with_attention_in_its_encoder_is_not_taken_for_the_one_without(
    tmp_path: Path, lumen: Lumen
) -> None:
    state = dict(lldiffusion().state_dict()) | {"encoder.encoder.attn_0.q.weight": torch.ones(4, 4, 1, 1)}
    torch.save(training_state(state), tmp_path / "w.pth")
    finished = lumen("models", "import", "lldiffusion", tmp_path / "w.pth")
    assert finished.code == 2
    assert "1 left over: encoder.encoder.attn_0.q.weight" in finished.err
    assert "--ignore" in finished.err
    result = imported(lumen, "lldiffusion", tmp_path / "w.pth", "--ignore", "encoder.encoder.attn")
    assert result["ignored"]["as requested"] == ["encoder.encoder.attn_0.q.weight"]
