"""One run at a time for each manifest: two runs into one folder take turns, and no line is lost.

filelock was chosen over a database: the operating system releases its lock when a process ends, however it ends, and
the manifest stays a text file that people can read and that a copy of the folder takes along.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from lumen_cli.errors import LumenError

_SUFFIX = ".lock"
_POLL_SECONDS = 0.1


@contextmanager
def locked(places: Iterable[Path], waiting: Callable[[Path], None]) -> Iterator[None]:
    """Hold the locks of manifests; all runs take them in one order, so none waits for another that waits for it.

    Args:
        places: the manifests' files, in folders that exist.
        waiting: called once for each that another run holds, before waiting for it.

    Raises:
        LumenError: a lock file cannot be made.
    """
    with ExitStack() as stack:
        for place in sorted(set(places)):
            stack.enter_context(_held(place, waiting))
        yield


def lock_of(place: Path) -> Path:
    """The lock file of a manifest."""
    return place.with_name(place.name + _SUFFIX)


@contextmanager
def _held(place: Path, waiting: Callable[[Path], None]) -> Iterator[None]:
    from filelock import FileLock, Timeout

    path = lock_of(place)
    lock = FileLock(path)
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            waiting(place)
            lock.acquire(poll_interval=_POLL_SECONDS)
    except OSError as error:
        raise LumenError(f"{path}: the folder cannot be locked ({error.strerror or error})") from error
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()  # while it is held; filelock sees that a file it waited for is gone, and takes the next
        lock.release()
