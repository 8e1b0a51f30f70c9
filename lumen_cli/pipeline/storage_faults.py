"""A disk that takes no more: told from the faults of single pictures, as every further one would fail too."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

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
