"""Parts of a network through torch.compile, and the way back for what runs but once."""

from __future__ import annotations

from contextlib import AbstractContextManager
from operator import attrgetter

import torch
from torch import nn

from lumen_cli.networks.base import LowLightModel


def compile_parts(model: LowLightModel, backend: str = "inductor") -> None:
    """Hand each of the model's `costly` parts to torch.compile, in place; its parameters keep their names."""
    for path in model.costly:
        part = attrgetter(path)(model)
        if isinstance(part, nn.Module):
            part.compile(backend=backend, dynamic=False)
        else:
            owner, _, name = path.rpartition(".")
            setattr(attrgetter(owner)(model), name, torch.compile(part, backend=backend, dynamic=False))


def uncompiled() -> AbstractContextManager[object]:
    """Within it compiled parts run as they were: every new size would cost a minute of compilation."""
    return torch.compiler.set_stance("force_eager")
