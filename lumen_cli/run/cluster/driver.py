"""The driver's side of a run on a Ray cluster: tasks go out in batches, results come back picture by picture.

Ray Data gives batches of tasks to workers (`worker.py`) and starts workers again that end. Results come by the recorder
(`recorder.py`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lumen_cli.atomic import sweep_temporaries
from lumen_cli.files.places import ObjectPath
from lumen_cli.run import Caller, Result, Task, failure
from lumen_cli.run.cluster import MOST_PROCESSORS, NODE_SECONDS, Cluster, ask, on_node, shorten
from lumen_cli.run.cluster.recorder import Progress, Recorder
from lumen_cli.run.cluster.worker import Worker, WorkerSettings, end_process, pack
from lumen_cli.run.run import Run, RunOptions
from lumen_cli.run.stream import RunEndedError

if TYPE_CHECKING:
    from lumen_cli.engine.device import DevicePolicy
    from lumen_cli.networks.base import LowLightModel
    from lumen_cli.registry.card import ModelCard
    from lumen_cli.run.operation import Operation
    from lumen_cli.run.plan import Plan

PATIENCE_SECONDS = 1800.0
"""How long a run waits for workers; a cluster may be busy, or start machines."""
SILENCE_SECONDS = 120.0
"""A worker without a sign of life for so long is ended."""
_ROUNDS = 3
_POLL = 0.3
_END_SECONDS = 10.0
_LARGEST_BATCH = 128
_BATCHES_EACH = 16
"""Batches that a worker gets at least, where there are enough pictures: the last ones end at about one time."""
_log = logging.getLogger("lumen")


class ClusterRun(Run):
    """A run whose pictures are made by workers of a cluster."""

    def __init__(
        self, card: ModelCard, policy: DevicePolicy, operation: Operation, options: RunOptions, *, cluster: Cluster
    ) -> None:
        super().__init__(card, policy, operation, options)
        self.cluster = cluster

    def _place(self, network: LowLightModel) -> LowLightModel:
        return network  # on the CPU; each worker moves its copy to its device

    def make(self, plan: Plan, caller: Caller) -> Iterator[Result]:
        """As in `Run`, in the order in which pictures are finished."""
        tasks = plan.todo
        left = set(range(len(tasks)))
        places = {root: place for root, place in plan.places.items() if plan.recorded}
        workers = WorkerPool(self.cluster, self._worker_settings(plan), self.network(caller.now), places)
        for _ in range(_ROUNDS):
            for index, result in workers.results(tasks, sorted(left), caller):
                if index in left:
                    left.discard(index)
                    yield replace(result, task=tasks[index])
            if caller.stop.is_set() or not left:
                break
            _log.warning("%d pictures have no result; new workers make them", len(left))
        if not caller.stop.is_set():
            for index in sorted(left):
                yield failure(tasks[index], RunEndedError("its workers ended or did not answer; run again to make it"))
            for root in plan.roots:
                if isinstance(root, ObjectPath):  # one listing, instead of a question for each output
                    root.store.list(root)
        sweep_temporaries(plan.folders)

    def _worker_settings(self, plan: Plan) -> WorkerSettings:
        share = self.cluster.share
        jobs = self.options.jobs or max(1, min(MOST_PROCESSORS, int(share.processors)))
        return WorkerSettings(
            self.operation,
            self.policy,
            self.cluster.device,
            replace(self.options, jobs=jobs),
            plan.rules,
            plan.recorded,
            share.threads,
            share.each,
        )


class WorkerPool:
    """The recorder, and one set of workers after the other."""

    def __init__(self, cluster: Cluster, settings: WorkerSettings, network: Any, places: Any) -> None:
        self.cluster, self.settings = cluster, settings
        ray = cluster.ray
        here = on_node(ray.get_runtime_context().get_node_id())
        keeper = ray.remote(Recorder).options(num_cpus=0, max_concurrency=64, scheduling_strategy=here)
        self.recorder = keeper.remote(places)
        self.network = ray.put(network)
        self.heard = time.monotonic()
        """When the last sign of life came."""
        error = ask(ray, self.recorder.begin_manifests.remote(), "the run's records could not be opened")
        if error is not None:
            raise RunEndedError(error)

    def call(self, method: str, *arguments: Any) -> Any:
        """Ask the recorder.

        Raises:
            RunEndedError: it is gone.
        """
        ray = self.cluster.ray
        try:
            return ray.get(getattr(self.recorder, method).remote(*arguments), timeout=NODE_SECONDS)
        except ray.exceptions.RayError as error:
            raise RunEndedError(f"the process that keeps the run's records has ended ({shorten(error)})") from error

    def results(self, tasks: Sequence[Task], wanted: Sequence[int], caller: Caller) -> Iterator[tuple[int, Result]]:
        """Have new workers make tasks. wanted: their numbers.

        Raises:
            RunEndedError: nothing more can be made.
        """
        closing, failed = threading.Event(), list[BaseException]()
        dataset = self._dataset(tasks, wanted)

        def drain() -> None:
            try:
                for _ in dataset.iter_batches(batch_size=None, prefetch_batches=0):
                    if closing.is_set():
                        return
            except BaseException as error:
                failed.append(error)

        self.call("forget")
        caller.now("waiting for workers")
        thread = threading.Thread(target=drain, name="lumen-ray-data", daemon=True)
        thread.start()
        self.heard, stopping = time.monotonic(), False
        try:
            over = False
            while not over:
                over = not thread.is_alive()  # looked at first: what came until then is taken below
                progress: Progress = self.call("take")
                yield from progress.results
                if progress.doing:
                    caller.now(progress.doing)
                    caller.share(progress.share)
                if progress.ended is not None:
                    raise RunEndedError(progress.ended)
                if failed:
                    raise RunEndedError(f"no worker could start: {progress.unfit or shorten(failed[0])}")
                if caller.stop.is_set() and not stopping:
                    stopping = True
                    self.call("stop")
                elif stopping and not progress.busy:
                    return
                self._require_life(progress)
                thread.join(_POLL)
        except BaseException:
            with suppress(Exception):
                self.call("stop")
            raise
        finally:
            closing.set()
            thread.join(_END_SECONDS)  # it must not use a Ray that has ended

    def _require_life(self, progress: Progress) -> None:
        """End workers that no longer answer, so that Ray starts others; RunEndedError where none answers for long."""
        late = [worker for worker, seconds in progress.quiet.items() if seconds > SILENCE_SECONDS]
        end = self.cluster.ray.remote(end_process)
        for worker in late:
            _log.warning("a worker does not answer, process %d; it is ended", worker.number)
            end.options(num_cpus=0, scheduling_strategy=on_node(worker.node)).remote(worker)
        if late:
            self.call("forget", late)
        if len(late) < len(progress.quiet):
            self.heard = time.monotonic()
        elif time.monotonic() - self.heard > PATIENCE_SECONDS:
            why = f": {progress.unfit}" if progress.unfit else "; is the cluster busy, or out of nodes?"
            raise RunEndedError(f"no worker has answered for {PATIENCE_SECONDS / 60:g} minutes{why}")

    def _dataset(self, tasks: Sequence[Task], wanted: Sequence[int]) -> Any:
        """Ray Data's plan: each block has one batch of tasks as one record."""
        data, share = self.cluster.ray.data, self.cluster.share
        context = data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        context.execution_no_progress_timeout_s = -1  # a clip takes hours; signs of life are looked for instead
        context.max_errored_blocks = -1  # what is lost is made in the next round
        context.max_consecutive_actor_init_deaths = share.workers
        size = max(1, min(_LARGEST_BATCH, len(wanted) // (share.workers * _BATCHES_EACH)))
        records = [
            pack({index: tasks[index] for index in wanted[first : first + size]})
            for first in range(0, len(wanted), size)
        ]
        pool = data.ActorPoolStrategy(
            min_size=1, max_size=share.workers, initial_size=share.workers, max_tasks_in_flight_per_actor=2
        )
        return data.from_items([{"tasks": record} for record in records], override_num_blocks=len(records)).map_batches(
            Worker,
            batch_size=None,
            batch_format="numpy",
            compute=pool,
            num_cpus=share.processors,
            num_gpus=share.gpus,
            fn_constructor_args=(self.recorder, [self.network], self.settings),
            max_restarts=-1,
            max_task_retries=-1,
        )
