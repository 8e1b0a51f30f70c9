"""Tags between files of different formats, by exiftool: copied, then looked for in the finished file."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lumen_cli.atomic import require_room, temporary_beside
from lumen_cli.errors import PictureError
from lumen_cli.imaging.picture import Picture
from lumen_cli.imaging.tags import arguments
from lumen_cli.imaging.tags.check import find_differences, find_unwanted, parse_listing, report_missing
from lumen_cli.imaging.tags.containers import find_unsupported, may_hold_tags
from lumen_cli.imaging.tags.exif import join_software, write_software
from lumen_cli.imaging.tags.exiftool import ExifToolPool, PatientExifTool, UnusableExifToolError
from lumen_cli.imaging.tags.pieces import NotSplicedError
from lumen_cli.imaging.tags.rules import TagRules
from lumen_cli.imaging.tags.splice import EMBEDDABLE, embed_exif, repair_packet, stand_in, write_exif
from lumen_cli.imaging.write import find_losses

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
