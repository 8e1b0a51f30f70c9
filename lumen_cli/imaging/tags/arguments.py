"""What exiftool is told for one picture, and what it says back."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from lumen_cli.imaging.picture import Picture
from lumen_cli.imaging.tags.allowed import copied_tags
from lumen_cli.imaging.tags.check import LISTED
from lumen_cli.imaging.tags.rules import BEHIND, BLOCK_SIZES, PREVIEWS, SIZES, TURNED

_REMOVED = tuple(f"-{tag}=" for tag in (*BEHIND, "XMP-xmp:Thumbnails"))
# exiftool leaves these out of "all"; they hold for the result (the first two tell Adobe RGB from sRGB).
_ALSO = ("-InteropIFD:InteropIndex", "-InteropIFD:InteropVersion", "-IFD0:TransferFunction")
_COMMENTED = ("jpeg", "png")  # it is of another group in each
_ALSO_IN_JPEG = ("-IFD0:YCbCrPositioning", "-IFD0:YCbCrCoefficients", "-ExifIFD:ComponentsConfiguration")
_EXPANDED = re.compile(rb"%[-+]?\d*[.:]?\d*[lu]?[dDfFeEtgso]|\|$")


def copy_arguments(
    source: Path,
    target: Path,
    picture: Picture,
    format: str,
    software: str | None = None,
    blocks: Collection[str] = (),
    small: Path | None = None,
) -> list[bytes]:
    """The arguments, one a line, that copy the tags of `source` that hold for `target`, a file of this format.

    Args:
        source: under a name that exiftool takes.
        target: the finished result.
        picture: what is in it.
        format: the target's.
        software: what ProcessingSoftware shall be, None to leave it as it is.
        blocks: what `block_arguments` has copied before; it is only made true.
        small: a file with the thumbnail that EXIF shall hold.
    """
    sizes = [*SIZES]
    # Composite: worked out from other tags; written, they would round those.
    options = ["--Composite:all", *(f"--{tag}" for tag in PREVIEWS)]
    if "EXIF" in blocks:
        options += ["--EXIF:all", "--MakerNotes", "--MakerNotes:all", "-IFD1:all=", "-PreviewImage="]
        sizes += BLOCK_SIZES
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
        *_true(picture, sizes, software, small),
        _line(_bytes(target)),
    ]


def private_arguments(
    source: Path, target: Path, picture: Picture, credits: bool, software: str | None = None, small: Path | None = None
) -> list[bytes]:
    """Like `copy_arguments`, of the tags alone that `tag_allowed` lists; `credits`: with title and rights."""
    return [
        *_options(),
        b"-ExifIFD:ColorSpace=",
        *_from(source),
        *(f"-{tag}".encode() for tag in copied_tags(credits)),
        *_true(picture, SIZES, software, small),
        _line(_bytes(target)),
    ]


def listing_arguments(target: Path) -> list[bytes]:
    """The arguments that print every tag of a file as JSON, structures flattened, unknown tags too."""
    return [b"-j", b"-n", b"-q", b"-m", b"-a", b"-u", b"-G1:4", _line(_bytes(target))]


def comparison_arguments(source: Path, target: Path) -> list[bytes]:
    """The arguments that list all tags of both files, for `tag_check.listed`."""
    return [*LISTED, _line(_bytes(source)), _line(_bytes(target))]


def removal_arguments(target: Path, tags: Iterable[str]) -> list[bytes]:
    """The arguments that remove tags, "group:name"."""
    return [*_options(), *(f"-{tag}=".encode() for tag in tags), _line(_bytes(target))]


def block_arguments(source: Path, target: Path, blocks: Iterable[str], *, fast: bool = True) -> list[bytes]:
    """The arguments that copy EXIF, XMP or IPTC as they are.

    Tag by tag, exiftool drops what it has no name for and rounds fractions.
    """
    return [*_options(fast=fast), *_from(source), *(f"-{block}".encode() for block in blocks), _line(_bytes(target))]


def stamp_arguments(target: Path, software: str) -> list[bytes]:
    """The arguments that write nothing but ProcessingSoftware."""
    return [*_options(), b"-IFD0:ProcessingSoftware=" + software.encode(), _line(_bytes(target))]


def _true(picture: Picture, sizes: Iterable[str], software: str | None, small: Path | None) -> Iterator[bytes]:
    """Orientation, sizes and thumbnail of the result, and the stamp."""
    # Written only where the original has them: a new folder of tags would bring mandatory ones that claim things.
    yield from (_made(tag, 1) for tag in TURNED)
    for tag in sizes:
        yield _made(f"{tag}Width", picture.width)
        yield _made(f"{tag}Height", picture.height)
    if software is not None:  # A plain value: exiftool looks for no code in it, unlike in what stands behind "<".
        yield b"-IFD0:ProcessingSoftware=" + software.encode()
    if small is not None:
        yield b"-IFD1:ThumbnailImage<=" + _bytes(small)


def _made(tag: str, value: int) -> bytes:
    """The tag becomes this value where the original has it at all."""
    return f"-{tag}<${{{tag};$_={value}}}".encode()


def _options(*, fast: bool = True) -> list[bytes]:
    # -n: values as they are stored; as printed for people, 21.3125 mm would become 21.3 mm.
    # -fast: no check of a PNG's checksums in Perl, which takes longer than writing the file; but no XMP of a GIF.
    options = [b"-m", b"-n", b"-q", *([b"-fast"] if fast else []), b"-overwrite_original"]
    return [*options, b"-charset", b"filename=utf8"] if os.name == "nt" else options


def _from(source: Path) -> list[bytes]:
    return [b"-tagsFromFile", _line(_bytes(source))]


@contextlib.contextmanager
def plainly_named(source: Path) -> Iterator[Path]:
    """A name of `source` that exiftool takes as it stands.

    It expands %d, %f and the like, with no way to escape; old ones run what ends with "|" as a command; and where a
    line break asks for an escaped line (`_line`), a $ or @ beside it gets a backslash that was not there.
    """
    name = _bytes(source)
    if not _EXPANDED.search(name) and _line(name) == name:
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
    """A file with this content, under a name that exiftool takes, for as long as it is needed; None for None."""
    if content is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="lumen-") as folder:
        file = Path(folder) / "content"
        file.write_bytes(content)
        yield file


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
