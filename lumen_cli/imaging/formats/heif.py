"""HEIC and HEIF, as telephones write them, through pillow-heif (libheif)."""

from __future__ import annotations

import io
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from lumen_cli.imaging.colour.convert import divide_by_alpha, narrow, widen
from lumen_cli.imaging.extent import find_boxes_end, note_boxes, read_bounded, read_brands
from lumen_cli.imaging.formats.format import (
    Decoded,
    Format,
    Package,
    Raster,
    Storage,
    UnreadableError,
    check_size,
    note_first_of,
)
from lumen_cli.imaging.formats.pillow import strip_exif_prefix

_PACKAGE = Package("pillow_heif", "pillow-heif", "heif")
_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_CHANNELS = {"L": 1, "I": 1, "LA": 2, "La": 2, "RGB": 3, "RGBA": 4, "RGBa": 4}
_IDENTITY = 0


def _decode(file: BinaryIO, max_pixels: int) -> Decoded:
    """The main picture with all its bits; libheif applies the container's rotation and mirroring."""
    pillow_heif = _PACKAGE.load("HEIC")
    data = read_bounded(file, find_boxes_end(file))
    try:
        opened = pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=False, hdr_to_16bit=False)
        check_size(opened.size[0], opened.size[1], max_pixels)
        info, mode = dict(opened.info), opened.mode.partition(";")[0]
        bits = int(info.get("bit_depth") or 8)
        # A copy: the array that older versions lend dies with the file.
        values: NDArray[Any] = np.array(opened)
        notices = note_first_of(len(opened), "pictures") + _note_left_out(info)
    except (OSError, SyntaxError, ValueError, EOFError, RuntimeError, LookupError, TypeError) as error:
        # pillow-heif reports damage by all of these.
        text = (str(error).splitlines() or [type(error).__name__])[0]
        raise UnreadableError(f"the HEIC file is damaged or cut off ({text})") from None
    if mode not in _CHANNELS:
        raise UnreadableError(f"HEIC pixels of kind {mode!r}; lumen reads grey and RGB")
    values = values.reshape(*values.shape[:2], -1)[:, :, : _CHANNELS[mode]]
    if values.dtype == np.uint16 and 8 < bits < 16:
        values = widen(values, bits)
    if mode.endswith("a"):
        values = divide_by_alpha(values)
    nclx = info.get("nclx_profile") or {}
    cicp = (int(nclx["color_primaries"]), int(nclx["transfer_characteristics"])) if nclx else None
    lossless = bool(nclx) and int(nclx.get("matrix_coefficients", 2)) == _IDENTITY
    return Decoded(
        values,
        icc=info.get("icc_profile") or None,
        exif=strip_exif_prefix(info.get("exif")),
        notices=notices + note_boxes(file),
        cicp=cicp,
        storage=Storage(lossless=lossless, bits=bits if bits in (10, 12) else None),
    )


def _note_left_out(info: dict[str, object]) -> tuple[str, ...]:
    """What lies beside the picture and does not get into the result."""
    depth = ("its depth map was left out",) if info.get("depth_images") else ()
    others = ("its auxiliary pictures (gain map, mattes) were left out",) if info.get("aux") else ()
    return depth + others


def _measure(file: BinaryIO) -> tuple[int, int]:
    content = io.BytesIO(read_bounded(file, find_boxes_end(file)))
    width, height = _PACKAGE.load("HEIC").open_heif(content).size
    return int(width), int(height)


_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_SPEED = "fast"
"""Of x265's presets: less than half the time of its default, and at the same quality as near to the original."""
_LOSSLESS = {"quality": -1, "chroma": 444, "matrix_coefficients": 0}
"""Red, green and blue themselves (ITU-T H.273's identity matrix) without loss."""


def _encode(raster: Raster) -> bytes:
    """Lossy colours get half the resolution (4:2:0), as telephones write them and all programs can show them.

    Raises:
        MissingPackageError: pillow-heif is not installed.
        ValueError: its encoder is missing, or refuses.
    """
    pillow_heif = _PACKAGE.load("HEIC")
    values, bits = raster.values, raster.bits
    mode = _MODES[values.shape[2]]
    if values.dtype == np.uint16:
        # The upper bits of 16 are what the encoder takes.
        values, mode = narrow(values, bits) << np.uint16(16 - bits), f"{mode};16"
    options: dict[str, Any] = dict(_LOSSLESS) if raster.lossless else {"quality": raster.lossy_quality, "chroma": 420}
    if raster.label.icc:
        options["icc_profile"] = raster.label.icc
    if raster.label.cicp is not None:
        options["color_primaries"], options["transfer_characteristics"] = raster.label.cicp
    height, width = values.shape[:2]
    buffer = io.BytesIO()
    try:
        heif = pillow_heif.from_bytes(mode, (width, height), np.ascontiguousarray(values).tobytes())
        heif.save(buffer, bit_depth=bits, enc_params={"preset": _SPEED}, **options)
    except (RuntimeError, KeyError, TypeError) as error:
        raise ValueError(f"pillow-heif: {' '.join(str(error).split())}") from None
    return buffer.getvalue()


HEIF = Format(
    name="heif",
    title="HEIC",
    accepts=lambda start: bool(read_brands(start) & _BRANDS),
    decode=_decode,
    measure=_measure,
    find_end=find_boxes_end,
    encode=_encode,
    depths=(8, 10, 12),
    code_points=True,
    largest_side=32768,
    package=_PACKAGE,
)
