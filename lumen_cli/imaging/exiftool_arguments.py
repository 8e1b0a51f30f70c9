"""What exiftool is told for one picture, and what it says back."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lumen_cli.imaging.picture import Picture

# What describes the original's file or its previews rather than the photograph would be untrue in the result.
_LEFT_OUT = (
    "--IFD1:all",  # the thumbnail of the dark picture
    "--ThumbnailImage",
    "--PreviewImage",
    "--JpgFromRaw",
    "--OtherImage",
    "--Photoshop:PhotoshopThumbnail",
)
_REMOVED = (
    "-XMP-xmp:Thumbnails=",
    "-XMP-tiff:Orientation=",
    "-XMP-tiff:ImageWidth=",
    "-XMP-tiff:ImageHeight=",
    "-XMP-exif:ExifImageWidth=",
    "-XMP-exif:ExifImageHeight=",
    "-XMP-GCamera:all=",  # points at a video or depth map behind the picture, which is not there any more
)
# exiftool leaves these out of "all"; they hold for the result (the first two tell Adobe RGB from sRGB).
_ALSO = ("-InteropIFD:InteropIndex", "-InteropIFD:InteropVersion", "-IFD0:TransferFunction")
_ALSO_IN_JPEG = ("-IFD0:YCbCrPositioning", "-IFD0:YCbCrCoefficients", "-ExifIFD:ComponentsConfiguration")
_EXPANDED = re.compile(rb"%[-+]?\d*[.:]?\d*[lu]?[dDfFeEtgso]")


def copy_arguments(source: Path, target: Path, picture: Picture, format: str) -> list[bytes]:
    """The arguments, one a line, that copy every tag of `source` that holds for `target`, a file of this format."""
    also = _ALSO + _ALSO_IN_JPEG if format == "jpeg" else _ALSO
    return [
        *_options(),
        # exiftool adds "uncalibrated" where the original says nothing; a value of the original comes after this.
        b"-ExifIFD:ColorSpace=",
        *_from(source),
        b"-all:all",
        *(option.encode() for option in (*_LEFT_OUT, *also, *_REMOVED)),
        # Written only where the original has them: a new folder of tags would bring mandatory ones that claim things.
        b"-IFD0:Orientation<${IFD0:Orientation;$_=1}",
        b"-ExifIFD:ExifImageWidth<${ExifIFD:ExifImageWidth;$_=%d}" % picture.width,
        b"-ExifIFD:ExifImageHeight<${ExifIFD:ExifImageHeight;$_=%d}" % picture.height,
        _line(_bytes(target)),
    ]


def xmp_arguments(source: Path, target: Path) -> list[bytes]:
    """The arguments that copy XMP as a whole first: tag by tag, exiftool drops what it has no name for."""
    return [*_options(), *_from(source), b"-XMP", _line(_bytes(target))]


def _options() -> list[bytes]:
    # -n: values as they are stored; as printed for people, 21.3125 mm would become 21.3 mm.
    # -fast: no check of a PNG's checksums in Perl, which takes longer than writing the file.
    options = [b"-m", b"-n", b"-q", b"-fast", b"-overwrite_original"]
    return [*options, b"-charset", b"filename=utf8"] if os.name == "nt" else options


def _from(source: Path) -> list[bytes]:
    return [b"-tagsFromFile", _line(_bytes(source))]


@contextlib.contextmanager
def plainly_named(source: Path) -> Iterator[Path]:
    """A name of `source` that exiftool takes as it stands: it expands %d, %f and the like, with no way to escape."""
    if not _EXPANDED.search(_bytes(source)):
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="lumen-") as folder:
        link = Path(folder) / "source"
        try:
            link.symlink_to(Path(os.path.abspath(source)))  # noqa: PTH100
        except OSError:  # file systems without links, Windows without the right to make them
            shutil.copyfile(source, link)
        yield link


def spoken(stderr: str, status: int) -> tuple[str, list[str]]:
    """What went wrong altogether ("" for nothing), and the warnings worth a line each."""
    errors, warnings = [], []
    for line in stderr.splitlines():
        kind, _, text = line.strip().partition(": ")
        text = text.rsplit(" - ", 1)[0]
        if kind == "Error":
            errors.append(text)
        elif kind == "Warning" and not text.startswith(("[minor]", "[Minor]", "No writable tags set", "Tag '")):
            warnings.append(text)
    if status != 0 and not errors and not stderr.strip():
        errors.append(f"status {status}")
    return "; ".join(errors), sorted(set(warnings))


def _bytes(path: Path) -> bytes:
    name = os.path.abspath(path)  # noqa: PTH100  (keeps links; a leading dash can be no option in an absolute path)
    return name.encode("utf-8") if os.name == "nt" else os.fsencode(name)


def _line(name: bytes) -> bytes:
    """A file name as one line of exiftool's argument stream, whatever characters it holds."""
    if not any(byte in name for byte in b"\n\r") and not name[-1:].isspace():
        return name
    escaped = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    return b"#[CSTR]" + escaped
