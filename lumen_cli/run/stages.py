"""The two ends of the stream, in threads of their own: pictures from the disk, and results to the disk."""

from __future__ import annotations

import dataclasses
import functools
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lumen_cli.engine.memory import free_memory
from lumen_cli.engine.scene import Scene
from lumen_cli.errors import LumenError, PictureError
from lumen_cli.files.contents import Original, original_of
from lumen_cli.imaging.formats import MAXIMUM_PIXELS
from lumen_cli.imaging.picture import Picture
from lumen_cli.imaging.read import read_picture
from lumen_cli.limits import DEFAULT_TIMEOUT
from lumen_cli.run.budget import Budget, ClosedError, decoded_bytes, require_room
from lumen_cli.run.decode import AbandonedError, HelperReader
from lumen_cli.run.manifest import Manifest, Record
from lumen_cli.run.operation import Fidelity, Product, Work
from lumen_cli.run.plan import Task
from lumen_cli.run.recording import record_of, recorded
from lumen_cli.run.save import Recording, StorageWatch, save_files, times_of

if TYPE_CHECKING:
    from lumen_cli.imaging.tags.writer import TagWriter

_log = logging.getLogger("lumen")


@dataclass(frozen=True)
class Timings:
    """Seconds spent on one picture; a batch's run time is shared out evenly."""

    read: float = 0.0
    run: float = 0.0
    write: float = 0.0
    tags: float = 0.0


@dataclass(frozen=True)
class Result:
    """What became of one picture. status: "done", "failed", "kept" or "left"; reason: why it failed or was left, in one
    line; remedy: which arguments would help, as in `LumenError`; size: bytes of its files; warnings: what could not be
    kept; fidelity: the error of its reconstruction, where there is one; sidecars: copies made; notices: what is worth
    knowing about how it was read; seen: width and height of what the network saw of it.
    """

    task: Task
    status: str
    reason: str | None = None
    width: int | None = None
    height: int | None = None
    size: int | None = None
    timings: Timings = Timings()
    warnings: tuple[str, ...] = ()
    fidelity: Fidelity | None = None
    sidecars: tuple[Path, ...] = ()
    notices: tuple[str, ...] = ()
    seen: tuple[int, int] | None = None
    remedy: str = ""


@dataclass(frozen=True)
class Decoded:
    """Picture number `index` of the plan. held: bytes in the decode budget; record: what the manifest will say.

    Of a picture that becomes several files the record is the first one's. original: the source as it was read; times:
    of the source before that.
    """

    index: int
    task: Task
    held: int
    scene: Scene
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
    """A thread of the stream has ended by a fault of ours: the run cannot go on."""

    error: BaseException


Inbox = queue.SimpleQueue["Decoded | Undecoded | Result | Broken"]


def reporting(inbox: Inbox, call: Callable[..., None], *arguments: Any) -> None:
    """Make a call in a thread; what it raises arrives as Broken, for nobody asks a thread how it ended."""
    try:
        call(*arguments)
    except BaseException as error:
        inbox.put(Broken(error))


class Decoder:
    """Reads the plan's pictures ahead, as far as the budget goes, and puts them into the inbox (in any order)."""

    def __init__(
        self,
        tasks: Sequence[Task],
        work: Work,
        jobs: int,
        budget: Budget,
        inbox: Inbox,
        *,
        max_pixels: int = MAXIMUM_PIXELS,
        timeout: float | None = DEFAULT_TIMEOUT,
    ) -> None:
        self.begun = 0
        self.feeding = True
        self._tasks, self._work, self._budget, self._inbox = tasks, work, budget, inbox
        self._settings = work.fingerprint()
        self._ending, self._max_pixels = threading.Event(), max_pixels
        self._helpers = HelperReader(timeout)
        self._memory = free_memory()
        self._pool = ThreadPoolExecutor(jobs, "lumen-decode")
        self._feeder = threading.Thread(target=reporting, args=(inbox, self._feed), name="lumen-feed", daemon=True)
        self._feeder.start()

    def release(self, held: int) -> None:
        """The stream took a picture out of the inbox."""
        self._budget.release(held)

    def end(self) -> None:
        """Begin no further picture."""
        self._ending.set()
        self._budget.close()
        self._helpers.abandon()

    def join(self) -> None:
        """Wait for the threads."""
        self._feeder.join()
        self._pool.shutdown(cancel_futures=True)

    def _feed(self) -> None:
        for index, task in enumerate(self._tasks):
            times = times_of(task.job.source.path)
            # Decided by the header alone, before decoding: room is given in the plan's order, which cannot deadlock.
            held = decoded_bytes(task.job.source.path, self._work.bytes_per_pixel)
            try:
                self._budget.acquire(held)
            except ClosedError:
                break
            self.begun = index + 1
            self._pool.submit(reporting, self._inbox, self._decode, index, task, held, times)
        self.feeding = False

    def _decode(self, index: int, task: Task, held: int, times: tuple[int, int] | None) -> None:
        if self._ending.is_set():
            self._inbox.put(Undecoded(index, held, None))
            return
        started = time.perf_counter()
        path = task.job.source.path
        try:
            original = self._original(path)
            picture = self._read(path, held)
            original.require_unchanged()
            content = picture.digest().hex()
            scene = self._work.scene(picture)
        except AbandonedError:
            self._inbox.put(Undecoded(index, held, None))
            return
        except Exception as error:
            self._inbox.put(Undecoded(index, held, failure(task, error)))
            return
        record = record_of(task, original, content, self._settings)
        self._inbox.put(Decoded(index, task, held, scene, record, original, time.perf_counter() - started, times))

    def _read(self, path: Path, held: int) -> Picture:
        require_room(path, held, self._memory)
        if self._helpers.wants(path):
            return self._helpers.read(path, max_pixels=self._max_pixels)
        return read_picture(path, max_pixels=self._max_pixels)

    @staticmethod
    def _original(path: Path) -> Original:
        try:
            return original_of(path)
        except OSError:
            read_picture(path)  # says it in its own words
            raise


class Encoder:
    """Writes finished pictures, copies their tags, records them, and puts the results into the inbox."""

    def __init__(
        self,
        manifests: Mapping[Path, Manifest],
        tags: TagWriter,
        quality: int | None,
        jobs: int,
        budget: Budget,
        inbox: Inbox,
        preserve_times: bool = False,
    ) -> None:
        self.under_way = 0
        self._preserve_times = preserve_times
        self._manifests, self._tags, self._quality, self._budget, self._inbox = manifests, tags, quality, budget, inbox
        self.storage = StorageWatch()
        self._pool = ThreadPoolExecutor(jobs, "lumen-encode")

    def submit(self, decoded: Decoded, product: Product, run: float) -> None:
        """Write `product` for the task of `decoded`; waits while the encode queue is full. run: seconds it took."""
        held = product.held
        self._budget.acquire(held)
        self.under_way += 1
        timings = Timings(read=decoded.seconds, run=run)
        times = decoded.times if self._preserve_times else None
        recording = functools.partial(
            recorded, decoded.task, decoded.record, decoded.original, self._manifests.get(decoded.task.root)
        )
        notices = (*decoded.scene.picture.notices, *product.notes)
        seen = decoded.scene.seen.width, decoded.scene.seen.height
        self._pool.submit(
            reporting, self._inbox, self._encode, decoded.task, product, held, timings, times, recording, notices, seen
        )

    def join(self) -> None:
        """Wait until all that was submitted is written."""
        self._pool.shutdown()

    def _encode(
        self,
        task: Task,
        product: Product,
        held: int,
        timings: Timings,
        times: tuple[int, int] | None,
        recording: Recording,
        notices: tuple[str, ...],
        seen: tuple[int, int],
    ) -> None:
        try:
            started = time.perf_counter()
            files = list(zip(task.targets, product.contents(), strict=True))
            fidelity = product.fidelity()
            rendered = time.perf_counter() - started
            saved = save_files(
                files,
                task.job.source.path,
                self._tags,
                self._quality,
                sidecars=task.sidecars,
                times=times,
                recording=recording,
            )
            timings = dataclasses.replace(timings, write=rendered + saved.write, tags=saved.tags)
            size = product.picture.width, product.picture.height
            result = Result(
                task, "done", None, *size, saved.size, timings, saved.warnings, fidelity, saved.sidecars, notices, seen
            )
            self.storage.written()
        except Exception as error:
            self.storage.failed(error, task.job.target.parent)
            result = failure(task, error, timings)
        self._budget.release(held)
        self._inbox.put(result)


def failure(task: Task, error: Exception, timings: Timings | None = None) -> Result:
    """The result of a picture that went wrong; the batch goes on whatever it was."""
    if isinstance(error, PictureError):
        reason = error.reason
    elif isinstance(error, LumenError):
        reason = error.message
    elif isinstance(error, FileNotFoundError):
        reason = "is no longer there"
    elif isinstance(error, OSError):
        reason = error.strerror or str(error)
    elif isinstance(error, MemoryError):
        reason = "too little memory for this picture"
    else:
        _log.debug("fault while working on %s", task.job.source.path, exc_info=error)
        reason = f"fault of lumen, please report it: {type(error).__name__}: {error}"
    remedy = error.remedy if isinstance(error, LumenError) else ""
    return Result(task, "failed", " ".join(reason.split()), timings=timings or Timings(), remedy=remedy)
