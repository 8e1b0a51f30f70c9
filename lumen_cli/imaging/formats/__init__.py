"""The picture formats lumen reads and writes: names, file name endings, and what a file of each can hold."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from lumen_cli.errors import UsageError

SUFFIX_FORMATS: dict[str, str] = {
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".jpe": "jpeg",
    ".jfif": "jpeg",
    ".png": "png",
    ".apng": "png",
    ".webp": "webp",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".bmp": "bmp",
    ".avif": "avif",
    ".heic": "heif",
    ".heif": "heif",
    ".hif": "heif",
    ".jxl": "jxl",
}
FORMAT_SUFFIXES: dict[str, str] = {
    "jpeg": ".jpg",
    "png": ".png",
    "webp": ".webp",
    "tiff": ".tif",
    "bmp": ".bmp",
    "avif": ".avif",
    "heif": ".heic",
    "jxl": ".jxl",
}

_RAW = "3fr arw cr2 cr3 crw dcr dng erf fff gpr iiq kdc mef mos mrw nef nrw orf pef raf rw2 rwl sr2 srf srw x3f"
RAW_SUFFIXES: frozenset[str] = frozenset(f".{name}" for name in _RAW.split())
"""Camera raw files, in lower case. They are read, never written: see `kept_suffix`."""

READ_SUFFIXES: frozenset[str] = frozenset({*SUFFIX_FORMATS, ".gif", *RAW_SUFFIXES})
"""Every file name ending that stands for a picture lumen reads, in lower case."""

MAXIMUM_PIXELS = 250_000_000
"""Where a picture is refused from its header, unless the user says otherwise: 3 GB as float32.

Above what cameras make of one exposure (150 megapixels, telephones 200) or of several shifted ones (240); a damaged or
hostile file of a few bytes can claim any size.
"""

READ_FORMATS = "JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF, HEIC, JPEG XL and camera raw files"
"""What lumen reads, in words."""

DEEPEST_BITS: dict[str, int] = {
    "jpeg": 8,
    "png": 16,
    "webp": 8,
    "tiff": 32,
    "bmp": 8,
    "avif": 12,
    "heif": 12,
    "jxl": 16,
}
"""The most bits a channel that lumen writes in each format; 32 stands for floating point."""

TRANSPARENT: frozenset[str] = frozenset({"png", "tiff", "webp", "bmp", "avif", "heif", "jxl"})
"""Formats that hold alpha."""

LARGEST_SIDE: dict[str, int] = {"jpeg": 65500, "webp": 16383, "avif": 65536, "heif": 32768}
"""Pixels a side, where the format or its encoder ends before memory does."""


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


_PACKAGES = {"heif": ("pillow_heif", "pillow-heif", "heif"), "jxl": ("pyjpegxl", "pyjpegxl", "jxl")}


def require_writable(format: str) -> None:
    """UsageError before any work, where a format that is asked for needs a package that is not installed."""
    module, package, name = _PACKAGES.get(format, ("", "", ""))
    if module and importlib.util.find_spec(module) is None:
        raise UsageError(f"{FORMAT_SUFFIXES[format][1:]} files need {package}: pip install 'lumen-cli[{name}]'")


def kept_format(format: str) -> str:
    """The format in which a picture is written that was read from this one and keeps its own, as in `kept_suffix`."""
    return {"raw": "tiff", "gif": "png"}.get(format, format)


def kept_suffix(suffix: str) -> str:
    """The ending a result has when each picture keeps its own.

    What lumen reads but cannot write becomes what loses nothing of it: camera raw files 16-bit TIFF, GIF PNG.
    """
    if suffix.lower() in RAW_SUFFIXES:
        return ".tif"
    return ".png" if suffix.lower() == ".gif" else suffix
