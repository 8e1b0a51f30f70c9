"""What a decoder hands on: integer values as the file holds them, before orientation and scaling to [0, 1]."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import numpy as np
from numpy.typing import NDArray


class UnreadableError(Exception):
    """Why a picture cannot be decoded, as the end of a sentence that begins with its name."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """H×W×C uint8 or uint16; C is 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha)."""

    values: NDArray[np.uint8] | NDArray[np.uint16]
    orientation: int
    icc: bytes | None
    exif: bytes | None
    lost: tuple[str, ...] = ()


def upright(values: NDArray[np.integer], orientation: int) -> NDArray[np.integer]:
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
