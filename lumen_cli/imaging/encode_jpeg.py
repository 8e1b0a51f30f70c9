"""JPEG, through Pillow: as the original was stored where there is one, else 4:4:4."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumen_cli.imaging.chroma import with_halved_colours
from lumen_cli.imaging.storage import JpegWay


def encode(
    values: NDArray[np.uint8], icc: bytes | None, *, quality: int | None, way: JpegWay | None, cmyk: bool = False
) -> bytes:
    """A whole file of H×W×C values.

    Args:
        values: C is 1 (grey), 3 (RGB) or 4 (amounts of ink).
        icc: the profile to embed.
        quality: 1 to 100; None takes the steps of `way`.
        way: how the original was stored: its sampling of colour and its passes are kept too. None: 4:4:4, one pass.
        cmyk: whether the values are amounts of ink.

    Raises:
        ValueError: neither quality nor way is given.
    """
    from PIL import Image

    if quality is None and way is None:
        raise ValueError("a JPEG needs a quality")
    way = way or JpegWay(())
    options: dict[str, Any] = {"progressive": way.progressive, "icc_profile": icc}
    if quality is None:
        options["qtables"] = [list(table) for table in way.tables[: values.shape[2]]]
    else:
        options["quality"] = quality
    if values.shape[2] == 3:
        # Encoders know halved colours only where these lie apart from lightness.
        options["subsampling"] = "4:4:4" if way.rgb else way.sampling or "4:4:4"
        options["keep_rgb"] = way.rgb
    elif cmyk:
        options["subsampling"] = "4:4:4"
    if cmyk:
        image = Image.frombytes("CMYK", values.shape[1::-1], values.tobytes())
    elif way.sampling in ("4:2:2", "4:2:0") and values.shape[2] == 3 and not way.rgb:
        halved = with_halved_colours(values, way.sampling == "4:2:0")
        image = Image.frombytes("YCbCr", values.shape[1::-1], halved)
        del halved  # of a picture of 100 megapixels it is 300 megabytes
    else:
        image = Image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    data = buffer.getvalue()
    if way.density is None or data[6:11] != b"JFIF\0":
        return data
    unit, across, down = way.density
    return data[:13] + bytes([unit]) + across.to_bytes(2, "big") + down.to_bytes(2, "big") + data[18:]
