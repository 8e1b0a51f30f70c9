"""From a trained network to a model folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from lumen_cli.networks.base import LowLightModel
from lumen_cli.registry.card import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE
from lumen_cli.registry.load import save_weights
from lumen_cli.training.recipe import Recipe


def export_model(
    model: LowLightModel, recipe: Recipe, data: Sequence[str], folder: Path, name: str | None = None
) -> Path:
    """Write config.json, README.md and float16 weights; returns the folder.

    Licence and description are left to whoever trained it: the card says so in plain words.
    """
    folder.mkdir(parents=True, exist_ok=True)
    network = recipe.network_config()
    name = name or recipe.architecture
    tensors = {name: t for name, t in model.state_dict().items() if not name.startswith(model.training_only)}
    parameters = sum(p.numel() for name, p in model.named_parameters() if name in tensors)
    config = {
        "name": name,
        "architecture": recipe.architecture,
        "summary": f"{recipe.architecture} trained with lumen train",
        "network": network,
        "defaults": {"steps": network.get("steps"), "precision": "auto"},
        "steps_range": model.steps_range(),
        "size_multiple": model.size_multiple,
        "precisions": ["fp32", "bf16"],
        "tiling": model.tiles,
        "abilities": model.abilities(),
        "weights": {
            "file": WEIGHTS_FILE,
            "sha256": save_weights(tensors, folder / WEIGHTS_FILE, torch.float16),
            "bytes": (folder / WEIGHTS_FILE).stat().st_size,
            "parameters": parameters,
        },
        "trained_on": [Path(entry).name for entry in data],
        "licence": "not stated",
    }
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    readme = folder / CARD_FILE
    if not readme.exists():
        readme.write_text(
            f"# {name}\n\n{parameters:,} parameters, trained with `lumen train {recipe.architecture}` on "
            f"{', '.join(config['trained_on'])}.\n\nLicence and known failures: not stated yet.\n",  # type: ignore[arg-type]
            encoding="utf-8",
        )
    return folder
