"""The two ends of the stream, in threads of their own: pictures from the disk, and results to the disk.

Each end holds a bounded number of pictures and of bytes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lumen_cli.engine.memory import free_memory
from lumen_cli.engine.scene import Scene, light_of
from lumen_cli.errors import PictureError
from lumen_cli.files.contents import Arrived, Original
from lumen_cli.imaging.helper import AbandonedError, HelperReader
from lumen_cli.imaging.picture import Picture, measure_picture, read_picture
from lumen_cli.run import Result, Task, Timings, failure
from lumen_cli.run.manifest import Manifest, Record
from lumen_cli.run.operation import Operation, Output
from lumen_cli.run.save import Recording, StorageWatch, Transport, record_files, record_of, save_files

if TYPE_CHECKING:
    from lumen_cli.imaging.tags import TagWriter
    from lumen_cli.run.run import RunOptions

_MIB = 1 << 20
_RAM_SHARE = 16
_WORK_SHARE = 2.5
"""Memory that a picture takes on its way at most, in units of its decoded size; tiles bound what the network adds."""


class ClosedError(Exception):
    """The budget was closed while a thread waited for room: the run is ending."""


class Budget:
    """Room for at most `pictures` pictures of together at most `size` bytes.

    A picture larger than `size` gets in when nothing else is held, so that it does not wait for ever.
    """

    def __init__(self, pictures: int, size: int) -> None:
        self._pictures, self._size = pictures, size
        self._held = self._held_bytes = 0
        self._closed = False
        self._changed = threading.Condition()

    def acquire(self, size: int) -> None:
        """Wait for room for one picture of `size` bytes; ClosedError when the run ends meanwhile."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._fits(size))
            if self._closed:
                raise ClosedError
            self._held += 1
            self._held_bytes += size

    def release(self, size: int) -> None:
        """Give the room of one picture back."""
        with self._changed:
            self._held -= 1
            self._held_bytes -= size
            self._changed.notify_all()

    def close(self) -> None:
        """Wake all waiting threads; from now on `acquire` raises ClosedError."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _fits(self, size: int) -> bool:
        return self._held == 0 or (self._held < self._pictures and self._held_bytes + size <= self._size)


def default_bytes() -> int:
    """Bytes that one queue may hold here: a sixteenth of the free memory, from 256 MiB to 8 GiB."""
    import psutil

    return max(256 * _MIB, min(8192 * _MIB, psutil.virtual_memory().available // _RAM_SHARE))


def decoded_bytes(path: Path, per_pixel: int) -> int:
    """Bytes a picture takes once decoded, from its header alone; 0 where the header is unreadable (decoding fails)."""
    width, height = measure_picture(path) or (0, 0)
    return width * height * per_pixel


def require_room(path: Path, decoded: int, memory: int) -> None:
    """PictureError where `memory` bytes are not enough to work on a picture of `decoded` bytes.

    Otherwise the system might end the process, and the whole run with it.
    """
    needed = _WORK_SHARE * decoded
    if needed > memory:
        raise PictureError(
            path, f"needs about {needed / 2**30:.1f} GiB of memory to work on, and {memory / 2**30:.1f} GiB are free"
        )


@dataclass(frozen=True)
class Decoded:
    """Picture number `index` of the plan. held: bytes in the decode budget; record: its line in the manifest.

    Of a picture that becomes several files the record is the first one's. arrived: the source as a file, to be
    discarded at the end; original: the source as it was read; times: of the source before that.
    """

    index: int
    task: Task
    held: int
    scene: Scene
    arrived: Arrived
    record: Record
    original: Original
    seconds: float
    times: tuple[int, int] | None = None


@dataclass(frozen=True)
class Undecoded:
    """Picture number `index` of the plan could not be read, or the run ended before it was (result None)."""

    index: int
    held: int
    result: Result | None


@dataclass(frozen=True)
class Broken:
    """A thread of the stream ended by a fault of lumen: the run cannot continue."""

    error: BaseException


@dataclass(frozen=True)
class Notice:
    """A line about the whole run that a user should know."""

    text: str


@dataclass(frozen=True)
class Freed:
    """A device has finished with a group, so there is room for another."""


Inbox = queue.SimpleQueue["Decoded | Undecoded | Result | Broken | Notice | Freed"]


def report_faults(inbox: Inbox, call: Callable[..., None], *arguments: Any) -> None:
    """Make a call in a thread. What it raises arrives as Broken; a thread's exception would be lost otherwise."""
    try:
        call(*arguments)
    except BaseException as error:
        inbox.put(Broken(error))


class Decoder:
    """Reads the plan's pictures ahead, as far as the budget allows, and puts them into the inbox in any order."""

    def __init__(
        self,
        tasks: Sequence[Task],
        operation: Operation,
        options: RunOptions,
        transport: Transport,
        jobs: int,
        budget: Budget,
        inbox: Inbox,
    ) -> None:
        self.begun = 0
        self.feeding = True
        self.ahead: Callable[[Scene, bytes], Scene] = lambda scene, digest: scene
        """What is done with each scene and its picture's `digest()`; set once the network is loaded."""
        self._tasks, self._operation, self._budget, self._inbox = tasks, operation, budget, inbox
        self._settings = operation.settings.fingerprint()
        self._ending, self._options, self._transport = threading.Event(), options, transport
        self._helpers = HelperReader(options.timeout)
        self._memory = free_memory()
        self._pool = ThreadPoolExecutor(jobs, "lumen-decode")
        self._feeder = threading.Thread(target=report_faults, args=(inbox, self._feed), name="lumen-feed", daemon=True)
        self._feeder.start()

    def release(self, held: int) -> None:
        """The stream took a picture out of the inbox."""
        self._budget.release(held)

    def end(self) -> None:
        """Begin no further picture."""
        self._ending.set()
        self._transport.end()
        self._budget.close()
        self._helpers.abandon()

    def join(self) -> None:
        """Wait for the threads."""
        self._feeder.join()
        self._pool.shutdown(cancel_futures=True)
        self._transport.join()

    def _feed(self) -> None:
        for index, task in enumerate(self._tasks):
            arrived = self._transport.take(index)
            if arrived is None:
                break
            times = arrived.times()
            # From the header alone, before decoding: room is given in the plan's order, which cannot deadlock.
            held = decoded_bytes(arrived.path, self._operation.bytes_per_pixel)
            try:
                self._budget.acquire(held)
            except ClosedError:
                break
            self.begun = index + 1
            self._pool.submit(report_faults, self._inbox, self._decode, index, task, held, arrived, times)
        self.feeding = False

    def _decode(self, index: int, task: Task, held: int, arrived: Arrived, times: tuple[int, int] | None) -> None:
        def leave(result: Result | None) -> None:
            arrived.discard()
            self._inbox.put(Undecoded(index, held, result))

        if self._ending.is_set():
            leave(None)
            return
        started = time.perf_counter()
        try:
            original = self._original(arrived)
            picture = self._read(arrived.path, held)
            if arrived.details is None:  # a copy of an object stays as it is; the object itself is checked at the end
                original.require_unchanged()
            threshold = self._options.darker_than
            if threshold is not None and (light := light_of(picture)) >= threshold:
                reason = f"bright enough: its mean light is {light:.2f}, the threshold {threshold:g}"
                timings = Timings(read=time.perf_counter() - started)
                leave(Result(task, "skipped", reason, picture.width, picture.height, timings=timings))
                return
            digest = picture.digest()
            content = digest.hex()
            scene = self._operation.scene(picture)
            with contextlib.suppress(Exception):  # it meets the network's thread too, which can tell a lost device
                scene = self.ahead(scene, digest)
        except AbandonedError:
            leave(None)
            return
        except Exception as error:
            leave(failure(task, error))
            return
        record = record_of(task, original, content, self._settings)
        seconds = time.perf_counter() - started
        self._inbox.put(Decoded(index, task, held, scene, arrived, record, original, seconds, times))

    def _read(self, path: Path, held: int) -> Picture:
        require_room(path, held, self._memory)
        if self._helpers.wants(path):
            return self._helpers.read(path, max_pixels=self._options.max_pixels)
        return read_picture(path, max_pixels=self._options.max_pixels)

    @staticmethod
    def _original(arrived: Arrived) -> Original:
        if arrived.error is not None:
            raise arrived.error
        try:
            return arrived.original()
        except OSError:
            read_picture(arrived.path)  # its message is better
            raise


class Encoder:
    """Writes finished pictures, copies their tags, records them, and puts the results into the inbox."""

    def __init__(
        self,
        manifests: Mapping[Path, Manifest],
        tags: TagWriter,
        quality: int | None,
        options: RunOptions,
        transport: Transport,
        jobs: int,
        budget: Budget,
        inbox: Inbox,
    ) -> None:
        self._options, self._transport = options, transport
        self._manifests, self._tags, self._quality, self._budget, self._inbox = manifests, tags, quality, budget, inbox
        self.storage = StorageWatch()
        # Threads that only wait for a store are many, but `jobs` of them encode.
        self._encoding = threading.Semaphore(jobs)
        self._pool = ThreadPoolExecutor(max(jobs, transport.senders), "lumen-encode")

    def submit(self, decoded: Decoded, output: Output, seconds: float, precision: str) -> None:
        """Write `output` for the task of `decoded`; waits while the encode queue is full. seconds: of the network.

        Raises:
            ClosedError: after `abandon`.
        """
        held = output.held
        self._budget.acquire(held)
        # Only what is needed: `decoded` would keep the scene's pixels in memory until the file is written.
        started = Result(
            decoded.task,
            "done",
            timings=Timings(read=decoded.seconds, run=seconds),
            notices=decoded.scene.picture.notices,
            seen=(decoded.scene.seen.width, decoded.scene.seen.height),
            precision=precision,
        )
        manifest = self._manifests.get(decoded.task.root)
        recording = functools.partial(record_files, decoded.task, decoded.record, decoded.original, manifest)
        times = decoded.times if self._options.preserve_times else None
        work = (started, output, held, decoded.arrived, times, recording)
        self._pool.submit(report_faults, self._inbox, self._encode, *work)

    def abandon(self) -> None:
        """Take nothing more."""
        self._budget.close()

    def join(self) -> None:
        """Wait until everything that was submitted is written."""
        self._pool.shutdown()

    def _encode(
        self,
        result: Result,
        output: Output,
        held: int,
        arrived: Arrived,
        times: tuple[int, int] | None,
        recording: Recording,
    ) -> None:
        task = result.task
        turn = ExitStack()
        try:
            turn.enter_context(self._encoding)
            started = time.perf_counter()
            files = list(zip(task.targets, output.contents(), strict=True))
            fidelity = output.fidelity()
            rendered = time.perf_counter() - started
            saved = save_files(
                files,
                arrived.path,
                self._tags,
                self._quality,
                sidecars=task.sidecars,
                times=times,
                recording=recording,
                publisher=self._transport.publisher(task, arrived, self._tags.rules.metadata == "keep"),
                completed=turn.close,
            )
            result = dataclasses.replace(
                result,
                notices=(*result.notices, *output.notes),
                width=output.picture.width,
                height=output.picture.height,
                size=saved.size,
                timings=dataclasses.replace(result.timings, write=rendered + saved.write, tags=saved.tags),
                warnings=saved.warnings,
                fidelity=fidelity,
                sidecars=saved.sidecars,
            )
            self.storage.written()
        except Exception as error:
            self.storage.failed(error, task.job.target.parent)
            result = failure(task, error, result.timings)
        turn.close()
        arrived.discard()
        self._budget.release(held)
        self._inbox.put(result)
