"""Tags from the original to the result: exiftool carries all of them, Pillow's reading of EXIF the most important."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from lumen_cli.errors import PictureError, UsageError
from lumen_cli.imaging.exif_block import corrected
from lumen_cli.imaging.exif_embed import embedded
from lumen_cli.imaging.exif_stamp import processing_software, stamped, with_stamp
from lumen_cli.imaging.exiftool_arguments import (
    block_arguments,
    copy_arguments,
    plainly_named,
    shown_arguments,
    spoken,
)
from lumen_cli.imaging.picture import Picture
from lumen_cli.imaging.reading import sniff
from lumen_cli.imaging.tag_rules import KEEP_ALL, TagRules
from lumen_cli.imaging.tag_search import may_hold_tags, whole_blocks
from lumen_cli.imaging.temporaries import temporary_beside

if TYPE_CHECKING:
    from lumen_cli.imaging.exiftool_process import PatientExifTool

INSTALL = (
    "install it with your system's packages (Debian: libimage-exiftool-perl, Homebrew: exiftool), "
    "or without root: unpack Image-ExifTool from exiftool.org and put its folder on PATH"
)
_FALLBACK = "EXIF and colour profiles are carried over; XMP, IPTC, PNG texts and, in TIFF, maker notes are not"

_ADOBE_RGB = b"R03\0"
"""The interoperability index of Adobe RGB in an EXIF block."""

_Engine = Literal["auto", "exiftool", "pillow"]


class TagWriter:
    """Copies tags from originals to results; one exiftool process for all of them. Thread-safe, a context manager."""

    engine: str
    """"exiftool 12.57" or "pillow": what carries the tags."""
    notice: str | None
    """One line for people when exiftool is not used: what stays behind, and how to install it."""

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
            seconds: how long one picture's tags may take.
            executable: exiftool's path; None looks on PATH.

        Raises:
            UsageError: exiftool is asked for and missing or too old, or missing while tags are to be `private`, which
                nothing else can do.
        """
        self.rules = rules
        self._lock = threading.Lock()
        self._seconds = seconds
        self._executable = executable
        self._tool: PatientExifTool | None = None
        self.engine, self.notice = "pillow", None
        reason = "tags are carried by Pillow" if use == "pillow" else self._start()
        if reason is None:
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
        """End the exiftool process."""
        with self._lock:
            if self._tool is not None:
                self._tool.stop()
                self._tool = None

    def copy(self, source: Path, target: Path, picture: Picture) -> list[str]:
        """Copy the tags of `source` that hold for the result and that the rules let pass into `target`, in place.

        Orientation becomes 1, since the pixels are upright, the size in EXIF becomes the picture's, previews and
        thumbnails of the dark original are left out. The profile is not touched: `write_picture` embedded it. The
        stamp is added to what EXIF's ProcessingSoftware says (not with `strip`: none means none).

        Args:
            source: the original file.
            target: the finished result, or the temporary file that will become it.
            picture: what is in `target`; its size and `exif` are used.

        Returns:
            Warnings worth a line each; tags that cannot be carried never fail a picture.

        Raises:
            PictureError: exiftool hung twice on this picture, or `target` cannot be written.
        """
        with target.open("rb") as file:
            format = sniff(file.read(64))
        if format == "bmp":
            return ["BMP holds no tags"] if picture.exif and self.rules.metadata != "strip" else []
        if self.rules.metadata == "strip":
            return self._strip(source, target, picture)
        if self.engine == "pillow":
            return _embed(target, picture, self._software(picture))
        tagged = may_hold_tags(source)
        if self.rules.stamp and (picture.exif is None or not tagged):
            # Written here: exiftool would put tags beside it that claim things nobody knows, 72 dpi for example.
            _write_block(target, picture, stamped(None, with_stamp(None, self.rules.stamp)))
        if not tagged:
            return []
        software = self._software(picture)
        with plainly_named(source) as named, self._lock:
            blocks = whole_blocks(named, picture, format or "") if self.rules.metadata == "keep" else []
            for way in (blocks, []) if blocks else ([],):

                def commands(file: Path, way: list[str] = way) -> list[list[bytes]]:
                    copied = copy_arguments(named, file, picture, format or "", self.rules, software, way)
                    return [block_arguments(named, file, way), copied] if way else [copied]

                failed, warnings = self._ask(source, target, commands)
                if not failed:
                    return warnings
        if self.rules.metadata != "keep":
            return [f"exiftool could not copy the tags ({failed}); none were carried over"]
        carried = _embed(target, picture, software) if picture.exif else []
        return [f"exiftool could not copy the tags ({failed}); only EXIF was carried over", *carried]

    def _strip(self, source: Path, target: Path, picture: Picture) -> list[str]:
        """Nothing but the profile, which `write_picture` embedded, or the tag that stands for it in camera files."""
        if picture.icc is not None or _ADOBE_RGB not in (picture.exif or b""):
            return []
        if self.engine == "pillow":
            return [
                "a tag says that it is Adobe RGB; only exiftool can keep that alone, and programs will take it for sRGB"
            ]
        with plainly_named(source) as named, self._lock:
            failed, warnings = self._ask(source, target, lambda file: [shown_arguments(named, file)])
        return (
            [f"only a tag says that it is Adobe RGB, and exiftool could not copy it ({failed})"] if failed else warnings
        )

    def _software(self, picture: Picture) -> str | None:
        """What ProcessingSoftware shall say; None without a stamp."""
        return self.rules.stamp and with_stamp(processing_software(picture.exif), self.rules.stamp)

    def _ask(self, source: Path, target: Path, commands: Callable[[Path], list[list[bytes]]]) -> tuple[str, list[str]]:
        """Have exiftool run commands on the target, all or none: what went wrong, and the warnings of the last one."""
        from lumen_cli.imaging.exiftool_process import ExifToolFailedError

        failed, warnings = "", list[str]()
        for attempt in (1, 2):
            file = temporary_beside(target)
            try:
                _link(target, file)
                if self._tool is None and (reason := self._start()):
                    raise ExifToolFailedError(reason)
                assert self._tool is not None
                for command in commands(file):
                    self._tool.execute(*command)
                    failed, warnings = spoken(self._tool.last_stderr or "", self._tool.last_status or 0)
                    if failed:
                        break
                else:
                    file.replace(target)
                break
            except ExifToolFailedError as error:
                if self._tool is not None:
                    self._tool.stop()
                    self._tool = None
                if attempt == 2:
                    raise PictureError(source, f"its tags could not be copied ({error}, twice)") from None
            finally:
                # What an exiftool that was stopped midway leaves; and the link, which replacing a file by itself keeps.
                file.with_name(file.name + "_exiftool_tmp").unlink(missing_ok=True)
                file.unlink(missing_ok=True)
        return failed, warnings

    def _start(self) -> str | None:
        """Start exiftool; what stood in the way, or None."""
        executable = self._executable or shutil.which("exiftool")
        if executable is None:
            return "exiftool is not installed"
        try:
            from exiftool.exceptions import ExifToolException

            from lumen_cli.imaging.exiftool_process import ExifToolFailedError, PatientExifTool
        except ImportError as error:
            return f"pyexiftool cannot be imported ({error})"
        try:
            tool = PatientExifTool(self._seconds, executable)
            tool.run()
        except (OSError, ValueError, RuntimeError, ExifToolException, ExifToolFailedError) as error:
            return f"exiftool cannot be started ({' '.join(str(error).split())})"
        self._tool, self.engine = tool, f"exiftool {tool.version}"
        return None


def _embed(target: Path, picture: Picture, software: str | None) -> list[str]:
    """The raw EXIF block of the original, corrected, and the stamp into the finished file."""
    warnings = []
    block = None if picture.exif is None else corrected(picture.exif, picture.width, picture.height)
    if picture.exif is not None and block is None:
        warnings = ["its EXIF is damaged and was left out"]
    if software is not None:
        try:
            block = stamped(block, software)
        except ValueError as error:
            warnings, block = [f"{error} and was left out"], stamped(None, software)
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
