"""Which pictures a command line means: files, folders and patterns to one deterministic list."""

from __future__ import annotations

import difflib
import fnmatch
import glob
import logging
import os
import re
import stat
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lumen_cli.errors import UsageError
from lumen_cli.imaging.formats import RAW_SUFFIXES, READ_SUFFIXES


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


PICTURE_SUFFIXES: frozenset[str] = READ_SUFFIXES
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
    label: str | None = None
    """What people and programs know it by where that is not its path: "-" for a picture from standard input."""


@dataclass(frozen=True)
class Trouble:
    """Something that was asked for, or looks like a picture, and cannot be worked on. reason: why, in one line."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Found:
    """What inputs stand for. outside: links that lead out of the folder they are in, and were not followed."""

    sources: tuple[Source, ...]
    troubles: tuple[Trouble, ...] = ()
    outside: tuple[Path, ...] = ()


def find_pictures(inputs: Sequence[str | os.PathLike[str]]) -> list[Source]:
    """The pictures that files, folders and patterns stand for, links followed; see `search`.

    Raises:
        UsageError: an input does not exist, is neither file nor folder, or nothing was found.
    """
    found = search(inputs, follow_links=True)
    for trouble in found.troubles:
        log.warning("%s: %s; skipped", trouble.path, trouble.reason)
    if not found.sources:
        raise UsageError(f"no pictures found in {', '.join(os.fspath(given) for given in inputs)}")
    return list(found.sources)


def search(
    inputs: Sequence[str | os.PathLike[str]],
    listed: Sequence[str] = (),
    *,
    follow_links: bool = False,
    may_be_none: bool = False,
) -> Found:
    """Find the pictures that files, folders and patterns stand for.

    Folders are searched to the bottom, each real folder once; hidden files and folders are left out, lumen's own
    temporary files with them. A pattern the shell did not expand is expanded here, `**` too. In folders and patterns
    a file counts by its ending (`PICTURE_SUFFIXES`); a file named directly always counts.

    Args:
        inputs: what the command line names. One that is missing is a slip, and ends it.
        listed: paths from a list, taken as they stand. One that is missing is a trouble of its own.
        follow_links: whether links inside a folder count that lead out of it. What is named itself is always followed.
        may_be_none: whether nothing found is an answer.

    Returns:
        Each real file once, in natural order of the relative path (`img2` before `img10`), however `inputs` come.

    Raises:
        UsageError: an input does not exist, is neither file nor folder, or nothing was found.
    """
    if not inputs and not listed and not may_be_none:
        raise UsageError("no input given: name pictures, folders or patterns")
    looking = _Looking(follow_links)
    found = [source for given in inputs for source in _expand(os.fspath(given), looking)]
    for given in listed:
        try:
            found += _expand(given, looking, patterns=False)
        except UsageError as error:
            looking.troubles.append(Trouble(absolute(given), str(error).removeprefix(f"{given}: ")))
    if not found and not looking.troubles and not may_be_none:
        named = [*(os.fspath(given) for given in inputs), *listed]
        endings = [*sorted(PICTURE_SUFFIXES - RAW_SUFFIXES), "and camera raw files"]
        raise UsageError(nothing_found(named, endings, looking.others, looking.outside))
    return Found(tuple(sorted(_once_each(found), key=_order)), tuple(looking.troubles), tuple(sorted(looking.outside)))


@dataclass
class _Looking:
    """What comes to light on the way. others: files that are no pictures, by their ending."""

    follow_links: bool
    others: Counter[str] = field(default_factory=Counter)
    troubles: list[Trouble] = field(default_factory=list)
    outside: list[Path] = field(default_factory=list)


def absolute(path: str | os.PathLike[str]) -> Path:
    """The absolute path. Links stay, except where `..` makes only the followed path true."""
    if os.pardir in Path(path).parts:
        return Path(os.path.realpath(path))
    return Path(os.path.abspath(path))  # noqa: PTH100  (Path.absolute keeps "." parts of the working folder's spelling)


def is_picture_name(name: str) -> bool:
    """Whether a file name ends like a picture's; `.jpg` alone is a hidden file without ending."""
    return os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES  # noqa: PTH122  (bytes-safe, keeps odd names as they are)


def _expand(given: str, looking: _Looking, patterns: bool = True) -> Iterator[Source]:
    if not given:
        raise UsageError("an empty name was given as input")
    try:
        mode = Path(given).stat().st_mode
    except (OSError, ValueError) as error:
        if patterns and glob.has_magic(given) and not os.path.lexists(given):
            yield from _expand_pattern(given, looking)
            return
        raise UsageError(missing(given, absolute(given), error)) from None
    path = absolute(given)
    if stat.S_ISDIR(mode):
        yield from _search(path, looking)
    elif stat.S_ISREG(mode):
        yield Source(path, None, Path(path.name))
    else:
        raise UsageError(f"{given}: neither a file nor a folder; a picture from a pipe is read with - as INPUT")


def _expand_pattern(pattern: str, looking: _Looking) -> Iterator[Source]:
    """A pattern as the shell would have expanded it; with `**` the part before it counts as the folder searched."""
    parts = Path(pattern).parts
    if "**" in parts:
        first = next(i for i, part in enumerate(parts) if glob.has_magic(part))
        root = absolute(Path(*parts[:first]) if first else Path.cwd())
        if root.is_dir():
            yield from (s for s in _search(root, looking) if _matches(s.relative.parts, parts[first:]))
        return
    for match in glob.glob(pattern):  # noqa: PTH207  (Path.glob has no absolute patterns)
        path = absolute(match)
        if path.is_dir():
            yield from _search(path, looking)
        elif path.is_file() and is_picture_name(path.name):
            yield Source(path, None, Path(path.name))
        else:
            looking.others[path.suffix.lower()] += 1


def _matches(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    """Whether a relative path fits a pattern, `**` standing for any number of folders."""
    if not patterns:
        return not parts
    if patterns[0] == "**":
        if len(patterns) == 1:
            return bool(parts)
        return any(_matches(parts[i:], patterns[1:]) for i in range(len(parts)))
    return bool(parts) and fnmatch.fnmatch(parts[0], patterns[0]) and _matches(parts[1:], patterns[1:])


def _search(root: Path, looking: _Looking) -> Iterator[Source]:
    """Every picture below `root`; a folder reached twice through links is searched once, so loops end."""
    seen: set[tuple[int, int]] = set()
    real_root = os.path.realpath(root)

    def cannot_open(error: OSError) -> None:
        if error.filename == str(root):
            raise UsageError(f"{root}: the folder cannot be opened ({error.strerror})")
        looking.troubles.append(Trouble(Path(error.filename), f"the folder cannot be opened ({error.strerror})"))

    for folder, folders, names in os.walk(root, followlinks=looking.follow_links, onerror=cannot_open):
        here = Path(folder)
        try:
            status = here.stat()
        except OSError as error:  # gone since it was listed
            cannot_open(error)
            folders.clear()
            continue
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        # Real folders before links to them, so that a picture keeps its real place in the tree.
        folders[:] = sorted(
            (name for name in folders if not name.startswith(".")), key=lambda name: ((here / name).is_symlink(), name)
        )
        if not looking.follow_links:
            looking.outside += [here / name for name in folders if _leads_out(here / name, real_root)]
        for name in sorted(names):
            if name.startswith("."):
                continue
            path = here / name
            if not is_picture_name(name):
                looking.others[path.suffix.lower()] += 1
            elif not looking.follow_links and _leads_out(path, real_root):
                looking.outside.append(path)
            elif _is_special(path):
                looking.troubles.append(Trouble(path, "a pipe or a device, not a file"))
            else:  # a link that leads nowhere as well: it is reported when it is read
                yield Source(path, root, path.relative_to(root))


def _leads_out(path: Path, real_root: str) -> bool:
    """Whether a link leads to something that is there, outside the folder."""
    if not path.is_symlink():
        return False
    real = os.path.realpath(path)
    return os.path.lexists(real) and not Path(real).is_relative_to(real_root)


def _is_special(path: Path) -> bool:
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


def _once_each(found: Iterable[Source]) -> list[Source]:
    """The same real file once: found in the widest folder rather than named, itself rather than through a link."""

    def preference(source: Source) -> tuple[bool, bool, int, tuple[object, ...]]:
        depth = len(source.root.parts) if source.root else 0
        return source.root is None, source.path.is_symlink(), depth, _order(source)

    kept: dict[object, Source] = {}
    for source in sorted(found, key=preference):
        kept.setdefault(_real_file(source.path), source)
    return list(kept.values())


def _real_file(path: Path) -> object:
    """What tells a file from others: its number, as spellings differ where case does not count; hard links by name."""
    try:
        status = path.stat()
    except OSError:
        return os.path.realpath(path)
    single = status.st_nlink == 1 and status.st_ino
    return (status.st_dev, status.st_ino) if single else os.path.realpath(path)


def _order(source: Source) -> tuple[object, ...]:
    return natural_key(source.relative), os.fsencode(source.relative), os.fsencode(source.path)


def natural_key(path: Path) -> tuple[tuple[tuple[int, int, str], ...], ...]:
    """Sorting key, folder by folder, in which numbers count by value and case does not count."""

    def pieces(part: str) -> tuple[tuple[int, int, str], ...]:
        text = unicodedata.normalize("NFC", part).casefold()
        found = re.findall(r"([0-9]+)|([^0-9]+)", text)
        return tuple((0, int(number[:4000]), "") if number else (1, 0, letters) for number, letters in found)

    return tuple(pieces(part) for part in path.parts)


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
