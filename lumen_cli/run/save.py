"""One finished picture to disk: whole under its final names, with its tags, or not there at all."""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lumen_cli.atomic import temporary_beside
from lumen_cli.errors import PictureError, UsageError
from lumen_cli.files.contents import content_hash
from lumen_cli.files.outputs import Job
from lumen_cli.imaging.formats import SUFFIXES, find_format, load_format
from lumen_cli.imaging.picture import Picture
from lumen_cli.imaging.write import find_changes, find_losses, write_picture
from lumen_cli.run.plan import Sidecar
from lumen_cli.run.sidecars import copies

if TYPE_CHECKING:
    from lumen_cli.imaging.tags.writer import TagWriter

Content = Picture | np.ndarray | Mapping[str, np.ndarray]
"""What a file holds: a picture, one array (.npy) or several by name (.npz)."""


@dataclass(frozen=True)
class Written:
    """A whole file that is about to get its final name. size: bytes; content: its `content_hash`."""

    target: Path
    size: int
    content: str


Recording = Callable[[Sequence[Written]], AbstractContextManager[None]]
"""Entered before files get their final names, with all of them; an error there, and none gets it."""


@dataclass(frozen=True)
class Saved:
    """sizes: bytes of each file; write, tags: seconds; warnings: one line each; sidecars: the copies beside it."""

    sizes: tuple[int, ...]
    write: float
    tags: float
    warnings: tuple[str, ...]
    sidecars: tuple[Path, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(self.sizes)


def output_format(picture: Picture, target: Path) -> str:
    """The container an output gets: what its suffix says, and the source's own where the suffix says nothing."""
    try:
        return find_format(target).name
    except UsageError:
        return load_format(picture.format).output.name


def misnamed(source: Path, picture: Picture, container: str) -> list[str]:
    """The notice about a file whose content is not what its name says, where its output follows the name."""
    suffix = source.suffix.lower()
    claimed = SUFFIXES.get(suffix)
    if claimed is None or picture.format in (claimed, container) or container != load_format(claimed).output.name:
        return []
    content, output = (load_format(name).title for name in (picture.format, container))
    return [f"its content is {content}, but its name ends with {suffix}: it became {output}"]


def save_picture(picture: Picture, job: Job, tags: TagWriter, quality: int | None = None) -> Saved:
    """Encode beside the target, copy the source's tags, flush to the disk, rename.

    Raises:
        PictureError: the disk is full, the folder is gone, an encoder or exiftool refuses; no temporary file is left.
    """
    return save_files([(job.target, picture)], job.source.path, tags, quality)


def save_files(
    files: Sequence[tuple[Path, Content]],
    source: Path,
    tags: TagWriter,
    quality: int | None = None,
    *,
    sidecars: Sequence[Sidecar] = (),
    times: tuple[int, int] | None = None,
    recording: Recording | None = None,
) -> Saved:
    """Like `save_picture`, for all files that came of one picture: none is renamed before all are complete.

    Args:
        files: targets and what goes into them.
        source: the original.
        tags: what carries them.
        quality: of lossy files, 1 to 100.
        sidecars: files that follow the picture, which is then the only one of `files`.
        times: access and modification time in nanoseconds that the files shall have (sidecars: their originals').
        recording: what has to happen before the renaming.

    Raises:
        PictureError: as in `save_picture`; then none of the targets has changed, unless renaming itself failed.
    """
    started, tagging = time.perf_counter(), 0.0
    sizes: list[int] = []
    warnings: list[str] = []
    temporaries: list[tuple[Path, Path]] = []
    written: list[Written] = []
    target = files[0][0]
    try:
        for target, content in files:
            temporary = temporary_beside(target)
            temporaries.append((temporary, target))
            mode = _create(temporary, source)
            if isinstance(content, Picture):
                container = output_format(content, target)
                write_picture(content, temporary, format=container, quality=quality)
                encoded = time.perf_counter()
                carried = tags.copy(source, temporary, content)
                tagging += time.perf_counter() - encoded
                warnings += [f"{container} cannot hold {what}" for what in find_losses(content, container)]
                warnings += find_changes(content, container)
                warnings += misnamed(source, content, container)
                warnings += carried
            else:
                _write_arrays(content, temporary)
            written.append(_finish(temporary, target, mode, times))
            sizes.append(written[-1].size)
        content = files[0][1]
        followers: list[tuple[Sidecar, bytes]] = []
        if sidecars and isinstance(content, Picture):
            followers, lines = copies(sidecars, content, tags.rules.metadata == "keep")
            warnings += lines
        for sidecar, tagged in followers:
            target = sidecar.target
            temporary = temporary_beside(target)
            temporaries.append((temporary, target))
            mode = _create(temporary, sidecar.source)
            temporary.write_bytes(tagged)
            written.append(_finish(temporary, target, mode, times and times_of(sidecar.source)))
        # The picture last: where it is, all that belongs to it is.
        renamed = temporaries[len(files) :] + temporaries[: len(files)]
        with recording(written) if recording else nullcontext():
            for temporary, target in renamed:
                temporary.replace(target)
    except OSError as error:
        raise PictureError(target, f"cannot be written: {error.strerror or error}") from error
    finally:
        for temporary, _ in temporaries:
            temporary.unlink(missing_ok=True)
    write = time.perf_counter() - started - tagging
    copied = tuple(sidecar.target for sidecar, _ in followers)
    return Saved(tuple(sizes), write, tagging, tuple(dict.fromkeys(warnings)), copied)


def times_of(path: Path) -> tuple[int, int] | None:
    """When a file was last read and last changed, in nanoseconds; None where it cannot be told."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_atime_ns, status.st_mtime_ns


def _write_arrays(content: np.ndarray | Mapping[str, np.ndarray], path: Path) -> None:
    """Equal arrays give equal bytes; numpy writes no time into an .npz."""
    with path.open("wb") as file:
        if isinstance(content, np.ndarray):
            np.save(file, content, allow_pickle=False)
        else:
            np.savez(file, **content)  # type: ignore[arg-type]  # numpy's stub sees allow_pickle in any keyword


def _create(path: Path, source: Path) -> int:
    """Make an empty file that may be read and written by whom the source may, under the umask, and by its owner.

    Returns:
        Its mode. From the first byte on nobody can read in it what the source keeps from them.
    """
    try:
        mode = source.stat().st_mode & 0o666 | 0o600
    except OSError:  # gone meanwhile; recording refuses it
        mode = 0o600
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)
    try:
        return stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)


def _finish(path: Path, target: Path, mode: int, times: tuple[int, int] | None) -> Written:
    """Set mode and, where they are given, times, and have it all on the disk."""
    if stat.S_IMODE(path.stat().st_mode) != mode:  # exiftool puts a new file in its place
        path.chmod(mode)
    written = Written(target, path.stat().st_size, content_hash(path))  # reading it moves its time of access
    if times is not None:
        os.utime(path, ns=times)
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return written


_LASTING = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the disk has become read-only",
}
_FAILURES_IN_A_ROW = 3
"""A smaller picture may still fit where one did not; after that many nothing does."""


class StorageWatch:
    """Counts pictures that could not be written for lack of room, since the last that could. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failures = 0
        self._trouble: str | None = None

    @property
    def trouble(self) -> str | None:
        """Why nothing more should be begun, one line; None while all is well."""
        return self._trouble

    def written(self) -> None:
        """A picture is on the disk."""
        with self._lock:
            self._failures = 0

    def failed(self, error: BaseException, folder: Path) -> None:
        """A picture for `folder` could not be finished."""
        reason = lasting(error)
        if reason is None:
            return
        with self._lock:
            self._failures += 1
            if self._failures >= _FAILURES_IN_A_ROW and self._trouble is None:
                self._trouble = f"{folder}: {reason}; the run was stopped; run the same command to resume"


def lasting(error: BaseException | None) -> str | None:
    """Which fault of the disk is behind an error, in words; None where there is none that lasts."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in _LASTING:
            return _LASTING[error.errno]
        error = error.__cause__ or error.__context__
    return None
