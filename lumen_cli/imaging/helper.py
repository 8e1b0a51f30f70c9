"""A helper process decodes pictures for another process, so that a decoder that hangs or crashes costs one picture.

It reads requests from standard input and writes answers to standard output, both as messages of `send` and `receive`,
and ends when its input ends. Only lumen's own processes use these messages; no part of a picture file is unpickled.
"""

from __future__ import annotations

import dataclasses
import io
import os
import pickle
import queue
import struct
import sys
import threading
from pathlib import Path
from typing import Any, BinaryIO

from lumen_cli.errors import PictureError

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
