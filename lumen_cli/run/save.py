"""One finished picture to disk: complete under its final names, with its tags and its manifest lines, or not at all."""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lumen_cli.atomic import temporary_beside
from lumen_cli.errors import PictureError, UsageError
from lumen_cli.files.contents import Arrived, Original, hash_file, times_of
from lumen_cli.files.places import ObjectPath
from lumen_cli.imaging.formats import SUFFIXES, find_format, load_format
from lumen_cli.imaging.picture import Picture, find_changes, find_losses, write_picture
from lumen_cli.run import Result, Sidecar, Task
from lumen_cli.run.manifest import Manifest, Record
from lumen_cli.run.sidecars import copies

if TYPE_CHECKING:
    from lumen_cli.imaging.tags import TagWriter

Content = Picture | np.ndarray | Mapping[str, np.ndarray] | Callable[[Path], None]
"""What a file holds: a picture, one array (.npy), several by name (.npz), or what a function writes into a path."""


@dataclass(frozen=True)
class Written:
    """A complete file that is about to get its final name. size: bytes; content: its `hash_file`."""

    target: Path
    size: int
    content: str


Recording = Callable[[Sequence[Written]], AbstractContextManager[None]]
"""A context entered with all files before any of them gets its final name; an error in it prevents that."""


@dataclass(frozen=True)
class Saved:
    """size: bytes of the files; write, tags: seconds; warnings: one line each; sidecars: the copies beside them."""

    size: int
    write: float
    tags: float
    warnings: tuple[str, ...]
    sidecars: tuple[Path, ...] = ()


class Publisher:
    """Files are written beside their targets and renamed."""

    def temporary(self, target: Path) -> Path:
        """Where a file is written first."""
        return temporary_beside(target)

    def publish(self, temporary: Path, target: Path) -> None:
        """Give a complete file its final name."""
        temporary.replace(target)


class Transport:
    """How the sources of a run become local files, and finished files get their names: here they are local already.

    Args:
        tasks: of the plan.
    """

    senders = 0
    """Threads that only wait while files are sent."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._tasks = tasks

    def take(self, index: int) -> Arrived | None:
        """The source of task number `index` as a file; None where the run has ended. Indices rise."""
        source = self._tasks[index].job.source.path
        return Arrived(source, source)

    def publisher(self, task: Task, arrived: Arrived, keeps_metadata: bool) -> Publisher:
        """How the files of a task get their names. keeps_metadata: whether an object's own metadata may be copied."""
        return Publisher()

    def arrivals(self) -> Generator[tuple[Task, Arrived], None, None]:
        """One task after the other, with its source as a file until the next one, until the run ends; to be closed."""
        try:
            for index, task in enumerate(self._tasks):
                arrived = self.take(index)
                if arrived is None:
                    return
                try:
                    yield task, arrived
                finally:
                    arrived.discard()
        finally:
            self.end()
            self.join()

    def end(self) -> None:
        """Take nothing more."""

    def join(self) -> None:
        """Wait for the threads."""


def transport_of(tasks: Sequence[Task]) -> AbstractContextManager[Transport]:
    """How the pictures of a run come and go."""
    paths = (path for task in tasks for path in (task.job.source.path, task.job.target))
    if not any(isinstance(path, ObjectPath) for path in paths):
        return nullcontext(Transport(tasks))
    from lumen_cli.run.stores import store_transport

    return store_transport(tasks)


def output_format(picture: Picture, target: Path) -> str:
    """The container an output gets: by its suffix, or the source's own where the suffix names none."""
    try:
        return find_format(target).name
    except UsageError:
        return load_format(picture.format).output.name


def save_files(
    files: Sequence[tuple[Path, Content]],
    source: Path,
    tags: TagWriter,
    quality: int | None = None,
    *,
    sidecars: Sequence[Sidecar] = (),
    times: tuple[int, int] | None = None,
    recording: Recording | None = None,
    publisher: Publisher | None = None,
    completed: Callable[[], None] = lambda: None,
) -> Saved:
    """Encode, copy the source's tags, flush to the disk; give the files their names when all are complete.

    Args:
        files: targets and what goes into them.
        source: the original, a file.
        tags: copies its tags.
        quality: of lossy files, 1 to 100.
        sidecars: files that follow the picture, which is then the only one of `files`.
        times: access and modification time of the files in nanoseconds (sidecars get their originals').
        recording: surrounds the renaming.
        publisher: where the files are written and how they get their names; None: beside the targets, by renaming.
        completed: called when the files are complete, before they get their names.

    Raises:
        PictureError: the disk is full, the folder is gone, an encoder or exiftool fails. No temporary file is left, and
            no target has changed unless renaming itself failed.
    """
    publisher = publisher or Publisher()
    started, tagging = time.perf_counter(), 0.0
    warnings: list[str] = []
    temporaries: list[tuple[Path, Path]] = []
    written: list[Written] = []
    target = files[0][0]
    try:
        for target, content in files:
            temporary, mode = _create(publisher.temporary(target), target, source, temporaries)
            if isinstance(content, Picture):
                container = output_format(content, target)
                write_picture(content, temporary, format=container, quality=quality)
                encoded = time.perf_counter()
                carried = tags.copy(source, temporary, content)
                tagging += time.perf_counter() - encoded
                warnings += [f"{container} cannot hold {what}" for what in find_losses(content, container)]
                warnings += (*find_changes(content, container), *_misnamed(source, content, container), *carried)
            elif callable(content):
                content(temporary)
            else:
                _write_arrays(content, temporary)
            written.append(_finish(temporary, target, mode, times))
        size = sum(file.size for file in written)
        followers: list[tuple[Sidecar, bytes]] = []
        if sidecars and isinstance(content, Picture):
            followers, lines = copies(sidecars, content, tags.rules.metadata == "keep")
            warnings += lines
        for sidecar, tagged in followers:
            target = sidecar.target
            temporary, mode = _create(publisher.temporary(target), target, sidecar.source, temporaries)
            temporary.write_bytes(tagged)
            written.append(_finish(temporary, target, mode, times and times_of(sidecar.source)))
        completed()
        with recording(written) if recording else nullcontext():
            # The picture comes last: where it exists, everything that belongs to it does.
            for temporary, target in temporaries[len(files) :] + temporaries[: len(files)]:
                publisher.publish(temporary, target)
    except OSError as error:
        raise PictureError(target, f"cannot be written: {error.strerror or error}") from error
    finally:
        for temporary, _ in temporaries:
            temporary.unlink(missing_ok=True)
    write = time.perf_counter() - started - tagging
    copied = tuple(sidecar.target for sidecar, _ in followers)
    return Saved(size, write, tagging, tuple(dict.fromkeys(warnings)), copied)


def _misnamed(source: Path, picture: Picture, container: str) -> list[str]:
    """The notice about a file whose content is not what its name says, where its output follows the name."""
    suffix = source.suffix.lower()
    claimed = SUFFIXES.get(suffix)
    if claimed is None or picture.format in (claimed, container) or container != load_format(claimed).output.name:
        return []
    content, output = (load_format(name).title for name in (picture.format, container))
    return [f"its content is {content}, but its name ends with {suffix}: it became {output}"]


def _write_arrays(content: np.ndarray | Mapping[str, np.ndarray], path: Path) -> None:
    """Equal arrays give equal bytes; numpy writes no time into an .npz."""
    with path.open("wb") as file:
        if isinstance(content, np.ndarray):
            np.save(file, content, allow_pickle=False)
        else:
            np.savez(file, **content)  # type: ignore[arg-type]  # numpy's stub sees allow_pickle in any keyword


def _create(temporary: Path, target: Path, source: Path, temporaries: list[tuple[Path, Path]]) -> tuple[Path, int]:
    """Make an empty temporary file with the permissions of `source` under the umask; returns it and its mode.

    Whoever may not read the source can never read this file.
    """
    temporaries.append((temporary, target))
    try:
        mode = source.stat().st_mode & 0o666 | 0o600
    except OSError:  # it is gone; recording raises the error
        mode = 0o600
    descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)
    try:
        return temporary, stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)


def _finish(path: Path, target: Path, mode: int, times: tuple[int, int] | None) -> Written:
    """Set mode and, where they are given, times, and flush the file to the disk."""
    if stat.S_IMODE(path.stat().st_mode) != mode:  # exiftool puts a new file in its place
        path.chmod(mode)
    written = Written(target, path.stat().st_size, hash_file(path))  # reading it moves its time of access
    if times is not None:
        os.utime(path, ns=times)
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return written


def record_of(task: Task, original: Original, content: str, settings: str) -> Record:
    """The manifest line of a picture's first file, before that file is written.

    original: the source as it was read; content: hash of the decoded source; settings: their fingerprint.
    """
    state = original.state
    return Record(
        output=task.output,
        source=task.source_name,
        source_size=state.size,
        source_mtime_ns=state.mtime_ns,
        source_ctime_ns=state.ctime_ns,
        source_hash=original.content,
        source_etag=state.etag,
        content=content,
        settings=settings,
    )


def failure_of(result: Result) -> Record:
    """The manifest line of a picture that failed."""
    return Record(result.task.output, result.task.source_name, failure=result.reason)


@contextmanager
def record_files(
    task: Task, record: Record, original: Original, manifest: Manifest | None, files: Sequence[Written]
) -> Iterator[None]:
    """Inside, `files`, the picture's and its sidecars', get their final names; the manifest names them before.

    Raises:
        PictureError: the source has changed or vanished since it was read.
        LumenError: the manifest cannot be written.
    """
    original.require_unchanged()
    if manifest is None:
        yield
        return
    names = dict(zip(task.targets, task.outputs, strict=True))
    followed = {sidecar.target: sidecar.source.name for sidecar in task.sidecars}
    records = []
    for file in files:
        if file.target in names:
            line = replace(record, output=names[file.target])
        else:
            line = Record(file.target.relative_to(task.root).as_posix(), followed[file.target])
        records.append(replace(line, output_size=file.size, output_hash=file.content))
    with manifest.writing(*records):
        yield


_FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the disk has become read-only",
}
_FAILURES_IN_A_ROW = 3
"""A smaller picture may fit where a larger one did not; after so many failures none is expected to fit."""


class StorageWatch:
    """Counts pictures that did not fit on the disk since the last one that did. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failures = 0
        self.trouble: str | None = None
        """Why no further picture can be written, in one line; None while the disk has room."""

    def written(self) -> None:
        """A picture is on the disk."""
        with self._lock:
            self._failures = 0

    def failed(self, error: BaseException, folder: Path) -> None:
        """A picture for `folder` could not be finished."""
        reason = _why_full(error)
        if reason is None:
            return
        with self._lock:
            self._failures += 1
            if self._failures >= _FAILURES_IN_A_ROW and self.trouble is None:
                self.trouble = f"{folder}: {reason}; the run was stopped; run the same command to resume"


def _why_full(error: BaseException | None) -> str | None:
    """Why the disk takes nothing more, where that is the cause of an error."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in _FULL:
            return _FULL[error.errno]
        error = error.__cause__ or error.__context__
    return None
