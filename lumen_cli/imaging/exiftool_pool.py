"""exiftool processes: as many as are in use at once, each started when it is first needed, replaced when it fails."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lumen_cli.imaging.exiftool_process import PatientExifTool

_SAFE = (12, 38)
"""Older ones can be made to run commands: by a file name that ends with "|" (CVE-2022-23935), by what a picture holds
(CVE-2021-22204)."""


class UnusableExifToolError(Exception):
    """Why there is no exiftool to ask, or why it gave no answer; whatever process there was is stopped by now."""


class ExifToolPool:
    """Thread-safe: who asks for a process has it alone, so every worker that writes has one of its own."""

    def __init__(self, seconds: float, executable: str | None = None) -> None:
        """Nothing is started yet.

        Args:
            seconds: how long one command may take before its process counts as hung.
            executable: exiftool's path; None looks on PATH.
        """
        self._seconds = seconds
        self._executable = executable
        self._lock = threading.Lock()
        self._idle: list[PatientExifTool] = []
        self._used: set[PatientExifTool] = set()
        self._closed = False
        # On Linux a process of the library's ends with the thread that started it. This thread lives as long as the
        # pool, so that a worker's end does not take a process away from the others.
        self._starter = ThreadPoolExecutor(1, "lumen-exiftool")

    def version(self) -> str:
        """Its version, from a process that is kept for later.

        Raises:
            UnusableExifToolError: exiftool is missing, too old for the library or cannot be started.
        """
        with self.process() as tool:
            return str(tool.version)

    @contextmanager
    def process(self) -> Iterator[PatientExifTool]:
        """A process to ask; afterwards it is kept for the next, unless it failed.

        Raises:
            UnusableExifToolError: none can be started, or the one that was asked died or hung.
        """
        tool = self._idle_one() or self._started()
        with self._lock:
            self._used.add(tool)
        from lumen_cli.imaging.exiftool_process import ExifToolFailedError

        failed = True
        try:
            yield tool
            failed = False
        except ExifToolFailedError as error:
            raise UnusableExifToolError(str(error)) from None
        finally:
            with self._lock:
                self._used.discard(tool)
                kept = not failed and not self._closed
                if kept:
                    self._idle.append(tool)
            if not kept:
                tool.stop()

    def close(self) -> None:
        """End all processes; those in use end when they are given back."""
        with self._lock:
            self._closed, idle, self._idle = True, self._idle, []
        for tool in idle:
            tool.stop()

    def numbers(self) -> list[int]:
        """The process ids of those that wait and of those in use."""
        with self._lock:
            return sorted(tool.number for tool in (*self._idle, *self._used) if tool.number)

    def _idle_one(self) -> PatientExifTool | None:
        """The one that was used last, so that no more live than are needed; those that died meanwhile are dropped."""
        while True:
            with self._lock:
                if not self._idle:
                    return None
                tool = self._idle.pop()
            if tool.alive:
                return tool
            tool.stop()

    def _started(self) -> PatientExifTool:
        executable = self._executable or shutil.which("exiftool")
        if executable is None:
            raise UnusableExifToolError("exiftool is not installed")
        try:
            from exiftool.exceptions import ExifToolException

            from lumen_cli.imaging.exiftool_process import ExifToolFailedError, PatientExifTool
        except ImportError as error:
            raise UnusableExifToolError(f"pyexiftool cannot be imported ({error})") from None
        try:
            tool = PatientExifTool(self._seconds, executable)
            self._starter.submit(tool.run).result()
        except (OSError, ValueError, RuntimeError, ExifToolException, ExifToolFailedError) as error:
            raise UnusableExifToolError(f"exiftool cannot be started ({' '.join(str(error).split())})") from None
        return tool


def is_unsafe(version: str) -> bool:
    """Whether an exiftool of this version ("12.57") has faults by which a picture can run commands."""
    try:
        return tuple(int(part) for part in version.split(".")) < _SAFE
    except ValueError:
        return False
