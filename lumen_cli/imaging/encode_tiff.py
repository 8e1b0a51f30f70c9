"""TIFF, through tifffile: 8 and 16 bits a channel or floats, grey, RGB or CMYK, with or without alpha."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

COMPRESSIONS = ("none", "lzw", "deflate")
"""What `encode` writes."""
_STRIP_BYTES = 1 << 20


def encode(values: NDArray[Any], icc: bytes | None, *, compression: str = "deflate", cmyk: bool = False) -> bytes:
    """A whole file of H×W×C values.

    Args:
        values: uint8, uint16 or float32; C of 1 to 4 (grey, grey + alpha, RGB, RGBA), with `cmyk` 4 or 5.
        icc: the profile to embed.
        compression: "none", "lzw" or "deflate".
        cmyk: amounts of ink rather than light.
    """
    import tifffile

    colours = 4 if cmyk else 3 if values.shape[2] >= 3 else 1
    rows = max(1, _STRIP_BYTES // max(1, values[0].nbytes))
    predictor = values.dtype.kind == "u"  # differences of floats save nothing as bytes
    options: dict[str, Any] = {
        "photometric": {1: "minisblack", 3: "rgb", 4: "separated"}[colours],
        "planarconfig": "contig" if values.shape[2] > 1 else None,
        "extrasamples": ["unassalpha"] if values.shape[2] > colours else None,
        "rowsperstrip": rows,
        "iccprofile": icc,
        "metadata": None,
        "software": False,
    }
    shape = values.shape if values.shape[2] > 1 else values.shape[:2]
    buffer = io.BytesIO()
    if compression == "none":
        tifffile.imwrite(buffer, values.reshape(shape), **options)
    elif compression == "lzw":
        # tifffile packs LZW only with a package of 26 MB; it takes strips that are packed already, as deflate.
        strips = _lzw_strips(values, rows, predictor)
        tifffile.imwrite(
            buffer, strips, shape=shape, dtype=values.dtype, compression="zlib", predictor=predictor, **options
        )
        buffer.seek(0)
        with tifffile.TiffFile(buffer, mode="r+") as file:
            file.pages.first.tags["Compression"].overwrite(int(tifffile.COMPRESSION.LZW))
    else:
        options |= {"compression": "zlib", "compressionargs": {"level": 1}, "predictor": predictor}
        tifffile.imwrite(buffer, values.reshape(shape), **options)
    return buffer.getvalue()


def _lzw_strips(values: NDArray[Any], rows: int, predictor: bool) -> Iterator[bytes]:
    for top in range(0, len(values), rows):
        strip = np.ascontiguousarray(values[top : top + rows], values.dtype.newbyteorder("<"))
        if predictor:
            strip = np.concatenate([strip[:, :1], strip[:, 1:] - strip[:, :-1]], axis=1)
        yield _lzw(strip)


def _lzw(values: NDArray[Any]) -> bytes:
    """One strip packed by libtiff, which comes with Pillow, as if its bytes were a grey picture."""
    import tifffile
    from PIL import Image

    data = values.reshape(len(values), -1).view(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(data).save(buffer, "TIFF", compression="tiff_lzw", tiffinfo={278: len(data)})
    buffer.seek(0)
    with tifffile.TiffFile(buffer) as file:
        page = file.pages.first
        (offset,), (size,) = page.dataoffsets, page.databytecounts
    return buffer.getvalue()[offset : offset + size]
