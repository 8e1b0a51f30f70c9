"""Tags from the original to the result: exiftool carries all of them, Pillow's reading of EXIF the most important."""

from __future__ import annotations

import mmap
import shutil
import threading
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from lumen_cli.errors import PictureError, UsageError
from lumen_cli.imaging.exif_block import corrected
from lumen_cli.imaging.exif_embed import embedded
from lumen_cli.imaging.exiftool_arguments import copy_arguments, plainly_named, spoken, xmp_arguments
from lumen_cli.imaging.picture import Picture
from lumen_cli.imaging.reading import sniff
from lumen_cli.imaging.tag_search import may_hold_tags

if TYPE_CHECKING:
    from lumen_cli.imaging.exiftool_process import PatientExifTool

INSTALL = (
    "install it with your system's packages (Debian: libimage-exiftool-perl, Homebrew: exiftool), "
    "or without root: unpack Image-ExifTool from exiftool.org and put its folder on PATH"
)
_FALLBACK = "EXIF and colour profiles are carried over; XMP, IPTC, PNG texts and, in TIFF, maker notes are not"

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
        seconds: float = 60.0,
        executable: str | None = None,
    ) -> None:
        """Start exiftool, if it is to be used and can be.

        Args:
            use: "auto" takes exiftool where it is installed, else Pillow.
            seconds: how long one picture's tags may take.
            executable: exiftool's path; None looks on PATH.

        Raises:
            UsageError: exiftool is asked for and missing or too old.
        """
        self._lock = threading.Lock()
        self._seconds = seconds
        self._executable = executable
        self._tool: PatientExifTool | None = None
        self.engine, self.notice = "pillow", None
        if use == "pillow":
            self.notice = f"tags are carried by Pillow: {_FALLBACK}"
            return
        reason = self._start()
        if reason is None:
            return
        if use == "exiftool":
            raise UsageError(f"{reason}; {INSTALL}")
        self.notice = f"{reason}: {_FALLBACK}; {INSTALL}"

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
        """Copy all tags of `source` that hold for the result into `target`, in place.

        Orientation becomes 1, since the pixels are upright, the size in EXIF becomes the picture's, previews and
        thumbnails of the dark original are left out. The profile is not touched: `write_picture` embedded it.

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
            return ["BMP holds no tags"] if picture.exif else []
        if self.engine == "pillow":
            return _embed(target, picture)
        if not may_hold_tags(source):
            return []
        with plainly_named(source) as named, self._lock:
            return self._by_exiftool(source, named, target, picture, format or "")

    def _by_exiftool(self, source: Path, named: Path, target: Path, picture: Picture, format: str) -> list[str]:
        from lumen_cli.imaging.exiftool_process import ExifToolFailedError

        for attempt in (1, 2):
            _remove_leftover(target)
            try:
                if self._tool is None and (reason := self._start()):
                    raise ExifToolFailedError(reason)
                assert self._tool is not None
                if _has_xmp(named):
                    self._tool.execute(*xmp_arguments(named, target))
                self._tool.execute(*copy_arguments(named, target, picture, format))
                failed, warnings = spoken(self._tool.last_stderr or "", self._tool.last_status or 0)
                break
            except ExifToolFailedError as error:
                if self._tool is not None:
                    self._tool.stop()
                    self._tool = None
                if attempt == 2:
                    _remove_leftover(target)
                    raise PictureError(source, f"its tags could not be copied ({error}, twice)") from None
        if failed:
            return [
                f"exiftool could not copy the tags ({failed}); only EXIF was carried over",
                *_embed(target, picture),
            ]
        return warnings

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


def _embed(target: Path, picture: Picture) -> list[str]:
    """The raw EXIF block of the original, corrected, into the finished file."""
    if picture.exif is None:
        return []
    block = corrected(picture.exif, picture.width, picture.height)
    if block is None:
        return ["its EXIF is damaged and was left out"]
    try:
        data = embedded(target.read_bytes(), block, (picture.width, picture.height))
    except Exception as error:  # Pillow's TIFF writer fails in many ways on odd tags; the picture itself is good
        return [f"its EXIF could not be carried over ({error})"]
    try:
        target.write_bytes(data)
    except OSError as error:
        raise PictureError(target, f"cannot be written ({error.strerror or error})") from None
    return []


def _has_xmp(source: Path) -> bool:
    try:
        with source.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return data.find(b"adobe:ns:meta/") >= 0
    except (OSError, ValueError):
        return False


def _remove_leftover(target: Path) -> None:
    """What an exiftool that was stopped midway leaves; the next one would refuse to begin."""
    target.with_name(target.name + "_exiftool_tmp").unlink(missing_ok=True)
