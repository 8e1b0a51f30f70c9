"""The picture formats. Each is one value, `Format`, in a module of this package.

`FORMATS` lists them without importing them: names and file name endings are all that the command line needs at its
start. A module is imported when a file needs it. A new format is a module and a line in the list.
"""

from __future__ import annotations

import functools
import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from lumen_cli.errors import UsageError

if TYPE_CHECKING:
    from lumen_cli.imaging.formats.format import Format

FORMATS: dict[str, tuple[str, str]] = {
    "jpeg": ("jpeg:JPEG", ".jpg .jpeg .jpe .jfif"),
    "png": ("png:PNG", ".png .apng"),
    "webp": ("pillow:WEBP", ".webp"),
    "raw": (
        "raw:RAW",
        ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .fff .gpr .iiq .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf .rw2 .rwl"
        " .sr2 .srf .srw .x3f",
    ),
    "tiff": ("tiff:TIFF", ".tif .tiff"),
    "gif": ("pillow:GIF", ".gif"),
    "jxl": ("jxl:JXL", ".jxl"),
    "bmp": ("pillow:BMP", ".bmp"),
    "avif": ("avif:AVIF", ".avif"),
    "heif": ("heif:HEIF", ".heic .heif .hif"),
}
"""Name: the value's module and name, and the file name endings, of which outputs get the first.

The order is that in which a file is recognised: raw before TIFF and AVIF before HEIF, which begin alike.
"""

SUFFIXES: dict[str, str] = {suffix: name for name, (_, suffixes) in FORMATS.items() for suffix in suffixes.split()}
"""The format that each file name ending stands for, in lower case."""

MAXIMUM_PIXELS = 250_000_000
"""Larger pictures are refused from their header by default: 3 GB as float32.

The limit is above what cameras make of one exposure (150 megapixels, telephones 200) or of several shifted ones (240).
A damaged or hostile file of a few bytes can claim any size.
"""

_START = 512
"""Bytes that show what a file is."""


@functools.cache
def load_format(name: str) -> Format:
    """The format of this name; imports its module."""
    module, _, constant = FORMATS[name][0].partition(":")
    format: Format = getattr(importlib.import_module(f"{__name__}.{module}"), constant)
    return format


def find_format(path_or_suffix: str | os.PathLike[str]) -> Format:
    """The format that a path, an ending or a name stands for: "a.JPG", ".jpg", "jpg" and "jpeg" are JPEG.

    Raises:
        UsageError: lumen writes no such format.
    """
    text = os.fspath(path_or_suffix)
    name = Path(text).name.lower()
    for ending in (Path(text).suffix, name, f".{name}"):
        found = SUFFIXES.get(ending.lower())
        if found is not None and (format := load_format(found)).encode is not None:
            return format
    written = sorted(name for name in FORMATS if load_format(name).encode is not None)
    raise UsageError(f"{text}: not a format lumen writes ({', '.join(written)})")


def recognise(file: BinaryIO) -> Format | None:
    """The format of an open file by its content; None where lumen reads no such format."""
    file.seek(0)
    start = file.read(_START)
    for name in FORMATS:
        format = load_format(name)
        if format.accepts(start) and (format.confirms is None or format.confirms(file)):
            return format
    return None


def keep_suffix(suffix: str) -> str:
    """The ending of an output that keeps its format: another one only where lumen does not write the format."""
    name = SUFFIXES.get(suffix.lower())
    kept_as = name and load_format(name).kept_as
    return load_format(kept_as).suffix if kept_as else suffix


def list_titles() -> str:
    """What lumen reads, in words."""
    *titles, last = (load_format(name).title for name in FORMATS)
    return f"{', '.join(titles)} and {last}"
