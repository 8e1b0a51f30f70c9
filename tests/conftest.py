"""What the tests of command, pipeline and registry share: a tiny model, dark pictures, the command itself."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.store import bucket, s3_port  # noqa: F401  (fixtures)

PLUGIN = Path(__file__).parent / "plugin"
sys.path.insert(0, str(PLUGIN))

os.environ["LUMEN_CONFIG"] = ""  # the user's own settings are out of sight
_SETS_OPTIONS = r"LUMEN_((ENHANCE|DECOMPOSE|COMPARE|BENCHMARK|TRAIN|DOCTOR)_|(DEVICE|PRECISION|SEED|QUIET|OFFLINE)$)"
for _name in list(os.environ):
    if re.match(_SETS_OPTIONS, _name):
        del os.environ[_name]

MakeModel = Callable[..., Path]


@pytest.fixture
def models_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of models that lumen looks into first; the user's own data folder is out of sight."""
    root = tmp_path / "models"
    root.mkdir()
    monkeypatch.setenv("LUMEN_MODELS", str(root))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data-home"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state-home"))
    plugins = [str(PLUGIN), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(plugins))  # for commands run in processes of their own
    return root


@pytest.fixture
def make_model(models_root: Path) -> MakeModel:
    """Write a model folder: config.json and weights of the tiny architecture, the same each time."""

    def make(
        name: str = "tiny", root: Path | None = None, network: dict[str, Any] | None = None, **changes: Any
    ) -> Path:
        import torch
        from lumen_tiny import Tiny

        from lumen_cli.registry.load import save_weights

        folder = (root or models_root) / name
        folder.mkdir(parents=True)
        tiny = Tiny(**(network or {}))
        weights = save_weights(tiny.state_dict(), folder / "network.safetensors", torch.bfloat16)
        config: dict[str, Any] = {
            "name": name,
            "architecture": "tiny",
            "summary": "one convolution",
            "network": network or {},
            "defaults": {"steps": 2, "precision": "auto"},
            "steps_range": [1, 10],
            "size_multiple": tiny.size_multiple,
            "precisions": ["fp32", "bf16"],
            "weights": {"network": weights, "parameters": 84},
            "trained_on": ["nothing"],
            "licence": "MIT",
        }
        (folder / "config.json").write_text(json.dumps(config | changes), encoding="utf-8")
        return folder

    return make


def dark_pixels(height: int, width: int, seed: int = 0, depth: int = 8) -> np.ndarray:
    """A dark picture H×W×3: a gradient with some texture, uint8 or uint16."""
    generator = np.random.default_rng(seed)
    ramp = np.linspace(0.02, 0.3, width)[None, :, None] * np.linspace(0.5, 1.0, height)[:, None, None]
    values = ramp * generator.uniform(0.7, 1.0, 3) + generator.uniform(0, 0.02, (height, width, 3))
    return (values * (2**depth - 1)).astype(np.uint8 if depth == 8 else np.uint16)


def write_dark(path: Path, height: int = 24, width: int = 32, seed: int = 0) -> Path:
    """A dark picture on the disk, in the format of the name's ending."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(dark_pixels(height, width, seed)).save(path)
    return path


def read_pixels(path: Path) -> np.ndarray:
    """A picture's values as Pillow reads them."""
    from PIL import Image

    with Image.open(path) as picture:
        return np.asarray(picture)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of five small dark pictures, two of them in a sub-folder."""
    folder = tmp_path / "photos"
    for index, name in enumerate(("a.png", "b.jpg", "c.webp", "night/d.png", "night/e.tif")):
        write_dark(folder / name, 24 + 3 * index, 32, seed=index)
    return folder


@dataclass(frozen=True)
class Finished:
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def lumen(models_root: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., Finished]:
    """Run the command `lumen` in this process; what it prints with --json has to fit the published schema."""

    def run(*arguments: str | Path) -> Finished:
        from lumen_cli.__main__ import main

        capfd.readouterr()
        code = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        captured = capfd.readouterr()
        if "--json" in arguments:
            from tests.schema import require_valid

            for line in captured.out.splitlines():
                require_valid(line)
        return Finished(code, captured.out, captured.err)

    return run


def folder_bytes(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content, hidden ones too."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }
