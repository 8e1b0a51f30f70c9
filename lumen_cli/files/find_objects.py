"""Find the input pictures in stores: objects, folders and patterns, as `find.search` finds files."""

from __future__ import annotations

import fnmatch
import glob
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from lumen_cli.errors import LumenError, UsageError
from lumen_cli.files import Source
from lumen_cli.files.find import Trouble, is_picture_name, matches
from lumen_cli.files.places import ObjectPath, StoreError, explain_name, is_address, parse_address

_MAGIC = re.compile(r"[*?[]")
_AT_ONCE = 16
"""Requests about single objects of a list."""


def look_ahead(listed: Sequence[str]) -> None:
    """Ask for the single objects of a list in parallel; `expand_address` then knows them."""

    def look(given: str) -> None:
        with suppress(LumenError):  # expanding it reports the error
            _look_for(parse_address(given))

    addresses = [given for given in listed if is_address(given) and is_picture_name(given)]
    if len(addresses) > 1:
        with ThreadPoolExecutor(_AT_ONCE, "lumen-look") as pool:
            list(pool.map(look, addresses))


def expand_address(
    given: str, patterns: bool, counts: Callable[[str], bool], troubles: list[Trouble], others: Counter[str]
) -> Iterator[Source]:
    """The pictures that an address stands for.

    Args:
        given: of an object, a folder or a pattern.
        patterns: whether * ? and [ are patterns.
        counts: whether an object counts by its name.
        troubles: gets the objects whose keys are no names.
        others: counts objects that are no pictures, by their ending.

    Raises:
        UsageError: there is nothing, or the store does not say.
    """
    path = parse_address(given)
    if patterns and glob.has_magic(path.parts[1]):
        raise UsageError(f"{given}: the name of a bucket cannot be a pattern")
    try:
        if not given.endswith("/") and not path.is_bucket and (counts(path.name) or glob.has_magic(given)):
            if _look_for(path):
                yield Source(path, None, Path(path.name))
                return
            if patterns and glob.has_magic(given):
                yield from _expand_pattern(path, counts, troubles, others)
                return
        found = path.store.list(path)
        if found:
            yield from _below(path, found, counts, troubles, others)
        elif not given.endswith("/") and not path.is_bucket and _look_for(path):
            yield Source(path, None, Path(path.name))
        elif not path.is_bucket:
            raise UsageError(f"{given}: no such object or folder")
    except StoreError as error:
        raise UsageError(str(error)) from error


def _look_for(path: ObjectPath) -> bool:
    """Whether there is such an object; the answer also has what lies beside it under the same name."""
    if _MAGIC.search(path.inner) is None:
        assert isinstance(path.parent, ObjectPath)
        return path.name in path.store.list(path.parent, path.stem)
    with suppress(FileNotFoundError):
        path.store.details(path)
        return True
    return False


def _expand_pattern(
    path: ObjectPath, counts: Callable[[str], bool], troubles: list[Trouble], others: Counter[str]
) -> Iterator[Source]:
    """As `find` expands one: with ** the part before it counts as the folder searched."""
    first = next(i for i, part in enumerate(path.parts) if glob.has_magic(part))
    root, wanted = ObjectPath(*path.parts[:first]), path.parts[first:]
    stem = wanted[0][: _MAGIC.search(wanted[0]).start()]  # type: ignore[union-attr]
    found = path.store.list(root, stem)
    if "**" in wanted:
        yield from (s for s in _below(root, found, counts, troubles, others) if matches(s.relative.parts, wanted))
        return
    length = len(wanted)
    for key in found:
        parts = key.split("/")
        pairs = list(zip(parts, wanted, strict=False))
        if len(parts) < length or not all(_fits(part, pattern) for part, pattern in pairs):
            continue
        if len(parts) > length:
            yield from _below(root.joinpath(*parts[:length]), ["/".join(parts[length:])], counts, troubles, others)
        elif counts(parts[-1]):
            yield Source(root.joinpath(*parts), None, Path(parts[-1]))
        else:
            others[Path(parts[-1]).suffix.lower()] += 1


def _fits(part: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(part, pattern) and (pattern.startswith(".") or not part.startswith("."))


def _below(
    root: Path, keys: Iterable[str], counts: Callable[[str], bool], troubles: list[Trouble], others: Counter[str]
) -> Iterator[Source]:
    """The pictures among the keys below a folder, without hidden ones."""
    for key in sorted(keys):
        parts = key.split("/")
        if any(part.startswith(".") and part.strip(".") for part in parts):
            continue
        reason = explain_name(key)
        if not counts(parts[-1]):
            others[Path(parts[-1]).suffix.lower()] += 1
        elif reason:
            troubles.append(Trouble(root / key, reason))
        else:
            yield Source(root.joinpath(*parts), root, Path(*parts))
