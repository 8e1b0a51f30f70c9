"""Files that appear whole or not at all, and the locks of manifests: one run at a time writes each of them.

Temporary files lie beside their targets. Their names say which process made them, so later runs can remove leftovers.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from lumen_cli.errors import LumenError

_LOCK_SUFFIX = ".lock"
_LOCK_POLL_SECONDS = 0.1
TEMPORARY_PREFIX = ".lumen-"
"""How the name of every temporary file begins. It is hidden, so it never counts as an input."""

_NAME = re.compile(
    rf"{re.escape(TEMPORARY_PREFIX)}(?P<pid>\d+)-(?P<host>[0-9a-f]{{6}})(?P<birth>[0-9a-f]{{6}})(?P<random>[0-9a-f]{{8}})-"
)
_NAME_BYTES = 255 - len("_exiftool_tmp")  # exiftool adds this to the name of the file it rewrites
_FOREIGN_AGE_SECONDS = 24 * 3600.0
_UNKNOWN = "0" * 6


def temporary_beside(target: Path) -> Path:
    """A new path in the target's folder, `.lumen-PID-RANDOM-NAME`, with the target's ending; nothing is created.

    The name has process and machine, so that `sweep_temporaries` knows whether the process still runs. It is short
    enough for any file system (255 bytes, with room for exiftool's own temporary file).
    """
    head = f"{TEMPORARY_PREFIX}{os.getpid()}-{_host()}{_birth(os.getpid())}{secrets.token_hex(4)}-"
    stem, suffix = target.stem, target.suffix
    while stem and len(os.fsencode(head + stem + suffix)) > _NAME_BYTES:
        stem = stem[:-1]
    if len(os.fsencode(head + stem + suffix)) > _NAME_BYTES:
        suffix = ""
    return target.with_name(head + stem + suffix)


@contextmanager
def atomic_file(target: Path) -> Iterator[Path]:
    """A temporary path beside the target. In the end it becomes the target; after an error it is removed."""
    temporary = temporary_beside(target)
    try:
        yield temporary
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder of this user alone in the place for temporary files, removed at the end.

    If the process is killed, `sweep_temporaries` of that place with `whole_folders` removes it.
    """
    folder = temporary_beside(Path(tempfile.gettempdir()) / "folder")
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep_temporaries(folders: Iterable[Path], *, whole_folders: bool = False) -> int:
    """Remove the temporary files that dead processes left in these folders (not below them); how many.

    A file stays while its process runs on this machine. One from another machine, whose processes are not visible here,
    stays for a day. whole_folders: remove temporary folders too.
    """
    removed = 0
    for folder in sorted(set(folders)):
        with suppress(OSError):
            for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
                is_folder = entry.is_dir(follow_symlinks=False)
                match = _NAME.match(entry.name)
                if not match or not (entry.is_file(follow_symlinks=False) or (whole_folders and is_folder)):
                    continue
                if _is_abandoned(Path(entry), int(match["pid"]), match["host"], match["birth"]):
                    with suppress(OSError):
                        shutil.rmtree(entry) if is_folder else Path(entry).unlink()
                        removed += 1
    return removed


def _is_abandoned(path: Path, pid: int, host: str, birth: str) -> bool:
    if host != _host():
        try:
            status = path.stat()
        except OSError:
            return False
        # The later of the two: the first can be set back, to the original's time.
        return time.time() - max(status.st_mtime, status.st_ctime) > _FOREIGN_AGE_SECONDS
    # A process with the same number but another start is a new one; in containers numbers begin with 1 again.
    return not _runs(pid) or _birth(pid) not in (birth, _UNKNOWN)


def _runs(pid: int) -> bool:
    """Whether a process runs; one that ended keeps its number until its parent asks for its exit code."""
    import psutil

    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True


def _host() -> str:
    return _short_hash(platform.node())


@functools.lru_cache(maxsize=64)
def _birth(pid: int) -> str:
    """A mark of the moment a process began; `_UNKNOWN` where the system does not say."""
    try:
        # In clock ticks since the machine began: unlike a time of day, every process reads the same value.
        return _short_hash(Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[19])
    except (OSError, IndexError):
        pass
    import psutil

    try:
        return _short_hash(f"{psutil.Process(pid).create_time():.0f}")
    except psutil.Error:
        return _UNKNOWN


def _short_hash(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=3).hexdigest()


_PORTION = 1 << 20


def require_room(folder: Path, size: int) -> None:
    """Write `size` bytes into a folder and remove them again; OSError where there is no room."""
    path = temporary_beside(folder / "room")
    portion = os.urandom(min(size, _PORTION))  # some file systems store zeros for nothing
    try:
        with path.open("wb") as file:
            for written in range(0, size, _PORTION):
                file.write(portion[: size - written])
            file.flush()
            os.fsync(file.fileno())
    finally:
        path.unlink(missing_ok=True)


def open_untouched(path: Path) -> int:
    """Open a file without moving its time of access, where the system allows its owner to do that."""
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        return os.open(path, flags | getattr(os, "O_NOATIME", 0))
    except PermissionError:
        return os.open(path, flags)


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
    return place.with_name(place.name + _LOCK_SUFFIX)


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
                lock.acquire(poll_interval=_LOCK_POLL_SECONDS, cancel_check=stop.is_set)
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
