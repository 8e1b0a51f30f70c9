"""A run's side of stores: the manifest in the store, pictures fetched ahead as local files, finished files sent.

Everything between works on local files. Transfers wait for the network, not for the processor, so more of them run at
a time than threads that decode or encode.
"""

from __future__ import annotations

import secrets
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from lumen_cli.atomic import sweep_temporaries, temporary_beside, temporary_folder
from lumen_cli.errors import UsageError
from lumen_cli.files.contents import Arrived, exists, known_state
from lumen_cli.files.places import Details, ObjectPath, OvertakenError, StoreError
from lumen_cli.run import Task
from lumen_cli.run.manifest import (
    LARGEST_MANIFEST,
    MANIFEST_NAME,
    Manifest,
    Record,
    Records,
    note,
    note_lines,
    worth_keeping,
    write_line,
)
from lumen_cli.run.save import Publisher, Transport

_STEM = MANIFEST_NAME.removesuffix(".jsonl")
_PARTS = f"{_STEM}-parts"
_MOST_PARTS = 100
"""Parts of this run, after which they become one."""
_AT_ONCE = 16
_ROUNDS = 5
_BUSY = "another run writes it all the time; run again when that has ended"


@dataclass
class _Group:
    """Lines that become one part. written: whether they are in the store."""

    lines: list[bytes] = field(default_factory=list)
    written: bool = False


class StoreManifest(Manifest):
    """The manifest of a folder of outputs in a store: one object beside the outputs, and parts while runs write.

    Objects cannot grow, so a run does not append lines: it writes each group of lines as a small object,
    before the outputs that they name. A killed run therefore leaves no output that no line names. At its end a run
    merges all parts into the one object. Two runs into one folder write different parts; the merge keeps the lines of
    both. Where two merge at a moment, the store refuses the one that replaces another version than it read, and that
    one merges again.

    Thread-safe.
    """

    root: ObjectPath
    path: ObjectPath

    def __init__(self, root: ObjectPath) -> None:
        """Read the manifest and the parts of runs that were ended, if there are any.

        Raises:
            LumenError: the store does not answer, or an object is larger than a manifest can be.
        """
        self.root, self.path, self.seen = root, root / MANIFEST_NAME, None
        self._store = root.store
        self._run = f"{time.time_ns():020}-{secrets.token_hex(4)}"  # the order of names is the order of lines
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._group = _Group()
        self._own: list[tuple[ObjectPath, bytes]] = []
        self._number = 0
        self._records = {}
        _, _, self._parts = self._read()

    def _read(self) -> tuple[bytes, str | None, list[ObjectPath]]:
        """The merged lines with their version, and the parts that are there; all their records are noted."""
        for _ in range(_ROUNDS):
            with suppress(FileNotFoundError):  # another run has merged a part just now
                return self._read_once()
        raise StoreError(self.path, _BUSY)

    def _read_once(self) -> tuple[bytes, str | None, list[ObjectPath]]:
        names = [name for name in self._store.list(self.root, _STEM) if name.endswith(".jsonl")]
        parts = [self.root / name for name in sorted(names) if name.startswith(f"{_PARTS}/")]
        wanted = [self.path, *parts] if MANIFEST_NAME in names else parts

        own = dict(self._own)

        def read(path: ObjectPath) -> tuple[bytes, str | None]:
            return (own[path], None) if path in own else self._store.read(path, LARGEST_MANIFEST)

        with ThreadPoolExecutor(_AT_ONCE, "lumen-manifest") as pool:
            contents = list(pool.map(read, wanted))
        for content, _ in contents:
            note_lines(self._records, content)
        held, version = contents[0] if MANIFEST_NAME in names else (b"", "")
        return held, version, parts

    def reread(self) -> StoreManifest:
        """Itself: what others wrote since joins it when the run ends."""
        return self

    def begin(self) -> None:
        """Write an empty part, once.

        Raises:
            UsageError: nothing can be written there; nothing was started.
        """
        if self._own:
            return
        try:
            self._write(b"")
        except StoreError as error:
            raise UsageError(f"{self.root}: {error.reason}") from error

    def add(self, *records: Record) -> None:
        """Record lines; they are in the store when this returns. Lines of several threads go into one part.

        Raises:
            LumenError: they cannot be written.
        """
        with self._lock:
            group = self._group
            group.lines += [write_line(record) for record in records]
        with self._writing:
            if not group.written:
                with self._lock:  # lines that come from now on wait for the next part
                    if self._group is group:
                        self._group = _Group()
                self._write(b"".join(group.lines))
                group.written = True
        with self._lock:
            for record in records:
                note(self._records, record)

    def _write(self, lines: bytes) -> None:
        """Write a part, and where there are many, one instead of them."""
        if len(self._own) >= _MOST_PARTS:
            before = self._own
            merged = b"".join(content for _, content in before)
            self._own = [self._new_part(merged)]
            with suppress(StoreError):  # the merge at the end removes what stays
                self._store.remove(path for path, _ in before)
        self._own.append(self._new_part(lines))

    def _new_part(self, content: bytes) -> tuple[ObjectPath, bytes]:
        self._number += 1
        path = self.root / _PARTS / f"{self._run}-{self._number:08}.jsonl"
        self._store.write(path, content)
        return path, content

    def finish(self) -> None:
        """Merge: the last line of each output that exists, sorted; then remove the parts.

        Raises:
            LumenError: it cannot be written; the parts stay then, and hold every line.
        """
        with self._writing, self._lock:
            known = set(self._records)
            for _ in range(_ROUNDS):
                with suppress(OvertakenError):
                    self._merge(known)
                    return
            raise StoreError(self.path, _BUSY)

    def _merge(self, known: set[str]) -> None:
        """One attempt. known: outputs whose existence was listed. OvertakenError: another run merged meanwhile."""
        self._records = {}
        held, version, parts = self._read()
        last: Records = {}
        for name in sorted(self._records):
            there = name not in known or exists(self.root / name)  # others' outputs are newer than the listing
            if kept := worth_keeping(self._records[name], there):
                last[name] = kept
        wanted = b"".join(write_line(record) for kept in last.values() for record in kept)
        if wanted != held:
            self._store.write(self.path, wanted, version)
            if not self._store.checks and self._store.read(self.path, LARGEST_MANIFEST)[0] != wanted:
                raise OvertakenError(self.path)
        self._store.remove({*parts, *(path for path, _ in self._own)})
        self._own, self._parts = [], []
        self._records = last

    @property
    def unordered(self) -> bool:
        """Whether a run that was ended left parts."""
        return bool(self._parts)


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

    def publisher(self, task: Task, arrived: Arrived, keeps_metadata: bool) -> Publisher:
        """As in `Transport`."""
        if not isinstance(task.job.target, ObjectPath):
            return super().publisher(task, arrived, keeps_metadata)
        return StorePublisher(self._folder, task.targets, arrived.details if keeps_metadata else None)

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


class StorePublisher(Publisher):
    """Files are written to a local folder and sent to a store.

    Args:
        folder: for the local files.
        outputs: the objects that are the picture's, not sidecars.
        original: of a picture that came from a store; its outputs get its metadata.
    """

    def __init__(self, folder: Path, outputs: Sequence[Path], original: Details | None) -> None:
        self._folder, self._outputs, self._original = folder, outputs, original

    def temporary(self, target: Path) -> Path:
        """As in `Publisher`."""
        return temporary_beside(self._folder / target.name)

    def publish(self, temporary: Path, target: Path) -> None:
        """Send a complete file; where no object had the name when the run began, there must be none now."""
        assert isinstance(target, ObjectPath)
        original = self._original if target in self._outputs else None
        target.store.send(temporary, target, original, version=None if exists(target) else "")


@contextmanager
def store_transport(tasks: Sequence[Task]) -> Iterator[StoreTransport]:
    """The transport of a run with a local folder, which is removed at the end.

    What killed runs left in the place for temporary files is removed.
    """
    sweep_temporaries([Path(tempfile.gettempdir())], whole_folders=True)
    with temporary_folder() as folder:
        yield StoreTransport(tasks, folder)
