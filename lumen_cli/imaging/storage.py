"""How a file's container held its picture: what decides about the look and size of a copy beside its pixels."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from PIL.JpegImagePlugin import JpegImageFile

COLOUR_CHUNKS = (b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"cLLI")
"""PNG chunks that say what the values mean."""
_CARRIED_CHUNKS = (*COLOUR_CHUNKS, b"pHYs")
_JFIF_BYTES = 14
_TIFF_COMPRESSIONS = {1: "none", 5: "lzw", 8: "deflate", 32946: "deflate"}


@dataclass(frozen=True)
class JpegWay:
    """tables: of 64 steps in rows, for each component, the last one for all that follow.

    sampling: "4:4:4", "4:2:2", "4:2:0", None for what is rarer; progressive: whether it comes in passes; rgb: whether
    its components are red, green and blue themselves; density: JFIF's unit (0 none, 1 inch, 2 cm) and dots along x and
    y, None where there is no JFIF segment.
    """

    tables: tuple[tuple[int, ...], ...]
    sampling: str | None = None
    progressive: bool = False
    rgb: bool = False
    density: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Storage:
    """jpeg: of a JPEG; lossless: whether the container lost nothing (WebP, AVIF, …), None where there is no choice.

    bits: 10 or 12 where a file's depth lies between 8 and 16; compression: of a TIFF, "none", "lzw" or "deflate", the
    usual name of others, which lumen does not write ("JPEG"); chunks: of a PNG, by name.
    """

    jpeg: JpegWay | None = None
    lossless: bool | None = None
    bits: int | None = None
    compression: str | None = None
    chunks: Mapping[bytes, bytes] = field(default_factory=dict)


UNKNOWN = Storage()


def storage_of(data: bytes | BinaryIO, kind: str) -> Storage:
    """What a file that was decoded as `kind` says, its bytes or the open file; `UNKNOWN` where it says nothing."""
    try:
        if not isinstance(data, bytes):
            return Storage(compression=_tiff_compression(data)) if kind == "tiff" else UNKNOWN
        if kind == "jpeg":
            return Storage(jpeg=_jpeg(data))
        if kind == "webp":
            return Storage(lossless=_first_webp_image(data) == b"VP8L")
        if kind == "png":
            from lumen_cli.imaging.formats.png import chunks_before_pixels

            found = chunks_before_pixels(data)
            return Storage(chunks={name: found[name] for name in _CARRIED_CHUNKS if name in found})
    except Exception:  # the picture was decoded; how it lay in the file is no reason to give it up
        return UNKNOWN
    return UNKNOWN


def with_decoder_facts(storage: Storage, bits: int | None, lossless: bool | None) -> Storage:
    """What only a container's decoder can tell, added."""
    return storage if bits is None and lossless is None else replace(storage, bits=bits, lossless=lossless)


def _tiff_compression(file: BinaryIO) -> str | None:
    import tifffile

    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        compression = tiff.pages.first.compression
        name = str(getattr(compression, "name", f"number {int(compression)}"))
        return _TIFF_COMPRESSIONS.get(int(compression), name)


def _jpeg(data: bytes) -> JpegWay | None:
    from PIL import Image, JpegImagePlugin

    with Image.open(io.BytesIO(data)) as image:
        if not isinstance(image, JpegImagePlugin.JpegImageFile):
            return None
        components = image.layer
        tables = tuple(tuple(image.quantization[number]) for _, _, _, number in components)
        sampling = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}.get(JpegImagePlugin.get_sampling(image))
        transform = _adobe_transform(image)
        rgb = len(components) == 3 and _holds_rgb(image, transform)
        if len(components) == 4:
            # Written without YCCK's turn of the colours: all inks matter as much as its lightness did.
            tables, sampling = tables if transform == 0 else tables[:1], None
        while len(tables) > 1 and tables[-1] == tables[-2]:
            tables = tables[:-1]
        density = (image.info["jfif_unit"], *image.info["jfif_density"]) if "jfif_unit" in image.info else None
        return JpegWay(tables, sampling, bool(image.info.get("progressive")), rgb, density)


def _adobe_transform(image: JpegImageFile) -> int | None:
    """What an Adobe segment says of the colours: 0 none were turned, 1 YCbCr, 2 YCCK; None without one."""
    said = [
        body[11] for name, body in image.applist if name == "APP14" and body.startswith(b"Adobe") and len(body) > 11
    ]
    return said[-1] if said else None


def _holds_rgb(image: JpegImageFile, transform: int | None) -> bool:
    """Whether three components are red, green and blue, by the rule of decoders (libjpeg's default_decompress_parms).

    A JFIF segment says YCbCr, whatever an Adobe segment says; else that one decides, else the components' names.
    """
    if any(name == "APP0" and body.startswith(b"JFIF\0") and len(body) >= _JFIF_BYTES for name, body in image.applist):
        return False
    if transform is not None:
        return transform == 0
    return [component[0] for component in image.layer] == list(b"RGB")


def _first_webp_image(data: bytes) -> bytes:
    at = 12
    while at + 8 <= len(data):
        name = data[at : at + 4]
        if name in (b"VP8 ", b"VP8L"):
            return name
        # An animation's frame holds the picture's chunks behind 16 bytes of its own.
        at += 24 if name == b"ANMF" else 8 + (size := int.from_bytes(data[at + 4 : at + 8], "little")) + size % 2
    return b""
