"""Lists of paths, as editors, `ls` and `find -print0` write them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from lumen_cli.errors import UsageError

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_list(name: str, null: bool = False) -> list[str]:
    """The paths in a list, as they stand there: nothing is expanded, nothing is a comment.

    Args:
        name: the file; "-" is standard input.
        null: whether a NUL byte ends each path, else the end of a line does. Empty ones do not count.

    Raises:
        UsageError: the list cannot be read, or there is no path in it.
    """
    try:
        content = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"--from-file {name}: the list cannot be read ({reason})") from None
    content = content.removeprefix(_BYTE_ORDER_MARK)
    if null:
        paths = content.split(b"\0")
    else:
        if b"\0" in content:
            raise UsageError(f"--from-file {name}: NUL bytes in it; with --null they end the paths")
        paths = [line.removesuffix(b"\r") for line in content.split(b"\n")]
    found = [os.fsdecode(path) for path in paths if path]
    if not found:
        raise UsageError(f"--from-file {name}: no path in it")
    return found
