"""A worker of a run on a cluster. Tasks, results and lines of manifests travel, never pixels."""

from __future__ import annotations

import os
import pickle
import platform
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lumen_cli.errors import LumenError, UsageError, explain
from lumen_cli.files.contents import known_state, read_state
from lumen_cli.files.places import FileState, ObjectPath, StoreError
from lumen_cli.run import Action, Caller, Result, Task
from lumen_cli.run.cluster.recorder import ANSWER_SECONDS, Process, RemoteManifest
from lumen_cli.run.existing import IfExists, Rules, decide
from lumen_cli.run.plan import Plan
from lumen_cli.run.run import Run, RunOptions
from lumen_cli.run.stages import default_bytes

if TYPE_CHECKING:
    from lumen_cli.engine.device import DevicePolicy
    from lumen_cli.run.manifest import Record
    from lumen_cli.run.operation import Operation

BEAT = 1.0
"""Seconds between a worker's signs of life."""


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker needs beside the network. threads: of PyTorch; shares: workers of one node, which share its memory.

    recorded: whether outputs get lines of a manifest.
    """

    operation: Operation
    policy: DevicePolicy
    device: str
    options: RunOptions
    rules: Rules
    recorded: bool
    threads: int
    shares: int


def pack(tasks: Mapping[int, Task]) -> bytes:
    """Numbered tasks as a small record, with what the driver's listing knows of their objects."""
    paths = (path for task in tasks.values() for path in (task.job.source.path, *task.targets))
    return pickle.dumps((dict(tasks), {path: _state_of(path) for path in paths if isinstance(path, ObjectPath)}))


def _state_of(path: ObjectPath) -> FileState | None:
    try:
        return known_state(path)
    except FileNotFoundError:
        return None


def unpack(record: bytes) -> dict[int, Task]:
    """The tasks; this process then knows of their objects what the driver knew."""
    tasks, states = pickle.loads(record)
    for path, state in states.items():
        path.store.learn(path, state)
    return dict(tasks)


class Worker:
    """Holds the loaded network and makes batches of pictures as a run on one machine does. Only its start may raise.

    Args:
        recorder: the actor.
        network: a list with the reference to the network on the CPU: Ray would replace a bare one.
        settings: everything else.
    """

    def __init__(self, recorder: Any, network: Any, settings: WorkerSettings) -> None:
        import psutil
        import ray

        self._ray, self._recorder, self._settings = ray, recorder, settings
        self._name = Process(ray.get_runtime_context().get_node_id(), os.getpid(), psutil.Process().create_time())
        self._stop = threading.Event()
        self._busy, self._doing, self._share = False, "", 0.0
        try:
            self._run = self._start(ray.get(network[0]))
        except Exception as error:
            reason = str(error) if isinstance(error, LumenError) else f"{type(error).__name__}: {error}"
            self._ask("unfit", f"{platform.node()}: {' '.join(reason.split())}")
            raise
        threading.Thread(target=self._beat, name="lumen-beat", daemon=True).start()

    def _start(self, network: Any) -> Run:
        import torch

        from lumen_cli.engine.device import choose_device

        settings = self._settings
        torch.set_num_threads(settings.threads)
        wanted = settings.policy
        policy = replace(
            choose_device(settings.device, batch_size=wanted.batch_size),
            precision=wanted.precision,
            deep_precision=wanted.deep_precision,
        )
        options = replace(settings.options, budget=default_bytes() // settings.shares)
        run = Run(None, policy, settings.operation, options, network=policy.prepare(network))
        run.__enter__()  # never left: the process ends instead, and exiftool with it
        return run

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[int]]:
        """Make the pictures of a batch, whose column `tasks` has records of `pack`."""
        try:
            for record in batch["tasks"]:
                self._make(unpack(record))
        except Exception as error:
            self._tell_end(error)
        finally:
            self._busy, self._doing, self._share = False, "", 0.0
            with suppress(Exception):
                self._ask("rest", self._name)
        return {"batches": [len(batch["tasks"])]}

    def _make(self, tasks: Mapping[int, Task]) -> None:
        assignment = self._ask(
            "begin", self._name, [(index, (task.root, task.outputs)) for index, task in tasks.items()]
        )
        self._busy = not assignment.stop
        wanted = assignment.together | assignment.alone
        left = {
            index: task
            for index, task in tasks.items()
            if index in wanted and not self._is_finished(index, task, assignment.lines.get((task.root, task.outputs)))
        }
        self._make_all({index: task for index, task in left.items() if index in assignment.together})
        for index in assignment.alone & left.keys():
            if self._ask("begin_alone", index):
                self._make_all({index: left[index]})
            elif not self._stop.is_set():
                reason = "its worker ended each time while it was made, perhaps for lack of memory"
                self._done(index, Result(left[index], "failed", reason))

    def _is_finished(self, index: int, task: Task, lines: Mapping[str, list[Record]] | None) -> bool:
        """Whether a worker that ended had finished its outputs: hashes of this run's lines prove it."""
        if lines is None:
            return False
        try:
            for path in task.targets:
                if isinstance(path, ObjectPath):
                    path.store.learn(path, _state_now(path))
            manifest = RemoteManifest(task.root, self._recorder, lines)
            decision = decide(task, manifest, replace(self._settings.rules, if_exists=IfExists.RESUME))
            if decision.action is not Action.KEEP:
                return False
            self._done(index, Result(task, "done", size=sum(known_state(path).size for path in task.targets)))
        except (OSError, StoreError):  # making it reports the error
            return False
        return True

    def _make_all(self, tasks: Mapping[int, Task]) -> None:
        if not tasks:
            return
        numbers = {(task.root, task.output): index for index, task in tasks.items()}
        manifests = {root: RemoteManifest(root, self._recorder, {}) for root in {task.root for task in tasks.values()}}
        plan = Plan(tuple(tasks.values()), self._settings.rules, self._settings.recorded, (), manifests)
        for result in self._run.make(plan, Caller(self._stop, self._now, share=self._set_share)):
            self._done(numbers[result.task.root, result.task.output], result)

    def _tell_end(self, error: Exception) -> None:
        """Tell why a batch was not finished; where the device no longer computes, another process goes on."""
        if not self._run.policy.works():
            os._exit(1)
        with suppress(Exception):
            self._ask("end", str(error) if isinstance(error, LumenError) else explain(error))

    def _done(self, index: int, result: Result) -> None:
        self._ask("done", index, replace(result, task=None))  # type: ignore[arg-type]  # the driver has it

    def _now(self, line: str) -> None:
        self._doing = line

    def _set_share(self, part: float) -> None:
        self._share = part

    def _ask(self, method: str, *arguments: Any) -> Any:
        return self._ray.get(getattr(self._recorder, method).remote(*arguments), timeout=ANSWER_SECONDS)

    def _beat(self) -> None:
        while True:
            with suppress(Exception):
                if self._ask("beat", self._name, self._busy, self._doing, self._share):
                    self._stop.set()
            time.sleep(BEAT)


def _state_now(path: ObjectPath) -> FileState | None:
    try:
        return read_state(path)
    except FileNotFoundError:
        return None


def end_process(process: Process) -> None:
    """End a worker that no longer answers, on its machine; Ray then starts another."""
    import psutil

    with suppress(psutil.Error):
        found = psutil.Process(process.number)
        if found.create_time() == process.started:
            found.kill()


def choose_here(arguments: Mapping[str, Any]) -> tuple[DevicePolicy | None, UsageError | None]:
    """What `choose_device` chooses in a worker's process, or its error."""
    from lumen_cli.engine.device import choose_device

    try:
        return choose_device(**arguments), None
    except UsageError as error:
        return None, UsageError(error.message, remedy=error.remedy)
