"""What lumen writes into a picture about itself: its version, the model, the settings; nothing that differs by run."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from lumen_cli import __version__
from lumen_cli.errors import UsageError
from lumen_cli.imaging.tags.rules import Keeping, TagRules

if TYPE_CHECKING:
    from lumen_cli.run.decompose import MapSettings
    from lumen_cli.run.plan import Settings

_DIGITS = 12
"""Of the weights' SHA-256."""
_STAMP = re.compile(
    rb"(?<![^;\0 ])lumen \d[\w.+-]*, model [^;\0\r\n]{1,300}, (?:seed \d+, |decomposed, )[^;\0\r\n]{1,200}(?=[;\0])"
)
_LOOKED_AT = 1 << 18
"""Bytes at a file's beginning and end in which its EXIF is looked for."""


def enhanced_stamp(model: str, settings: Settings) -> str:
    """The stamp of a brightened picture: "lumen 0.1.0, model kind (weights 0123456789ab), seed 0, strength 1, fp32"."""
    return ", ".join(
        (
            _who(model, settings),
            *((f"{settings.steps} steps",) if settings.steps else ()),
            f"seed {settings.seed}",
            f"strength {settings.strength:g}",
            *settings.light,
            *(("whole",) if settings.detail == "whole" else (f"detail {settings.detail}",)),
            _precision(settings),
        )
    )


def rules_for(metadata: Keeping, stamp: str | None, credits: bool = False) -> TagRules:
    """The rules; where no tags are wanted there is no stamp either.

    Raises:
        UsageError: title and rights are asked for (`credits`), but tags are not to be `private`.
    """
    if credits and metadata != "private":
        raise UsageError("--keep-credits adds title and rights to what --metadata private keeps: use both, or neither")
    return TagRules(metadata, None if metadata == "strip" else stamp, credits)


def decomposed_stamp(model: str, settings: MapSettings) -> str:
    """The stamp of a map."""
    return f"{_who(model, settings)}, decomposed, {_precision(settings)}"


def _who(model: str, settings: Settings | MapSettings) -> str:
    weights = f" (weights {settings.weights[:_DIGITS]})" if settings.weights else ""
    return f"lumen {__version__}, model {model}{weights}"


def _precision(settings: Settings | MapSettings) -> str:
    deep = settings.deep_precision
    return settings.precision if deep == settings.precision else f"{settings.precision} (16-bit pictures {deep})"


def _open_untouched(path: Path) -> int:
    """Open a file without moving its time of access, where the system lets its owner do that."""
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        return os.open(path, flags | getattr(os, "O_NOATIME", 0))
    except PermissionError:
        return os.open(path, flags)


def stamp_in(path: Path) -> str | None:
    """The last stamp of lumen's in a picture file; None where none is found near its beginning and end.

    Raises:
        OSError: the file cannot be read.
    """
    with os.fdopen(_open_untouched(path), "rb") as file:
        data = file.read(_LOOKED_AT)
        size = file.seek(0, os.SEEK_END)
        if size > len(data):
            file.seek(max(len(data), size - _LOOKED_AT))
            data += file.read()
    found = _STAMP.findall(data)
    return found[-1].decode("utf-8", "replace") if found else None
