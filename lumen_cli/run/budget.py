"""How much may be under way at once: a bound on pictures and on bytes."""

from __future__ import annotations

import threading
from pathlib import Path

from lumen_cli.errors import PictureError

_MIB = 1 << 20
WHOLE_BYTES = 7 * 4
"""Of a pixel, where the whole picture goes through the network: channels in float32, and alpha in the worst case."""
CARRIED_BYTES = 12
"""Of a pixel, where the network sees the picture reduced: 8 or 16 bits a channel, twice."""
_RAM_SHARE = 16
_WORK_SHARE = 2.5
"""Memory that a picture takes on its way at most, in units of its decoded size; tiles bound what the network adds."""


class ClosedError(Exception):
    """The budget was closed while somebody waited for room: the run is ending."""


class Budget:
    """Room for at most `pictures` pictures of together at most `size` bytes.

    A single picture larger than `size` gets in when nothing else is held, so that nothing waits for ever.
    """

    def __init__(self, pictures: int, size: int) -> None:
        self.pictures = pictures
        self.size = size
        self._held = 0
        self._held_bytes = 0
        self._closed = False
        self._changed = threading.Condition()

    def acquire(self, size: int) -> None:
        """Wait for room for one picture of `size` bytes; ClosedError when the run ends meanwhile."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._fits(size))
            if self._closed:
                raise ClosedError
            self._held += 1
            self._held_bytes += size

    def release(self, size: int) -> None:
        """Give the room of one picture back."""
        with self._changed:
            self._held -= 1
            self._held_bytes -= size
            self._changed.notify_all()

    def close(self) -> None:
        """Wake all who wait; from now on `acquire` raises ClosedError."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _fits(self, size: int) -> bool:
        return self._held == 0 or (self._held < self.pictures and self._held_bytes + size <= self.size)


def default_bytes() -> int:
    """Bytes that one queue may hold here: a sixteenth of the free memory, from 256 MiB to 8 GiB."""
    import psutil

    return max(256 * _MIB, min(8192 * _MIB, psutil.virtual_memory().available // _RAM_SHARE))


def require_room(path: Path, decoded: int, memory: int) -> None:
    """PictureError where a picture of `decoded` bytes cannot be worked on within `memory` bytes.

    Better one picture refused than the system ending the process, and with it the night's run.
    """
    needed = _WORK_SHARE * decoded
    if needed > memory:
        raise PictureError(
            path, f"needs about {needed / 2**30:.1f} GiB of memory to work on, and {memory / 2**30:.1f} GiB are free"
        )


def decoded_bytes(path: Path, per_pixel: int = WHOLE_BYTES) -> int:
    """Bytes a picture takes once decoded, from its header alone; 0 where the header tells nothing (decoding will)."""
    from lumen_cli.imaging.read import measure_picture

    width, height = measure_picture(path) or (0, 0)
    return width * height * per_pixel
