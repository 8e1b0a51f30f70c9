"""Tags from the original to the result: spliced where the format stays, by exiftool elsewhere; without it EXIF only."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from lumen_cli.atomic import require_room, temporary_beside
from lumen_cli.errors import PictureError, UsageError
from lumen_cli.imaging.picture import Picture
from lumen_cli.imaging.read import sniff
from lumen_cli.imaging.render import losses
from lumen_cli.imaging.tags.allowed import unwanted
from lumen_cli.imaging.tags.arguments import (
    as_file,
    block_arguments,
    comparison_arguments,
    copy_arguments,
    listing_arguments,
    plainly_named,
    private_arguments,
    removal_arguments,
    spoken,
    stamp_arguments,
)
from lumen_cli.imaging.tags.check import differences, line_about, listed
from lumen_cli.imaging.tags.exif import EMBEDDABLE, corrected, embedded, processing_software, stamped, with_stamp
from lumen_cli.imaging.tags.exiftool import ExifToolPool, UnusableExifToolError, is_unsafe
from lumen_cli.imaging.tags.pieces import SPLICED, NotSplicedError
from lumen_cli.imaging.tags.rules import KEEP_ALL, TagRules
from lumen_cli.imaging.tags.search import MOST_IN_JPEG, may_hold_tags, unheld, whole_blocks
from lumen_cli.imaging.tags.splice import repaired_packet, splice, stand_in
from lumen_cli.imaging.tags.thumbnail import has_thumbnail, thumbnail, with_thumbnail

if TYPE_CHECKING:
    from lumen_cli.imaging.tags.exiftool import PatientExifTool

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
"""How exiftool's warning begins where it copies no block of XMP, without an error."""

_Engine = Literal["auto", "exiftool", "pillow"]


class TagWriter:
    """Copies tags from originals to results. Thread-safe: each caller has an exiftool alone. A context manager."""

    engine: str
    """"exiftool 12.57" or "pillow": what carries the tags."""
    notice: str | None
    """One line for people: what stays behind when exiftool is not used and how to install it, or why to update it."""

    def __init__(
        self,
        use: _Engine = "auto",
        *,
        rules: TagRules = KEEP_ALL,
        seconds: float = 60.0,
        executable: str | None = None,
    ) -> None:
        """Start exiftool, if it is to be used and can be.

        Args:
            use: "auto" takes exiftool where it is installed, else Pillow.
            rules: which tags are carried, and lumen's stamp.
            seconds: how long one command of one picture's may take.
            executable: exiftool's path; None looks on PATH.

        Raises:
            UsageError: exiftool is asked for and missing or too old, or missing while tags are to be `private`, which
                nothing else can do.
        """
        self.rules = rules
        self.engine, self.notice = "pillow", None
        self._pool = ExifToolPool(seconds, executable)
        try:
            reason, version = "tags are carried by Pillow", None if use == "pillow" else self._pool.version()
        except UnusableExifToolError as error:
            reason, version = str(error), None
        if version is not None:
            self.engine = f"exiftool {version}"
            self.notice = f"{self.engine} {_UNSAFE}" if is_unsafe(version) else None
            return
        if use == "exiftool":
            raise UsageError(f"{reason}; {INSTALL}")
        if rules.metadata == "private":
            raise UsageError(
                f"--metadata private needs exiftool, and {reason}; take --metadata strip (no tags at all), or {INSTALL}"
            )
        if rules.metadata == "keep":
            self.notice = f"{reason}: {_FALLBACK}" + ("" if use == "pillow" else f"; {INSTALL}")

    def __enter__(self) -> TagWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the exiftool processes."""
        self._pool.close()

    def processes(self) -> list[int]:
        """The process ids of the exiftools that run now."""
        return self._pool.numbers()

    def copy(self, source: Path, target: Path, picture: Picture) -> list[str]:
        """Copy the tags of `source` that hold for the result and that the rules let pass into `target`, in place.

        What differs afterwards, and why, is the table `tag_rules.CHANGES`. The profile is not touched: `write_picture`
        embedded it. The stamp is added to what EXIF's ProcessingSoftware says (not with `strip`: none means none).

        Args:
            source: the original file.
            target: the finished result, or the temporary file that will become it.
            picture: what is in `target`; its pixels (for a thumbnail), size and `exif` are used.

        Returns:
            Warnings worth a line each, exiftool's own among them; tags that cannot be carried never fail a picture.

        Raises:
            PictureError: exiftool hung or died twice on this picture, or `target` cannot be written.
        """
        with target.open("rb") as file:
            format = sniff(file.read(512)) or ""
        if format == "bmp":
            return ["BMP holds no tags"] if picture.exif and self.rules.metadata != "strip" else []
        if self.rules.metadata == "strip":
            return []  # the profile is all that is kept, and it lies in `target`
        if self.rules.metadata == "keep" and format == picture.format and format in SPLICED:
            with contextlib.suppress(NotSplicedError, OSError):
                return splice(source, target, format, picture, self.rules.stamp)
        small = thumbnail(picture) if format != "tiff" and has_thumbnail(picture.exif) else None
        if self.engine == "pillow":
            return _embed(target, picture, self._software(picture), small)
        tagged = may_hold_tags(source)
        if self.rules.stamp and (picture.exif is None or not tagged) and format in EMBEDDABLE:
            # Written here: exiftool would put tags beside it that claim things nobody knows, 72 dpi for example.
            _write_block(target, picture, stamped(None, with_stamp(None, self.rules.stamp)))
        if not tagged:
            return self._stamp_alone(source, target, format)
        software = self._software(picture)
        if self.rules.metadata == "private":
            return self._copy_allowed(source, target, format, picture, small)
        left = [f"{format} cannot hold {what}" for what in unheld(source, format)]
        failed, warnings = self._copy_all(source, target, format, picture, small)
        if not failed:
            return [*left, *warnings, *self._missing(source, target, format, picture, [*left, *warnings])]
        carried = _embed(target, picture, software, small) if picture.exif else []
        return [f"exiftool could not copy the tags ({failed}); only EXIF was carried over", *carried]

    def _copy_all(
        self, source: Path, target: Path, format: str, picture: Picture, small: bytes | None
    ) -> tuple[str, list[str]]:
        """Copy whole blocks where that can be done, tag by tag where it cannot: what went wrong, and warnings."""
        software, stand, packet = self._software(picture), None, None
        with contextlib.suppress(NotSplicedError, OSError):
            stand = stand_in(source, picture.format)
            packet = repaired_packet(source, picture.format)
        with as_file(stand) as standing, plainly_named(standing or source) as named, as_file(small) as shown:
            blocks = whole_blocks(named, picture, format)
            ways = [blocks, [], *([[block for block in blocks if block != "XMP"]] if "XMP" in blocks else [])]
            with as_file(packet) as mended:
                failed, warnings = "", list[str]()
                for way in dict.fromkeys(map(tuple, ways)):

                    def commands(file: Path, way: tuple[str, ...] = way) -> list[list[bytes]]:
                        plain = [block for block in way if block != "XMP" or mended is None]
                        made = [block_arguments(named, file, plain, fast=picture.format != "gif")] if plain else []
                        if "XMP" in way and mended is not None:
                            made.append(block_arguments(mended, file, ["XMP"]))
                        return [*made, copy_arguments(named, file, picture, format, software, way, shown)]

                    failed, warnings = self._ask(source, target, format, commands)
                    refused = [line for line in warnings if line.startswith(_REFUSED_XMP)]
                    if not failed and not refused:
                        break
                    warnings = [line for line in warnings if line not in refused]
        return failed, warnings

    def _missing(self, source: Path, target: Path, format: str, picture: Picture, said: list[str]) -> list[str]:
        """The line about tags that the result lacks, none where it has all: exiftool lists both files."""
        said = [*said, *picture.notices, *(f"cannot hold {what}" for what in losses(picture, format))]
        with plainly_named(source) as named, plainly_named(target) as made:
            try:
                with self._pool.process() as tool:
                    before, after = listed(str(tool.execute(*comparison_arguments(named, made))))
            except (UnusableExifToolError, ValueError):
                return ["its tags were copied, but exiftool could not list them for a check"]
        found = differences(before, after, self.rules, picture.format, format, said)
        return line_about(name for name, (_, now) in found.items() if now is None)

    def _copy_allowed(
        self, source: Path, target: Path, format: str, picture: Picture, small: bytes | None
    ) -> list[str]:
        """Copy what `private` keeps; where the finished file holds anything else in the end, it gets no tags."""
        credits, software = self.rules.credits, self._software(picture)

        def leftovers(tool: PatientExifTool, file: Path) -> list[str]:
            text = tool.execute(*listing_arguments(file))
            return unwanted(json.loads(text)[0], credits, software)

        def clean(tool: PatientExifTool, file: Path) -> str:
            try:
                if found := leftovers(tool, file):
                    tool.execute(*removal_arguments(file, found))
                    found = leftovers(tool, file)
            except (ValueError, LookupError):
                return "it cannot read the finished file"
            return f"these cannot be removed: {', '.join(found[:5])}" if found else ""

        with plainly_named(source) as named, as_file(small) as shown:

            def commands(file: Path) -> list[list[bytes]]:
                return [private_arguments(named, file, picture, credits, software, shown)]

            failed, warnings = self._ask(source, target, format, commands, clean)
        if failed:
            return [f"exiftool could not copy the tags ({failed}); none were carried over"]
        unsaid = "IPTC" in unheld(source, format) and credits
        return [*([f"{format} cannot hold IPTC"] if unsaid else []), *warnings]

    def _stamp_alone(self, source: Path, target: Path, format: str) -> list[str]:
        """A picture without tags in a format into which only exiftool writes EXIF."""
        if self.rules.stamp is None or format in EMBEDDABLE:
            return []
        software = with_stamp(None, self.rules.stamp)
        failed, warnings = self._ask(source, target, format, lambda file: [stamp_arguments(file, software)])
        return [f"exiftool could not write lumen's stamp ({failed})"] if failed else warnings

    def _software(self, picture: Picture) -> str | None:
        """What ProcessingSoftware shall say; None without a stamp. `private` keeps nothing of an earlier one."""
        earlier = None if self.rules.metadata == "private" else processing_software(picture.exif)
        return self.rules.stamp and with_stamp(earlier, self.rules.stamp)

    def _ask(
        self,
        source: Path,
        target: Path,
        format: str,
        commands: Callable[[Path], list[list[bytes]]],
        check: Callable[[PatientExifTool, Path], str] = lambda tool, file: "",
    ) -> tuple[str, list[str]]:
        """Have exiftool run commands on the target, all or none: what went wrong, and the warnings.

        `check` looks at the finished file and says what is wrong with it, "" for nothing.
        """
        failed, warnings = "", list[str]()
        for attempt in (1, 2):
            # A plain name whatever the target's is: nothing in it can mean something to exiftool.
            file = temporary_beside(target.with_name(f"tags.{format}"))
            try:
                _link(target, file)
                with self._pool.process() as tool:
                    for command in commands(file):
                        tool.execute(*command)
                        failed, said = spoken(tool.last_stderr or "", tool.last_status or 0)
                        warnings += said
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
                # What an exiftool that was stopped midway leaves; and the link, which replacing a file by itself keeps.
                file.with_name(file.name + "_exiftool_tmp").unlink(missing_ok=True)
                file.unlink(missing_ok=True)
        if failed:
            # exiftool does not say why it could not write; a full disk must not cost a picture its tags.
            require_room(target.parent, source.stat().st_size + 2 * target.stat().st_size)
        return failed, list(dict.fromkeys(warnings))


def _embed(target: Path, picture: Picture, software: str | None, small: bytes | None) -> list[str]:
    """The raw EXIF block of the original, corrected, the stamp and a thumbnail into the finished file."""
    warnings = []
    block = None if picture.exif is None else corrected(picture.exif, picture.width, picture.height)
    if picture.exif is not None and block is None:
        warnings = ["its EXIF is damaged and was left out"]
    if software is not None:
        try:
            block = stamped(block, software)
        except ValueError as error:
            warnings, block = [f"{error} and was left out"], stamped(None, software)
    if small is not None and block is not None and len(block) + len(small) < MOST_IN_JPEG:
        with contextlib.suppress(ValueError):
            block = with_thumbnail(block, small)
    return warnings if block is None else [*warnings, *_write_block(target, picture, block)]


def _write_block(target: Path, picture: Picture, block: bytes) -> list[str]:
    try:
        data = embedded(target.read_bytes(), block, (picture.width, picture.height))
    except Exception as error:  # Pillow's TIFF writer fails in many ways on odd tags; the picture itself is good
        return [f"its EXIF could not be carried over ({error})"]
    try:
        target.write_bytes(data)
    except OSError as error:
        raise PictureError(target, f"cannot be written ({error.strerror or error})") from None
    return []


def _link(target: Path, file: Path) -> None:
    """Another name for the file: exiftool puts a new file in its place and leaves this one as it is."""
    try:
        os.link(target, file)
    except OSError:  # a file system without links
        shutil.copyfile(target, file)
