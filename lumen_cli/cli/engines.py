"""Where `enhance`, `decompose` and `benchmark` compute: in this process, or on a Ray cluster."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lumen_cli.cli.options import MACHINE
from lumen_cli.cli.streams import log
from lumen_cli.errors import UsageError

if TYPE_CHECKING:
    from lumen_cli.engine.device import DevicePolicy
    from lumen_cli.registry.card import ModelCard
    from lumen_cli.run.cluster.join import Cluster
    from lumen_cli.run.operation import Operation
    from lumen_cli.run.run import Run, RunOptions


class EngineChoice(str, enum.Enum):
    """Where a run computes."""

    local = "local"
    ray = "ray"


EngineOption = Annotated[
    EngineChoice,
    typer.Option(
        metavar="local|ray",
        rich_help_panel=MACHINE,
        help="local: this process; ray: the nodes of a Ray cluster, which all reach the pictures: in a store or in "
        "folders that they share.",
    ),
]
RayAddressOption = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        metavar="HOST:PORT|auto",
        rich_help_panel=MACHINE,
        help="The Ray cluster; auto: the one of this machine (default: that of RAY_ADDRESS, else a new one here).",
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        rich_help_panel=MACHINE,
        help="Workers of --engine ray, each with the model (default: as many as fit).",
    ),
]
GpusPerWorkerOption = Annotated[
    float | None,
    typer.Option(
        "--gpus-per-worker",
        min=0.0,
        metavar="N",
        rich_help_panel=MACHINE,
        help="GPUs of each worker, 0.5 for two workers on one (default: 1 where the cluster has any, else 0).",
    ),
]


@dataclass(frozen=True)
class EngineOptions:
    """Where a command computes. gpus: of each worker."""

    engine: EngineChoice
    address: str | None
    workers: int | None
    gpus: float | None
    device: str
    quiet: bool

    def check(self) -> None:
        """UsageError where options of Ray are given without it."""
        if self.engine is EngineChoice.local and (self.address, self.workers, self.gpus) != (None, None, None):
            raise UsageError("--ray-address, --workers and --gpus-per-worker need --engine ray")


class Engine:
    """Where a run computes: this process, or a cluster."""

    def __init__(self, cluster: Cluster | None = None) -> None:
        self.cluster = cluster

    def choose_device(self, device: str, precision: str, *, several: bool = True, **arguments: Any) -> DevicePolicy:
        """See `engine.device.choose_device`; several: whether all CUDA devices of this machine may be chosen."""
        if self.cluster is not None:
            return self.cluster.choose_device(precision, **arguments)
        from lumen_cli.engine.device import choose_device

        return choose_device(device, precision, several=several, **arguments)

    def run(self, card: ModelCard, policy: DevicePolicy, operation: Operation, options: RunOptions) -> Run:
        """A run that computes there."""
        if self.cluster is not None:
            from lumen_cli.run.cluster.driver import ClusterRun

            return ClusterRun(card, policy, operation, options, cluster=self.cluster)
        from lumen_cli.run.run import Run

        return Run(card, policy, operation, options)


@contextmanager
def open_engine(options: EngineOptions) -> Iterator[Engine]:
    """The engine that the options name; inside, this process is part of its cluster."""
    if options.engine is EngineChoice.local:
        yield Engine()
        return
    from lumen_cli.run.cluster.join import connect

    with connect(options.address, options.workers, options.gpus, options.device) as cluster:
        for note in cluster.notes:
            log.warning(note)
            if not options.quiet:
                typer.echo(f"lumen: {note}", err=True)
        yield Engine(cluster)
