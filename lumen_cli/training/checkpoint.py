"""What a training stores: the state of each stage with its curves as a PNG, and the model folder at the end."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn

from lumen_cli.networks.base import LowLightModel
from lumen_cli.registry import CARD_FILE, CONFIG_FILE, NETWORK_FILE
from lumen_cli.registry.load import save_weights
from lumen_cli.training.recipes import Recipe

WIDTH, HEIGHT, LEFT, MARGIN = 900, 360, 76, 28
_COLORS = ((0xB4, 0x77, 0x1F), (0x0E, 0x7F, 0xFF), (0x2C, 0xA0, 0x2C), (0x28, 0x27, 0xD6), (0xBD, 0x67, 0x94))
"""BGR."""
_GREY = (0x60, 0x60, 0x60)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_curves(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """Write one panel for the losses and one for each validation score, one below the other.

    history: the loop's entries with `step` and either loss terms by name or `validation_…`.
    """
    losses = _series(entry for entry in history if not any(name.startswith("validation_") for name in entry))
    scores = _series(entry for entry in history if any(name.startswith("validation_") for name in entry))
    panels = [_panel("loss", losses, logarithmic=True)] if losses else []
    panels += [
        _panel(name.removeprefix("validation_").upper(), {name: points}, logarithmic=False)
        for name, points in scores.items()
    ]
    if panels:
        cv2.imwrite(str(path), np.concatenate(panels))


def _series(entries: object) -> dict[str, list[tuple[float, float]]]:
    series: dict[str, list[tuple[float, float]]] = {}
    for entry in entries:  # type: ignore[attr-defined]
        for name, value in entry.items():
            if name != "step" and math.isfinite(value):
                series.setdefault(name, []).append((entry["step"], value))
    return series


def _panel(title: str, series: Mapping[str, Sequence[tuple[float, float]]], *, logarithmic: bool) -> np.ndarray:
    panel = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)

    def height_of(value: float) -> float:
        return math.log10(max(value, 1e-8)) if logarithmic else value

    points = [point for line in series.values() for point in line]
    first, last = min(x for x, _ in points), max(x for x, _ in points)
    low, high = min(height_of(y) for _, y in points), max(height_of(y) for _, y in points)
    span, rise = max(last - first, 1.0), max(high - low, 1e-6)

    def place(x: float, y: float) -> tuple[int, int]:
        across = LEFT + (x - first) / span * (WIDTH - LEFT - MARGIN)
        return round(across), round(HEIGHT - MARGIN - (height_of(y) - low) / rise * (HEIGHT - 2 * MARGIN))

    cv2.rectangle(panel, (LEFT, MARGIN), (WIDTH - MARGIN, HEIGHT - MARGIN), (0xC0, 0xC0, 0xC0))
    for share in (0.0, 0.5, 1.0):
        value = low + share * rise
        shown = f"{10**value if logarithmic else value:.3g}"
        across = round(HEIGHT - MARGIN - share * (HEIGHT - 2 * MARGIN))
        cv2.putText(panel, shown, (6, across + 4), _FONT, 0.42, _GREY, 1, cv2.LINE_AA)
    for step in (first, last):
        cv2.putText(panel, f"{step:.0f}", (place(step, 1.0)[0] - 14, HEIGHT - 8), _FONT, 0.42, _GREY, 1, cv2.LINE_AA)
    cv2.putText(panel, title, (LEFT, 18), _FONT, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    for number, (name, line) in enumerate(series.items()):
        color = _COLORS[number % len(_COLORS)]
        path = np.array([place(x, y) for x, y in line], np.int32)
        cv2.polylines(panel, [path], False, color, 2, cv2.LINE_AA)
        if len(line) == 1:
            cv2.circle(panel, path[0].tolist(), 3, color, -1, cv2.LINE_AA)
        if len(series) > 1:
            cv2.putText(panel, name, (LEFT + 90 + 150 * number, 18), _FONT, 0.45, color, 1, cv2.LINE_AA)
    return panel


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


def export_part(model: nn.Module, name: str, data: Sequence[str], folder: Path, models: Sequence[str] = ()) -> Path:
    """Write a network that serves all models, as float16 weights `name`.safetensors with a card; returns the folder.

    data: its training folders; models: those on whose results it was trained, if it was.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = save_weights(model.state_dict(), folder / f"{name}.safetensors", torch.float16)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    origin = ", ".join(Path(entry).name for entry in data)
    results = f", on results of {', '.join(models)}" if models else ""
    (folder / CARD_FILE).write_text(
        f"# {name}\n\n{parameters:,} parameters, trained with `lumen train {name}` on {origin}{results}.\n\n"
        f"SHA-256 of `{weights['file']}`: {weights['sha256']}\n\nLicence and known failures: not stated yet.\n",
        encoding="utf-8",
    )
    return folder
