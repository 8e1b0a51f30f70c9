"""What a decoder hands on: values as the file holds them, before orientation and scaling to [0, 1]."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray


class UnreadableError(Exception):
    """Why a picture cannot be decoded, as the end of a sentence that begins with its name."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """Pixels as they lie in the file, and what has to be known about them.

    values: H×W×C, uint8, uint16 (full range) or float32 (as the file holds it, not clipped); C is 1 (grey), 2 (grey,
    alpha), 3 (RGB) or 4 (RGB, alpha); of print colours 4 (C, M, Y, K) or 5 (with alpha), 0 for paper.
    orientation: 1 to 8, still to be applied. icc: the embedded profile. exif: the raw block, from its TIFF header on.
    lost: what cannot be kept, in single words. notices: what people must be told, in whole phrases.
    cmyk: print colours. cicp: colour primaries and transfer (ITU-T H.273), where the file names them instead of a
    profile. bits: 10 or 12 where the file has fewer bits than `values`. lossless: whether the file stores values
    exactly, where its format can do both.
    """

    values: NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.float32]
    orientation: int
    icc: bytes | None
    exif: bytes | None
    lost: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    cmyk: bool = False
    cicp: tuple[int, int] | None = None
    bits: int | None = None
    lossless: bool | None = None


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Refuse what a header announces before anything is decoded: no pixels at all, or too many (0: no limit).

    Raises:
        UnreadableError: in words that name the option.
    """
    if width < 1 or height < 1:
        raise UnreadableError(f"the picture is {width}×{height} pixels")
    if max_pixels and width * height > max_pixels:
        raise UnreadableError(
            f"{width}×{height} pixels are {in_megapixels(width * height)} megapixels, more than --max-pixels allows "
            f"({in_megapixels(max_pixels)}); a larger number, or 0, lets it in"
        )


def in_megapixels(pixels: int) -> str:
    """Millions of pixels with the digits that matter: "250", "0.3"."""
    millions = pixels / 1_000_000
    return f"{millions:.0f}" if millions >= 10 else f"{millions:.2g}"


def first_of(count: int, what: str) -> tuple[str, ...]:
    """The notice about a file of several pages, frames or pictures, of which only the first is read."""
    return (f"only the first of {count} {what} was read",) if count > 1 else ()


def full_range(values: NDArray[Any], bits: int) -> NDArray[np.uint16]:
    """Values of 9 to 15 bits spread over 16; `narrowed` gives them back exactly."""
    maximum = (1 << bits) - 1
    table = np.rint(np.arange(maximum + 1, dtype=np.float64) * (65535 / maximum)).astype(np.uint16)
    return table[np.minimum(values, maximum)]


def narrowed(values: NDArray[Any], bits: int) -> NDArray[np.uint16]:
    """16-bit values rounded to `bits` bits, 0 to 2^bits - 1."""
    table = np.rint(np.arange(65536, dtype=np.float64) * (((1 << bits) - 1) / 65535)).astype(np.uint16)
    return table[values]


def upright(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn and mirror H×W×C values as the EXIF orientation tag (1 to 8) says; a view, nothing is copied."""
    if orientation in (2, 3, 7):
        values = values[:, ::-1]
    if orientation in (3, 4, 7):
        values = values[::-1]
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if orientation == 6:
        values = values[:, ::-1]
    if orientation == 8:
        values = values[::-1]
    return values


def valid_orientation(value: object) -> int:
    """An orientation tag's value, 1 (upright) where it is missing or none of 1 to 8."""
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def unmultiplied(values: NDArray[Any]) -> NDArray[Any]:
    """Colours (H×W×C, alpha last) that were multiplied by alpha, divided by it again."""
    maximum = float(np.iinfo(values.dtype).max)
    alpha = values[:, :, -1:].astype(np.float64)
    colours = np.divide(values[:, :, :-1] * maximum, alpha, out=np.zeros(values[:, :, :-1].shape), where=alpha > 0)
    rounded = np.clip(np.floor(colours + 0.5), 0, maximum).astype(values.dtype)
    return np.concatenate([rounded, values[:, :, -1:]], axis=2)


def with_rgb_order(values: NDArray[Any]) -> NDArray[Any]:
    """OpenCV's order of colours (blue first) turned round, or RGB into it; alpha stays last."""
    return values[:, :, [2, 1, 0, *range(3, values.shape[2])]] if values.shape[2] >= 3 else values


def opencv() -> ModuleType:
    """OpenCV, silenced. Only the few kinds of file that need it fail where it cannot be imported."""
    try:
        import cv2
    except ImportError as error:
        raise UnreadableError(
            f"this kind of file needs OpenCV, which cannot be imported here ({str(error).splitlines()[0]}); "
            "`pip install opencv-python-headless` needs no system libraries"
        ) from None
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2


class MissingExtraError(UnreadableError, ValueError):
    """A format whose package is not installed; only its files fail."""


def extra(module: str, package: str, name: str, what: str) -> ModuleType:
    """A module that comes with one of lumen's extras.

    Args:
        module: to import.
        package: that holds it.
        name: of the extra.
        what: needs it, "HEIC" for example.

    Raises:
        MissingExtraError: one line that says what to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        broken = "" if isinstance(error, ModuleNotFoundError) else f" ({str(error).splitlines()[0]})"
        raise MissingExtraError(f"{what} needs {package}{broken}: pip install 'lumen-cli[{name}]'") from None
