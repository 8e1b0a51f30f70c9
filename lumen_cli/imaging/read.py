"""From a file to a `Picture`, or to one clear line that says why not."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import BinaryIO

from lumen_cli.errors import PictureError
from lumen_cli.imaging.formats import MAXIMUM_PIXELS, list_titles, recognise
from lumen_cli.imaging.formats.format import Format, UnreadableError
from lumen_cli.imaging.picture import Picture, make_picture

_OTHER_KINDS = (
    (0, b"%PDF", "a PDF"),
    (0, b"8BPS", "a Photoshop document"),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 picture"),
    (0, b"\x76\x2f\x31\x01", "an OpenEXR picture"),
    (4, b"ftyp", "a video"),
)
"""What lumen does not read: where its mark stands, the mark, and its name."""


def read_picture(path: Path, *, max_pixels: int = MAXIMUM_PIXELS) -> Picture:
    """Read a picture file of any format that lumen reads, whatever its name says it is. Thread-safe.

    All bits are kept; palettes become RGB; the orientation tag is applied. Of several pages, frames or pictures the
    first is read, and `notices` of the result name the others, as they name everything that is left out. A pure
    function of the file: it may run in another process, and its result can be pickled.

    Args:
        path: the file.
        max_pixels: a larger picture is refused from its header, before it is decoded; 0 for no limit.

    Raises:
        PictureError: the file is missing, may not be read, is empty, cut off, damaged, too large, not a picture or of a
            kind that lumen does not read, or an optional package is not installed; one line.
    """
    with _open(path) as file:
        try:
            format = _recognise(path, file)
            return make_picture(format.decode(file, max_pixels), format.name)
        except UnreadableError as error:
            raise PictureError(path, " ".join(str(error).split()), remedy=error.remedy) from None
        except OSError as error:
            raise PictureError(path, f"cannot be read ({error.strerror or error})") from None
        except MemoryError:
            raise PictureError(path, "the picture does not fit into memory") from None


def measure_picture(path: Path) -> tuple[int, int] | None:
    """Columns and rows as stored, from the header; None where that does not say, or needs a missing package to be read.

    Never raises: `read_picture` reports the faults of a file.
    """
    try:
        with path.open("rb") as file:
            format = recognise(file)
            return None if format is None else format.measure(file)
    except Exception:
        return None


def _open(path: Path) -> BinaryIO:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise PictureError(path, "a folder, not a picture")
        if not stat.S_ISREG(mode):
            raise PictureError(path, "not a regular file")
        return path.open("rb")
    except FileNotFoundError:
        reason = "a link that leads nowhere" if path.is_symlink() else "no such file"
        raise PictureError(path, reason) from None
    except PermissionError:
        raise PictureError(path, "may not be read (permission denied)") from None
    except (OSError, ValueError) as error:
        raise PictureError(path, f"cannot be read ({getattr(error, 'strerror', None) or error})") from None


def _recognise(path: Path, file: BinaryIO) -> Format:
    format = recognise(file)
    if format is not None:
        return format
    file.seek(0)
    start = file.read(16)
    if not start:
        raise PictureError(path, "the file is empty")
    other = next((name for at, mark, name in _OTHER_KINDS if start[at:].startswith(mark)), None)
    what = f"{other}, which lumen does not read" if other else "not a picture"
    raise PictureError(path, f"{what} (lumen reads {list_titles()})")
