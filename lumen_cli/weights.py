"""Safetensors in and out: checksums, and errors that say which name or shape does not fit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lumen_cli.errors import ModelError
from lumen_cli.imaging.temporaries import temporary_beside

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

_NAMED_IN_ERRORS = 3


def load_weights(path: Path, sha256: str | None = None, *, model: str | None = None) -> dict[str, Tensor]:
    """Read a safetensors file on the CPU; floating point tensors come back as float32 whatever they are stored in.

    Args:
        path: the file.
        sha256: the checksum the file must have, 64 hexadecimal digits; None skips the check.
        model: the model's name, for errors.

    Raises:
        ModelError: the file is missing, is not safetensors, or has another checksum (both are named).
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    whose = f"model {model}: " if model else ""
    try:
        if path.exists() and not path.is_file():
            raise ModelError(f"{whose}the weights file {path} is no ordinary file")
        content = path.read_bytes()  # hashed and parsed from the same bytes: nothing can change in between
    except FileNotFoundError:
        raise ModelError(f"{whose}the weights file {path} is missing") from None
    except OSError as error:
        raise ModelError(f"{whose}the weights file {path} cannot be read: {error.strerror}") from None
    except MemoryError:
        raise ModelError(f"{whose}the weights file {path} does not fit into memory") from None
    found = hashlib.sha256(content).hexdigest()
    if sha256 is not None and found != sha256:
        hint = " (a Git LFS pointer: run `git lfs pull`)" if content.startswith(b"version https://git-lfs") else ""
        raise ModelError(f"{whose}the weights file {path} is damaged{hint}: expected SHA-256 {sha256}, found {found}")
    try:
        tensors = load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ModelError(f"{whose}{path} is not a safetensors file: {error}") from None
    return {
        name: tensor.to(torch.float32) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()
    }


def save_weights(tensors: Mapping[str, Tensor], path: Path, dtype: torch.dtype | None = None) -> str:
    """Write tensors as safetensors and return the file's SHA-256.

    The file appears whole or not at all. `dtype` (bfloat16, float16) stores floating point tensors smaller;
    None keeps each as it is.
    """
    from safetensors.torch import save

    stored = {
        name: tensor.detach().to("cpu", dtype if tensor.is_floating_point() else None).contiguous().clone()
        for name, tensor in sorted(tensors.items())
    }
    content = save(stored, metadata={"format": "pt"})
    temporary = temporary_beside(path)  # no one can know its name before it is there
    try:
        with temporary.open("xb") as file:
            file.write(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return hashlib.sha256(content).hexdigest()


def checksum(path: Path) -> str:
    """A file's SHA-256, 64 hexadecimal digits; read in pieces, however large it is."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_shapes(path: Path, *, model: str | None = None) -> dict[str, Tensor]:
    """The tensors of a safetensors file without their values, on PyTorch's device "meta": only its header is read.

    Raises:
        ModelError: it is no safetensors file.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, KeyError) as error:
        whose = f"model {model}: " if model else ""
        raise ModelError(f"{whose}{path} is not a safetensors file: {error}") from None
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def apply_weights(network: nn.Module, tensors: Mapping[str, Tensor], path: Path, *, model: str | None = None) -> None:
    """Put tensors into a network; ModelError lists the first names that are missing, left over or of another shape."""
    require_fit(network, tensors, path, model=model)
    network.load_state_dict(dict(tensors))


def require_fit(network: nn.Module, tensors: Mapping[str, Tensor], path: Path, *, model: str | None = None) -> None:
    """ModelError as in `apply_weights`; the network may be one without memory, on PyTorch's device "meta"."""
    expected = network.state_dict()
    problems = {
        "missing": [name for name in expected if name not in tensors],
        "unknown": [name for name in tensors if name not in expected],
        "of another shape": [
            f"{name} (expected {_shape(expected[name])}, found {_shape(tensors[name])})"
            for name in expected
            if name in tensors and expected[name].shape != tensors[name].shape
        ],
    }
    said = [f"{len(names)} {kind}: {_first(names)}" for kind, names in problems.items() if names]
    if said:
        whose = f"model {model}: " if model else ""
        raise ModelError(f"{whose}the weights in {path} do not fit the network of config.json: {'; '.join(said)}")


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a single number"


def _first(names: list[str]) -> str:
    return ", ".join(names[:_NAMED_IN_ERRORS]) + (", …" if len(names) > _NAMED_IN_ERRORS else "")
