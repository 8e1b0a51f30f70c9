"""The helper process that decodes pictures for another one: a decoder that hangs or crashes in it costs one picture.

It takes requests on standard input and answers on standard output, both as messages of `send` and `receive`, and ends
when its input does. Only lumen's own processes talk this way; nothing of a picture file is ever unpickled.
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
    """Read a message; EOFError where the other side has gone, or sends what no process of lumen's does."""
    parts = [_exactly(file, _number(file)) for _ in range(_number(file))]
    return _Values(io.BytesIO(parts[0]), buffers=parts[1:]).load()


class _Values(pickle.Unpickler):
    """Makes arrays and lumen's own values and nothing else: a picture may have got hold of its decoder's process."""

    def find_class(self, module: str, name: str) -> Any:
        if (module.replace("numpy.core.", "numpy._core."), name) in _ARRAYS:
            return super().find_class(module, name)
        if module.startswith("lumen_cli.imaging.") and "." not in name:
            found = super().find_class(module, name)
            if isinstance(found, type) and dataclasses.is_dataclass(found):
                return found
        raise EOFError(f"{module}.{name} is nothing that a picture is made of")


def _number(file: BinaryIO) -> int:
    return int(_COUNT.unpack(_exactly(file, _COUNT.size))[0])


def _exactly(file: BinaryIO, size: int) -> bytearray:
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
    # What a library under a decoder prints must not get between the messages.
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    waiting: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()

    def take() -> None:
        try:
            while True:
                waiting.put(receive(requests))
        except (EOFError, OSError):
            os._exit(0)  # also in the middle of a picture: nobody waits for it any more

    threading.Thread(target=take, daemon=True).start()
    from lumen_cli.imaging.read import read_picture

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
