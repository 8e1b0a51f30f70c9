"""JPEG, written as the original was: its tables, its sampling of colour, its passes and its density."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin

from lumen_cli.imaging.extent import find_jpeg_end, note_trailers
from lumen_cli.imaging.formats.format import UNKNOWN, Decoded, Format, Raster, Storage, load_opencv
from lumen_cli.imaging.formats.pillow import INCOMPLETE_PROFILE, count_frames, decode_image, measure, open_image

_JFIF_BYTES = 14


@dataclass(frozen=True)
class JpegStorage:
    """How a JPEG stores its picture."""

    tables: tuple[tuple[int, ...], ...]
    """64 quantisation steps in rows for each component; the last table also counts for those that follow."""
    sampling: str | None = None
    """"4:4:4", "4:2:2" or "4:2:0"; None for rarer ones."""
    progressive: bool = False
    rgb: bool = False
    """Whether the components are red, green and blue themselves."""
    density: tuple[int, int, int] | None = None
    """JFIF's unit (0 none, 1 inch, 2 cm) and dots along x and y; None where there is no JFIF segment."""


def _decode(file: BinaryIO, max_pixels: int) -> Decoded:
    with open_image(file, "JPEG", max_pixels) as image:
        decoded = decode_image(image, frames="pictures")
        storage, counted = _read_storage(image), count_frames(image) > 1
        incomplete = "icc_profile" in image.info and not image.info["icc_profile"]
    notices = (INCOMPLETE_PROFILE,) if incomplete else ()
    return decoded.extend(notices + note_trailers(file, find_jpeg_end(file), counted), storage)


def _read_storage(image: Image.Image) -> Storage:
    if not isinstance(image, JpegImagePlugin.JpegImageFile):
        return UNKNOWN
    try:
        components = image.layer
        tables = tuple(tuple(image.quantization[number]) for _, _, _, number in components)
        sampling = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}.get(JpegImagePlugin.get_sampling(image))
        transform = _read_transform(image)
    except (LookupError, ValueError, TypeError):  # the picture was decoded, and is worth more than its tables
        return UNKNOWN
    rgb = len(components) == 3 and _holds_rgb(image, transform)
    if len(components) == 4:
        # Written without YCCK's rotation of the colours: all inks matter as much as its lightness did.
        tables, sampling = tables if transform == 0 else tables[:1], None
    while len(tables) > 1 and tables[-1] == tables[-2]:
        tables = tables[:-1]
    density = (image.info["jfif_unit"], *image.info["jfif_density"]) if "jfif_unit" in image.info else None
    way = JpegStorage(tables, sampling, bool(image.info.get("progressive")), rgb, density)
    resampled = rgb and sampling != "4:4:4"
    changes = ("its red, green and blue of different resolution were all written in full (4:4:4)",) if resampled else ()
    return Storage(jpeg=way, changes=changes)


def _read_transform(image: JpegImagePlugin.JpegImageFile) -> int | None:
    """How an Adobe segment says that colours are stored: 0 as they are, 1 YCbCr, 2 YCCK; None without one."""
    found = [
        body[11] for name, body in image.applist if name == "APP14" and body.startswith(b"Adobe") and len(body) > 11
    ]
    return found[-1] if found else None


def _holds_rgb(image: JpegImagePlugin.JpegImageFile, transform: int | None) -> bool:
    """Whether three components are red, green and blue, by the rule of decoders (libjpeg's default_decompress_parms).

    With a JFIF segment they are YCbCr, whatever an Adobe segment says; else that one decides, else the components'
    names.
    """
    if any(name == "APP0" and body.startswith(b"JFIF\0") and len(body) >= _JFIF_BYTES for name, body in image.applist):
        return False
    if transform is not None:
        return transform == 0
    return [component[0] for component in image.layer] == list(b"RGB")


_RED, _GREEN, _BLUE = (np.float32(weight) for weight in (0.299, 0.587, 0.114))
_TO_CB, _TO_CR = (np.float32(1 / (2 - 2 * weight)) for weight in (0.114, 0.299))
"""JFIF 1.02: Y is the weighted sum, Cb and Cr are multiples of B - Y and R - Y (and an offset of 128)."""
# The blur's inverse: its z-transform is 8z / (z² + 6z + 1), with one pole inside the unit circle.
_POLE = math.sqrt(8) - 3
_REACH = 5
_SHARPENING = [math.sqrt(2) * _POLE ** abs(step) for step in range(-_REACH, _REACH + 1)]
_ROWS = 64


def _halve_colours(values: NDArray[np.uint8], down: bool) -> NDArray[np.uint8]:
    """H×W×3 RGB → H×W×3 YCbCr whose Cb and Cr come in pairs along rows, and with `down` along columns too.

    An encoder that averages the pairs finds exactly the samples that are in them.
    """
    cv2 = load_opencv()
    height, width, _ = values.shape
    result = np.empty_like(values)
    step = 2 if down else 1
    colours = np.empty((2, -(-height // step), -(-width // 2)), np.float32)
    for top in range(0, height, _ROWS):
        red, green, blue = (plane.astype(np.float32) for plane in cv2.split(values[top : top + _ROWS]))
        light = _RED * red + _GREEN * green + _BLUE * blue
        result[top : top + _ROWS, :, 0] = np.rint(light)
        for plane, strip in zip(colours, (_TO_CB * (blue - light), _TO_CR * (red - light)), strict=True):
            half = _average_rows(strip)
            half = _average_rows(half.T).T if down else half
            rows = slice(top // step, top // step + len(half))
            padded = cv2.copyMakeBorder(half, 0, 0, _REACH, _REACH, cv2.BORDER_REFLECT)
            plane[rows] = _sharpen(padded, [np.s_[:, at : at + half.shape[1]] for at in range(len(_SHARPENING))])
    for index, plane in enumerate(colours):
        padded = cv2.copyMakeBorder(plane, _REACH, _REACH, 0, 0, cv2.BORDER_REFLECT) if down else plane
        for top in range(0, len(plane), _ROWS):
            bottom = min(top + _ROWS, len(plane))
            shifted = [np.s_[at + top : at + bottom, :] for at in range(len(_SHARPENING))]
            sharp = _sharpen(padded, shifted) if down else plane[top:bottom]
            pairs = cv2.add(sharp + np.float32(128), 0.0, dtype=cv2.CV_8U)  # rounds and saturates
            wide = cv2.resize(pairs, None, fx=2, fy=step, interpolation=cv2.INTER_NEAREST)
            fits = result[top * step : bottom * step, :, 1 + index]
            fits[:] = wide[: len(fits), :width]
    return result


def _average_rows(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pairs along rows; a last one alone counts for two."""
    if rows.shape[1] % 2:
        rows = np.concatenate([rows, rows[:, -1:]], axis=1)
    return (rows[:, 0::2] + rows[:, 1::2]) * np.float32(0.5)


def _sharpen(padded: NDArray[np.float32], shifted: list[tuple[slice, slice]]) -> NDArray[np.float32]:
    """The blur's inverse along one axis: the weighted sum of parts of `padded`, one for each weight."""
    result = np.zeros_like(padded[shifted[0]])
    product = np.empty_like(result)
    for part, weight in zip(shifted, _SHARPENING, strict=True):
        np.multiply(padded[part], np.float32(weight), out=product)
        result += product
    return result


def _encode(raster: Raster) -> bytes:
    """Without a quality the original's steps; its sampling of colour and its passes in any case, else 4:4:4."""
    values, original = raster.values, raster.storage.jpeg
    way = original or JpegStorage(())
    options: dict[str, Any] = {"progressive": way.progressive, "icc_profile": raster.label.icc}
    if original is not None and raster.quality is None:
        options["qtables"] = [list(table) for table in way.tables[: values.shape[2]]]
    else:
        options["quality"] = raster.lossy_quality
    if values.shape[2] == 3:
        # Encoders know halved colours only where these lie apart from lightness.
        options["subsampling"] = "4:4:4" if way.rgb else way.sampling or "4:4:4"
        options["keep_rgb"] = way.rgb
    elif raster.cmyk:
        options["subsampling"] = "4:4:4"
    if raster.cmyk:
        image = Image.frombytes("CMYK", values.shape[1::-1], values.tobytes())
    elif way.sampling in ("4:2:2", "4:2:0") and values.shape[2] == 3 and not way.rgb:
        halved = _halve_colours(values, way.sampling == "4:2:0")
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


JPEG = Format(
    name="jpeg",
    title="JPEG",
    accepts=lambda start: start.startswith(b"\xff\xd8\xff"),
    decode=_decode,
    measure=measure,
    find_end=find_jpeg_end,
    encode=_encode,
    depths=(8,),
    alpha=False,
    cmyk=True,
    largest_side=65500,
    is_isolated=False,
)
