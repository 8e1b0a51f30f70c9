"""Which colour space a file's values are in, by its profile, its chunks or its tags."""

from __future__ import annotations

import functools
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image

from lumen_cli.imaging.colour.convert import LINEAR, SRGB, Curve, HybridLog, Perceptual, Power
from lumen_cli.imaging.colour.icc import Shaper, compute_matrix, make_profile, read_model, read_shaper
from lumen_cli.imaging.colour.spaces import D65, SRGB_PRIMARIES, DeviceCmyk, ShaperSpace, Space, TableSpace

COLOUR_CHUNKS = (b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"cLLI")
"""Chunks of a PNG about the meaning of its values."""

_ADOBE_PRIMARIES = (0.640, 0.330), (0.210, 0.710), (0.150, 0.060)
_ADOBE_GAMMA = 563 / 256
_PRIMARIES = {  # H.273, table 2
    1: (SRGB_PRIMARIES, D65),
    2: (SRGB_PRIMARIES, D65),  # unspecified
    5: (((0.640, 0.330), (0.290, 0.600), (0.150, 0.060)), D65),
    6: (((0.630, 0.340), (0.310, 0.595), (0.155, 0.070)), D65),
    9: (((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)), D65),
    11: (((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)), (0.314, 0.351)),
    12: (((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)), D65),
}
_BT709 = Power(1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)
_TRANSFERS: dict[int, Curve] = {
    1: _BT709,
    2: SRGB,  # unspecified
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
class ColourInterpretation:
    """What the values of a file mean."""

    space: Space | None = None
    """None for sRGB, or what is taken for it."""
    icc: bytes | None = None
    source: str = "profile"
    cicp: tuple[int, int] | None = None
    """icc, source and cicp: as in `NativeColours`."""
    notices: tuple[str, ...] = ()


def interpret_colours(
    model: str,
    icc: bytes | None,
    *,
    chunks: Mapping[bytes, bytes],
    cicp: tuple[int, int] | None,
    exif: bytes | None,
) -> ColourInterpretation:
    """Find the colour space of values. A PNG's cICP counts before the profile, everything else after it.

    Args:
        model: "grey", "rgb" or "cmyk".
        icc: the embedded profile.
        chunks: of a PNG.
        cicp: primaries and transfer that another container names.
        exif: the EXIF block; cameras mark Adobe RGB in it and embed no profile.
    """
    if cicp is None and len(body := chunks.get(b"cICP", b"")) == 4 and body[2:] == b"\0\1":
        cicp = body[0], body[1]
    if (cicp is not None and icc is None) or b"cICP" in chunks:
        space = None if cicp is None else _find_space(*cicp, model == "grey")
        if space is None or space.is_srgb:
            return ColourInterpretation(icc=icc)
        return ColourInterpretation(space, icc, "chunks", cicp)
    if icc is not None:
        return _interpret_profile(model, icc)
    if model == "cmyk":
        notice = "CMYK without a profile was converted by a simple formula"
        return ColourInterpretation(DeviceCmyk(), notices=(notice,))
    if model == "rgb" and exif is not None and _is_adobe_rgb(exif):
        matrix, curve = compute_matrix(_ADOBE_PRIMARIES, D65), Power(_ADOBE_GAMMA)
        profile = make_profile("Compatible with Adobe RGB (1998)", matrix, curve)
        return ColourInterpretation(ShaperSpace(Shaper((curve,) * 3, matrix)), profile, "tags")
    if b"sRGB" not in chunks and len(gamma := chunks.get(b"gAMA", b"")) == 4:
        return _interpret_gamma(int.from_bytes(gamma, "big") / 100000, chunks.get(b"cHRM", b""), model == "grey")
    return ColourInterpretation()


@functools.lru_cache(maxsize=16)
def _interpret_profile(model: str, icc: bytes) -> ColourInterpretation:
    of = read_model(icc)
    fits = {"grey": ("GRAY", "RGB"), "rgb": ("RGB",), "cmyk": ("CMYK",)}[model]
    if of in fits and model != "cmyk" and (shaper := read_shaper(icc)) is not None:
        return _interpret_space(ShaperSpace(shaper, model == "grey"), icc, "profile")
    if of in fits and model != "grey":
        try:
            return ColourInterpretation(TableSpace(icc, of), icc)
        except ValueError:
            pass
    wrong = f"is one for {of}" if of in {"GRAY", "RGB", "CMYK", "Lab"} - {*fits} else "cannot be interpreted"
    if model == "cmyk":
        notice = f"the colour profile {wrong}; CMYK was converted by a simple formula"
        return ColourInterpretation(DeviceCmyk(), icc, notices=(notice,))
    return ColourInterpretation(icc=icc, notices=(f"the colour profile {wrong}; colours were read as sRGB",))


def _interpret_space(space: ShaperSpace, icc: bytes | None, source: str) -> ColourInterpretation:
    return ColourInterpretation(icc=icc) if space.is_srgb else ColourInterpretation(space, icc, source)


def _find_space(primaries: int, transfer: int, grey: bool) -> ShaperSpace | None:
    """Code points of H.273; None where they name none of the usual spaces."""
    if primaries not in _PRIMARIES or transfer not in _TRANSFERS:
        return None
    return ShaperSpace(Shaper((_TRANSFERS[transfer],) * 3, compute_matrix(*_PRIMARIES[primaries])), grey)


def _interpret_gamma(exponent: float, primaries: bytes, grey: bool) -> ColourInterpretation:
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
        space = ShaperSpace(Shaper((curve,) * 3, matrix := compute_matrix(places, white)), grey)
    except ValueError:
        return ColourInterpretation()
    name = "From a PNG's gamma and chromaticities"
    return _interpret_space(space, None if space.is_srgb else make_profile(name, matrix, curve), "chunks")


def _is_adobe_rgb(exif: bytes) -> bool:
    """DCF 2.0's optional colour space: the interoperability index R03."""
    if b"R03" not in exif:  # reading tags takes as long as a third of decoding a small picture
        return False
    try:
        tags = Image.Exif()
        tags.load(exif)
        index = tags.get_ifd(0xA005).get(1)
        return str(index).startswith("R03")
    except Exception:  # odd tags in many ways; sRGB then
        return False
