"""Locks of manifests: one run at a time writes each of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from lumen_cli.errors import LumenError

_SUFFIX = ".lock"
_POLL_SECONDS = 0.1


@contextmanager
def hold_locks(
    places: Iterable[Path], waiting: Callable[[Path], None], held: list[Path], stop: threading.Event
) -> Iterator[None]:
    """Hold the locks of manifests. All runs take them in one order, so no two runs wait for each other.

    Args:
        places: the manifests' files, in folders that exist.
        waiting: called once for each that another run holds, before waiting for it.
        held: lists the lock files that are held.
        stop: once set, waiting ends, and not all locks are held inside.

    Raises:
        LumenError: a lock file cannot be made.
    """
    with ExitStack() as stack:
        for place in sorted(set(places)):
            if not stop.is_set():
                stack.enter_context(_hold_lock(place, waiting, held, stop))
        yield


def remove_stale_lock(place: Path) -> None:
    """Remove the lock file of a run that was killed; a lock that is held stays."""
    path = _lock_file(place)
    if not path.exists():
        return
    from filelock import FileLock, Timeout

    with suppress(OSError, Timeout), FileLock(path, timeout=0):
        path.unlink()


def _lock_file(place: Path) -> Path:
    return place.with_name(place.name + _SUFFIX)


@contextmanager
def hold_free_locks(places: Iterable[Path]) -> Iterator[list[Path]]:
    """Hold the locks of those manifests that no run holds now; yields these manifests."""
    from filelock import FileLock, Timeout

    with ExitStack() as stack:
        free = []
        for place in places:
            with suppress(OSError, Timeout):
                stack.enter_context(FileLock(_lock_file(place), timeout=0))
                stack.callback(_lock_file(place).unlink, missing_ok=True)
                free.append(place)
        yield free


@contextmanager
def _hold_lock(place: Path, waiting: Callable[[Path], None], held: list[Path], stop: threading.Event) -> Iterator[None]:
    from filelock import FileLock, Timeout

    path = _lock_file(place)
    lock = FileLock(path)
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            waiting(place)
            with suppress(Timeout):
                lock.acquire(poll_interval=_POLL_SECONDS, cancel_check=stop.is_set)
    except OSError as error:
        raise LumenError(f"{path}: the folder cannot be locked ({error.strerror or error})") from error
    if not lock.is_locked:
        yield
        return
    held.append(path)
    try:
        yield
    finally:
        held.remove(path)
        with suppress(OSError):
            path.unlink()  # while it is held; filelock notices that a file it waited for is gone, and takes the next
        lock.release()
