"""Files that are no checkpoints, or not safe, or of something else: one clear line, and nothing left behind."""

from __future__ import annotations

import argparse
import io
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lumen_cli.networks.diffll import DiffLL
from lumen_cli.networks.kind import KinD
from lumen_cli.registry.checkpoints import read_checkpoint
from lumen_cli.registry.checkpoints.tensorflow import read_index
from tests.conftest import Finished, folder_bytes
from tests.registry.checkpoints.checkpoints import filled, training_state, write_bundle

Lumen = Callable[..., Finished]
SMALL: dict[str, Any] = {"unet_channels": 32, "unet_multipliers": (1, 1), "detail_channels": 8}


def state() -> dict[str, torch.Tensor]:
    return dict(filled(DiffLL(**SMALL)).state_dict())


@pytest.fixture
def refused(tmp_path: Path, lumen: Lumen) -> Callable[..., str]:
    """Import a file, assert that it ends with 2 in one line and changes nothing; returns the line."""

    def check(path: Path, *arguments: str | Path, architecture: str = "diffll") -> str:
        before = folder_bytes(tmp_path)
        finished = lumen("models", "import", architecture, path, *arguments)
        assert (finished.code, finished.out) == (2, ""), finished.err
        assert finished.err.startswith("lumen: ")
        assert finished.err.count("\n") == 1
        assert folder_bytes(tmp_path) == before
        assert not list(tmp_path.rglob(".lumen-*"))
        return finished.err

    return check


class Evil:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("kind", ["zip", "legacy", "plain pickle"])
def test_a_pickle_with_code_is_refused_and_its_code_is_not_run(
    kind: str, tmp_path: Path, refused: Callable[..., str]
) -> None:
    marker, path = tmp_path / "owned", tmp_path / "model.pth.tar"
    content = {"state_dict": state(), "epoch": Evil(marker)}
    if kind == "plain pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    said = refused(path)
    assert "was refused" in said
    assert "system" in said or kind == "plain pickle"
    assert not marker.exists()
    torch.load(path, weights_only=False) if kind != "plain pickle" else pickle.loads(path.read_bytes())
    assert marker.exists(), "the payload is real"


def test_a_whole_pickled_network_is_refused(tmp_path: Path, refused: Callable[..., str]) -> None:
    torch.save({"model": DiffLL(**SMALL)}, tmp_path / "whole.pth")
    said = refused(tmp_path / "whole.pth")
    assert "was refused" in said
    assert "DiffLL" in said


def test_the_allow_list_is_not_left_behind(tmp_path: Path) -> None:
    from torch.serialization import get_safe_globals

    torch.save(training_state(state()), tmp_path / "w.pth")
    before = set(get_safe_globals())
    read_checkpoint(tmp_path / "w.pth")
    assert set(get_safe_globals()) == before
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "w.pth", weights_only=True)
    assert argparse.Namespace not in get_safe_globals()


@pytest.mark.parametrize("share", [0.001, 0.3, 0.9, 0.9999])
@pytest.mark.parametrize("old", [False, True], ids=["zip", "legacy"])
def test_a_truncated_file(share: float, old: bool, tmp_path: Path, refused: Callable[..., str]) -> None:
    path = tmp_path / "model.pth.tar"
    torch.save(training_state(state()), path, _use_new_zipfile_serialization=not old)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "damaged or was not downloaded completely" in refused(path)


def archive(path: Path, name: str) -> bytes:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(name, "x")
    return path.read_bytes()


def tar() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as file:
        file.addfile(tarfile.TarInfo("storages"), io.BytesIO())
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"hello, I am a text\n" * 9, "is no checkpoint"),
        (b"\n<!DOCTYPE html><html><title>Sign in</title>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"\x1f\x8b\x08" + bytes(50), "is a gzip archive: unpack it"),
        (b"Rar!\x1a\x07" + bytes(50), "is a RAR archive: unpack it"),
        (tar(), "is a tar archive: unpack it"),
        (b"\x80\x02" + bytes(range(200)), "was refused: it is no checkpoint of PyTorch's"),
        (bytes(range(255, 0, -1)), "is no checkpoint"),
        (np.random.default_rng(0).bytes(5000), "is no checkpoint"),
    ],
)
def test_what_is_no_checkpoint(content: bytes, says: str, tmp_path: Path, refused: Callable[..., str]) -> None:
    (tmp_path / "file.pth").write_bytes(content)
    assert says in refused(tmp_path / "file.pth")


def test_archives_of_other_things(tmp_path: Path, refused: Callable[..., str]) -> None:
    (tmp_path / "a.pth").write_bytes(archive(tmp_path / "a.zip", "weights/model.pth"))
    assert "ZIP archive of other files: unpack it" in refused(tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes(archive(tmp_path / "b.zip", "b/code/__torch__.py"))
    assert "TorchScript" in refused(tmp_path / "b.pth")


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {}, 7], ids=str)
def test_a_file_without_tensors(content: Any, tmp_path: Path, refused: Callable[..., str]) -> None:
    torch.save(content, tmp_path / "w.pth")
    assert "holds no dictionary of tensors" in refused(tmp_path / "w.pth")


def test_a_damaged_safetensors_file(tmp_path: Path, refused: Callable[..., str]) -> None:
    from lumen_cli.registry.load import save_weights

    save_weights(state(), tmp_path / "w.safetensors")
    content = (tmp_path / "w.safetensors").read_bytes()
    (tmp_path / "w.safetensors").write_bytes(content[:-100])
    assert "damaged" in refused(tmp_path / "w.safetensors")


def test_a_checkpoint_of_another_architecture_is_named(tmp_path: Path, refused: Callable[..., str]) -> None:
    path = tmp_path / "model.pth.tar"
    torch.save(training_state(state()), path)
    said = refused(path, architecture="lightendiffusion")
    assert (
        f"a checkpoint of diffll, not of lightendiffusion; import it with `lumen models import diffll {path}`" in said
    )
    torch.save(filled(KinD(restoration_channels=4)).state_dict(), path)
    assert "lumen models import kind " in refused(path, architecture="kind-plus")


def test_a_checkpoint_of_something_else_altogether(tmp_path: Path, refused: Callable[..., str]) -> None:
    torch.save({"state_dict": {"layer1.weight": torch.ones(2), "fc.bias": torch.ones(1)}}, tmp_path / "w.pth")
    assert "not a checkpoint of diffll (its first tensors: layer1.weight, fc.bias)" in refused(tmp_path / "w.pth")


def test_wrong_shapes_are_listed(tmp_path: Path, refused: Callable[..., str]) -> None:
    bad = state() | {"high_enhance0.conv_HH.weight": torch.ones(8, 4, 3, 3), "Unet.conv_out.bias": torch.ones(3).int()}
    del bad["Unet.norm_out.weight"]
    torch.save(bad, tmp_path / "w.pth")
    said = refused(tmp_path / "w.pth")
    assert "1 missing: Unet.norm_out.weight" in said
    assert "2 of another shape" in said
    assert "high_enhance0.conv_HH.weight (expected 8×16×3×3, found 8×4×3×3)" in said
    assert "Unet.conv_out.bias (expected 3, found 3 of int32)" in said


def test_a_width_the_network_cannot_have(tmp_path: Path, refused: Callable[..., str]) -> None:
    torch.save(state() | {"Unet.conv_in.weight": torch.ones(30, 6, 3, 3)}, tmp_path / "w.pth")
    assert "no network of diffll has such shapes" in refused(tmp_path / "w.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_burst_training(value: float, tmp_path: Path, refused: Callable[..., str]) -> None:
    torch.save(state() | {"Unet.conv_out.bias": torch.tensor([0.0, value, 0.0])}, tmp_path / "w.pth")
    assert "not finite, first in Unet.conv_out.bias" in refused(tmp_path / "w.pth")


def test_averages_that_are_not_there(tmp_path: Path, refused: Callable[..., str]) -> None:
    torch.save(state(), tmp_path / "w.pth")
    assert "no averaged parameters" in refused(tmp_path / "w.pth", "--ema")


def test_paths_that_hold_nothing(tmp_path: Path, refused: Callable[..., str]) -> None:
    (tmp_path / "empty").mkdir()
    assert "holds no checkpoint" in refused(tmp_path / "empty")
    assert "there is no file" in refused(tmp_path / "nowhere.pth")
    for name in ("a.pth", "b.pth"):
        torch.save(state(), tmp_path / name)
    assert "holds 2 checkpoints (a.pth, b.pth)" in refused(tmp_path)


def test_an_unknown_architecture(tmp_path: Path, refused: Callable[..., str]) -> None:
    torch.save(state(), tmp_path / "w.pth")
    assert "Did you mean diffll?" in refused(tmp_path / "w.pth", architecture="difll")


def test_a_name_that_is_none(tmp_path: Path, refused: Callable[..., str]) -> None:
    torch.save(state(), tmp_path / "w.pth")
    assert "cannot be called" in refused(tmp_path / "w.pth", "--name", "../up")


def test_an_existing_folder_stays_unless_told_otherwise(
    tmp_path: Path, refused: Callable[..., str], lumen: Lumen
) -> None:
    torch.save(state(), tmp_path / "w.pth")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"dear to me")
    assert "choose another" in refused(tmp_path / "w.pth", "-o", tmp_path / "photos", "--overwrite")
    assert "not a folder" in refused(tmp_path / "w.pth", "-o", tmp_path / "w.pth", "--overwrite")
    assert lumen("models", "import", "diffll", tmp_path / "w.pth", "-o", tmp_path / "m").code == 0
    assert "(see --overwrite, --name)" in refused(tmp_path / "w.pth", "-o", tmp_path / "m")
    before = folder_bytes(tmp_path / "m")
    torch.save({name: 2 * value for name, value in state().items()}, tmp_path / "w.pth")
    assert lumen("models", "import", "diffll", tmp_path / "w.pth", "-o", tmp_path / "m", "--overwrite").code == 0
    after = folder_bytes(tmp_path / "m")
    assert after.keys() == before.keys()
    assert after["network.safetensors"] != before["network.safetensors"]
    assert not list(tmp_path.glob(".lumen-*"))


def test_a_place_that_cannot_be_written(tmp_path: Path, refused: Callable[..., str]) -> None:
    torch.save(state(), tmp_path / "w.pth")
    assert "cannot be written" in refused(tmp_path / "w.pth", "-o", tmp_path / "w.pth" / "model")


def test_tensors_from_a_gpu_are_read_without_one(tmp_path: Path) -> None:
    """A checkpoint saved on a GPU differs from others in the name of the place its storages were in."""
    torch.save({"state_dict": state()}, tmp_path / "cpu.pth")
    with zipfile.ZipFile(tmp_path / "cpu.pth") as before, zipfile.ZipFile(tmp_path / "gpu.pth", "w") as after:
        for entry in before.infolist():
            content = before.read(entry)
            if entry.filename.endswith("data.pkl"):
                assert b"X\x03\0\0\0cpu" in content
                content = content.replace(b"X\x03\0\0\0cpu", b"X\x06\0\0\0cuda:0")
            after.writestr(entry.filename, content)
    read = read_checkpoint(tmp_path / "gpu.pth").tensors
    assert all(torch.equal(read[name], tensor) and read[name].device.type == "cpu" for name, tensor in state().items())


def test_a_bundle_without_its_data(tmp_path: Path, refused: Callable[..., str]) -> None:
    write_bundle(tmp_path / "model.ckpt", {"DecomNet/g_conv1_1/biases": np.ones(32)})
    (tmp_path / "model.ckpt.data-00000-of-00001").unlink()
    assert "model.ckpt.data-00000-of-00001 is missing" in refused(tmp_path / "model.ckpt", architecture="kind")


def test_a_damaged_bundle(tmp_path: Path, refused: Callable[..., str]) -> None:
    write_bundle(tmp_path / "model.ckpt", {"DecomNet/g_conv1_1/biases": np.ones(32)})
    index, data = tmp_path / "model.ckpt.index", tmp_path / "model.ckpt.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-8])
    assert "lies beyond its end" in refused(index, architecture="kind")
    index.write_bytes(index.read_bytes()[:-1])
    assert "no index of a TensorFlow checkpoint" in refused(index, architecture="kind")
    index.unlink()
    assert "none of the published networks" in refused(data, architecture="kind")


@pytest.mark.parametrize("seed", range(3))
def test_an_index_with_bytes_turned_never_breaks_the_reader(seed: int, tmp_path: Path) -> None:
    from lumen_cli.errors import ModelError

    write_bundle(tmp_path / "w", {f"net/layer_{number}/weights": np.ones((3, number + 1)) for number in range(40)})
    entries = read_index(tmp_path / "w.index")
    assert [entry.shape for entry in list(entries.values())[:2]] == [(3, 1), (3, 2)]
    assert len(entries) == 40
    content = (tmp_path / "w.index").read_bytes()
    generator = np.random.default_rng(seed)
    for _ in range(100):
        broken = bytearray(content)
        for place in generator.integers(0, len(content), 3):
            broken[place] = generator.integers(0, 256)
        (tmp_path / "w.index").write_bytes(bytes(broken))
        try:
            read_index(tmp_path / "w.index")
        except ModelError:
            continue
