"""A picture to read and the file it becomes, in little memory, and the order of pictures.

A run may have a million of them. So they hold the folder, which all pictures of a folder share, and a name; paths are
made when they are asked for.
"""

from __future__ import annotations

import functools
import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

_DIGITS = re.compile("([0-9]+)")
_MOST_DIGITS = 4000


class Source:
    """One picture to read, and its place in a mirrored tree; a value that does not change.

    Args:
        path: absolute path, links not followed, or the address of an object.
        root: absolute folder that was searched; None for a file named directly.
        relative: path below `root`, or the bare file name.
        label: its name in messages where that is not its path: "-" for a picture from standard input.
    """

    __slots__ = ("_relative_name", "below", "folder", "label", "name", "root")

    folder: Path
    """The folder it is in."""
    name: str
    """Its name in the folder."""
    root: Path | None
    below: Path
    """The folder of `relative`."""
    label: str | None

    def __init__(self, path: Path, root: Path | None, relative: Path, label: str | None = None) -> None:
        self.folder, self.name, self.root, self.label = path.parent, path.name, root, label
        self.below, self._relative_name = relative.parent, relative.name

    @classmethod
    def within(cls, folder: Path, name: str, root: Path | None, below: Path) -> Source:
        """A picture in a folder, without making paths. below: `folder`, relative to `root`."""
        source = cls.__new__(cls)
        source.folder, source.root, source.below, source.label = folder, root, below, None
        source.name = source._relative_name = name
        return source

    @property
    def path(self) -> Path:
        """Absolute path, or address."""
        return self.folder / self.name

    @property
    def relative(self) -> Path:
        """Path below `root`, or the bare file name."""
        return self.below / self._relative_name

    @property
    def relative_name(self) -> str:
        """The last part of `relative`."""
        return self._relative_name

    def _values(self) -> tuple[object, ...]:
        return self.name, self._relative_name, self.folder, self.below, self.root, self.label

    def __eq__(self, other: object) -> bool:
        return self._values() == other._values() if isinstance(other, Source) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._values())

    def __repr__(self) -> str:
        return f"Source({self.path!r}, {self.root!r}, {self.relative!r}, {self.label!r})"


class Job:
    """One picture and the file that its result becomes; a value that does not change.

    Args:
        source: the picture.
        target: absolute path of the file to write, or the address of the object.
    """

    __slots__ = ("folder", "name", "source")

    source: Source
    folder: Path
    """The folder of the target."""
    name: str
    """The target's name in the folder."""

    def __init__(self, source: Source, target: Path) -> None:
        self.source, self.folder, self.name = source, target.parent, target.name

    @classmethod
    def within(cls, source: Source, folder: Path, name: str) -> Job:
        """A job whose target is in a folder, without making paths."""
        job = cls.__new__(cls)
        job.source, job.folder, job.name = source, folder, name
        return job

    @property
    def target(self) -> Path:
        """Absolute path of the file to write, or the address of the object."""
        return self.folder / self.name

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Job):
            return NotImplemented
        return (self.source, self.folder, self.name) == (other.source, other.folder, other.name)

    def __hash__(self) -> int:
        return hash((self.source, self.folder, self.name))

    def __repr__(self) -> str:
        return f"Job({self.source!r}, {self.target!r})"


def is_tar_name(name: str) -> bool:
    """Whether a file name ends like a tar file's."""
    return name.lower().endswith(".tar")


def suffix_of(name: str) -> str:
    """The ending of a file name as `Path.suffix` gives it."""
    dot = name.rfind(".")
    return name[dot:] if 0 < dot < len(name) - 1 else Path(name).suffix


def stem_of(name: str) -> str:
    """A file name without its ending, as `Path.stem` gives it."""
    return name[: len(name) - len(suffix_of(name))]


def in_order(sources: Iterable[Source]) -> list[Source]:
    """Pictures in natural order of the relative path, then by its bytes, then by those of the path."""
    listed = list(sources)
    prefix = functools.cache(natural_key)
    keys = [prefix(source.below) + _key_of_name(source._relative_name) for source in listed]
    order = sorted(range(len(listed)), key=keys.__getitem__)
    ordered = [listed[i] for i in order]
    start = 0
    for end in range(1, len(order) + 1):
        if end == len(order) or keys[order[end]] != keys[order[start]]:
            if end - start > 1:
                ordered[start:end] = sorted(
                    ordered[start:end], key=lambda source: (os.fsencode(source.relative), os.fsencode(source.path))
                )
            start = end
    return ordered


def natural_key(path: Path) -> str:
    """A sorting key, folder by folder, in which numbers count by value and case does not count.

    >>> sorted(["img10", "img2", "IMG3", "a/b", "a"], key=lambda name: natural_key(Path(name)))
    ['a', 'a/b', 'img2', 'IMG3', 'img10']
    """
    return "".join(map(_key_of_name, path.parts))


def _key_of_name(part: str) -> str:
    """Numbers before letters, shorter before longer: each number begins with 1 and its length, letters with 2; each
    run of letters and each name ends with 0, which no name contains.
    """
    text = part.lower() if part.isascii() else unicodedata.normalize("NFC", part).casefold()
    pieces = _DIGITS.split(text)
    for i in range(1, len(pieces), 2):
        number = pieces[i][:_MOST_DIGITS].lstrip("0")
        pieces[i] = f"\1{chr(len(number))}{number}"
    for i in range(0, len(pieces), 2):
        if pieces[i]:
            pieces[i] = f"\2{pieces[i]}\0"
    pieces.append("\0")
    return "".join(pieces)
