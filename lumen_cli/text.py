"""Names, sizes and times as people read them."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path


def printable(text: str | Path) -> str:
    """Text on one line that cannot steer a terminal: control characters and undecodable bytes become escapes."""
    text = str(text)
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape", "surrogatepass").decode("ascii")
        for character in text
    )


def short_path(path: Path) -> str:
    """The path relative to the working folder where it lies below it, printable."""
    try:
        here = os.path.join(os.getcwd(), "")  # noqa: PTH109, PTH118  (strings: a plan has a line for each picture)
    except OSError:
        return printable(path)
    return printable(str(path).removeprefix(here) if path != Path(here) else ".")


def short_folder(path: Path) -> str:
    """Like `short_path`, with the separator that says "folder"."""
    return short_path(path).rstrip(os.sep) + os.sep


def duration(seconds: float) -> str:
    """0.0123 → "12 ms", 1.5 → "1.50 s", 75 → "1 min 15 s", 3700 → "1 h 01 min"."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def memory(size: int) -> str:
    """Bytes in binary units: 812 MiB, 3.4 GiB."""
    if size < 1 << 20:
        return f"{size / (1 << 10):.0f} KiB"
    return f"{size / (1 << 20):.0f} MiB" if size < 1 << 30 else f"{size / (1 << 30):.1f} GiB"


def with_options(message: str, remedy: str) -> str:
    """A message with the arguments that would help, spelled as options: "… (see --max-pixels)"."""
    if not remedy:
        return message
    named = (argument.partition("=") for argument in remedy.split(", "))
    options = ("--" + f"{name.replace('_', '-')} {value}".rstrip() for name, _, value in named)
    return f"{message} (see {', '.join(options)})"


def nearest(name: str, known: Iterable[str], cutoff: float = 0.5) -> str | None:
    """The known name that is most similar to a misspelled one; None where none is similar."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)), None)


def did_you_mean(name: str | None) -> str:
    """A hint for the end of an error: " Did you mean psnr?", or nothing."""
    return f" Did you mean {name}?" if name else ""


def join_first(names: Sequence[str], most: int = 3) -> str:
    """The first names of a list.

    >>> join_first(["a", "b", "c", "d"])
    'a, b, c, …'
    """
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


def count(number: int, one: str, many: str | None = None) -> str:
    """1 picture, 2 pictures."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def parameters(number: int | None) -> str:
    """5648813 → "5.6 M"."""
    if number is None:
        return "–"
    return f"{number / 1e6:.1f} M" if number >= 100_000 else f"{number / 1e3:.1f} k" if number >= 1000 else str(number)
