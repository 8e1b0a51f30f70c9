"""Checkpoints made to take all time or memory: refused in one line, in bounded time, by a helper process."""

from __future__ import annotations

import collections
import os
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lumen_cli.errors import ModelError
from lumen_cli.registry.checkpoints import Source, find_checkpoints, read_checkpoint, reading_process
from lumen_cli.registry.checkpoints.importing import import_checkpoint
from lumen_cli.registry.checkpoints.reading_process import read_apart, read_source
from lumen_cli.registry.checkpoints.tensorflow import read_index
from tests.registry.checkpoints.checkpoints import _message, _table, _varint, training_state, write_bundle

posix = pytest.mark.skipif(os.name == "nt", reason="needs pipes and devices in the file system")


def repacked(source: Path, target: Path, data: bytes | None = None, **how: Any) -> None:
    """The same archive packed in another way, with other content in data.pkl where it is given."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", **how) as new:
        for entry in old.infolist():
            ours = data is not None and entry.filename.endswith("data.pkl")
            new.writestr(entry.filename, data if ours and data is not None else old.read(entry))


@pytest.mark.parametrize("kind", ["weights", "training state", "bundle", "odd names"])
def test_a_helper_hands_on_what_it_reads(tmp_path: Path, kind: str) -> None:
    state = {"a.weight": torch.randn(3, 4), "a.bias": torch.randn(3).half(), "n": torch.tensor(7)}
    source = Source(tmp_path / "w.pth")
    if kind == "bundle":
        write_bundle(tmp_path / "model.ckpt", {"DecomNet/x/weights": np.ones((3, 3, 2, 4), np.float32)})
        source = Source(tmp_path / "model.ckpt", bundle=True)
    elif kind == "odd names":
        torch.save({"../x\n": torch.ones(2), "__metadata__": torch.ones(1), "": torch.zeros(1)}, source.path)
    else:
        torch.save(state if kind == "weights" else training_state(state, state), source.path)
    apart, here = read_apart(source), read_source(source)
    for ours, theirs in ((apart.tensors, here.tensors), (apart.averages, here.averages)):
        assert list(ours) == list(theirs)
        assert all(torch.equal(ours[name], theirs[name]) and ours[name].dtype == theirs[name].dtype for name in ours)


def test_what_a_helper_refuses_is_said_as_it_says_it(tmp_path: Path) -> None:
    torch.save({"model": torch.nn.Linear(2, 2)}, tmp_path / "whole.pth")
    with pytest.raises(ModelError) as here:
        read_checkpoint(tmp_path / "whole.pth")
    with pytest.raises(ModelError) as apart:
        read_apart(Source(tmp_path / "whole.pth"))
    assert str(apart.value) == str(here.value)


def test_keys_of_nested_tuples_end_at_the_time_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """2^60 steps to hash, in a hundred bytes."""
    torch.save({"w": torch.ones(1)}, tmp_path / "small.pth")
    hand = b"\x80\x02]()q\x00"  # a list of (), then 60 times a pair of the last with itself, each in its own place
    hand += b"".join(b"h%ch%c\x86q%c" % (n, n, n + 1) for n in range(60))
    hand += b"e}h\x3cK\x01s."  # {the last: 1}
    repacked(tmp_path / "small.pth", tmp_path / "nested.pth", hand)
    monkeypatch.setattr(reading_process, "SECONDS", 8.0)
    started = time.monotonic()
    with pytest.raises(ModelError, match=r"refused: (reading it takes longer|its reader crashed)"):
        read_apart(Source(tmp_path / "nested.pth"))
    assert time.monotonic() - started < 60


def test_an_archive_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1 << 18)}, tmp_path / "w.pth")
    repacked(tmp_path / "w.pth", tmp_path / "bomb.pth", compression=zipfile.ZIP_DEFLATED)
    assert (tmp_path / "bomb.pth").stat().st_size < 10_000
    with pytest.raises(ModelError, match="compressed"):
        read_checkpoint(tmp_path / "bomb.pth")
    read_checkpoint(tmp_path / "w.pth")


def test_a_tensor_expanded_to_terabytes_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1).expand(1 << 22, 1 << 22)}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match="repeats parts of the file"):
        read_apart(Source(tmp_path / "w.pth"))


def test_many_views_of_one_storage_are_refused(tmp_path: Path) -> None:
    whole = torch.zeros(1 << 18)
    torch.save({str(number): whole for number in range(1000)}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match="repeats parts of the file"):
        read_checkpoint(tmp_path / "w.pth")


def test_tensors_without_values_of_their_own_are_refused(tmp_path: Path) -> None:
    for tensor in (torch.empty(1 << 40, device="meta"), torch.zeros(3, 3).to_sparse(), torch.zeros(3) * 1j):
        torch.save(collections.OrderedDict(w=tensor), tmp_path / "w.pth")
        with pytest.raises(ModelError):
            read_checkpoint(tmp_path / "w.pth")


def test_an_index_that_names_one_place_many_times_is_refused(tmp_path: Path) -> None:
    entry = _message(2, _message(2, b"\x08" + _varint(250))) + b"\x28" + _varint(1000)
    rows = [(b"", b"")] + [(f"t{number:05d}".encode(), b"\x08\x01" + entry) for number in range(60_000)]
    (tmp_path / "model.ckpt.index").write_bytes(_table(rows))
    (tmp_path / "model.ckpt.data-00000-of-00001").write_bytes(bytes(1000))
    with pytest.raises(ModelError, match="more tensors"):
        read_index(tmp_path / "model.ckpt.index")
    (tmp_path / "model.ckpt.index").write_bytes(_table(rows[:9000]))
    with pytest.raises(ModelError, match="repeat parts"):
        read_apart(Source(tmp_path / "model.ckpt", bundle=True))


@posix
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "m.index", "m.data-00000-of-00001", "checkpoint"])
def test_pipes_and_devices_do_not_hang_an_import(tmp_path: Path, name: str) -> None:
    for what in ("pipe", "device"):
        folder = tmp_path / what
        folder.mkdir()
        write_bundle(folder / "m", {"a": np.ones(3, np.float32)})
        write_bundle(folder / "n", {"a": np.ones(3, np.float32)})
        (folder / name).unlink(missing_ok=True)
        if what == "pipe":
            os.mkfifo(folder / name)
        else:
            (folder / name).symlink_to("/dev/zero")
        for paths in ([folder / name], [folder]):
            with pytest.raises(ModelError):
                import_checkpoint("kind", paths, tmp_path / "out")


def test_memory_beyond_the_limit_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"w": torch.zeros(1 << 20)}, tmp_path / "w.pth")
    monkeypatch.setattr(reading_process, "MEMORY", -(14 << 20))  # less than the file needs
    with pytest.raises(ModelError, match=r"refused|damaged"):
        read_apart(Source(tmp_path / "w.pth"))


def test_only_files_are_found(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no file"):
        find_checkpoints([tmp_path / "none.pth"], several=False)
