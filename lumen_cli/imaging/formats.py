"""The picture formats lumen writes, by name and by file name ending."""

from __future__ import annotations

import os
from pathlib import Path

from lumen_cli.errors import UsageError

SUFFIX_FORMATS: dict[str, str] = {
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".png": "png",
    ".webp": "webp",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".bmp": "bmp",
}
FORMAT_SUFFIXES: dict[str, str] = {"jpeg": ".jpg", "png": ".png", "webp": ".webp", "tiff": ".tif", "bmp": ".bmp"}


def format_for(path_or_suffix: str | os.PathLike[str]) -> str:
    """The format a path, an ending or a format's name stands for: "a.JPG", ".jpg", "jpg" and "jpeg" are "jpeg".

    Raises:
        UsageError: the ending is none that lumen writes.
    """
    text = os.fspath(path_or_suffix)
    name = Path(text).name.lower()
    for candidate in (Path(name).suffix, name, f".{name}"):
        if candidate in SUFFIX_FORMATS:
            return SUFFIX_FORMATS[candidate]
    raise UsageError(f"{text}: not a format lumen writes ({', '.join(sorted(FORMAT_SUFFIXES))})")


def suffix_for(format: str) -> str:
    """The usual file name ending of a format: "jpeg" gives ".jpg".

    Raises:
        UsageError: the format is none that lumen writes.
    """
    return FORMAT_SUFFIXES[format_for(format)]
