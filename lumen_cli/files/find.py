"""Find the input pictures: files, folders, patterns and lists become one list in a fixed order."""

from __future__ import annotations

import fnmatch
import glob
import logging
import os
import stat
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lumen_cli.errors import UsageError
from lumen_cli.files import Source, in_order, is_tar_name, suffix_of
from lumen_cli.files.places import ObjectPath, is_address, mask, parse_address
from lumen_cli.imaging.formats import SUFFIXES, is_clip_name, list_titles
from lumen_cli.text import nearest

PICTURE_SUFFIXES: frozenset[str] = frozenset(SUFFIXES)
"""File name endings that count as pictures in folders, in lower case; upper case counts too."""

PAGE_FOLDER, PAGE_MARK = "-pictures", "lumen-page.txt"
"""How the name of a folder with the pictures of a page ends, and the file in it that says so."""

log = logging.getLogger(__name__)


class Trouble(NamedTuple):
    """An input, or a file that looks like a picture, that cannot be processed, and why, in one line."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Found:
    """What inputs stand for."""

    sources: tuple[Source, ...]
    troubles: tuple[Trouble, ...] = ()
    outside: tuple[Path, ...] = ()
    """Links that lead out of their folder and were not followed."""


def find_pictures(inputs: Sequence[str | os.PathLike[str]]) -> list[Source]:
    """The pictures that files, folders and patterns stand for, links followed; see `search`.

    Raises:
        UsageError: an input does not exist, lies in a store, is neither file nor folder, or nothing was found.
    """
    for given in inputs:
        if is_address(given):
            raise UsageError(f"{mask(os.fspath(given))}: only enhance and decompose read stores; copy it to a folder")
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
    clips: bool = False,
    tars: bool = False,
) -> Found:
    """Find the pictures that files, folders and patterns stand for.

    Folders are searched to the bottom, each real folder once, without hidden files and folders (lumen's own temporary
    files are hidden). A pattern that the shell did not expand is expanded here, also `**`. In folders and patterns a
    file counts by its ending (`PICTURE_SUFFIXES`); a file named directly always counts.

    Args:
        inputs: files, folders and patterns. A missing one is an error.
        listed: paths from a list, not expanded. A missing one is only a trouble.
        follow_links: whether to follow links inside a folder that lead out of it. An input itself may be a link.
        may_be_none: whether it is fine to find nothing.
        clips: whether clips count too, by their ending.
        tars: whether tar files count, and nothing else.

    Returns:
        Each real file once, in natural order of the relative path (`img2` before `img10`), whatever the order of
        `inputs`.

    Raises:
        UsageError: an input does not exist, is neither file nor folder, or nothing was found.
    """
    if not inputs and not listed and not may_be_none:
        raise UsageError("no input given: name pictures, folders or patterns")
    looking = _Search(follow_links, clips, tars)
    if any(is_address(given) for given in listed):
        from lumen_cli.files.find_objects import look_ahead

        look_ahead(listed)
    found = [source for given in inputs for source in looking.expand(os.fspath(given))]
    for given in listed:
        try:
            found += looking.expand(given, patterns=False)
        except UsageError as error:
            place = ObjectPath(mask(given)) if is_address(given) else absolute(given)
            looking.troubles.append(Trouble(place, error.message.removeprefix(f"{mask(given)}: ")))
    if not found and not looking.troubles and not may_be_none:
        raise looking.explain_nothing([*(os.fspath(given) for given in inputs), *listed])
    sources = in_order(found if looking.each_once else _once_each(found))
    return Found(tuple(sources), tuple(looking.troubles), tuple(sorted(looking.outside)))


class _Search:
    """One search, and what it meets besides pictures."""

    def __init__(self, follow_links: bool, clips: bool, tars: bool) -> None:
        self.follow_links, self.clips, self.tars = follow_links, clips, tars
        self.others = Counter[str]()
        """Files that are not pictures, by their ending."""
        self.troubles: list[Trouble] = []
        self.outside: list[Path] = []
        self.each_once = True
        """Whether it found each file once: it searched one folder, and no link in it leads to a picture or folder."""
        self._folders = 0

    def expand(self, given: str, patterns: bool = True) -> Iterator[Source]:
        """The pictures that one input stands for."""
        if not given:
            raise UsageError("an empty name was given as input")
        if is_address(given):
            from lumen_cli.files.find_objects import expand_address

            yield from expand_address(given, patterns, self._counts, self.troubles, self.others)
            return
        try:
            mode = Path(given).stat().st_mode
        except (OSError, ValueError) as error:
            if patterns and glob.has_magic(given) and not os.path.lexists(given):
                yield from self._expand_pattern(given)
                return
            raise UsageError(explain_missing(given, absolute(given), error)) from None
        path = absolute(given)
        if stat.S_ISDIR(mode):
            yield from self._walk(path)
        elif stat.S_ISREG(mode):
            self.each_once = False
            yield Source(path, None, Path(path.name))
        else:
            raise UsageError(f"{given}: neither a file nor a folder; the input - reads a picture from a pipe")

    def _expand_pattern(self, pattern: str) -> Iterator[Source]:
        """A pattern as the shell would have expanded it; with `**` the part before it counts as the folder searched."""
        parts = Path(pattern).parts
        if "**" in parts:
            first = next(i for i, part in enumerate(parts) if glob.has_magic(part))
            root = absolute(Path(*parts[:first]) if first else Path.cwd())
            if root.is_dir():
                yield from (s for s in self._walk(root) if matches(s.relative.parts, parts[first:]))
            return
        for match in glob.glob(pattern):  # noqa: PTH207  (Path.glob has no absolute patterns)
            path = absolute(match)
            if path.is_dir():
                yield from self._walk(path)
            elif path.is_file() and self._counts(path.name):
                self.each_once = False
                yield Source(path, None, Path(path.name))
            else:
                self.others[path.suffix.lower()] += 1

    def _walk(self, root: Path) -> Iterator[Source]:
        """Every picture below `root`; a folder reached twice through links is searched once, so loops end."""
        self._folders += 1
        self.each_once &= self._folders == 1
        seen: set[tuple[int, int]] = set()
        real_root = os.path.realpath(root)

        def fail(error: OSError) -> None:
            if error.filename == str(root):
                raise UsageError(f"{root}: the folder cannot be opened ({error.strerror})")
            self.troubles.append(Trouble(Path(error.filename), f"the folder cannot be opened ({error.strerror})"))

        waiting = [root]
        while waiting:
            here = waiting.pop()
            try:
                with os.scandir(str(here)) as listing:
                    entries = sorted(listing, key=lambda entry: entry.name)
                status = os.stat(str(here))  # noqa: PTH116  (its error has the name as text, as that of scandir)
            except OSError as error:  # also deleted since it was listed
                fail(error)
                continue
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            below = here.relative_to(root)
            folders = []
            for entry in entries:
                name = entry.name
                if _is_folder(entry):
                    if not name.startswith(".") and not _is_of_a_page(here / name):
                        folders.append(entry)
                elif name.startswith("."):
                    continue
                elif not self._counts(name):
                    self.others[suffix_of(name).lower()] += 1
                elif entry.is_file(follow_symlinks=False):
                    yield Source.within(here, name, root, below)
                elif not self.follow_links and _leads_out(here / name, real_root):
                    self.outside.append(here / name)
                elif _is_special(here / name):
                    self.troubles.append(Trouble(here / name, "a pipe or a device, not a file"))
                else:  # also a link that leads nowhere: it is reported when it is read
                    self.each_once &= not entry.is_symlink()
                    yield Source.within(here, name, root, below)
            links = [entry for entry in folders if entry.is_symlink()]
            self.each_once &= not links
            self.outside += [
                here / link.name for link in links if not self.follow_links and _leads_out(here / link.name, real_root)
            ]
            # Real folders before links to them, so that a picture keeps its real place in the tree.
            following = [entry for entry in folders if not entry.is_symlink()] + (links if self.follow_links else [])
            waiting += [here / entry.name for entry in reversed(following)]

    def _counts(self, name: str) -> bool:
        """Whether a file counts by its name."""
        if self.tars:
            return is_tar_name(name)
        return is_picture_name(name) or (self.clips and is_clip_name(name))

    def explain_nothing(self, given: Sequence[str]) -> UsageError:
        """There are no pictures: what was looked for, and what was there instead."""
        places = ", ".join(given[:3]) + (f" and {len(given) - 3} more" if len(given) > 3 else "")
        kinds_read = "tar files" if self.tars else f"{list_titles()} files{' and clips' if self.clips else ''}"
        what = "tar files" if self.tars else "pictures"
        text = f"no {what} found in {places}: looked for {kinds_read}, without hidden files and folders"
        if self.others:
            kinds = (f"{count} × {suffix or 'no ending'}" for suffix, count in self.others.most_common(4))
            text += f"; other files there: {', '.join(kinds)}"
        if self.outside:
            text += f"; links that lead elsewhere ({self.outside[0].name}, …) were not followed"
        return UsageError(text, remedy="follow_links" if self.outside else "")


def explain_missing(given: str, path: Path, error: OSError | ValueError) -> str:
    """Why an input cannot be used, with the nearest name. path: the absolute path of `given`."""
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
    near = nearest(first.name.casefold(), by_folded, cutoff=0.6)
    hint = f"; did you mean {first.parent / by_folded[near]}?" if near else ""
    return f"{given}: no such file or folder{where}{hint}"


def absolute(path: str | os.PathLike[str]) -> Path:
    """The absolute path; an address stays one. Links stay, except where `..` is only right after they are followed."""
    if is_address(path):
        return path if isinstance(path, ObjectPath) else parse_address(os.fspath(path))
    if os.pardir in Path(path).parts:
        return Path(os.path.realpath(path))
    return Path(os.path.abspath(path))  # noqa: PTH100  (Path.absolute keeps "." parts of the working folder's spelling)


def is_picture_name(name: str) -> bool:
    """Whether a file name ends like a picture's; `.jpg` alone is a hidden file without ending."""
    return os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES  # noqa: PTH122  (keeps odd names as they are)


def matches(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    """Whether a relative path fits a pattern; `**` stands for any number of folders."""
    if not patterns:
        return not parts
    if patterns[0] == "**":
        if len(patterns) == 1:
            return bool(parts)
        return any(matches(parts[i:], patterns[1:]) for i in range(len(parts)))
    return bool(parts) and fnmatch.fnmatch(parts[0], patterns[0]) and matches(parts[1:], patterns[1:])


def _leads_out(path: Path, real_root: str) -> bool:
    """Whether it is a link to something that exists outside the folder."""
    if not path.is_symlink():
        return False
    real = os.path.realpath(path)
    return os.path.lexists(real) and not Path(real).is_relative_to(real_root)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_of_a_page(folder: Path) -> bool:
    """Whether a folder holds the pictures of a page that lumen made: copies, no inputs."""
    return folder.name.endswith(PAGE_FOLDER) and (folder / PAGE_MARK).is_file()


def _is_special(path: Path) -> bool:
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


def _once_each(found: Iterable[Source]) -> list[Source]:
    """The same real file once: found in the widest folder rather than named, itself rather than through a link."""

    def preference(source: Source) -> tuple[bool, bool, int]:
        depth = len(source.root.parts) if source.root else 0
        return source.root is None, source.path.is_symlink(), depth

    kept: dict[object, Source] = {}
    for source in sorted(in_order(found), key=preference):
        kept.setdefault(_identify(source.path), source)
    return list(kept.values())


def _identify(path: Path) -> object:
    """Which file it is: by its number, as spellings differ where case does not count; hard links by name."""
    try:
        status = path.stat()
    except OSError:
        return os.path.realpath(path)
    single = status.st_nlink == 1 and status.st_ino
    return (status.st_dev, status.st_ino) if single else os.path.realpath(path)


def read_list(name: str, null: bool = False) -> list[str]:
    """The paths in a list, as they are: nothing is expanded, nothing is a comment.

    Args:
        name: the file; "-" is standard input.
        null: whether a NUL byte ends each path, else the end of a line does. Empty paths do not count.

    Raises:
        UsageError: the list cannot be read, or has no path.
    """
    try:
        content = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"list of files {name}: cannot be read ({reason})") from None
    content = content.removeprefix(b"\xef\xbb\xbf")
    if b"\0" in content and not null:
        raise UsageError(f"list of files {name}: has NUL bytes, which may be what ends its paths", remedy="null")
    paths = content.split(b"\0") if null else [line.removesuffix(b"\r") for line in content.split(b"\n")]
    found = [os.fsdecode(path) for path in paths if path]
    if not found:
        raise UsageError(f"list of files {name}: has no path")
    return found
