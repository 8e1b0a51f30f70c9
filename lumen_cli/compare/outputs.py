"""Where a comparison is written to: named like what it is, over nothing that has to stay."""

from __future__ import annotations

import os
import urllib.parse
from pathlib import Path

from lumen_cli.compare.matching import Matched
from lumen_cli.errors import UsageError
from lumen_cli.files.find import absolute
from lumen_cli.imaging.formats import format_for

PAGE = "compare.html"
SUFFIXES = (".html", ".htm")


def page_target(output: str | None, beside: Path, overwrite: bool) -> Path:
    """The absolute path of the page: `output`, or compare.html in it where it is a folder, or `beside` something.

    Raises:
        UsageError: the name does not end like a page's, or the file exists and `overwrite` is not said.
    """
    if output == "":
        raise UsageError("the page's name is empty")
    if output is None:
        target = beside.parent / PAGE
    else:
        folder = Path(output).is_dir() or output.endswith(tuple(filter(None, (os.sep, os.altsep))))
        target = absolute(output) / PAGE if folder else absolute(output)
    if target.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{output}: the page's name has to end in .html; a contact sheet is named by --sheet")
    _refuse_existing(target, overwrite)
    return target


def sheet_target(name: str, overwrite: bool) -> Path:
    """The absolute path of a contact sheet.

    Raises:
        UsageError: the ending is no picture's, or the file exists and `overwrite` is not said.
    """
    target = absolute(name)
    format_for(target)
    _refuse_existing(target, overwrite)
    return target


def protect_inputs(target: Path, matched: Matched) -> None:
    """UsageError where a contact sheet would replace one of the pictures compared."""
    real = os.path.realpath(target)
    for row in matched.rows:
        if real in map(os.path.realpath, row.files):
            raise UsageError(f"{target}: the sheet would replace a picture that is compared; name another file")


def link(file: Path, folder: Path) -> str:
    """A relative reference from a page in `folder` to a file, percent-encoded.

    Raises:
        UsageError: there is no way from one to the other.
    """
    try:
        relative = os.path.relpath(file, folder)
    except ValueError:
        raise UsageError(f"{file}: lies on another drive than the page in {folder}; leave --linked out") from None
    return urllib.parse.quote(os.fsencode(relative.replace(os.sep, "/")))


def _refuse_existing(target: Path, overwrite: bool) -> None:
    if target.is_dir():
        raise UsageError(f"cannot write {target}: a folder of that name is in the way")
    if target.exists() and not overwrite:
        raise UsageError(f"{target} already exists; --overwrite replaces it")
