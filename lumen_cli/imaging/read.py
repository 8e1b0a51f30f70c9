"""From a file to a `Picture`, or to one clear line that says why not."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from lumen_cli.errors import PictureError
from lumen_cli.imaging.decoded import Decoded, UnreadableError
from lumen_cli.imaging.extent import READ_IN_PLACE, behind_picture
from lumen_cli.imaging.formats import MAXIMUM_PIXELS, RAW_SUFFIXES, READ_FORMATS, jxl_header
from lumen_cli.imaging.formats.isobmff import brands
from lumen_cli.imaging.measure import picture_bytes
from lumen_cli.imaging.picture import Picture

_KNOWN_STRANGERS = (
    (0, b"%PDF", "a PDF"),
    (0, b"8BPS", "a Photoshop document"),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 picture"),
    (0, b"\x76\x2f\x31\x01", "an OpenEXR picture"),
    (4, b"ftyp", "a video"),
)
_RAW_STARTS = (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FOVb", b"\0MRM", b"II\x1a\0\0\0HEAPCCDR")
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_BMP_HEADERS = (b"\x0c\0\0\0", b"(\0\0\0", b"4\0\0\0", b"8\0\0\0", b"@\0\0\0", b"l\0\0\0", b"|\0\0\0")
_START = 512
"""Bytes that tell what a file is."""


def read_picture(path: Path, *, max_pixels: int = MAXIMUM_PIXELS) -> Picture:
    """Read a picture file of any format that lumen reads, whatever its name says it is. Thread-safe.

    That is JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF and, where the extras are installed, HEIC (`heif`), JPEG XL (`jxl`)
    and camera raw files (`raw`). All bits are kept; palettes become RGB; the orientation tag is applied. Of several
    pages, frames or pictures the first is read, and `notices` of the result say so, as they do of all that is left out.
    A pure function of the file: it may run in another process, and its result can be pickled.

    Args:
        path: the file.
        max_pixels: a picture of more is refused from its header, before it is decoded; 0 for no limit.

    Raises:
        PictureError: the file is missing, may not be read, is empty, cut off, damaged, too large, not a picture or of a
            kind that lumen does not read, or its extra is not installed; one line.
    """
    kind, file = _open(path)
    with file:
        try:
            content: bytes | BinaryIO = file if kind in READ_IN_PLACE else picture_bytes(path, kind, file)
            picture = _picture(_decode(content, kind, max_pixels), kind, content)
            counted = any(notice.startswith("only the first of") for notice in picture.notices)
            behind = behind_picture(file, kind, counted)
            return replace(picture, notices=(*picture.notices, *behind)) if behind else picture
        except UnreadableError as error:
            raise PictureError(path, " ".join(str(error).split())) from None
        except OSError as error:
            raise PictureError(path, f"cannot be read ({error.strerror or error})") from None
        except MemoryError:
            raise PictureError(path, "the picture does not fit into memory") from None


def sniff(data: bytes) -> str | None:
    """The format a file's first bytes announce; None for what lumen does not read."""
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data.startswith(_RAW_STARTS) or (data[:4] == b"II*\0" and data[8:10] == b"CR"):
        return "raw"
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "tiff"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "gif"
    if data.startswith((jxl_header.CODESTREAM, jxl_header.CONTAINER)):
        return "jxl"
    if data[:2] == b"BM" and len(data) > 26 and data[14:18] in _BMP_HEADERS:
        return "bmp"
    return _sniff_boxes(brands(data))


def _sniff_boxes(announced: set[bytes]) -> str | None:
    """Files made of boxes: AVIF calls itself HEIF too, Canon's raw files are a kind of their own."""
    if b"crx " in announced:
        return "raw"
    if announced & {b"avif", b"avis"}:
        return "avif"
    return "heif" if announced & _HEIF_BRANDS else None


def kind_of(start: bytes, path: Path) -> str | None:
    """As `sniff`, but many camera raw files are told from TIFF by their name alone, or by what lies deeper."""
    kind = sniff(start)
    if kind == "tiff":
        from lumen_cli.imaging.formats.tiff import is_raw

        return "raw" if path.suffix.lower() in RAW_SUFFIXES or is_raw(path) else "tiff"
    return kind


def _open(path: Path) -> tuple[str, BinaryIO]:
    """The format of a file, and the file, open for reading."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise PictureError(path, "a folder, not a picture")
        if not stat.S_ISREG(mode):
            raise PictureError(path, "not a regular file")
        file = path.open("rb")
    except FileNotFoundError:
        reason = "a link that leads nowhere" if path.is_symlink() else "no such file"
        raise PictureError(path, reason) from None
    except PermissionError:
        raise PictureError(path, "may not be read (permission denied)") from None
    except (OSError, ValueError) as error:
        raise PictureError(path, f"cannot be read ({getattr(error, 'strerror', None) or error})") from None
    try:
        return _kind(path, file), file
    except BaseException:
        file.close()
        raise


def _kind(path: Path, file: BinaryIO) -> str:
    try:
        start = file.read(_START)
    except OSError as error:
        raise PictureError(path, f"cannot be read ({error.strerror or error})") from None
    if not start:
        raise PictureError(path, "the file is empty")
    kind = kind_of(start, path)
    if kind is None:
        stranger = next((name for at, magic, name in _KNOWN_STRANGERS if start[at:].startswith(magic)), None)
        what = f"{stranger}, which lumen does not read" if stranger else "not a picture"
        raise PictureError(path, f"{what} (it reads {READ_FORMATS})")
    return kind


def _decode(content: bytes | BinaryIO, kind: str, max_pixels: int) -> Decoded:
    """Decoders are imported only when a file needs them. content: an open file for `READ_IN_PLACE`."""
    from lumen_cli.imaging.formats.pillow import decode, tags_of

    if not isinstance(content, bytes):
        if kind == "tiff":
            from lumen_cli.imaging.formats.tiff import decode_tiff

            return decode_tiff(content, max_pixels)
        if kind == "raw":
            from lumen_cli.imaging.formats.raw import decode_raw

            return decode_raw(content, max_pixels, tags_of(content))
        return decode(content, kind, max_pixels)
    if kind == "png":
        from lumen_cli.imaging.formats.png import decode_png

        return decode_png(content, max_pixels)
    if kind == "avif":
        from lumen_cli.imaging.formats.avif import decode_avif

        return decode_avif(content, max_pixels)
    if kind == "heif":
        from lumen_cli.imaging.formats.heif import decode_heif

        return decode_heif(content, max_pixels)
    if kind == "jxl":
        from lumen_cli.imaging.formats.jxl import decode_jxl

        return decode_jxl(content, max_pixels)
    return decode(content, kind, max_pixels)


def _picture(decoded: Decoded, kind: str, content: bytes | BinaryIO) -> Picture:
    from lumen_cli.imaging.assemble import assembled

    return assembled(decoded, kind, content)
