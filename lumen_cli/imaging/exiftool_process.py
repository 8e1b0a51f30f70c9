"""One exiftool process kept open (pyexiftool), with what the library leaves out: a time limit, notice of its death."""

from __future__ import annotations

import contextlib
import queue
import secrets
import subprocess
import threading
import time
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
