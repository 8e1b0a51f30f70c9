"""Which colour space a file's values are in: what its profile, its chunks or its tags say."""

from __future__ import annotations

import functools
import io
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from lumen_cli.imaging.colour.convert import to_integers, to_unit
from lumen_cli.imaging.colour.curves import LINEAR, SRGB, Curve, HybridLog, Perceptual, Power
from lumen_cli.imaging.colour.icc import Shaper, colour_model, make_profile, matrix_of, read_shaper
from lumen_cli.imaging.colour.spaces import D65, SRGB_PRIMARIES, ShaperSpace, Space, Values

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


_ADOBE_PRIMARIES = (0.640, 0.330), (0.210, 0.710), (0.150, 0.060)
_ADOBE_GAMMA = 563 / 256
_PRIMARIES = {  # H.273, table 2
    1: (SRGB_PRIMARIES, D65),
    2: (SRGB_PRIMARIES, D65),  # not said
    5: (((0.640, 0.330), (0.290, 0.600), (0.150, 0.060)), D65),
    6: (((0.630, 0.340), (0.310, 0.595), (0.155, 0.070)), D65),
    9: (((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)), D65),
    11: (((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)), (0.314, 0.351)),
    12: (((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)), D65),
}
_BT709 = Power(1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)
_TRANSFERS: dict[int, Curve] = {
    1: _BT709,
    2: SRGB,  # not said
    4: Power(2.2),
    6: _BT709,
    8: LINEAR,
    13: SRGB,
    14: _BT709,
    15: _BT709,
    16: Perceptual(),
    18: HybridLog(),
}


@dataclass(frozen=True)
class Meant:
    """space: None for sRGB, or what is taken for it; icc, said_by, cicp: as in `OwnColours`; notices: to be said."""

    space: Space | None = None
    icc: bytes | None = None
    said_by: str = "profile"
    cicp: tuple[int, int] | None = None
    notices: tuple[str, ...] = ()


def colours_meant(
    model: str,
    icc: bytes | None,
    *,
    chunks: Mapping[bytes, bytes],
    cicp: tuple[int, int] | None,
    exif: bytes | None,
) -> Meant:
    """What values of `model` ("grey", "rgb", "cmyk") mean. A PNG's cICP goes before the profile, all else after it.

    Args:
        model: what the file holds.
        icc: the embedded profile.
        chunks: of a PNG.
        cicp: primaries and transfer that another container names.
        exif: the raw EXIF block; cameras mark Adobe RGB in it and embed no profile.
    """
    if cicp is None and len(body := chunks.get(b"cICP", b"")) == 4 and body[2:] == b"\0\1":
        cicp = body[0], body[1]
    if (cicp is not None and icc is None) or b"cICP" in chunks:
        space = None if cicp is None else _by_code_points(*cicp, model == "grey")
        return Meant(icc=icc) if space is None or space.is_srgb else Meant(space, icc, "chunks", cicp)
    if icc is not None:
        return _by_profile(model, icc)
    if model == "cmyk":
        return Meant(DeviceCmyk(), None, notices=("CMYK without a profile was worked on by a plain formula",))
    if model == "rgb" and exif is not None and _marked_adobe_rgb(exif):
        matrix, curve = matrix_of(_ADOBE_PRIMARIES, D65), Power(_ADOBE_GAMMA)
        profile = make_profile("Compatible with Adobe RGB (1998)", matrix, curve)
        return Meant(ShaperSpace(Shaper((curve,) * 3, matrix)), profile, "tags")
    if b"sRGB" not in chunks and len(gamma := chunks.get(b"gAMA", b"")) == 4:
        return _by_gamma(int.from_bytes(gamma, "big") / 100000, chunks.get(b"cHRM", b""), model == "grey")
    return Meant()


@functools.lru_cache(maxsize=16)
def _by_profile(model: str, icc: bytes) -> Meant:
    of = colour_model(icc)
    fits = {"grey": ("GRAY", "RGB"), "rgb": ("RGB",), "cmyk": ("CMYK",)}[model]
    if of in fits and model != "cmyk" and (shaper := read_shaper(icc)) is not None:
        return _unless_srgb(ShaperSpace(shaper, model == "grey"), icc, "profile")
    if of in fits and model != "grey":
        try:
            return Meant(TableSpace(icc, of), icc)
        except ValueError:
            pass
    wrong = f"is one for {of}" if of in {"GRAY", "RGB", "CMYK", "Lab"} - {*fits} else "cannot be understood"
    if model == "cmyk":
        return Meant(DeviceCmyk(), icc, notices=(f"the colour profile {wrong}; CMYK was worked on by a plain formula",))
    return Meant(icc=icc, notices=(f"the colour profile {wrong}; colours were worked on as sRGB",))


def _unless_srgb(space: ShaperSpace, icc: bytes | None, said_by: str) -> Meant:
    return Meant(icc=icc) if space.is_srgb else Meant(space, icc, said_by)


def _by_code_points(primaries: int, transfer: int, grey: bool) -> ShaperSpace | None:
    """Code points of H.273; None where they name none of the usual spaces."""
    if primaries not in _PRIMARIES or transfer not in _TRANSFERS:
        return None
    return ShaperSpace(Shaper((_TRANSFERS[transfer],) * 3, matrix_of(*_PRIMARIES[primaries])), grey)


def _by_gamma(exponent: float, primaries: bytes, grey: bool) -> Meant:
    """PNG's gAMA, and cHRM where there is one."""
    # Practically every program means sRGB by 1/2.2.
    usual = not 0.1 <= exponent <= 10 or abs(exponent - 1 / 2.2) < 0.005
    curve = SRGB if usual else Power(1 / exponent)
    places, white = SRGB_PRIMARIES, D65
    if len(primaries) == 32:
        values = [value / 100000 for value in struct.unpack(">8I", primaries)]
        white, *rest = zip(values[::2], values[1::2], strict=True)
        places = tuple(rest)  # type: ignore[assignment]
    try:
        space = ShaperSpace(Shaper((curve,) * 3, matrix := matrix_of(places, white)), grey)
    except ValueError:
        return Meant()
    name = "From a PNG's gamma and chromaticities"
    return _unless_srgb(space, None if space.is_srgb else make_profile(name, matrix, curve), "chunks")


def _marked_adobe_rgb(exif: bytes) -> bool:
    """DCF 2.0's optional colour space: the interoperability index R03."""
    try:
        tags = Image.Exif()
        tags.load(exif)
        index = tags.get_ifd(0xA005).get(1)
        return str(index).startswith("R03")
    except Exception:  # odd tags in many ways; sRGB then
        return False
