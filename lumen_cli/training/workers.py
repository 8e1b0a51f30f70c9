"""A training in several processes, one per device, as `accelerate launch` starts them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from lumen_cli.errors import UsageError


@dataclass(frozen=True)
class Workers:
    """The place of this process among others. rank: only rank 0 writes files; device: of this process."""

    rank: int = 0
    count: int = 1
    device: torch.device | None = None

    @property
    def leads(self) -> bool:
        """Whether this process validates, saves and reports."""
        return self.rank == 0

    def share_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by the mean over all processes; a missing gradient counts as zero."""
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
        """The value of the leading process."""
        if self.count == 1:
            return value
        import torch.distributed as distributed

        shared = torch.tensor([value], dtype=torch.float64, device=self.device)
        distributed.broadcast(shared, src=0)
        return float(shared)


ALONE = Workers()


def join_workers(device: str) -> Workers:
    """Find the place of this process among those of a launcher; ALONE without a launcher.

    Args:
        device: as `choose_device` takes it; "cpu" keeps the processes off the GPUs.

    Raises:
        UsageError: there are several processes, and accelerate is not installed.
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
