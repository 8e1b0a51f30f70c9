"""From a file to a `Picture`, or to one clear line that says why not."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np

from lumen_cli.errors import PictureError
from lumen_cli.imaging.color import to_unit
from lumen_cli.imaging.decoded import Decoded, UnreadableError, upright
from lumen_cli.imaging.picture import Picture

_KNOWN_STRANGERS = (
    (0, b"GIF8", "a GIF"),
    (0, b"%PDF", "a PDF"),
    (0, b"8BPS", "a Photoshop document"),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 picture"),
    (0, b"\xff\x0a", "a JPEG XL picture"),
    (0, b"\x76\x2f\x31\x01", "an OpenEXR picture"),
    (0, b"FUJIFILMCCD-RAW", "a camera raw file"),
    (4, b"ftypavif", "an AVIF picture"),
    (4, b"ftypcrx", "a camera raw file"),
    (4, b"ftyphei", "a HEIC picture"),
    (4, b"ftypmif1", "a HEIF picture"),
    (4, b"ftyp", "a video"),
)


def read_picture(path: Path) -> Picture:
    """Read a JPEG, PNG, WebP, TIFF or BMP file, whatever its name says it is. Thread-safe.

    16-bit PNG and TIFF keep their 16 bits; palettes become RGB; CMYK becomes sRGB through its embedded profile; of
    several pages or frames the first is read. The orientation tag is applied.

    Raises:
        PictureError: the file is missing, may not be read, is empty, cut off, damaged, not a picture or of a kind
            that lumen does not read; one line.
    """
    data = _content(path)
    kind = sniff(data)
    if kind is None:
        stranger = next((name for at, magic, name in _KNOWN_STRANGERS if data[at:].startswith(magic)), None)
        what = f"{stranger}, which lumen does not read" if stranger else "not a picture"
        raise PictureError(path, f"{what} (it reads JPEG, PNG, WebP, TIFF and BMP)")
    try:
        return _picture(_decode(data, kind), kind)
    except UnreadableError as error:
        raise PictureError(path, " ".join(str(error).split())) from None
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
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "tiff"
    if (
        data[:2] == b"BM"
        and len(data) > 26
        and data[14:18] in (b"\x0c\0\0\0", b"(\0\0\0", b"4\0\0\0", b"8\0\0\0", b"@\0\0\0", b"l\0\0\0", b"|\0\0\0")
    ):
        return "bmp"
    return None


def _content(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise PictureError(path, "a folder, not a picture")
        if not stat.S_ISREG(mode):
            raise PictureError(path, "not a regular file")
        data = path.read_bytes()
    except FileNotFoundError:
        reason = "a link that leads nowhere" if path.is_symlink() else "no such file"
        raise PictureError(path, reason) from None
    except PermissionError:
        raise PictureError(path, "may not be read (permission denied)") from None
    except (OSError, ValueError) as error:
        raise PictureError(path, f"cannot be read ({getattr(error, 'strerror', None) or error})") from None
    except MemoryError:
        raise PictureError(path, "the file does not fit into memory") from None
    if not data:
        raise PictureError(path, "the file is empty")
    return data


def _decode(data: bytes, kind: str) -> Decoded:
    from lumen_cli.imaging import decode_deep, decode_pillow

    if kind == "png":
        return decode_deep.decode_png(data)
    if kind == "tiff":
        return decode_deep.decode_tiff(data)
    return decode_pillow.decode(data, kind)


def _picture(decoded: Decoded, kind: str) -> Picture:
    values = upright(decoded.values, decoded.orientation)
    channels = values.shape[2]
    grey = channels <= 2
    colours = values[:, :, :1] if grey else values[:, :, :3]
    pixels = to_unit(np.broadcast_to(colours, (*colours.shape[:2], 3)))
    alpha = to_unit(values[:, :, -1]) if channels in (2, 4) else None
    depth = values.dtype.itemsize * 8
    return Picture(pixels, alpha, depth, grey, kind, decoded.icc, decoded.exif, decoded.lost)
