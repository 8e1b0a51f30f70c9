"""The reference figures of tests/figures and the weights they were computed with."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file
from torch import Tensor, nn

FOLDER = Path(__file__).parent / "figures"


def formula_array(name: str, shape: tuple[int, ...], tag: str) -> np.ndarray:
    """float32 values that depend on a parameter's name, shape and a tag alone (PCG64 seeded with a CRC of both)."""
    unit = np.random.Generator(np.random.PCG64(zlib.crc32(f"{tag}:{name}".encode()))).random(shape)
    signed = 2.0 * unit - 1.0
    leaf = name.rpartition(".")[2]
    if leaf.endswith("_g"):
        values = unit + 0.5
    elif leaf.endswith(("_u", "_v")):
        values = signed / max(float(np.linalg.norm(signed)), 1e-12)
    elif leaf == "running_var":
        values = 1.0 + 0.5 * unit
    elif leaf == "running_mean":
        values = 0.1 * signed
    elif len(shape) > 1:
        values = signed * math.sqrt(3.0 / max(math.prod(shape[1:]), 1))
    else:
        values = 0.1 * signed + (1.0 if leaf == "weight" else 0.0)
    return np.asarray(values, dtype=np.float32)


def fill_by_formula(network: nn.Module, tag: str = "a", prefix: str = "") -> nn.Module:
    """Give every floating-point parameter and buffer its formula value; returns the network."""
    state = network.state_dict()
    network.load_state_dict(
        {
            name: torch.from_numpy(formula_array(prefix + name, tuple(value.shape), tag).copy())
            if value.is_floating_point()
            else value
            for name, value in state.items()
        }
    )
    return network


def published_keys() -> dict[str, list[tuple[str, list[int]]]]:
    """Names and shapes of the published parameters in their order, by architecture and variant.

    Some are stored as the SHA-256 of their JSON and left out here.
    """
    files = [json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))]
    keys = {name: rows for file in files for name, rows in file.get("keys", {}).items()}
    return {name: [(key, shape) for key, shape in rows] for name, rows in keys.items() if not isinstance(rows, str)}


class Figures:
    """The stored figures of one model."""

    def __init__(self, model: str) -> None:
        self.stored = load_file(FOLDER / f"{model}.safetensors")
        stored = json.loads((FOLDER / f"{model}.json").read_text())
        self.entries, self.keys = stored["entries"], stored["keys"]
        self.checked: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        values, entry = self.stored[name], self.entries[name]
        if entry.get("unit") == "1/255":
            values = values.astype(np.float32) / np.float32(255)
        elif "step" in entry:
            values = (values.astype(np.float64) * entry["step"]).astype(np.float32)
        return torch.from_numpy(np.array(values))

    def outputs(self) -> set[str]:
        """Names of all figures that something has to reproduce."""
        return {name for name, entry in self.entries.items() if "atol" in entry}

    def check(self, name: str, value: Tensor) -> None:
        """Assert that `value` meets the figure within its tolerance, and remember that it was checked."""
        wanted = self[name]
        assert value.shape == wanted.shape, f"{name}: shape {tuple(value.shape)}, expected {tuple(wanted.shape)}"
        difference = float((value.detach().double() - wanted.double()).abs().max())
        assert difference <= self.entries[name]["atol"], f"{name}: off by {difference:.3g}"
        self.checked.add(name)
