"""Whether a disk has room, asked by writing: quotas and reserves show in no count of free blocks."""

from __future__ import annotations

import os
from pathlib import Path

from lumen_cli.imaging.temporaries import temporary_beside

_PORTION = 1 << 20


def require_room(folder: Path, size: int) -> None:
    """Write `size` bytes into a folder and take them away again; OSError where they find no room."""
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
