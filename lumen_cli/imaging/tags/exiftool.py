"""exiftool processes: as many as are in use at once, each started when it is first needed, replaced when it fails."""

from __future__ import annotations

import contextlib
import queue
import secrets
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import IO

from exiftool import ExifTool


class ExifToolFailedError(Exception):
    """The process ended or did not answer in time; it is stopped by now and can be started again."""


class PatientExifTool(ExifTool):
    """pyexiftool's process whose answers are read by two threads, so that waiting can end.

    The library's own `execute` waits for ever when exiftool hangs, and turns in circles when it has died.
    """

    def __init__(self, seconds: float, executable: str | None = None) -> None:
        # An empty config file: a user's own ~/.ExifTool_config must not change what is written.
        super().__init__(executable=executable, config_file="", common_args=[], encoding="utf-8")
        self.seconds = seconds
        self._answers: queue.SimpleQueue[tuple[str, bytes]] = queue.SimpleQueue()
        self._read_process: subprocess.Popen[bytes] | None = None

    @property
    def number(self) -> int:
        """The process id; 0 when there is no process."""
        return 0 if self._process is None else int(self._process.pid)

    @property
    def alive(self) -> bool:
        """Whether the process runs. It may have died by itself: a Ctrl-C at the terminal reaches it too."""
        return self._process is not None and self._process.poll() is None

    def execute(self, *params: str | bytes, raw_bytes: bool = False) -> str | bytes:
        """Run one command; what exiftool said on stdout, on stderr in `last_stderr`, its status in `last_status`.

        Raises:
            ExifToolFailedError: no answer within `seconds`, or the process is gone.
        """
        process = self._process
        if process is None or not self.alive:
            self._flag_running_false()  # said here, else the library warns on stderr
            raise ExifToolFailedError("exiftool is not running")
        if self._read_process is not process:
            self._listen(process)
        mark = secrets.token_hex(4)
        ready, done = b"{ready%d}" % int(mark, 16), b"=${status}=post" + mark.encode()
        lines = [p if isinstance(p, bytes) else p.encode(self._encoding) for p in params]
        lines += [b"-echo4", done, b"-execute%d" % int(mark, 16), b""]
        try:
            process.stdin.write(b"\n".join(lines))
            process.stdin.flush()
        except (OSError, ValueError):
            self.stop()
            raise ExifToolFailedError("exiftool has ended") from None
        out, errors = self._wait(ready, b"post" + mark.encode())
        text, _, status = errors.rstrip().removesuffix(b"=post" + mark.encode()).rpartition(b"=")
        self._last_status = int(status) if status.isdigit() else 1
        self._last_stderr = text.decode(self._encoding, "replace")
        self._last_stdout = out.rstrip().removesuffix(ready).decode(self._encoding, "replace")
        return self._last_stdout

    def stop(self) -> None:
        """End the process now, whatever it is doing.

        Not by the library's `terminate`: it waits without limit for the end of the process's output, which a child
        of the process can hold open.
        """
        process = self._process
        if process is None:
            return
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            process.kill()
            process.wait(timeout=5)
        with contextlib.suppress(OSError, ValueError):
            process.stdin.close()
        self._flag_running_false()

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        self._answers = queue.SimpleQueue()
        self._read_process = process
        for name, stream in (("out", process.stdout), ("err", process.stderr)):
            threading.Thread(
                target=_pump, args=(name, stream, self._answers), daemon=True, name=f"exiftool-{name}"
            ).start()

    def _wait(self, ready: bytes, done: bytes) -> tuple[bytes, bytes]:
        text = {"out": b"", "err": b""}
        deadline = time.monotonic() + self.seconds
        while not (text["out"].rstrip().endswith(ready) and text["err"].rstrip().endswith(done)):
            try:
                name, piece = self._answers.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                self.stop()
                raise ExifToolFailedError(f"exiftool gave no answer for {self.seconds:g} s") from None
            if not piece:
                self.stop()
                raise ExifToolFailedError("exiftool has ended unexpectedly")
            text[name] += piece
        return text["out"], text["err"]


def _pump(name: str, stream: IO[bytes], answers: queue.SimpleQueue[tuple[str, bytes]]) -> None:
    try:
        while piece := stream.read1(65536):  # type: ignore[attr-defined]
            answers.put((name, piece))
    except (OSError, ValueError):
        pass
    finally:
        answers.put((name, b""))
        stream.close()


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
