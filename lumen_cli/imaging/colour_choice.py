"""Which colour space a file's values are in: what its profile, its chunks or its tags say."""

from __future__ import annotations

import functools
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image

from lumen_cli.imaging.curves import LINEAR, SRGB, Curve, HybridLog, Perceptual, Power
from lumen_cli.imaging.icc import Shaper, colour_model, make_profile, matrix_of, read_shaper
from lumen_cli.imaging.print_spaces import DeviceCmyk, TableSpace
from lumen_cli.imaging.spaces import D65, SRGB_PRIMARIES, ShaperSpace, Space

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
