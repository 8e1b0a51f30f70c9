"""What a result's tags differ in from its original's: exiftool's listings of both, compared under the rules."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lumen_cli.imaging.tags.rules import TagRules, explanation

LISTED = (b"-j", b"-n", b"-q", b"-G0:1:4", b"-a", b"-s", b"-u", b"-struct", b"-api", b"largefilesupport=1")
"""What makes exiftool list all tags of files, several of one name too, for `listed`."""

Tags = Mapping[str, str | list[str]]
"""Values by groups and name, "EXIF:IFD0:Make"; several of one name as a sorted list."""

# About the file, not in it; and what exiftool works out from other tags.
_NOT_TAGS = ("SourceFile", "ExifTool", "System", "Composite", "Warning", "Error")
_OF_THE_FILE = re.compile(r"File:(?!Comment)|File:System:|ExifTool:")
_COPY = re.compile(r":Copy\d+:")
_LANGUAGE = re.compile(r"^(PNG:.*?)-[a-z]{2,3}(-[A-Za-z]{2,4})?$")
_NAMED = 3
"""So many tags of one group are named; of more, their number."""


def listed(output: str) -> list[Tags]:
    """The tags of each file, from what exiftool prints under `LISTED`.

    Raises:
        ValueError: it is no such listing.
    """
    return [_tags(found) for found in json.loads(output)]


def _tags(found: Mapping[str, Any]) -> Tags:
    values = defaultdict(list)
    for name, value in found.items():
        if name.split(":")[0] in _NOT_TAGS or _OF_THE_FILE.match(name):
            continue
        # exiftool names the language of a PNG's text from the second file on that a process reads.
        name = _LANGUAGE.sub(r"\1", _COPY.sub(":", name))
        values[name].append(json.dumps(value) if isinstance(value, dict | list) else str(value))
    return {name: several[0] if len(several) == 1 else sorted(several) for name, several in values.items()}


def differences(
    before: Tags, after: Tags, rules: TagRules, source: str, target: str, said: Sequence[str] = ()
) -> dict[str, tuple[object, object]]:
    """Tags that differ and that neither a rule nor a line explains: their values before and after, None for missing.

    Args:
        before: of the original.
        after: of the result.
        rules: what the result was made under.
        source: the original's format.
        target: the result's.
        said: the lines that the run printed about this picture.
    """
    return {
        name: (before.get(name), after.get(name))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
        # A raw file's previews have copies of its tags.
        and not (source == "raw" and _values(before, name) == _values(after, name))
        and explanation(name, before.get(name), after.get(name), rules, source, target, said) is None
        and not any(is_named(name, line) for line in said)
    }


def _values(tags: Tags, name: str) -> set[str]:
    value = tags.get(name, [])
    return {value} if isinstance(value, str) else set(value)


def line_about(names: Iterable[str]) -> list[str]:
    """One line that names tags that a result lacks, none for none."""
    groups = defaultdict(list)
    for name in names:
        groups[_group(name)].append(name.rpartition(":")[2])
    parts = [
        f"{len(tags)} tags of {group}" if len(tags) > _NAMED else ", ".join(f"{group}:{tag}" for tag in tags)
        for group, tags in groups.items()
    ]
    return [f"not copied: {', '.join(parts)}"] if parts else []


def is_named(name: str, line: str) -> bool:
    """Whether a line of `line_about` names this tag, or its group."""
    if not line.startswith("not copied: "):
        return False
    group, tag = _group(name), name.rpartition(":")[2]
    return any(part == f"{group}:{tag}" or part.endswith(f" tags of {group}") for part in line[12:].split(", "))


def _group(name: str) -> str:
    return name.split(":")[-2] if name.count(":") else name
