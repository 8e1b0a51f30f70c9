"""Tags between files of different formats, by exiftool: copied, then looked for in the finished file.

A rule or a warning says how the tags of a result differ from its original's.
"""

from __future__ import annotations

import contextlib
import fnmatch
import json
import math
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lumen_cli.atomic import require_room, temporary_beside
from lumen_cli.errors import PictureError
from lumen_cli.imaging.picture import Picture, find_losses
from lumen_cli.imaging.tags import ExifToolPool, PatientExifTool, UnusableExifToolError, arguments
from lumen_cli.imaging.tags.containers import find_unsupported, may_hold_tags
from lumen_cli.imaging.tags.exif import join_software, write_software
from lumen_cli.imaging.tags.pieces import NotSplicedError
from lumen_cli.imaging.tags.rules import CHANGES, COPIED, CREDITS, WRITTEN, Allowed, Kind, TagRules
from lumen_cli.imaging.tags.splice import EMBEDDABLE, embed_exif, repair_packet, stand_in, write_exif

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
    """The tags of each file, from what exiftool prints under `arguments.LISTING`.

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


_REFUSED_XMP = "Invalid XMP"
"""How exiftool's warning begins when it does not copy a block of XMP. It reports no error."""


@dataclass(frozen=True)
class Transfer:
    """One picture's tags; the arguments of `TagWriter.copy`, and what it found out about them."""

    pool: ExifToolPool
    rules: TagRules
    source: Path
    target: Path
    format: str
    """Of the target."""
    picture: Picture
    software: str | None
    """What ProcessingSoftware becomes; None without a stamp."""
    small: bytes | None
    """The thumbnail for EXIF."""

    def run(self) -> list[str]:
        """Copy the tags; returns warnings and raises as `TagWriter.copy`."""
        format, picture = self.format, self.picture
        has_tags = may_hold_tags(self.source)
        if self.rules.stamp and (picture.exif is None or not has_tags) and format in EMBEDDABLE:
            # exiftool would add mandatory tags that make claims about the picture, 72 dpi for example.
            write_exif(self.target, format, picture, write_software(None, join_software(None, self.rules.stamp)))
        if not has_tags:
            return self._stamp_alone()
        with arguments.plain_name(self.source) as named, arguments.as_file(self.small) as shown:
            if self.rules.metadata == "private":
                return self._copy_allowed(named, shown)
            failed, warnings = self._copy_all(named, shown)
        if failed:
            warnings = embed_exif(self.target, format, picture, self.software, self.small) if picture.exif else []
            return [f"exiftool could not copy the tags ({failed}); only EXIF was copied", *warnings]
        warnings = [*(f"{format} cannot hold {what}" for what in find_unsupported(self.source, format)), *warnings]
        return [*warnings, *self._find_missing(warnings)]

    def _copy_all(self, named: Path, small: Path | None) -> tuple[str, list[str]]:
        """Copy whole blocks where that works, tag by tag where it does not: what failed, and warnings."""
        picture, stand, packet = self.picture, None, None
        with contextlib.suppress(NotSplicedError, OSError):
            stand = stand_in(self.source, picture.format)
            packet = repair_packet(self.source, picture.format)
        with arguments.as_file(stand) as standing, arguments.as_file(packet) as repaired:
            origin = standing or named
            blocks = arguments.whole_blocks(origin, picture, self.format)

            def commands(file: Path, blocks: tuple[str, ...]) -> list[list[bytes]]:
                plain = [block for block in blocks if block != "XMP" or repaired is None]
                made = [arguments.copy_blocks(origin, file, plain, fast=picture.format != "gif")] if plain else []
                if "XMP" in blocks and repaired is not None:
                    made.append(arguments.copy_blocks(repaired, file, ["XMP"]))
                return [*made, arguments.copy_tags(origin, file, picture, self.format, self.software, blocks, small)]

            failed, warnings = "", list[str]()
            without_xmp = [[block for block in blocks if block != "XMP"]] if "XMP" in blocks else []
            for way in dict.fromkeys(map(tuple, [blocks, [], *without_xmp])):
                failed, warnings = self._ask(partial(commands, blocks=way))
                refused = [line for line in warnings if line.startswith(_REFUSED_XMP)]
                if not failed and not refused:
                    break
                warnings = [line for line in warnings if line not in refused]
        return failed, warnings

    def _find_missing(self, lines: list[str]) -> list[str]:
        """A line about tags that the result lacks, from exiftool's lists of both files; none where it has all."""
        losses = find_losses(self.picture, self.format)
        lines = [*lines, *self.picture.notices, *(f"cannot hold {what}" for what in losses)]
        with arguments.plain_name(self.source) as named, arguments.plain_name(self.target) as made:
            try:
                with self.pool.process() as tool:
                    before, after = parse_listing(str(tool.execute(*arguments.list_both(named, made))))
            except (UnusableExifToolError, ValueError):
                return ["its tags were copied, but exiftool could not list them for a check"]
        found = find_differences(before, after, self.rules, self.picture.format, self.format, lines)
        return report_missing(name for name, (_, now) in found.items() if now is None)

    def _copy_allowed(self, named: Path, small: Path | None) -> list[str]:
        """Copy what `private` keeps; a file that holds anything else afterwards gets no tags."""
        credits = self.rules.credits

        def list_unwanted(tool: PatientExifTool, file: Path) -> list[str]:
            return find_unwanted(json.loads(tool.execute(*arguments.list_flat(file)))[0], credits, self.software)

        def clean(tool: PatientExifTool, file: Path) -> str:
            try:
                if found := list_unwanted(tool, file):
                    tool.execute(*arguments.remove_tags(file, found))
                    found = list_unwanted(tool, file)
            except (ValueError, LookupError):
                return "it cannot read the finished file"
            return f"these cannot be removed: {', '.join(found[:5])}" if found else ""

        def commands(file: Path) -> list[list[bytes]]:
            return [arguments.copy_allowed_tags(named, file, self.picture, credits, self.software, small)]

        failed, warnings = self._ask(commands, clean)
        if failed:
            return [f"exiftool could not copy the tags ({failed}); none were copied"]
        lost_iptc = credits and "IPTC" in find_unsupported(self.source, self.format)
        return [*([f"{self.format} cannot hold IPTC"] if lost_iptc else []), *warnings]

    def _stamp_alone(self) -> list[str]:
        """Stamp a picture without tags in a format into which only exiftool writes EXIF."""
        if self.rules.stamp is None or self.format in EMBEDDABLE:
            return []
        software = join_software(None, self.rules.stamp)
        failed, warnings = self._ask(lambda file: [arguments.stamp(file, software)])
        return [f"exiftool could not write lumen's stamp ({failed})"] if failed else warnings

    def _ask(
        self,
        commands: Callable[[Path], list[list[bytes]]],
        check: Callable[[PatientExifTool, Path], str] = lambda tool, file: "",
    ) -> tuple[str, list[str]]:
        """Let exiftool run commands on the target, all or none: what failed, and warnings.

        `check` examines the finished file and says what is wrong with it, "" for nothing.
        """
        target = self.target
        failed, warnings = "", list[str]()
        for attempt in (1, 2):
            # A plain name, which means nothing to exiftool, whatever the target is called.
            file = temporary_beside(target.with_name(f"tags.{self.format}"))
            try:
                _link(target, file)
                with self.pool.process() as tool:
                    for command in commands(file):
                        tool.execute(*command)
                        failed, lines = arguments.parse_messages(tool.last_stderr or "", tool.last_status or 0)
                        warnings += lines
                        if failed:
                            break
                    failed = failed or check(tool, file)
                if not failed:
                    file.replace(target)
                break
            except UnusableExifToolError as error:
                warnings = []
                if attempt == 2:
                    raise PictureError(self.source, f"its tags could not be copied ({error}, twice)") from None
            finally:
                # What a stopped exiftool leaves, and the link, which replacing a file by itself keeps.
                file.with_name(file.name + "_exiftool_tmp").unlink(missing_ok=True)
                file.unlink(missing_ok=True)
        if failed:
            # exiftool does not say why it could not write; a full disk must not cost a picture its tags.
            require_room(target.parent, self.source.stat().st_size + 2 * target.stat().st_size)
        return failed, list(dict.fromkeys(warnings))


def _link(target: Path, file: Path) -> None:
    """Another name for the file: exiftool puts a new file in its place and leaves this one as it is."""
    try:
        os.link(target, file)
    except OSError:  # a file system without links
        shutil.copyfile(target, file)
