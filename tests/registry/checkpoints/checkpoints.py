"""Checkpoints in the layouts that the authors write, filled by formula."""

from __future__ import annotations

import argparse
import struct
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lumen_cli.registry.architectures import ARCHITECTURES, import_object
from tests.reference import fill_by_formula

State = Mapping[str, Tensor]


def filled(network: nn.Module, tag: str = "a") -> nn.Module:
    """The network with formula weights, ready to run."""
    return fill_by_formula(network, tag).eval().requires_grad_(False)


def wrapped(state: State) -> dict[str, Tensor]:
    """Names as torch.nn.DataParallel gives them."""
    return {f"module.{name}": tensor for name, tensor in state.items()}


def training_state(state: State, averages: State | None = None, **more: Any) -> dict[str, Any]:
    """What the scripts of DiffLL, LightenDiffusion and LLDiffusion save: weights beside much else."""
    options = argparse.Namespace(seed=230, config="unsupervised.yml", sampling_timesteps=10)
    config = argparse.Namespace(model=argparse.Namespace(ch=64, ch_mult=[1, 2, 3, 4]), device=torch.device("cpu"))
    return {
        "step": 7,
        "epoch": 356,
        "state_dict": wrapped(state),
        "optimizer": {"state": {0: {"exp_avg": torch.ones(3), "step": torch.tensor(7.0)}}, "param_groups": [{"lr": 1}]},
        "scheduler": {"milestones": Counter({100: 1, 1000: 1}), "_last_lr": [1e-4]},
        "ema_helper": dict(state if averages is None else averages),
        "params": options,
        "config": config,
        **more,
    }


def tensorflow_layout(tensor: Tensor) -> np.ndarray:
    """PyTorch's layout of a parameter → TensorFlow's: kernels as (height, width, in, out)."""
    array = tensor.numpy()
    return np.ascontiguousarray(array.transpose(2, 3, 1, 0)) if array.ndim == 4 else array


def write_bundle(prefix: Path, tensors: Mapping[str, np.ndarray], index: bool = True) -> None:
    """A TensorFlow checkpoint of one part: the tensors one after the other by name, and the table of their places."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    rows, data = [(b"", bytes([0x08, 1, 0x1A, 2, 0x08, 1]))], b""
    for name in sorted(tensors, key=str.encode):
        stored = np.ascontiguousarray(tensors[name], dtype="<f4").tobytes()
        shape = b"".join(_message(2, b"\x08" + _varint(side)) for side in tensors[name].shape)
        place = b"\x20" + _varint(len(data)) if data else b""  # a zero is left out
        size = b"\x28" + _varint(len(stored)) + b"\x35" + b"\x01\x02\x03\x04"
        rows.append((name.encode(), b"\x08\x01" + _message(2, shape) + place + size))
        data += stored
    Path(f"{prefix}.data-00000-of-00001").write_bytes(data)
    if index:
        Path(f"{prefix}.index").write_bytes(_table(rows))


def write_kind_bundles(folder: Path, network: nn.Module, architecture: str, index: bool = True) -> None:
    """The authors' folder checkpoint/: a TensorFlow bundle for each network in a folder of its own."""
    tensorflow_name = import_object(ARCHITECTURES[architecture].layout).tensorflow_name
    names = {
        "decom": "decom_net_train",
        "adjust": "illumination_adjust_net_train",
        "restoration": "Restoration_net_train",
    }
    for part, name in names.items():
        tensors = {
            tensorflow_name(key): tensorflow_layout(value)
            for key, value in network.state_dict().items()
            if key.startswith(f"{part}.") and value.is_floating_point()
        }
        write_bundle(folder / name / "model.ckpt", tensors, index)
        (folder / name / "checkpoint").write_text('model_checkpoint_path: "model.ckpt"\n')


def write_authors_checkpoint(folder: Path, architecture: str, network: nn.Module) -> list[Path]:
    """A checkpoint of a network as the authors of its architecture write it; what to import."""
    if import_object(ARCHITECTURES[architecture].layout).tensorflow_name is not None:
        write_kind_bundles(folder / "checkpoint", network, architecture)
        return [folder / "checkpoint"]
    torch.save(training_state(network.state_dict()), folder / "model.pth.tar")
    return [folder / "model.pth.tar"]


def _varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def _message(field: int, content: bytes) -> bytes:
    return bytes([field << 3 | 2]) + _varint(len(content)) + content


def _table(rows: list[tuple[bytes, bytes]], rows_a_block: int = 20) -> bytes:
    """LevelDB's table format: blocks of rows, a block that says where they are, a footer."""
    content, places = b"", []
    for start in range(0, len(rows), rows_a_block):
        part = rows[start : start + rows_a_block]
        block = _block(part)
        places.append((part[-1][0], _varint(len(content)) + _varint(len(block))))
        content += block + b"\0" + b"crc!"
    meta, index = _block([]), _block(places, restart=1)
    handles = _varint(len(content)) + _varint(len(meta))
    content += meta + b"\0crc!"
    handles += _varint(len(content)) + _varint(len(index))
    return content + index + b"\0crc!" + handles.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def _block(rows: list[tuple[bytes, bytes]], restart: int = 16) -> bytes:
    content, restarts, last = b"", [0], b""
    for number, (key, value) in enumerate(rows):
        shared = 0
        if number % restart:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        elif number:
            restarts.append(len(content))
        content += _varint(shared) + _varint(len(key) - shared) + _varint(len(value)) + key[shared:] + value
        last = key
    return content + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))
