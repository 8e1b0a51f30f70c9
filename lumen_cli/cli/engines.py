"""Where `enhance` and `decompose` compute: in this process, or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from lumen_cli.cli.options import EngineChoice
from lumen_cli.cli.picture_options import PictureOptions
from lumen_cli.cli.streams import log

if TYPE_CHECKING:
    from lumen_cli.engine.device import DevicePolicy
    from lumen_cli.registry.card import ModelCard
    from lumen_cli.run.cluster.join import Cluster
    from lumen_cli.run.operation import Operation
    from lumen_cli.run.run import Run, RunOptions


class Engine:
    """Where a run computes: this process, or a cluster."""

    def __init__(self, cluster: Cluster | None = None) -> None:
        self._cluster = cluster

    def choose_device(self, device: str, precision: str, **arguments: Any) -> DevicePolicy:
        """See `engine.device.choose_device`."""
        if self._cluster is not None:
            return self._cluster.choose_device(precision, **arguments)
        from lumen_cli.engine.device import choose_device

        return choose_device(device, precision, several=True, **arguments)

    def run(self, card: ModelCard, policy: DevicePolicy, operation: Operation, options: RunOptions) -> Run:
        """A run that computes there."""
        if self._cluster is not None:
            from lumen_cli.run.cluster.driver import ClusterRun

            return ClusterRun(card, policy, operation, options, cluster=self._cluster)
        from lumen_cli.run.run import Run

        return Run(card, policy, operation, options)


@contextmanager
def open_engine(options: PictureOptions) -> Iterator[Engine]:
    """The engine that the options name; inside, this process is part of its cluster."""
    if options.engine is EngineChoice.local:
        yield Engine()
        return
    from lumen_cli.run.cluster.join import connect

    with connect(options.ray_address, options.workers, options.gpus_per_worker, options.device) as cluster:
        for note in cluster.notes:
            log.warning(note)
            if not options.quiet:
                typer.echo(f"lumen: {note}", err=True)
        yield Engine(cluster)
