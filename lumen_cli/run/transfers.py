"""The run's side of stores: pictures fetched ahead as local files, and finished files sent to their places.

Everything between works on local files. Transfers wait for the network, not for the processor, so more of them run at
a time than threads that decode or encode.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from lumen_cli.atomic import sweep_temporaries, temporary_beside, temporary_folder
from lumen_cli.files.contents import Arrived, exists, known_state
from lumen_cli.files.places import Details, ObjectPath
from lumen_cli.run.save import Renaming, Transport
from lumen_cli.run.task import Task

TRANSFERS = 16
"""Objects that are fetched at a time, and objects that are sent."""
_AHEAD = 2 * TRANSFERS
_AHEAD_BYTES = 1 << 30
"""Pictures, and bytes of the disk for temporary files, that are fetched before the decoder asks for them."""


class StoreTransport(Transport):
    """Objects are fetched ahead in threads, in the plan's order, and finished files are sent.

    Args:
        tasks: of the plan.
        folder: for the local files.
    """

    senders = TRANSFERS

    def __init__(self, tasks: Sequence[Task], folder: Path) -> None:
        super().__init__(tasks)
        self._folder = folder
        self._pool = ThreadPoolExecutor(TRANSFERS, "lumen-fetch")
        self._fetches: dict[int, Future[Arrived]] = {}
        self._next = 0

    def take(self, index: int) -> Arrived | None:
        """As in `Transport`; waits for the object."""
        try:
            self._look_ahead(index)
            fetch = self._fetches.pop(index, None)
            if fetch is not None:
                return fetch.result()
        except (CancelledError, RuntimeError):  # the pool takes nothing more
            return None
        return super().take(index)

    def placing(self, task: Task, arrived: Arrived, keeps_metadata: bool) -> Renaming:
        """As in `Transport`."""
        if not isinstance(task.job.target, ObjectPath):
            return super().placing(task, arrived, keeps_metadata)
        return Sending(self._folder, task.targets, arrived.details if keeps_metadata else None)

    def end(self) -> None:
        """Fetch nothing more; what is on its way is not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def join(self) -> None:
        """Wait for the threads."""
        self._pool.shutdown()

    def _look_ahead(self, index: int) -> None:
        """Fetch the object of `index`, and of the tasks after it as far as the limits allow."""
        waiting = sum(self._size(other) for other in self._fetches)
        while self._next < len(self._tasks) and self._next <= index + _AHEAD:
            waiting += self._size(self._next)
            if self._next > index and waiting > _AHEAD_BYTES:
                return
            source = self._tasks[self._next].job.source.path
            if isinstance(source, ObjectPath):
                self._fetches[self._next] = self._pool.submit(self._fetch, source)
            self._next += 1

    def _size(self, index: int) -> int:
        source = self._tasks[index].job.source.path
        try:
            return known_state(source).size if isinstance(source, ObjectPath) else 0
        except Exception:  # fetching it reports the error
            return 0

    def _fetch(self, source: ObjectPath) -> Arrived:
        path = temporary_beside(self._folder / source.name)
        try:
            store = source.store
            return Arrived(source, path, store.fetch(source, path, store.known_state(source)))
        except Exception as error:  # it becomes the picture's result
            path.unlink(missing_ok=True)
            return Arrived(source, path, error=error)


class Sending(Renaming):
    """Files are written to a local folder and sent to a store.

    Args:
        folder: for the local files.
        outputs: the objects that are the picture's, not sidecars.
        original: of a picture that came from a store; its outputs get its metadata.
    """

    def __init__(self, folder: Path, outputs: Sequence[Path], original: Details | None) -> None:
        self._folder, self._outputs, self._original = folder, outputs, original

    def temporary(self, target: Path) -> Path:
        """As in `Renaming`."""
        return temporary_beside(self._folder / target.name)

    def publish(self, temporary: Path, target: Path) -> None:
        """Send a complete file; where no object had the name when the run began, there must be none now."""
        assert isinstance(target, ObjectPath)
        original = self._original if target in self._outputs else None
        target.store.send(temporary, target, original, version=None if exists(target) else "")


@contextmanager
def store_transport(tasks: Sequence[Task]) -> Iterator[StoreTransport]:
    """The transport of a run with a local folder of its own, which is removed in the end.

    What killed runs left in the place for temporary files is removed.
    """
    sweep_temporaries([Path(tempfile.gettempdir())], whole_folders=True)
    with temporary_folder() as folder:
        yield StoreTransport(tasks, folder)
