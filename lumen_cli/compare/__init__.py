"""Versions of the same pictures side by side: matched by name, measured, and laid out as one page or sheet.

Here they are matched: by name below each folder, ignoring suffixes and an added `-enhanced`.
"""

from __future__ import annotations

import os
import unicodedata
import urllib.parse
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lumen_cli.errors import UsageError
from lumen_cli.files import Source, natural_key
from lumen_cli.files.find import absolute, find_pictures
from lumen_cli.files.outputs import ADDITION
from lumen_cli.imaging.formats import find_format

MOST_VERSIONS = 12
"""Columns of one comparison; people cannot compare more by eye."""


@dataclass(frozen=True)
class Version:
    """One column: its label, and its pictures by name."""

    label: str
    pictures: Mapping[str, Path]


@dataclass(frozen=True)
class Row:
    """One picture in all versions, in their order."""

    name: str
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Problem:
    """A picture that is left out, and the reason on one line."""

    name: str
    reason: str


@dataclass(frozen=True)
class Matched:
    """Matched pictures."""

    labels: tuple[str, ...]
    """One per version."""
    reference: int
    """Index of the version that the others are measured against."""
    truth: bool
    """Whether the reference is the ground truth, so that full-reference metrics rank the versions."""
    rows: tuple[Row, ...]
    problems: tuple[Problem, ...]

    @property
    def input(self) -> int:
        """The index of the version that the others were made from: the first that is not the ground truth."""
        return 1 if self.truth and self.reference == 0 else 0


def match_paths(paths: Sequence[str], reference: str | None = None) -> Matched:
    """Match folders with folders by name, or single pictures with each other regardless of name.

    Args:
        paths: the versions in their order; the first is the input.
        reference: ground truth, one of `paths` or an additional version at the end. None: the first.

    Raises:
        UsageError: fewer than two versions, folders mixed with pictures, the same version twice, a folder without
            pictures, or no picture that exists in all versions.
    """
    given = [absolute_name(path) for path in paths]
    at = 0
    if reference is not None:
        named = absolute_name(reference)
        real = [os.path.realpath(path) for path in given]
        if os.path.realpath(named) in real:
            at = real.index(os.path.realpath(named))
        else:
            given.append(named)
            at = len(given) - 1
    if len(given) < 2:
        raise UsageError(
            "comparing needs at least two versions: name two folders or two pictures, or models to run", remedy="models"
        )
    _refuse_twice(given)
    kinds = {path.is_dir() for path in given}
    if len(kinds) == 2:
        folder = next(path for path in given if path.is_dir())
        picture = next(path for path in given if not path.is_dir())
        raise UsageError(f"{folder} is a folder and {picture} a picture; compare folders with folders")
    labels = distinct_labels(given)
    if kinds == {False}:
        return Matched(labels, at, reference is not None, (Row(given[0].stem, tuple(given)),), ())
    found = [_below(folder, [other for other in given if other != folder]) for folder in given]
    return match(by_name(labels, found), at, reference is not None)


def match(versions: Sequence[Version], reference: int, truth: bool) -> Matched:
    """Rows for the names that all versions have; every other name is a problem.

    Raises:
        UsageError: no name exists in all versions.
    """
    labels = tuple(version.label for version in versions)
    rows, problems = [], []
    every = {name for version in versions for name in version.pictures}
    for name in sorted(every, key=lambda name: (natural_key(Path(name)), name)):
        missing = [version.label for version in versions if name not in version.pictures]
        if missing:
            problems.append(Problem(name, f"missing in {', '.join(missing)}; left out"))
        else:
            rows.append(Row(name, tuple(version.pictures[name] for version in versions)))
    if not rows:
        held = "; ".join(f"{version.label} has {_some(version.pictures)}" for version in versions[:4])
        raise UsageError(f"no picture has the same name in all versions: {held}")
    return Matched(labels, reference, truth, tuple(rows), tuple(problems))


def by_name(labels: Sequence[str], found: Sequence[Iterable[Source]]) -> list[Version]:
    """Versions by relative path without suffix; `a-enhanced` is `a` where another version has an `a`.

    Where a folder holds both a.jpg and a.png, they keep their suffixes in every version.
    """
    listed = [list(sources) for sources in found]
    stems = [Counter(_stem(source) for source in sources) for sources in listed]
    ambiguous = {stem for counts in stems for stem, count in counts.items() if count > 1}
    columns: list[dict[str, Path]] = []
    for sources in listed:
        names = ((_stem(source), source) for source in sources)
        columns.append(
            {(_posix(source.relative) if stem in ambiguous else stem): source.path for stem, source in names}
        )
    versions = []
    for index, (label, column) in enumerate(zip(labels, columns, strict=True)):
        others = {name for other in (*columns[:index], *columns[index + 1 :]) for name in other}
        pictures: dict[str, Path] = {}
        for name, path in column.items():
            bare = name.removesuffix(ADDITION)
            renamed = name not in others and bare in others and bare not in column
            pictures[bare if renamed else name] = path
        versions.append(Version(label, pictures))
    return versions


def distinct_labels(paths: Sequence[Path]) -> tuple[str, ...]:
    """The names of the paths, with as many parents as needed to distinguish them."""
    longest = max(len(path.parts) for path in paths)
    for length in range(1, longest + 1):
        labels = tuple("/".join(part for part in path.parts[-length:] if part != path.anchor) for path in paths)
        if all(labels) and len(set(labels)) == len(labels):
            return labels
    return tuple(str(path) for path in paths)


def absolute_name(path: str) -> Path:
    """The absolute path of an existing file or folder; UsageError with the nearest name where there is none."""
    if not path or not Path(path).exists():
        find_pictures([path])  # raises, knowing what to say
        raise UsageError(f"{path}: neither a file nor a folder; patterns are for inputs of models", remedy="models")
    return absolute(path)


def _below(folder: Path, others: Sequence[Path]) -> list[Source]:
    """The pictures below a folder, without those of another version that lies inside it."""
    inside = [other for other in others if folder in other.parents]
    sources = find_pictures([str(folder)])
    return [source for source in sources if not any(other in source.path.parents for other in inside)]


def _refuse_twice(paths: Sequence[Path]) -> None:
    if len(paths) > MOST_VERSIONS:
        raise UsageError(f"{len(paths)} versions are too many; at most {MOST_VERSIONS} can be compared")
    seen: dict[str, Path] = {}
    for path in paths:
        real = os.path.realpath(path)
        if real in seen:
            raise UsageError(f"{path} is named twice; name each version once")
        seen[real] = path


def _stem(source: Source) -> str:
    return _posix(source.relative.with_suffix(""))


def _posix(path: Path) -> str:
    return unicodedata.normalize("NFC", path.as_posix())


def _some(pictures: Mapping[str, Path]) -> str:
    names = sorted(pictures)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") if names else "none"


PAGE = "compare.html"
SUFFIXES = (".html", ".htm")


def page_target(output: str | None, beside: Path, overwrite: bool) -> Path:
    """The absolute path of the page: `output`, or compare.html in it where it is a folder, or `beside` something.

    Raises:
        UsageError: the name has no suffix of a page, or the file exists and `overwrite` is false.
    """
    if output == "":
        raise UsageError("the page's name is empty")
    if output is None:
        target = beside.parent / PAGE
    else:
        folder = Path(output).is_dir() or output.endswith(tuple(filter(None, (os.sep, os.altsep))))
        target = absolute(output) / PAGE if folder else absolute(output)
    if target.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"{output}: the page's name has to end in .html; a contact sheet has its own name", remedy="sheet"
        )
    _refuse_existing(target, overwrite)
    return target


def sheet_target(name: str, overwrite: bool) -> Path:
    """The absolute path of a contact sheet.

    Raises:
        UsageError: the name has no suffix of a picture, or the file exists and `overwrite` is false.
    """
    target = absolute(name)
    find_format(target)
    _refuse_existing(target, overwrite)
    return target


def protect_inputs(target: Path, matched: Matched) -> None:
    """UsageError where a contact sheet would replace one of the compared pictures."""
    real = os.path.realpath(target)
    for row in matched.rows:
        if real in map(os.path.realpath, row.files):
            raise UsageError(f"{target}: the sheet would replace a compared picture; choose another file")


def link(file: Path, folder: Path) -> str:
    """A relative reference from a page in `folder` to a file, percent-encoded.

    Raises:
        UsageError: there is no relative path.
    """
    try:
        relative = os.path.relpath(file, folder)
    except ValueError:
        raise UsageError(
            f"{file}: lies on another drive than the page in {folder}, which cannot refer to it", remedy="linked"
        ) from None
    return urllib.parse.quote(os.fsencode(relative.replace(os.sep, "/")))


def _refuse_existing(target: Path, overwrite: bool) -> None:
    if target.is_dir():
        raise UsageError(f"cannot write {target}: a folder of that name is in the way")
    if target.exists() and not overwrite:
        raise UsageError(f"{target} already exists", remedy="overwrite")
