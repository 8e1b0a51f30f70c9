"""Pictures decoded in helper processes, with a time limit, where their format's decoders are known to hang or crash.

So a decoder that hangs or crashes costs one picture. A helper reads requests from standard input and writes answers to
standard output, both as messages of `send` and `receive`, and ends when its input ends. Only lumen's own processes use
these messages; no part of a picture file is unpickled.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import io
import os
import pickle
import queue
import signal
import stat
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from lumen_cli.errors import PictureError
from lumen_cli.imaging.formats import DEFAULT_TIMEOUT, recognise

if TYPE_CHECKING:
    from lumen_cli.imaging.picture import Picture

_COUNT = struct.Struct("<Q")
_ARRAYS = {
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
}


def send(file: BinaryIO, message: Any) -> None:
    """Write a message, its arrays without a copy: the number of parts, then each with its length before it."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
    file.write(_COUNT.pack(1 + len(buffers)))
    for part in (memoryview(head), *(buffer.raw() for buffer in buffers)):
        file.write(_COUNT.pack(part.nbytes))
        file.write(part)
    file.flush()


def receive(file: BinaryIO) -> Any:
    """Read a message; EOFError where the other process has ended, or sends anything else."""
    parts = [_read_exactly(file, _read_number(file)) for _ in range(_read_number(file))]
    return _Unpickler(io.BytesIO(parts[0]), buffers=parts[1:]).load()


class _Unpickler(pickle.Unpickler):
    """Makes only arrays and lumen's own values, as a hostile picture may control the process that decodes it."""

    def find_class(self, module: str, name: str) -> Any:
        if (module.replace("numpy.core.", "numpy._core."), name) in _ARRAYS:
            return super().find_class(module, name)
        if module.startswith("lumen_cli.imaging.") and "." not in name:
            found = super().find_class(module, name)
            if isinstance(found, type) and dataclasses.is_dataclass(found):
                return found
        raise EOFError(f"{module}.{name} is not part of a picture")


def _read_number(file: BinaryIO) -> int:
    return int(_COUNT.unpack(_read_exactly(file, _COUNT.size))[0])


def _read_exactly(file: BinaryIO, size: int) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        count = file.readinto(view)  # type: ignore[attr-defined]
        if not count:
            raise EOFError
        view = view[count:]
    return data


def main() -> None:
    """Answer requests (path, max_pixels) with ("picture", Picture), ("error", (reason, remedy)) or ("fault", text)."""
    requests = os.fdopen(os.dup(0), "rb", buffering=0)
    answers = os.fdopen(os.dup(1), "wb")
    # Output of the decoders' libraries must not get between the messages.
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    waiting: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()

    def receive_requests() -> None:
        try:
            while True:
                waiting.put(receive(requests))
        except (EOFError, OSError):
            os._exit(0)  # even in the middle of a picture, as the other process has ended

    threading.Thread(target=receive_requests, daemon=True).start()
    from lumen_cli.imaging.picture import read_picture

    while True:
        name, max_pixels = waiting.get()
        answer: tuple[str, Any]
        try:
            answer = "picture", read_picture(Path(name), max_pixels=max_pixels)
        except PictureError as error:
            answer = "error", (error.reason, error.remedy)
        except MemoryError:
            answer = "error", ("the picture does not fit into memory", "")
        except Exception as error:
            answer = "fault", f"{type(error).__name__}: {error}"
        try:
            send(answers, answer)
        except OSError:
            sys.exit(0)


_START = "import sys; sys.path[:] = sys.argv[1:]; from lumen_cli.imaging.helper import main; main()"


class AbandonedError(Exception):
    """The run ended while a picture was being decoded."""


class HelperReader:
    """Reads pictures in helper processes, each used by one thread at a time; idle processes are reused by all readers.

    Args:
        timeout: seconds that a picture may take, None for no limit.
    """

    def __init__(self, timeout: float | None = DEFAULT_TIMEOUT) -> None:
        self.timeout = timeout
        self._busy: set[_Helper] = set()
        self._lock = threading.Lock()
        self._abandoned = False

    @staticmethod
    def wants(path: Path) -> bool:
        """Whether a file is of a format that is read in a helper; False where it cannot be opened."""
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                return False
            with path.open("rb") as file:
                format = recognise(file)
        except (OSError, ValueError):
            return False
        return format is not None and format.is_isolated

    def read(self, path: Path, *, max_pixels: int) -> Picture:
        """See `read_picture`.

        Raises:
            PictureError: as there; or it took too long, or its decoder crashed.
            AbandonedError: `abandon` was called.
        """
        helper = _idle.pop() if _idle else _Helper()
        with self._lock:
            if self._abandoned:
                helper.end()
                raise AbandonedError
            self._busy.add(helper)
        try:
            kind, answer = helper.ask(path, max_pixels, self.timeout)
        except (EOFError, OSError, ValueError):  # ValueError: `abandon` has closed the pipe meanwhile
            helper.end(patience=1.0)
            if self._abandoned:
                raise AbandonedError from None
            remedy = "timeout" if helper.late else ""
            raise PictureError(path, helper.why_it_ended(self.timeout), remedy=remedy) from None
        finally:
            with self._lock:
                self._busy.discard(helper)
        _idle.append(helper)
        if kind == "picture":
            from lumen_cli.imaging.picture import Picture

            assert isinstance(answer, Picture)
            return answer
        if kind == "error":
            assert isinstance(answer, tuple)
            raise PictureError(path, str(answer[0]), remedy=str(answer[1]))
        raise RuntimeError(answer)

    def abandon(self) -> None:
        """End the helpers that are decoding, and begin nothing."""
        with self._lock:
            self._abandoned = True
            for helper in self._busy:
                helper.end()


class _Helper:
    """One process."""

    def __init__(self) -> None:
        self.late = self.killed = False
        # A session of its own, so that Ctrl-C reaches only the command, which ends its helpers itself.
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, *filter(None, sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def ask(self, path: Path, max_pixels: int, timeout: float | None) -> tuple[str, object]:
        """Send a request and wait for the answer; EOFError or OSError where the process has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        watchdog = threading.Timer(timeout, self._give_up) if timeout else None
        if watchdog is not None:
            watchdog.daemon = True
            watchdog.start()
        try:
            send(self._process.stdin, (str(path), max_pixels))  # type: ignore[arg-type]
            kind, answer = receive(self._process.stdout)  # type: ignore[arg-type]
        finally:
            if watchdog is not None:
                watchdog.cancel()
        if self.late:
            raise EOFError
        return kind, answer

    def _give_up(self) -> None:
        self.late = True
        self._process.kill()

    def end(self, patience: float = 0.0) -> None:
        """Kill the process where it has not ended by itself within `patience` seconds."""
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self.killed = True
            with contextlib.suppress(OSError):
                self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def why_it_ended(self, timeout: float | None) -> str:
        """Why there is no answer, in one line."""
        if self.late:
            return f"took more than {timeout:g} seconds to decode"
        if self.killed:
            return "its decoder sent an unusable answer"
        code = self._process.returncode
        if code == -9:
            return "its decoder was killed, probably for lack of memory"
        with contextlib.suppress(ValueError):
            return f"its decoder crashed ({signal.Signals(-code).name})"
        return f"its decoder crashed (exit code {code})"


_idle: list[_Helper] = []


@atexit.register
def _end_all() -> None:
    while _idle:
        _idle.pop().end()
