"""How large a picture is, from its header alone."""

from __future__ import annotations

import importlib
import io
import warnings
from pathlib import Path
from typing import BinaryIO

from lumen_cli.imaging.extent import read_picture_bytes

_START = 1 << 16
_READ_WHOLE = ("heif", "avif", "webp")
"""Formats whose libraries read a file whole before they tell its size."""


def size_of(path: Path) -> tuple[int, int] | None:
    """Columns and rows as stored; None where the header does not say, or says it only to a package that is missing.

    Never raises: any fault of the file is the decoder's to report, in its own words.
    """
    from lumen_cli.imaging.read import kind_of

    try:
        with path.open("rb") as file:
            start = file.read(_START)
        kind = kind_of(start, path)
        if kind == "jxl":
            from lumen_cli.imaging.formats.jxl_header import read_head

            head = read_head(start)
            return head.width, head.height
        if kind == "tiff":
            import tifffile

            with tifffile.TiffFile(path) as file:
                page = file.pages.first
                return int(page.imagewidth), int(page.imagelength)
        if kind in _READ_WHOLE:
            with path.open("rb") as opened:
                content = io.BytesIO(read_picture_bytes(opened, kind, None))
            if kind == "heif":
                width, height = importlib.import_module("pillow_heif").open_heif(content).size
                return int(width), int(height)
            return _through_pillow(content)
        if kind == "raw":
            with importlib.import_module("rawpy").RawPy() as raw:
                raw.open_file(str(path))
                return int(raw.sizes.width), int(raw.sizes.height)
        return _through_pillow(path)
    except Exception:
        return None


def _through_pillow(path: Path | io.BytesIO) -> tuple[int, int]:
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path) as picture:
            return picture.size


def picture_bytes(path: Path, kind: str, file: BinaryIO) -> bytes:
    """`read_picture_bytes` of an open file at this path, bounded by what the header says of its size.

    Raises:
        UnreadableError: as there.
        OSError: as there.
    """
    size = None if kind in _READ_WHOLE else size_of(path)
    return read_picture_bytes(file, kind, size and size[0] * size[1])
