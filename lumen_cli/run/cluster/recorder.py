"""The recorder of a run on a cluster: one process on the driver's machine that keeps manifests and results.

So their files have one writer, each line is on the disk before its output gets its final name, and no result is lost
with the worker that had it.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lumen_cli.errors import LumenError
from lumen_cli.files.places import ObjectPath
from lumen_cli.run import Result
from lumen_cli.run.manifest import Manifest, Record, open_manifest

ANSWER_SECONDS = 600.0
"""How long a worker waits for the recorder, which may wait for a disk or a store."""
_TOGETHER, _ALONE = 1, 2
"""Times that a picture is begun with others, and then times that it is made alone, when its worker ends each time."""

Key = tuple[Path, tuple[str, ...]]
"""A task's root and outputs."""


@dataclass(frozen=True)
class Process:
    """A worker's process. node: Ray's name of its machine; started: when, as its machine tells it."""

    node: str
    number: int
    started: float


@dataclass
class _Sign:
    """What a worker told last. busy: whether a batch is under way; share: the part of a clip that is done."""

    when: float
    busy: bool = False
    doing: str = ""
    share: float = 0.0


@dataclass(frozen=True)
class Progress:
    """What happened since the driver asked last, and how the workers are.

    results: with the number of each task; quiet: workers with the seconds since their last sign of life; doing, share:
    for the line of progress; ended, unfit: why the run cannot go on, and why a worker did not start.
    """

    results: list[tuple[int, Result]]
    busy: int
    quiet: dict[Process, float]
    doing: str
    share: float
    ended: str | None
    unfit: str | None


@dataclass(frozen=True)
class Assignment:
    """What a worker does with a batch. together: tasks to make now, and those to make one by one after that.

    lines: what this run recorded of their outputs before, by key; then an earlier worker may have finished them.
    """

    stop: bool
    together: frozenset[int]
    alone: frozenset[int]
    lines: Mapping[Key, dict[str, list[Record]]]


class Recorder:
    """Keeps manifests, results and signs of life; an actor whose methods are called from many threads at once.

    Args:
        places: the file of each manifest, by the folder of outputs.
    """

    def __init__(self, places: Mapping[Path, Path]) -> None:
        self._manifests = {
            root: open_manifest(root, None if isinstance(root, ObjectPath) else place) for root, place in places.items()
        }
        self._lock = threading.Lock()
        self._lines: dict[Path, dict[str, list[Record]]] = {root: {} for root in places}
        self._results: list[tuple[int, Result]] = []
        self._done: set[int] = set()
        self._begun: Counter[int] = Counter()
        self._signs: dict[Process, _Sign] = {}
        self._doing = ""
        self._stop = False
        self._ended: str | None = None
        self._unfit: str | None = None

    def begin_manifests(self) -> str | None:
        """Make sure that they can be written; else why not."""
        try:
            for manifest in self._manifests.values():
                manifest.begin()
        except LumenError as error:
            return str(error)
        return None

    def add(self, root: Path, records: Sequence[Record], *, new: bool = True) -> tuple[list[Record], str | None]:
        """Write lines; returns the lines that they replace, and why they could not be written.

        new: whether outputs get their names after this; else these are older lines that count again.
        """
        manifest = self._manifests[root]
        before = [known for record in records if (known := manifest.get(record.output)) is not None]
        try:
            manifest.add(*records)
        except LumenError as error:
            return before, str(error)
        with self._lock:
            for record in records if new else ():
                self._lines[root].setdefault(record.output, []).append(record)
        return before, None

    def beat(self, worker: Process, busy: bool, doing: str, share: float) -> bool:
        """A sign of life; returns whether to stop."""
        with self._lock:
            self._signs[worker] = _Sign(time.monotonic(), busy, doing, share)
            self._doing = doing or self._doing
            return self._stop

    def begin(self, worker: Process, tasks: Sequence[tuple[int, Key]]) -> Assignment:
        """A worker begins a batch. Tasks that have a result already are left out."""
        with self._lock:
            self._signs[worker] = _Sign(time.monotonic(), busy=not self._stop)
            if self._stop:
                return Assignment(True, frozenset(), frozenset(), {})
            wanted = [(index, key) for index, key in tasks if index not in self._done]
            together = frozenset(index for index, _ in wanted if self._begun[index] < _TOGETHER)
            self._begun.update(together)
            lines: dict[Key, dict[str, list[Record]]] = {}
            for _, (root, outputs) in wanted:
                known = {name: list(self._lines[root][name]) for name in outputs if name in self._lines.get(root, {})}
                if known:
                    lines[root, outputs] = known
            return Assignment(False, together, frozenset(index for index, _ in wanted) - together, lines)

    def begin_alone(self, index: int) -> bool:
        """A worker begins a picture whose workers have ended before; False where that happened too often."""
        with self._lock:
            self._begun[index] += 1
            return self._begun[index] <= _TOGETHER + _ALONE and not self._stop

    def done(self, index: int, result: Result) -> None:
        """What became of a task; its first result counts."""
        with self._lock:
            if index not in self._done:
                self._done.add(index)
                self._results.append((index, result))

    def rest(self, worker: Process) -> None:
        """A worker's batch is over."""
        with self._lock:
            self._signs[worker] = _Sign(time.monotonic())

    def end(self, reason: str) -> None:
        """The run cannot go on."""
        with self._lock:
            self._ended = self._ended or reason

    def unfit(self, reason: str) -> None:
        """A worker could not start."""
        with self._lock:
            self._unfit = reason

    def take(self) -> Progress:
        """What happened since this was called last."""
        with self._lock:
            results, self._results = self._results, []
            now, signs = time.monotonic(), list(self._signs.values())
            return Progress(
                results,
                busy=sum(sign.busy for sign in signs),
                quiet={worker: now - sign.when for worker, sign in self._signs.items()},
                doing=self._doing,
                share=sum(sign.share for sign in signs),
                ended=self._ended,
                unfit=self._unfit,
            )

    def forget(self, workers: Iterable[Process] | None = None) -> None:
        """These workers are gone, or all."""
        with self._lock:
            for worker in list(self._signs if workers is None else workers):
                self._signs.pop(worker, None)

    def stop(self) -> None:
        """No worker begins another picture."""
        with self._lock:
            self._stop = True


class RemoteManifest(Manifest):
    """A folder's manifest, kept by the recorder. lines: what this run recorded of outputs, by name."""

    def __init__(self, root: Path, recorder: Any, lines: Mapping[str, list[Record]]) -> None:
        self.root = root
        self._recorder, self._lines = recorder, lines

    def reread(self) -> RemoteManifest:
        """Itself."""
        return self

    def begin(self) -> None:
        """The recorder has done that."""

    def history(self, output: str) -> tuple[Record, ...]:
        """What this run recorded of an output before."""
        return tuple(self._lines.get(output, ()))

    @contextmanager
    def writing(self, *records: Record) -> Iterator[None]:
        """As in `Manifest`."""
        before = self._add(records, new=True)
        try:
            yield
        except BaseException:
            with suppress(Exception):
                self._add(before, new=False)
            raise

    def _add(self, records: Sequence[Record], new: bool) -> list[Record]:
        import ray

        before, error = ray.get(self._recorder.add.remote(self.root, records, new=new), timeout=ANSWER_SECONDS)
        if error is not None:
            raise LumenError(error)
        return list(before)
