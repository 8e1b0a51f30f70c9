"""The state of a training: written atomically, read back with `weights_only=True`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lumen_cli.networks.base import LowLightModel
from lumen_cli.registry.card import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE
from lumen_cli.registry.load import save_weights
from lumen_cli.training.recipes.base import Recipe


class Average:
    """Exponential moving average of a network's parameters; the decay grows from 0 as in Karras et al., 2023."""

    def __init__(self, model: nn.Module, decay: float = 0.999) -> None:
        self.decay = decay
        self.values = {name: value.detach().clone().float() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the parameters after `step` steps."""
        decay = min(self.decay, (1.0 + step) / (10.0 + step))
        state = model.state_dict()
        torch._foreach_lerp_(list(self.values.values()), [state[name] for name in self.values], 1.0 - decay)


@dataclass
class Progress:
    """Where a stage stands: steps and seconds spent, the curves so far, whether it ran to its end."""

    stage: str
    step: int = 0
    seconds: float = 0.0
    done: bool = False
    history: list[dict[str, float]] = field(default_factory=list)


def save(path: Path, model: nn.Module, average: Average, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    """Write the whole state; an interrupted write leaves the former file as it was."""
    state = {
        "model": model.state_dict(),
        "average": average.values,
        "optimizer": optimizer.state_dict(),
        "progress": {**vars(progress)},
    }
    beside = path.with_suffix(".tmp")
    torch.save(state, beside)
    beside.replace(path)


def load(path: Path, device: torch.device) -> dict[str, Any]:
    """Read what `save` wrote."""
    state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    return state


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
