"""The state of a training: written atomically, read back with `weights_only=True`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn


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
