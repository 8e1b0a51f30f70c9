"""What a training stores: the state of each stage, and the model folder at the end."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lumen_cli.networks.base import LowLightModel
from lumen_cli.registry.config_file import CARD_FILE, CONFIG_FILE, NETWORK_FILE
from lumen_cli.registry.load import save_weights
from lumen_cli.training.curves import draw_curves
from lumen_cli.training.recipes.base import Recipe


class Average:
    """Exponential moving average of a network's parameters; the decay grows from 0 as in Karras et al., 2023."""

    def __init__(self, model: nn.Module, decay: float = 0.999) -> None:
        self.decay = decay
        self.values = {name: value.detach().clone().float() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Add the parameters after `step` steps."""
        decay = min(self.decay, (1.0 + step) / (10.0 + step))
        state = model.state_dict()
        torch._foreach_lerp_(list(self.values.values()), [state[name] for name in self.values], 1.0 - decay)


@dataclass
class Progress:
    """The progress of a stage: steps and seconds spent, the curves so far, whether it is finished."""

    stage: str
    step: int = 0
    seconds: float = 0.0
    done: bool = False
    history: list[dict[str, float]] = field(default_factory=list)


class Checkpoint:
    """One stage of a training: the network, its averaged parameters, the optimizer and the progress, in one file."""

    def __init__(
        self,
        path: Path | None,
        stage: str,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        decay: float,
        device: torch.device,
    ) -> None:
        """Continue from the file where there is one. path: None stores nothing."""
        self.path, self.model, self.optimizer = path, model, optimizer
        self.average, self.progress = Average(model, decay), Progress(stage)
        if path is not None and path.is_file():
            state = load(path, device)
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            self.average.values, self.progress = state["average"], Progress(**state["progress"])

    def save(self) -> None:
        """Write the whole state and, beside it, the curves; an interrupted write leaves the previous file intact."""
        if self.path is None:
            return
        state = {
            "model": self.model.state_dict(),
            "average": self.average.values,
            "optimizer": self.optimizer.state_dict(),
            "progress": {**vars(self.progress)},
        }
        beside = self.path.with_suffix(".tmp")
        torch.save(state, beside)
        beside.replace(self.path)
        draw_curves(self.progress.history, self.path.with_suffix(".png"))

    def use_average(self) -> None:
        """Give the network the averaged parameters."""
        self.model.load_state_dict(self.average.values)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within it the network has the averaged parameters."""
        current = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.use_average()
        yield
        self.model.load_state_dict(current)


def load(path: Path, device: torch.device) -> dict[str, Any]:
    """Read what `Checkpoint.save` wrote."""
    state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    return state


def export_model(
    model: LowLightModel, recipe: Recipe, data: Sequence[str], folder: Path, name: str | None = None
) -> Path:
    """Write config.json, README.md and float16 weights; returns the folder.

    Licence and description remain for the person who trained the model to fill in; the card says so.
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
        "weights": {"network": save_weights(tensors, folder / NETWORK_FILE, torch.float16), "parameters": parameters},
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
