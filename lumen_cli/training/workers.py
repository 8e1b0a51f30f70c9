"""A training shared by several processes, one a device, as `accelerate launch` starts them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from lumen_cli.errors import UsageError


@dataclass(frozen=True)
class Workers:
    """Which of them this process is. rank: from 0, who alone writes files; device: this one's own."""

    rank: int = 0
    count: int = 1
    device: torch.device | None = None

    @property
    def leads(self) -> bool:
        """Whether this process validates, saves and reports."""
        return self.rank == 0

    def share_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by the mean over all processes; one that is missing anywhere counts as zero."""
        if self.count == 1:
            return
        import torch.distributed as distributed

        with_gradients = list(parameters)
        flat = torch.cat(
            [(torch.zeros_like(p) if p.grad is None else p.grad).float().flatten() for p in with_gradients]
        )
        distributed.all_reduce(flat)
        flat /= self.count
        for parameter, part in zip(with_gradients, flat.split([p.numel() for p in with_gradients]), strict=True):
            parameter.grad = part.view_as(parameter).to(parameter.dtype)

    def agree(self, value: float) -> float:
        """The leading process's value, for all."""
        if self.count == 1:
            return value
        import torch.distributed as distributed

        told = torch.tensor([value], dtype=torch.float64, device=self.device)
        distributed.broadcast(told, src=0)
        return float(told)


ALONE = Workers()


def join_workers(device: str) -> Workers:
    """Find out which of the processes that a launcher started this one is; ALONE where there is no launcher.

    Args:
        device: as on the command line; "cpu" keeps the processes of a machine with GPUs on its CPU.

    Raises:
        UsageError: there are several, and accelerate is not installed.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) <= 1:
        return ALONE
    try:
        from accelerate import PartialState
    except ImportError:
        raise UsageError("several processes need accelerate: pip install 'lumen-cli[cluster]'") from None
    state = PartialState(cpu=device == "cpu")
    own = torch.device("cpu") if state.device.type == "cpu" else state.device
    return Workers(state.process_index, state.num_processes, own)
