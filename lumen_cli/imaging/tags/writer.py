"""Tags from the original to the result: spliced where the format stays, by exiftool elsewhere; without it EXIF only."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Literal

from lumen_cli.errors import UsageError
from lumen_cli.imaging.formats import recognise
from lumen_cli.imaging.picture import Picture
from lumen_cli.imaging.tags.exif import has_thumbnail, join_software, read_software
from lumen_cli.imaging.tags.exiftool import ExifToolPool, UnusableExifToolError, is_unsafe
from lumen_cli.imaging.tags.pieces import SPLICED, NotSplicedError
from lumen_cli.imaging.tags.rules import KEEP_ALL, TagRules
from lumen_cli.imaging.tags.splice import embed_exif, make_thumbnail, splice

INSTALL = (
    "install it with your system's packages (Debian: libimage-exiftool-perl, Homebrew: exiftool), "
    "or without root: unpack Image-ExifTool from exiftool.org and put its folder on PATH"
)
_FALLBACK = (
    "all tags are copied where a JPEG, PNG or WebP keeps its format; elsewhere only EXIF and colour profiles are, "
    "not XMP, IPTC, PNG texts and, in TIFF, maker notes"
)
_UNSAFE = "has faults by which a picture can make it run commands; update it to 12.38 or newer"


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
        software = self._software(picture)
        if self.engine == "pillow":
            return embed_exif(target, format, picture, software, small)
        from lumen_cli.imaging.tags.transfer import Transfer  # most pictures keep their format

        return Transfer(self._pool, self.rules, source, target, format, picture, software, small).run()

    def _software(self, picture: Picture) -> str | None:
        """The result's ProcessingSoftware; None without a stamp. `private` keeps nothing of the original's."""
        earlier = None if self.rules.metadata == "private" else read_software(picture.exif)
        return self.rules.stamp and join_software(earlier, self.rules.stamp)
