"""The picture formats. Each is one value, `Format`, in a module of this package.

`FORMATS` lists them without importing them: names and file name endings are all that the command line and the plan of a
run need. A module is imported when a file needs it. A new format is a module and a line in the list.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from lumen_cli.errors import UsageError

if TYPE_CHECKING:
    from lumen_cli.imaging.formats.format import Format


@dataclass(frozen=True)
class Entry:
    """value: the format's module and its name there; endings: of file names, of which outputs get the first; kept_as:
    name of the format that outputs get instead, where lumen does not write this one.
    """

    value: str
    endings: str
    kept_as: str = ""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """The endings in lower case, each with its dot."""
        return tuple(f".{ending}" for ending in self.endings.split())


FORMATS: dict[str, Entry] = {
    "jpeg": Entry("jpeg:JPEG", "jpg jpeg jpe jfif"),
    "png": Entry("png:PNG", "png apng"),
    "webp": Entry("pillow:WEBP", "webp"),
    "raw": Entry(
        "raw:RAW",
        "3fr arw cr2 cr3 crw dcr dng erf fff gpr iiq kdc mef mos mrw nef nrw orf pef raf rw2 rwl sr2 srf srw x3f",
        kept_as="tiff",
    ),
    "tiff": Entry("tiff:TIFF", "tif tiff"),
    "gif": Entry("pillow:GIF", "gif", kept_as="png"),
    "jxl": Entry("jxl:JXL", "jxl"),
    "bmp": Entry("pillow:BMP", "bmp"),
    "avif": Entry("avif:AVIF", "avif"),
    "heif": Entry("heif:HEIF", "heic heif hif"),
}
"""The formats by name, in the order in which files are recognised: raw before TIFF and AVIF before HEIF, which begin
alike."""

SUFFIXES: dict[str, str] = {suffix: name for name, entry in FORMATS.items() for suffix in entry.suffixes}
"""The format that each file name ending stands for, in lower case."""

_CLIP_ENDINGS = "3gp avi flv m2ts m4v mkv mov mp4 mpeg mpg mts nut ogv ts webm wmv y4m"
CLIP_SUFFIXES: frozenset[str] = frozenset(f".{ending}" for ending in _CLIP_ENDINGS.split())
"""File name endings of clips, in lower case, which `imaging/video.py` reads."""

PIPED_CLIPS = {b"YUV4MPEG2 ": ".y4m", b"nut/multimedia container": ".nut"}
"""How clips begin that programs send each other by pipes, and their file name endings."""

MAXIMUM_PIXELS = 250_000_000
"""Larger pictures are refused from their header by default: 3 GB as float32.

The limit is above what cameras make of one exposure (150 megapixels, telephones 200) or of several shifted ones (240).
A damaged or hostile file of a few bytes can claim any size.
"""

DEFAULT_TIMEOUT = 120.0
"""Seconds that a picture may take to decode in a helper process."""

_START = 512
"""Bytes that show what a file is."""


@functools.cache
def load_format(name: str) -> Format:
    """The format of this name; imports its module."""
    module, _, constant = FORMATS[name].value.partition(":")
    format: Format = getattr(importlib.import_module(f"{__name__}.{module}"), constant)
    return format


def find_format(path_or_suffix: str | os.PathLike[str]) -> Format:
    """The format that a path, an ending or a name stands for: "a.JPG", ".jpg", "jpg" and "jpeg" are JPEG.

    Raises:
        UsageError: lumen writes no such format.
    """
    text = os.fspath(path_or_suffix)
    name = Path(text).name.lower()
    for ending in (Path(name).suffix, name, f".{name}"):
        found = SUFFIXES.get(ending, "")
        if found and not FORMATS[found].kept_as:
            return load_format(found)
    written = sorted(name for name, entry in FORMATS.items() if not entry.kept_as)
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
    entry = FORMATS.get(SUFFIXES.get(suffix.lower(), ""))
    return FORMATS[entry.kept_as].suffixes[0] if entry is not None and entry.kept_as else suffix


def is_clip_name(name: str) -> bool:
    """Whether a file name ends like a clip's."""
    return Path(name).suffix.lower() in CLIP_SUFFIXES


ANIMATED_SUFFIXES = (".gif", ".png", ".apng", ".webp", ".avif")
"""File name endings of the animations that lumen writes."""


def is_animated(path: Path) -> bool:
    """Whether a file is an animated picture of a kind that lumen writes too; a look into it where its name allows that.

    False where it cannot be read: reading it reports the fault.
    """
    if path.suffix.lower() not in ANIMATED_SUFFIXES:
        return False
    from lumen_cli.imaging.animation import has_frames

    return has_frames(path)


def require_pyav() -> None:
    """UsageError where PyAV, which reads and writes clips for imageio, is not installed."""
    if importlib.util.find_spec("av") is None:
        raise UsageError("Video files need PyAV: pip install 'lumen-cli[video]'")


def list_titles() -> str:
    """What lumen reads, in words."""
    *titles, last = (load_format(name).title for name in FORMATS)
    return f"{', '.join(titles)} and {last}"
