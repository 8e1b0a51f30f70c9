"""What exiftool is asked for one picture: its arguments, the file names that it takes, and what its answer means."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from lumen_cli.imaging.formats import load_format
from lumen_cli.imaging.picture import Picture
from lumen_cli.imaging.tags.containers import EXTENDED_XMP, contains
from lumen_cli.imaging.tags.rules import BEHIND, BLOCK_SIZES, PREVIEWS, SIZES, TURNED, copied_tags
from lumen_cli.imaging.tags.splice import MOST_IN_JPEG
from lumen_cli.imaging.tags.xmp import STARTS

LISTING = (b"-j", b"-n", b"-q", b"-G0:1:4", b"-a", b"-s", b"-u", b"-struct", b"-api", b"largefilesupport=1")
"""exiftool's options for `transfer.parse_listing`: all tags of each file, also several of one name."""

_REMOVED = tuple(f"-{tag}=" for tag in (*BEHIND, "XMP-xmp:Thumbnails"))
# exiftool does not count these among "all", but they hold for the result (the first two tell Adobe RGB from sRGB).
_ALSO = ("-InteropIFD:InteropIndex", "-InteropIFD:InteropVersion", "-IFD0:TransferFunction")
_ALSO_IN_JPEG = ("-IFD0:YCbCrPositioning", "-IFD0:YCbCrCoefficients", "-ExifIFD:ComponentsConfiguration")
_COMMENTED = ("jpeg", "png")  # the comment has another group in each
_WHOLE_EXIF = ("jpeg", "png", "webp", "heif", "avif", "jxl")
_EXPANDED = re.compile(rb"%[-+]?\d*[.:]?\d*[lu]?[dDfFeEtgso]|\|$")
_UNIMPORTANT = ("[minor]", "[Minor]", "No writable tags set", "Tag '")


def whole_blocks(source: Path, picture: Picture, target_format: str) -> list[str]:
    """Which of EXIF, XMP and IPTC exiftool can copy from this file as a whole, byte for byte.

    In TIFF, EXIF's tags are among the picture's own; a PNG may hold EXIF as text; JPEG may spread XMP over several
    segments, and its EXIF has to fit into one.
    """
    fits = target_format != "jpeg" or len(picture.exif or b"") < MOST_IN_JPEG
    try:
        with source.open("rb") as file:
            end = load_format(picture.format).find_end(file)
            blocks = []
            whole = picture.format in _WHOLE_EXIF and (picture.format != "png" or contains(file, b"eXIf", end))
            if whole and fits and target_format != "tiff":
                blocks.append("EXIF")
            if any(contains(file, start, end) for start in STARTS) and not contains(file, EXTENDED_XMP[:-1], end):
                blocks.append("XMP")
            if target_format in ("jpeg", "tiff") and contains(file, b"\x1c\x02", end):
                blocks.append("IPTC")
            return blocks
    except (OSError, ValueError):
        return []


def copy_blocks(source: Path, target: Path, blocks: Iterable[str], *, fast: bool = True) -> list[bytes]:
    """The arguments that copy EXIF, XMP or IPTC as they are.

    Tag by tag, exiftool drops tags that it has no name for and rounds fractions.
    """
    return [*_options(fast=fast), *_from(source), *(f"-{block}".encode() for block in blocks), _line(target)]


def copy_tags(
    source: Path,
    target: Path,
    picture: Picture,
    format: str,
    software: str | None = None,
    blocks: Collection[str] = (),
    small: Path | None = None,
) -> list[bytes]:
    """The arguments, one a line, that copy the tags of `source` that hold for `target`.

    Args:
        source: under a name that exiftool takes.
        target: the finished result.
        picture: its content.
        format: its format.
        software: what ProcessingSoftware becomes; None leaves it alone.
        blocks: what `copy_blocks` copied before; it is only corrected.
        small: a file with the thumbnail for EXIF.
    """
    # Composite: exiftool computes those from other tags; written, they would round them.
    options = ["--Composite:all", *(f"--{tag}" for tag in PREVIEWS)]
    if "EXIF" in blocks:
        options += ["--EXIF:all", "--MakerNotes", "--MakerNotes:all", "-IFD1:all=", "-PreviewImage="]
    else:
        options += [*_ALSO, *(_ALSO_IN_JPEG if format == "jpeg" else ())]
    options += ["-Comment"] if format in _COMMENTED else []
    options += ["--IPTC:all", "-Photoshop:IPTCDigest"] if "IPTC" in blocks else []
    options += ["--XMP:all"] if "XMP" in blocks else []
    return [
        *_options(fast=picture.format != "gif"),
        # exiftool adds "uncalibrated" where the original says nothing; a value of the original comes after this.
        *([] if "EXIF" in blocks else [b"-ExifIFD:ColorSpace="]),
        *_from(source),
        b"-all:all",
        *(option.encode() for option in (*options, *_REMOVED)),
        *_corrections(picture, (*SIZES, *BLOCK_SIZES) if "EXIF" in blocks else SIZES, software, small),
        _line(target),
    ]


def copy_allowed_tags(
    source: Path, target: Path, picture: Picture, credits: bool, software: str | None = None, small: Path | None = None
) -> list[bytes]:
    """Like `copy_tags`, for the tags that `private` allows; `credits`: with title and rights."""
    return [
        *_options(),
        b"-ExifIFD:ColorSpace=",
        *_from(source),
        *(f"-{tag}".encode() for tag in copied_tags(credits)),
        *_corrections(picture, SIZES, software, small),
        _line(target),
    ]


def remove_tags(target: Path, tags: Iterable[str]) -> list[bytes]:
    """The arguments that remove tags, "group:name"."""
    return [*_options(), *(f"-{tag}=".encode() for tag in tags), _line(target)]


def stamp(target: Path, software: str) -> list[bytes]:
    """The arguments that write ProcessingSoftware and nothing else."""
    return [*_options(), b"-IFD0:ProcessingSoftware=" + software.encode(), _line(target)]


def list_flat(target: Path) -> list[bytes]:
    """The arguments that print every tag of a file as JSON, structures flattened, unknown tags too."""
    return [b"-j", b"-n", b"-q", b"-m", b"-a", b"-u", b"-G1:4", _line(target)]


def list_both(source: Path, target: Path) -> list[bytes]:
    """The arguments that list all tags of both files for `check.parse_listing`."""
    return [*LISTING, _line(source), _line(target)]


def _corrections(picture: Picture, sizes: Iterable[str], software: str | None, small: Path | None) -> Iterator[bytes]:
    """Orientation, sizes and thumbnail of the result, and the stamp."""
    # Written only where the original has them: exiftool adds mandatory tags to a new directory.
    yield from (_replace(tag, 1) for tag in TURNED)
    for tag in sizes:
        yield _replace(f"{tag}Width", picture.width)
        yield _replace(f"{tag}Height", picture.height)
    if software is not None:  # a plain value: exiftool looks for code only behind "<"
        yield b"-IFD0:ProcessingSoftware=" + software.encode()
    if small is not None:
        yield b"-IFD1:ThumbnailImage<=" + _encode(small)


def _replace(tag: str, value: int) -> bytes:
    """The tag gets this value where the original has it at all."""
    return f"-{tag}<${{{tag};$_={value}}}".encode()


def _options(*, fast: bool = True) -> list[bytes]:
    # -n: values as they are stored; as printed for people, 21.3125 mm would become 21.3 mm.
    # -fast: no check of a PNG's checksums in Perl, which takes longer than writing the file; but it misses a GIF's XMP.
    options = [b"-m", b"-n", b"-q", *([b"-fast"] if fast else []), b"-overwrite_original"]
    return [*options, b"-charset", b"filename=utf8"] if os.name == "nt" else options


def _from(source: Path) -> list[bytes]:
    return [b"-tagsFromFile", _line(source)]


@contextlib.contextmanager
def plain_name(source: Path) -> Iterator[Path]:
    """A name of `source` that exiftool takes as it is.

    exiftool expands %d, %f and the like without a way to escape them; old versions run a name that ends with "|" as a
    command; and in an escaped line (`_line`), a $ or @ beside a line break gets a backslash.
    """
    name = _encode(source)
    if not _EXPANDED.search(name) and _line(source) == name:
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="lumen-") as folder:
        link = Path(folder) / "source"
        try:
            link.symlink_to(Path(os.path.abspath(source)))  # noqa: PTH100
        except OSError:  # file systems without links, Windows without the right to make them
            shutil.copyfile(source, link)
        yield link


@contextlib.contextmanager
def as_file(content: bytes | None) -> Iterator[Path | None]:
    """A file with this content, while it is needed, under a name that exiftool takes; None for None."""
    if content is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="lumen-") as folder:
        file = Path(folder) / "content"
        file.write_bytes(content)
        yield file


def parse_messages(stderr: str, status: int) -> tuple[str, list[str]]:
    """Exiftool's errors as one text ("" for none), and its warnings."""
    errors, warnings = [], []
    for line in stderr.splitlines():
        kind, _, text = line.strip().partition(": ")
        text = text.rsplit(" - ", 1)[0]
        if kind == "Error":
            errors.append(text)
        elif kind == "Warning" and not text.startswith(_UNIMPORTANT):
            warnings.append(text)
    if status != 0 and not errors and not stderr.strip():
        errors.append(f"status {status}")
    return "; ".join(errors), sorted(set(warnings))


def _encode(path: Path) -> bytes:
    name = os.path.abspath(path)  # noqa: PTH100  (keeps links; an absolute path cannot look like an option)
    return name.encode("utf-8") if os.name == "nt" else os.fsencode(name)


def _line(path: Path) -> bytes:
    """A file's name as one line of exiftool's arguments, whatever characters it has."""
    name = _encode(path)
    if not any(byte in name for byte in b"\n\r") and not name[-1:].isspace():
        return name
    escaped = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    return b"#[CSTR]" + escaped
