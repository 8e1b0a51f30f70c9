"""One finished picture to disk: whole under its final name, with its tags, or not there at all."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lumen_cli.errors import PictureError, UsageError
from lumen_cli.imaging.codec import format_for, losses, write_picture
from lumen_cli.imaging.files import Job, temporary_beside

if TYPE_CHECKING:
    from lumen_cli.imaging.codec import Picture
    from lumen_cli.imaging.metadata import TagWriter


@dataclass(frozen=True)
class Saved:
    """size: bytes of the file; write, tags: seconds; warnings: one line each."""

    size: int
    write: float
    tags: float
    warnings: tuple[str, ...]


def output_format(picture: Picture, target: Path) -> str:
    """The container an output gets: what its suffix says, and the source's own where the suffix says nothing."""
    try:
        return format_for(target)
    except UsageError:
        return picture.format


def save_picture(picture: Picture, job: Job, tags: TagWriter, quality: int | None = None) -> Saved:
    """Encode beside the target, copy the source's tags, flush to the disk, rename.

    Raises:
        PictureError: the disk is full, the folder is gone, an encoder or exiftool refuses; no temporary file is left.
    """
    started = time.perf_counter()
    container = output_format(picture, job.target)
    temporary = temporary_beside(job.target)
    try:
        write_picture(picture, temporary, format=container, quality=quality)
        encoded = time.perf_counter()
        warnings = tags.copy(job.source.path, temporary, picture)
        tagged = time.perf_counter()
        _flush(temporary)
        size = temporary.stat().st_size
        temporary.replace(job.target)
    except OSError as error:
        raise PictureError(job.target, f"cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    lost = [f"{container} cannot hold {what}" for what in losses(picture, container)]
    write = time.perf_counter() - started - (tagged - encoded)
    return Saved(size, write, tagged - encoded, (*lost, *warnings))


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
