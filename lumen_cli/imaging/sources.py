"""Which pictures a command line means: files, folders and patterns to one deterministic list."""

from __future__ import annotations

import difflib
import fnmatch
import glob
import logging
import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lumen_cli.errors import UsageError

PICTURE_SUFFIXES: frozenset[str] = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp"})
"""File name endings lumen looks for in folders, in lower case; upper case counts as well."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """One picture to read, and where it belongs in a mirrored tree."""

    path: Path
    """Absolute path, links not followed."""
    root: Path | None
    """Absolute folder it was found under; None when it was named directly."""
    relative: Path
    """Path below `root`, or the bare file name."""


def find_pictures(inputs: Sequence[str | os.PathLike[str]]) -> list[Source]:
    """Find the pictures that files, folders and patterns stand for.

    Folders are searched to the bottom, links to folders included (each real folder once); hidden files and folders are
    left out, lumen's own temporary files with them. A pattern the shell did not expand is expanded here, `**` too. In
    folders and patterns a file counts by its ending (`PICTURE_SUFFIXES`); a file named directly always counts.

    Returns:
        Each real file once, in natural order of the relative path (`img2` before `img10`), however `inputs` come.

    Raises:
        UsageError: an input does not exist, is neither file nor folder, or nothing was found.
    """
    if not inputs:
        raise UsageError("no input given: name pictures, folders or patterns")
    others: Counter[str] = Counter()
    found = [source for given in inputs for source in _expand(os.fspath(given), others)]
    if not found:
        raise UsageError(_nothing_found([os.fspath(given) for given in inputs], others))
    return sorted(_once_each(found), key=_order)


def absolute(path: str | os.PathLike[str]) -> Path:
    """The absolute path. Links stay, except where `..` makes only the followed path true."""
    if os.pardir in Path(path).parts:
        return Path(os.path.realpath(path))
    return Path(os.path.abspath(path))  # noqa: PTH100  (Path.absolute keeps "." parts of the working folder's spelling)


def is_picture_name(name: str) -> bool:
    """Whether a file name ends like a picture's; `.jpg` alone is a hidden file without ending."""
    return os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES  # noqa: PTH122  (bytes-safe, keeps odd names as they are)


def _expand(given: str, others: Counter[str]) -> Iterator[Source]:
    if not given:
        raise UsageError("an empty name was given as input")
    try:
        mode = Path(given).stat().st_mode
    except (OSError, ValueError) as error:
        if glob.has_magic(given) and not os.path.lexists(given):
            yield from _expand_pattern(given, others)
            return
        raise UsageError(_missing(given, error)) from None
    path = absolute(given)
    if stat.S_ISDIR(mode):
        yield from _search(path, others)
    elif stat.S_ISREG(mode):
        yield Source(path, None, Path(path.name))
    else:
        raise UsageError(f"{given}: neither a file nor a folder")


def _expand_pattern(pattern: str, others: Counter[str]) -> Iterator[Source]:
    """A pattern as the shell would have expanded it; with `**` the part before it counts as the folder searched."""
    parts = Path(pattern).parts
    if "**" in parts:
        first = next(i for i, part in enumerate(parts) if glob.has_magic(part))
        root = absolute(Path(*parts[:first]) if first else Path.cwd())
        if root.is_dir():
            yield from (s for s in _search(root, others) if _matches(s.relative.parts, parts[first:]))
        return
    for match in glob.glob(pattern):  # noqa: PTH207  (Path.glob has no absolute patterns)
        path = absolute(match)
        if path.is_dir():
            yield from _search(path, others)
        elif path.is_file() and is_picture_name(path.name):
            yield Source(path, None, Path(path.name))
        else:
            others[path.suffix.lower()] += 1


def _matches(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    """Whether a relative path fits a pattern, `**` standing for any number of folders."""
    if not patterns:
        return not parts
    if patterns[0] == "**":
        if len(patterns) == 1:
            return bool(parts)
        return any(_matches(parts[i:], patterns[1:]) for i in range(len(parts)))
    return bool(parts) and fnmatch.fnmatch(parts[0], patterns[0]) and _matches(parts[1:], patterns[1:])


def _search(root: Path, others: Counter[str]) -> Iterator[Source]:
    """Every picture below `root`; a folder reached twice through links is searched once, so loops end."""
    seen: set[tuple[int, int]] = set()

    def cannot_open(error: OSError) -> None:
        if error.filename == str(root):
            raise UsageError(f"{root}: the folder cannot be opened ({error.strerror})")
        log.warning("%s: the folder cannot be opened (%s); skipped", error.filename, error.strerror)

    for folder, folders, names in os.walk(root, followlinks=True, onerror=cannot_open):
        here = Path(folder)
        status = here.stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        # Real folders before links to them, so that a picture keeps its real place in the tree.
        folders[:] = sorted(
            (name for name in folders if not name.startswith(".")), key=lambda name: ((here / name).is_symlink(), name)
        )
        for name in sorted(names):
            if name.startswith("."):
                continue
            path = here / name
            if not is_picture_name(name):
                others[path.suffix.lower()] += 1
            elif path.is_file() or path.is_symlink():  # a link that leads nowhere is reported when it is read
                yield Source(path, root, path.relative_to(root))


def _once_each(found: Iterable[Source]) -> list[Source]:
    """The same real file once: found in the widest folder rather than named, itself rather than through a link."""

    def preference(source: Source) -> tuple[bool, bool, int, tuple[object, ...]]:
        depth = len(source.root.parts) if source.root else 0
        return source.root is None, source.path.is_symlink(), depth, _order(source)

    kept: dict[str, Source] = {}
    for source in sorted(found, key=preference):
        kept.setdefault(os.path.realpath(source.path), source)
    return list(kept.values())


def _order(source: Source) -> tuple[object, ...]:
    return natural_key(source.relative), os.fsencode(source.relative), os.fsencode(source.path)


def natural_key(path: Path) -> tuple[tuple[tuple[int, int, str], ...], ...]:
    """Sorting key, folder by folder, in which numbers count by value and case does not count."""

    def pieces(part: str) -> tuple[tuple[int, int, str], ...]:
        text = unicodedata.normalize("NFC", part).casefold()
        found = re.findall(r"([0-9]+)|([^0-9]+)", text)
        return tuple((0, int(number[:4000]), "") if number else (1, 0, letters) for number, letters in found)

    return tuple(pieces(part) for part in path.parts)


def _missing(given: str, error: OSError | ValueError) -> str:
    if isinstance(error, PermissionError):
        return f"{given}: may not be read (permission denied)"
    if os.path.islink(given):  # noqa: PTH114
        return f"{given}: a link that leads nowhere"
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        return f"{given}: cannot be opened ({getattr(error, 'strerror', None) or error})"
    path = absolute(given)
    missing = next((p for p in [*reversed(path.parents), path] if not p.exists()), path)
    where = "" if missing == path else f" ({missing} does not exist)"
    try:
        names = [name for name in os.listdir(missing.parent) if not name.startswith(".")]  # noqa: PTH208
    except OSError:
        names = []
    by_folded = {name.casefold(): name for name in sorted(names)}
    near = difflib.get_close_matches(missing.name.casefold(), list(by_folded), n=1, cutoff=0.6)
    hint = f"; did you mean {missing.parent / by_folded[near[0]]}?" if near else ""
    return f"{given}: no such file or folder{where}{hint}"


def _nothing_found(given: Sequence[str], others: Counter[str]) -> str:
    places = ", ".join(given[:3]) + (f" and {len(given) - 3} more" if len(given) > 3 else "")
    endings = " ".join(sorted(PICTURE_SUFFIXES))
    text = f"no pictures found in {places}: looked for {endings} (hidden files and folders left out)"
    if others:
        kinds = ", ".join(f"{count} × {suffix or 'no ending'}" for suffix, count in others.most_common(4))
        text += f"; other files there: {kinds}"
    return text
