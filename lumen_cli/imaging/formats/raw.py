"""Camera raw files, developed by LibRaw through rawpy. Many begin like a TIFF."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from lumen_cli.imaging.colour import make_profile
from lumen_cli.imaging.colour.convert import SRGB
from lumen_cli.imaging.colour.spaces import D65, SRGB_PRIMARIES, compute_matrix
from lumen_cli.imaging.extent import read_at, read_brands
from lumen_cli.imaging.formats import SUFFIXES
from lumen_cli.imaging.formats.format import Decoded, Format, Package, UnreadableError, check_size
from lumen_cli.imaging.formats.pillow import read_tiff_tags

_PACKAGE = Package("rawpy", "rawpy", "raw")
_STARTS = (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FOVb", b"\0MRM", b"II\x1a\0\0\0HEAPCCDR")
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SUBFILE, _DNG = 254, 50706
_MOSAIC = (32803, 34892)
"""Photometric interpretations of camera raw files: a colour filter array, and what was made of one."""
_NUMBERED = Path("/dev/fd")


def _accepts(start: bytes) -> bool:
    return start.startswith((*_STARTS, *TIFF_STARTS)) or b"crx " in read_brands(start)


def _is_raw(file: BinaryIO) -> bool:
    """Whether a file that begins like a TIFF is a camera's: by its name, or by its directories."""
    start = read_at(file, 0, 10)
    if not start.startswith(TIFF_STARTS) or (start[:4] == b"II*\0" and start[8:] == b"CR"):
        return True
    name = getattr(file, "name", "")
    if isinstance(name, str) and SUFFIXES.get(Path(name).suffix.lower()) == "raw":
        return True
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)
    file.seek(0)
    try:
        with tifffile.TiffFile(file) as tiff:
            page = tiff.pages.first
            if page.tags.valueof(_DNG) or int(page.photometric or 0) in _MOSAIC:
                return True
            return bool(int(page.tags.valueof(_SUBFILE) or 0) & 1)  # a preview of what lies deeper
    except Exception:  # tifffile passes on whatever a damaged structure causes; decoding will name the fault
        return False


def _open(file: BinaryIO, raw: Any) -> None:
    # By name, as LibRaw would read a file object whole; by number, as it does not take all names.
    raw.open_file(f"/dev/fd/{file.fileno()}" if _NUMBERED.is_dir() else file.name)


def _decode(file: BinaryIO, max_pixels: int) -> Decoded:
    """The camera's white balance, no automatic brightening, sRGB, 16 bits.

    LibRaw turns the pixels upright and gives 16-bit linear light, to which sRGB's transfer function is applied here.
    """
    exif = read_tiff_tags(file)
    rawpy = _PACKAGE.load("camera raw")
    try:
        with rawpy.RawPy() as raw:
            _open(file, raw)
            sizes = raw.sizes
            check_size(max(sizes.raw_width, sizes.width), max(sizes.raw_height, sizes.height), max_pixels)
            raw.unpack()
            linear = raw.postprocess(
                use_camera_wb=True,
                no_auto_bright=True,
                output_bps=16,
                gamma=(1, 1),
                output_color=rawpy.ColorSpace.sRGB,
            )
    except rawpy.LibRawUnsufficientMemoryError:
        raise MemoryError from None
    except rawpy.LibRawFileUnsupportedError:
        raise UnreadableError("a camera raw file of a kind that this LibRaw does not know, or damaged") from None
    except (rawpy.LibRawError, rawpy.NotSupportedError, OSError, ValueError, RuntimeError) as error:
        cause = error.args[0] if error.args else error
        text = cause.decode("ascii", "replace") if isinstance(cause, bytes) else str(cause)
        raise UnreadableError(f"the camera raw file is damaged or cut off ({text})") from None
    # A profile, as the camera's own tags may call its values Adobe RGB.
    profile = make_profile("sRGB", compute_matrix(SRGB_PRIMARIES, D65), SRGB)
    return Decoded(_from_linear(linear), icc=profile, exif=exif)


def _from_linear(linear: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Linear light under sRGB's transfer function (IEC 61966-2-1), each of the 65536 values rounded once."""
    curve = SRGB.from_light(np.arange(65536) / 65535)
    return np.rint(np.clip(curve, 0, 1) * 65535).astype(np.uint16)[linear]


def _measure(file: BinaryIO) -> tuple[int, int]:
    with _PACKAGE.load("camera raw").RawPy() as raw:
        _open(file, raw)
        return int(raw.sizes.width), int(raw.sizes.height)


RAW = Format(
    name="raw",
    title="camera raw",
    accepts=_accepts,
    confirms=_is_raw,
    decode=_decode,
    measure=_measure,
    package=_PACKAGE,
)
