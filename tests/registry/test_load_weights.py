import hashlib
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from lumen_cli.errors import ModelError
from lumen_cli.registry.load import apply_weights, load_weights, save_weights


def test_weights_stored_small_come_back_as_float32(tmp_path: Path) -> None:
    values = {"w": torch.tensor([1.0, 0.5, -3.0]), "count": torch.tensor([7])}
    save_weights(values, tmp_path / "w.safetensors", torch.bfloat16)
    back = load_weights(tmp_path / "w.safetensors")
    assert back["w"].dtype == torch.float32
    assert back["w"].tolist() == [1.0, 0.5, -3.0]
    assert back["count"].dtype == torch.int64


def test_the_returned_entry_describes_the_file_and_the_bytes_are_the_same_each_time(tmp_path: Path) -> None:
    values = {"b": torch.arange(4.0), "a": torch.ones(2, 2)}
    first = save_weights(values, tmp_path / "1.safetensors")
    second = save_weights(dict(reversed(values.items())), tmp_path / "2.safetensors")
    content = (tmp_path / "1.safetensors").read_bytes()
    assert first == {"file": "1.safetensors", "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    assert second == first | {"file": "2.safetensors"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.safetensors", "2.safetensors"]
    load_weights(tmp_path / "1.safetensors", first["sha256"])


def test_views_and_shared_memory_can_be_saved(tmp_path: Path) -> None:
    base = torch.arange(12.0).view(3, 4)
    save_weights({"turned": base.t(), "same": base}, tmp_path / "w.safetensors")
    assert torch.equal(load_weights(tmp_path / "w.safetensors")["turned"], base.t())


def test_another_checksum_is_refused_with_file_and_both_sums(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    found = save_weights({"w": torch.ones(1)}, path)["sha256"]
    with pytest.raises(ModelError) as caught:
        load_weights(path, "0" * 64, model="night")
    assert all(part in str(caught.value) for part in ("night", str(path), "0" * 64, found))


def test_a_git_lfs_pointer_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n")
    with pytest.raises(ModelError, match="git lfs pull"):
        load_weights(path, "0" * 64)


@pytest.mark.parametrize("content", [b"", b"not tensors at all", b"\x80\x02}q\x00."])
def test_what_is_not_safetensors_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="is not a safetensors file"):
        load_weights(path)


def test_a_missing_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"gone\.safetensors is missing"):
        load_weights(tmp_path / "gone.safetensors")


def test_names_and_shapes_that_do_not_fit_are_listed(tmp_path: Path) -> None:
    network = nn.Linear(3, 2)
    with pytest.raises(ModelError) as caught:
        apply_weights(network, {"weight": torch.zeros(2, 4), "wieght": torch.zeros(1)}, tmp_path / "w.safetensors")
    said = str(caught.value)
    assert "1 missing: bias" in said
    assert "1 unknown: wieght" in said
    assert "weight (expected 2×3, found 2×4)" in said


def test_a_long_list_of_misfits_is_cut(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"9 unknown: a0, a1, a2, …"):
        apply_weights(nn.Identity(), {f"a{index}": torch.zeros(1) for index in range(9)}, tmp_path / "w")


def test_a_link_at_a_name_that_can_be_guessed_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / f".lumen-{os.getpid()}-w.safetensors").symlink_to(tmp_path / "precious")
    save_weights({"w": torch.ones(2)}, tmp_path / "w.safetensors")
    assert (tmp_path / "precious").read_text() == "mine"
    assert load_weights(tmp_path / "w.safetensors")["w"].tolist() == [1.0, 1.0]
