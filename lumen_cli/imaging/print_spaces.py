"""Colours whose meaning stands in tables (CMYK, RGB profiles of scanners and printers), and CMYK without any profile.

Tables go through LittleCMS by way of Pillow, which is 8 bits a channel.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from lumen_cli.imaging.color import to_integers, to_unit
from lumen_cli.imaging.spaces import Values

_WAY = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
_FADE = 0.1
"""Of the range of sRGB: how far a colour is from what it was before its own separation into inks is given up."""


@dataclass(frozen=True)
class TableSpace:
    """A profile with tables, relative colorimetric with black point compensation both ways, as Photoshop does it.

    mode: "RGB" or "CMYK".
    """

    icc: bytes
    mode: str
    exact = False

    def __post_init__(self) -> None:
        """ValueError where LittleCMS cannot use the profile in both directions."""
        try:
            _ = self._forth, self._back
        except (ImageCms.PyCMSError, OSError) as error:
            raise ValueError(str(error)) from None

    def __reduce__(self) -> tuple[type[TableSpace], tuple[bytes, str]]:
        return TableSpace, (self.icc, self.mode)

    @property
    def channels(self) -> int:
        """See `Space`."""
        return len(self.mode)

    @cached_property
    def _forth(self) -> ImageCms.ImageCmsTransform:
        return ImageCms.buildTransform(io.BytesIO(self.icc), _srgb(), self.mode, "RGB", *_WAY)

    @cached_property
    def _back(self) -> ImageCms.ImageCmsTransform:
        return ImageCms.buildTransform(_srgb(), io.BytesIO(self.icc), "RGB", self.mode, *_WAY)

    def to_srgb(self, values: Values) -> NDArray[np.float32]:
        """See `Space`."""
        return to_unit(_turned(self._forth, _eight(values), self.mode, 3))

    def carried(self, values: Values, result: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Space`.

        What did not change keeps its inks, which are the printer's choice among many that look alike; what changed
        gets those of the profile. In between the two fade.
        """
        before = self.to_srgb(values)
        fresh, stale = (to_unit(_turned(self._back, _eight(rgb), "RGB", self.channels)) for rgb in (result, before))
        change = np.abs(result - before).max(axis=1, keepdims=True)
        kept = np.maximum(0, 1 - change / np.float32(_FADE))
        return np.clip(fresh + kept * (to_unit(values) - stale), 0, 1)


@dataclass(frozen=True)
class DeviceCmyk:
    """CMYK that nothing explains: each ink takes its part of the light, as programs show it that know no profile."""

    channels = 4
    exact = True

    def to_srgb(self, values: Values) -> NDArray[np.float32]:
        """See `Space`."""
        light = 1 - np.clip(to_unit(values), 0, 1)
        return light[:, :3] * light[:, 3:]

    def carried(self, values: Values, result: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Space`: black stays as it was as far as the light asked for allows, the colours do the rest."""
        result = np.clip(result, 0, 1)
        black = np.minimum(np.clip(to_unit(values[:, 3:]), 0, 1), 1 - result.max(axis=1, keepdims=True))
        left = 1 - black
        light = np.divide(result, left, out=1 - np.clip(to_unit(values[:, :3]), 0, 1), where=left > 0)
        return np.concatenate([1 - np.minimum(light, 1), black], axis=1)


def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _turned(
    transform: ImageCms.ImageCmsTransform, values: NDArray[np.uint8], mode: str, channels: int
) -> NDArray[np.uint8]:
    image = Image.frombytes(mode, (len(values), 1), np.ascontiguousarray(values).tobytes())
    turned = ImageCms.applyTransform(image, transform)
    assert turned is not None
    return np.asarray(turned).reshape(-1, channels)


def _eight(values: Values) -> NDArray[np.uint8]:
    return values if values.dtype == np.uint8 else to_integers(to_unit(values), 8)  # type: ignore[return-value]
