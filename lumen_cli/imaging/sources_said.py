"""What is said of inputs that are not there, or hold no pictures."""

from __future__ import annotations

import difflib
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path


def missing(given: str, path: Path, error: OSError | ValueError) -> str:
    """Why an input cannot be used, and what name may have been meant. path: the absolute one of what was `given`."""
    if isinstance(error, PermissionError):
        return f"{given}: may not be read (permission denied)"
    if os.path.islink(given):  # noqa: PTH114
        return f"{given}: a link that leads nowhere"
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        return f"{given}: cannot be opened ({getattr(error, 'strerror', None) or error})"
    first = next((p for p in [*reversed(path.parents), path] if not p.exists()), path)
    where = "" if first == path else f" ({first} does not exist)"
    try:
        names = [name for name in os.listdir(first.parent) if not name.startswith(".")]  # noqa: PTH208
    except OSError:
        names = []
    by_folded = {name.casefold(): name for name in sorted(names)}
    near = difflib.get_close_matches(first.name.casefold(), list(by_folded), n=1, cutoff=0.6)
    hint = f"; did you mean {first.parent / by_folded[near[0]]}?" if near else ""
    return f"{given}: no such file or folder{where}{hint}"


def nothing_found(given: Sequence[str], endings: Sequence[str], others: Counter[str], outside: Sequence[Path]) -> str:
    """That there are no pictures, what was looked for, and what was there instead."""
    places = ", ".join(given[:3]) + (f" and {len(given) - 3} more" if len(given) > 3 else "")
    text = f"no pictures found in {places}: looked for {' '.join(endings)} (hidden files and folders left out)"
    if others:
        kinds = ", ".join(f"{count} × {suffix or 'no ending'}" for suffix, count in others.most_common(4))
        text += f"; other files there: {kinds}"
    if outside:
        text += f"; links that lead elsewhere ({outside[0].name}, …) are followed with --follow-links"
    return text
