"""The rules applied: how the tags of a result differ from its original's, and whether a rule or a warning says so."""

from __future__ import annotations

import fnmatch
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lumen_cli.imaging.tags.rules import CHANGES, COPIED, CREDITS, WRITTEN, Allowed, Kind, TagRules

LISTING = (b"-j", b"-n", b"-q", b"-G0:1:4", b"-a", b"-s", b"-u", b"-struct", b"-api", b"largefilesupport=1")
"""exiftool's options for `parse_listing`: all tags of each file, also several of one name."""

Tags = Mapping[str, str | list[str]]
"""Values by groups and name, "EXIF:IFD0:Make"; several of one name as a sorted list."""

_NOT_TAGS = ("SourceFile", "ExifTool", "System", "Composite", "Warning", "Error")
"""Groups about the file, and what exiftool computes from other tags."""
_ABOUT_THE_FILE = re.compile(r"File:(?!Comment)|File:System:|ExifTool:")
_COPY = re.compile(r":Copy\d+:")
_LANGUAGE = re.compile(r"^(PNG:.*?)-[a-z]{2,3}(-[A-Za-z]{2,4})?$")
_MOST_NAMED = 3
_NOT_COPIED = "not copied: "

_NUMBER = r"[-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|\.\d+|\d+/\d+|inf|undef|nan)"
_KINDS: Mapping[Kind, re.Pattern[str]] = {
    "numbers": re.compile(rf"(?:{_NUMBER}(?:[ ,;]+|$)){{0,64}}", re.IGNORECASE),
    "dates": re.compile(r"[0-9:.+\-TZ ]{0,40}"),
    "text": re.compile(r"[^\x00-\x1f\x7f]{0,200}"),
    "interop": re.compile(r"R98|R03|THM"),
    "any": re.compile(r".*", re.DOTALL),
}


def parse_listing(output: str) -> list[Tags]:
    """The tags of each file, from what exiftool prints under `LISTING`.

    Raises:
        ValueError: it is not such a listing.
    """
    return [_parse_tags(file) for file in json.loads(output)]


def _parse_tags(file: Mapping[str, Any]) -> Tags:
    values = defaultdict(list)
    for name, value in file.items():
        if name.split(":")[0] in _NOT_TAGS or _ABOUT_THE_FILE.match(name):
            continue
        # exiftool adds the language to the name of a PNG's text, but not in the first file that a process reads.
        name = _LANGUAGE.sub(r"\1", _COPY.sub(":", name))
        values[name].append(json.dumps(value) if isinstance(value, dict | list) else str(value))
    return {name: several[0] if len(several) == 1 else sorted(several) for name, several in values.items()}


def find_differences(
    before: Tags, after: Tags, rules: TagRules, source: str, target: str, lines: Sequence[str] = ()
) -> dict[str, tuple[object, object]]:
    """Differences that neither a rule nor a warning explains: the values before and after, None for a missing tag.

    Args:
        before: the original's tags.
        after: the result's tags.
        rules: those that the result was made under.
        source: the original's format.
        target: the result's format.
        lines: the run's warnings about this picture.
    """
    return {
        name: (before.get(name), after.get(name))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
        # A raw file's previews have copies of its tags.
        and not (source == "raw" and _value_set(before, name) == _value_set(after, name))
        and explain(name, before.get(name), after.get(name), rules, source, target, lines) is None
        and not any(is_reported(name, line) for line in lines)
    }


def _value_set(tags: Tags, name: str) -> set[str]:
    value = tags.get(name, [])
    return {value} if isinstance(value, str) else set(value)


def explain(
    tag: str, before: object, after: object, rules: TagRules, source: str, target: str, lines: Sequence[str] = ()
) -> str | None:
    """Why one tag, "EXIF:IFD0:Orientation", differs; None where no rule allows it. Arguments: `find_differences`."""
    happened = "+" if before is None else "-" if after is None else "~"
    for change in CHANGES:
        if (
            happened in change.happens
            and rules.metadata in change.ways
            and (not change.sources or source in change.sources)
            and (not change.targets or target in change.targets)
            and (not change.line or any(change.line in line for line in lines))
            and (change.within is None or _is_near(before, after, change.within))
            and any(_matches(pattern, tag) for pattern in change.tags)
        ):
            return change.why
    if happened == "-" and rules.metadata == "private":
        known = ":".join(tag.split(":")[-2:])
        return None if _is_copied(known, before, rules.credits) else "not on the list of what private keeps"
    return None


def _matches(pattern: str, tag: str) -> bool:
    """Whether exiftool would apply `pattern` to the tag."""
    group, _, name = pattern.lower().rpartition(":")
    *groups, own = tag.lower().split(":")
    return (not group or any(fnmatch.fnmatchcase(one, group) for one in groups)) and (
        name == "all" or fnmatch.fnmatchcase(own, name)
    )


def _is_near(before: object, after: object, within: float) -> bool:
    try:
        one, other = ([float(part) for part in str(value).split()] for value in (before, after))
    except ValueError:
        return False
    return len(one) == len(other) and all(math.isclose(*pair, rel_tol=within) for pair in zip(one, other, strict=True))


def report_missing(names: Iterable[str]) -> list[str]:
    """One line with the tags that a result lacks; no line for no tags. Of many tags in one group it says how many."""
    groups = defaultdict(list)
    for name in names:
        groups[_group(name)].append(name.rpartition(":")[2])
    parts = [
        f"{len(tags)} tags of {group}" if len(tags) > _MOST_NAMED else ", ".join(f"{group}:{tag}" for tag in tags)
        for group, tags in groups.items()
    ]
    return [_NOT_COPIED + ", ".join(parts)] if parts else []


def is_reported(name: str, line: str) -> bool:
    """Whether a line of `report_missing` names this tag, or its group."""
    if not line.startswith(_NOT_COPIED):
        return False
    group, tag = _group(name), name.rpartition(":")[2]
    parts = line.removeprefix(_NOT_COPIED).split(", ")
    return any(part == f"{group}:{tag}" or part.endswith(f" tags of {group}") for part in parts)


def _group(name: str) -> str:
    return name.split(":")[-2] if ":" in name else name


def find_unwanted(tags: Mapping[str, Any], credits: bool, software: str | None) -> list[str]:
    """The tags of a finished file that `private` does not allow, as "group:name".

    Args:
        tags: what exiftool prints with -j -n -a -G1:4, structures flattened.
        credits: whether title and rights are allowed.
        software: the allowed value of ProcessingSoftware; None where it is not allowed.
    """
    found = dict[str, None]()
    for key, value in tags.items():
        tag = ":".join((key.split(":")[0], key.split(":")[-1]))
        if key.split(":")[0] not in ("SourceFile", "System", "ExifTool", "Composite"):
            if tag == "IFD0:ProcessingSoftware":
                allowed = value == software
            elif tag == "XMP-x:XMPToolkit":
                allowed = str(value).startswith("Image::ExifTool ")
            else:
                allowed = is_allowed(tag, value, credits)
            if not allowed:
                found[tag] = None
    return list(found)


def is_allowed(tag: str, value: object, credits: bool) -> bool:
    """Whether `private` allows a tag, "group:name", in a finished file: copied, or written by lumen or exiftool."""
    return _is_copied(tag, value, credits) or _is_in(WRITTEN, tag, value)


def _is_copied(tag: str, value: object, credits: bool) -> bool:
    return _is_in((*COPIED, *(CREDITS if credits else ())), tag, value)


def _is_in(entries: Iterable[Allowed], tag: str, value: object) -> bool:
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return any(
        _KINDS[entry.values].fullmatch(text) is not None and any(fnmatch.fnmatchcase(tag, one) for one in entry.tags)
        for entry in entries
    )
