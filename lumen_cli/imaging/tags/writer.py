"""Tags from the original to the result: spliced where the format stays, by exiftool elsewhere; without it EXIF only."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

from lumen_cli.atomic import require_room, temporary_beside
from lumen_cli.errors import PictureError, UsageError
from lumen_cli.imaging.formats import recognise
from lumen_cli.imaging.picture import Picture
from lumen_cli.imaging.tags import arguments
from lumen_cli.imaging.tags.check import find_differences, find_unwanted, parse_listing, report_missing
from lumen_cli.imaging.tags.containers import find_unsupported, may_hold_tags
from lumen_cli.imaging.tags.exif import has_thumbnail, join_software, read_software, write_software
from lumen_cli.imaging.tags.exiftool import ExifToolPool, PatientExifTool, UnusableExifToolError, is_unsafe
from lumen_cli.imaging.tags.pieces import SPLICED, NotSplicedError
from lumen_cli.imaging.tags.rules import KEEP_ALL, TagRules
from lumen_cli.imaging.tags.splice import (
    EMBEDDABLE,
    embed_exif,
    make_thumbnail,
    repair_packet,
    splice,
    stand_in,
    write_exif,
)
from lumen_cli.imaging.write import find_losses

INSTALL = (
    "install it with your system's packages (Debian: libimage-exiftool-perl, Homebrew: exiftool), "
    "or without root: unpack Image-ExifTool from exiftool.org and put its folder on PATH"
)
_FALLBACK = (
    "all tags are copied where a JPEG, PNG or WebP keeps its format; elsewhere only EXIF and colour profiles are, "
    "not XMP, IPTC, PNG texts and, in TIFF, maker notes"
)
_UNSAFE = "has faults by which a picture can make it run commands; update it to 12.38 or newer"
_REFUSED_XMP = "Invalid XMP"
"""How exiftool's warning begins when it does not copy a block of XMP. It reports no error."""


class TagWriter:
    """Copies tags from originals to results. Thread-safe: each caller has its own exiftool. A context manager."""

    engine: str
    """"exiftool 12.57" or "pillow": what copies the tags."""
    notice: str | None
    """One line for people: what is lost without exiftool and how to install it, or why to update it."""

    def __init__(
        self,
        use: Literal["auto", "exiftool", "pillow"] = "auto",
        *,
        rules: TagRules = KEEP_ALL,
        seconds: float = 60.0,
        executable: str | None = None,
    ) -> None:
        """Start exiftool where it is wanted and installed.

        Args:
            use: "auto" takes exiftool where it is installed, else Pillow.
            rules: which tags a result gets, and lumen's stamp.
            seconds: how long one command for one picture may take.
            executable: exiftool's path; None searches PATH.

        Raises:
            UsageError: exiftool is missing or too old, and it is asked for or `private`, which needs it.
        """
        self.rules = rules
        self.engine, self.notice = "pillow", None
        self._pool = ExifToolPool(seconds, executable)
        try:
            reason, version = "tags are copied by Pillow", None if use == "pillow" else self._pool.version()
        except UnusableExifToolError as error:
            reason, version = str(error), None
        if version is not None:
            self.engine = f"exiftool {version}"
            self.notice = f"{self.engine} {_UNSAFE}" if is_unsafe(version) else None
        elif use == "exiftool":
            raise UsageError(f"{reason}; {INSTALL}")
        elif rules.metadata == "private":
            raise UsageError(
                f"only exiftool can tell private tags from others, and {reason}; "
                f"choose strip (no tags at all), or {INSTALL}",
                remedy="metadata",
            )
        elif rules.metadata == "keep":
            self.notice = f"{reason}: {_FALLBACK}" + ("" if use == "pillow" else f"; {INSTALL}")

    def __enter__(self) -> TagWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the exiftool processes."""
        self._pool.close()

    def copy(self, source: Path, target: Path, picture: Picture) -> list[str]:
        """Copy the tags of `source` that hold for the result and that the rules keep into `target`, in place.

        `rules.CHANGES` lists every difference that remains, and why. `write_picture` wrote the profile already. The
        stamp is appended to EXIF's ProcessingSoftware (not with `strip`: no tags means no stamp).

        Args:
            source: the original file.
            target: the finished result, or the temporary file that becomes it.
            picture: the content of `target`; its pixels (for a thumbnail), size and `exif` are used.

        Returns:
            Warnings, exiftool's own among them; tags that cannot be copied never fail a picture.

        Raises:
            PictureError: exiftool hung or died twice on this picture, or `target` cannot be written.
        """
        with target.open("rb") as file:
            found = recognise(file)
        format = "" if found is None else found.name
        if self.rules.metadata == "strip":
            return []
        if found is not None and not found.tags:
            return [f"{found.title} holds no tags"] if picture.exif else []
        if self.rules.metadata == "keep" and format == picture.format and format in SPLICED:
            with contextlib.suppress(NotSplicedError, OSError):
                return splice(source, target, format, picture, self.rules.stamp)
        small = make_thumbnail(picture) if format != "tiff" and has_thumbnail(picture.exif) else None
        if self.engine == "pillow":
            return embed_exif(target, format, picture, self._software(picture), small)
        has_tags = may_hold_tags(source)
        if self.rules.stamp and (picture.exif is None or not has_tags) and format in EMBEDDABLE:
            # exiftool would add mandatory tags that make claims about the picture, 72 dpi for example.
            write_exif(target, format, picture, write_software(None, join_software(None, self.rules.stamp)))
        if not has_tags:
            return self._stamp_alone(source, target, format)
        with arguments.plain_name(source) as named, arguments.as_file(small) as shown:
            if self.rules.metadata == "private":
                return self._copy_allowed(source, named, target, format, picture, shown)
            failed, warnings = self._copy_all(source, named, target, format, picture, shown)
        if failed:
            warnings = embed_exif(target, format, picture, self._software(picture), small) if picture.exif else []
            return [f"exiftool could not copy the tags ({failed}); only EXIF was copied", *warnings]
        warnings = [*(f"{format} cannot hold {what}" for what in find_unsupported(source, format)), *warnings]
        return [*warnings, *self._find_missing(source, target, format, picture, warnings)]

    def _copy_all(
        self, source: Path, named: Path, target: Path, format: str, picture: Picture, small: Path | None
    ) -> tuple[str, list[str]]:
        """Copy whole blocks where that works, tag by tag where it does not: what failed, and warnings."""
        software, stand, packet = self._software(picture), None, None
        with contextlib.suppress(NotSplicedError, OSError):
            stand = stand_in(source, picture.format)
            packet = repair_packet(source, picture.format)
        with arguments.as_file(stand) as standing, arguments.as_file(packet) as repaired:
            origin = standing or named
            blocks = arguments.whole_blocks(origin, picture, format)

            def commands(file: Path, blocks: tuple[str, ...]) -> list[list[bytes]]:
                plain = [block for block in blocks if block != "XMP" or repaired is None]
                made = [arguments.copy_blocks(origin, file, plain, fast=picture.format != "gif")] if plain else []
                if "XMP" in blocks and repaired is not None:
                    made.append(arguments.copy_blocks(repaired, file, ["XMP"]))
                return [*made, arguments.copy_tags(origin, file, picture, format, software, blocks, small)]

            failed, warnings = "", list[str]()
            without_xmp = [[block for block in blocks if block != "XMP"]] if "XMP" in blocks else []
            for way in dict.fromkeys(map(tuple, [blocks, [], *without_xmp])):
                failed, warnings = self._ask(source, target, format, partial(commands, blocks=way))
                refused = [line for line in warnings if line.startswith(_REFUSED_XMP)]
                if not failed and not refused:
                    break
                warnings = [line for line in warnings if line not in refused]
        return failed, warnings

    def _find_missing(self, source: Path, target: Path, format: str, picture: Picture, lines: list[str]) -> list[str]:
        """A line about tags that the result lacks, from exiftool's lists of both files; none where it has all."""
        lines = [*lines, *picture.notices, *(f"cannot hold {what}" for what in find_losses(picture, format))]
        with arguments.plain_name(source) as named, arguments.plain_name(target) as made:
            try:
                with self._pool.process() as tool:
                    before, after = parse_listing(str(tool.execute(*arguments.list_both(named, made))))
            except (UnusableExifToolError, ValueError):
                return ["its tags were copied, but exiftool could not list them for a check"]
        found = find_differences(before, after, self.rules, picture.format, format, lines)
        return report_missing(name for name, (_, now) in found.items() if now is None)

    def _copy_allowed(
        self, source: Path, named: Path, target: Path, format: str, picture: Picture, small: Path | None
    ) -> list[str]:
        """Copy what `private` keeps; a file that holds anything else afterwards gets no tags."""
        credits, software = self.rules.credits, self._software(picture)

        def list_unwanted(tool: PatientExifTool, file: Path) -> list[str]:
            return find_unwanted(json.loads(tool.execute(*arguments.list_flat(file)))[0], credits, software)

        def clean(tool: PatientExifTool, file: Path) -> str:
            try:
                if found := list_unwanted(tool, file):
                    tool.execute(*arguments.remove_tags(file, found))
                    found = list_unwanted(tool, file)
            except (ValueError, LookupError):
                return "it cannot read the finished file"
            return f"these cannot be removed: {', '.join(found[:5])}" if found else ""

        def commands(file: Path) -> list[list[bytes]]:
            return [arguments.copy_allowed_tags(named, file, picture, credits, software, small)]

        failed, warnings = self._ask(source, target, format, commands, clean)
        if failed:
            return [f"exiftool could not copy the tags ({failed}); none were copied"]
        lost_iptc = credits and "IPTC" in find_unsupported(source, format)
        return [*([f"{format} cannot hold IPTC"] if lost_iptc else []), *warnings]

    def _stamp_alone(self, source: Path, target: Path, format: str) -> list[str]:
        """Stamp a picture without tags in a format into which only exiftool writes EXIF."""
        if self.rules.stamp is None or format in EMBEDDABLE:
            return []
        software = join_software(None, self.rules.stamp)
        failed, warnings = self._ask(source, target, format, lambda file: [arguments.stamp(file, software)])
        return [f"exiftool could not write lumen's stamp ({failed})"] if failed else warnings

    def _software(self, picture: Picture) -> str | None:
        """The result's ProcessingSoftware; None without a stamp. `private` keeps nothing of the original's."""
        earlier = None if self.rules.metadata == "private" else read_software(picture.exif)
        return self.rules.stamp and join_software(earlier, self.rules.stamp)

    def _ask(
        self,
        source: Path,
        target: Path,
        format: str,
        commands: Callable[[Path], list[list[bytes]]],
        check: Callable[[PatientExifTool, Path], str] = lambda tool, file: "",
    ) -> tuple[str, list[str]]:
        """Let exiftool run commands on the target, all or none: what failed, and warnings.

        `check` examines the finished file and says what is wrong with it, "" for nothing.
        """
        failed, warnings = "", list[str]()
        for attempt in (1, 2):
            # A plain name, which means nothing to exiftool, whatever the target is called.
            file = temporary_beside(target.with_name(f"tags.{format}"))
            try:
                _link(target, file)
                with self._pool.process() as tool:
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
                    raise PictureError(source, f"its tags could not be copied ({error}, twice)") from None
            finally:
                # What a stopped exiftool leaves, and the link, which replacing a file by itself keeps.
                file.with_name(file.name + "_exiftool_tmp").unlink(missing_ok=True)
                file.unlink(missing_ok=True)
        if failed:
            # exiftool does not say why it could not write; a full disk must not cost a picture its tags.
            require_room(target.parent, source.stat().st_size + 2 * target.stat().st_size)
        return failed, list(dict.fromkeys(warnings))


def _link(target: Path, file: Path) -> None:
    """Another name for the file: exiftool puts a new file in its place and leaves this one as it is."""
    try:
        os.link(target, file)
    except OSError:  # a file system without links
        shutil.copyfile(target, file)
