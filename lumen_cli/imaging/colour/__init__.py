"""Which colour space a file's values are in, by its profile, its chunks or its tags.

Reads and makes ICC profiles of the matrix and tone curve kind: every usual working space of photographs is one. Source:
ICC.1:2022. Values are floats throughout, unlike Pillow's ImageCms, which knows 8 bits a channel only.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lumen_cli.imaging.colour.convert import LINEAR, SRGB, Curve, HybridLog, Perceptual, Power, Sampled
from lumen_cli.imaging.colour.spaces import (
    D50,
    D65,
    SRGB_PRIMARIES,
    DeviceCmyk,
    Shaper,
    ShaperSpace,
    Space,
    TableSpace,
    compute_matrix,
)

_MOST_TAGS = 200


def read_model(icc: bytes) -> str:
    """The colour model that a profile describes: "RGB", "GRAY", "CMYK", "Lab"."""
    return icc[16:20].decode("latin-1").strip()


def read_shaper(icc: bytes) -> Shaper | None:
    """The curves and matrix of an RGB or grey profile; None where it has tables instead, or is damaged."""
    try:
        with np.errstate(all="ignore"):
            shaper = _read_shaper(icc)
            return shaper if shaper is None or all(map(_is_sensible, shaper.curves)) else None
    except (struct.error, ValueError, IndexError, OverflowError, np.linalg.LinAlgError):
        return None


def _read_shaper(icc: bytes) -> Shaper | None:
    (count,) = struct.unpack_from(">I", icc, 128)
    if count > _MOST_TAGS or icc[36:40] != b"acsp":
        return None
    tags: dict[bytes, bytes] = {}
    for index in range(count):
        name, offset, size = struct.unpack_from(">4sII", icc, 132 + 12 * index)
        tags[name] = icc[offset : offset + size]
    if any(name in tags for name in (b"A2B0", b"A2B1", b"D2B0", b"D2B1")):
        return None  # the tables count, not the curves
    if read_model(icc) == "GRAY" and b"kTRC" in tags:
        curve = _read_curve(tags[b"kTRC"])
        if icc[20:24] == b"Lab ":  # then the curve gives lightness L* / 100
            lightness = curve.to_light(np.linspace(0, 1, 4096)) * 100
            light = np.where(lightness > 8, ((lightness + 16) / 116) ** 3, lightness * 27 / 24389)
            curve = Sampled(tuple(light.tolist()))
        return Shaper((curve,), None)
    if read_model(icc) != "RGB" or icc[20:24] != b"XYZ ":
        return None
    if not {b"rXYZ", b"gXYZ", b"bXYZ", b"rTRC", b"gTRC", b"bTRC"} <= tags.keys():
        return None
    columns = [np.array(struct.unpack_from(">3i", tags[name], 8)) / 65536 for name in (b"rXYZ", b"gXYZ", b"bXYZ")]
    matrix = np.stack(columns, axis=1)
    if abs(np.linalg.det(matrix)) < 1e-6:
        return None
    return Shaper(tuple(_read_curve(tags[name]) for name in (b"rTRC", b"gTRC", b"bTRC")), matrix)


def _read_curve(body: bytes) -> Curve:
    """A curveType or parametricCurveType element; ValueError for a curve that has no inverse."""
    if body[:4] == b"curv":
        (count,) = struct.unpack_from(">I", body, 8)
        if count == 0:
            return Power(1.0)
        if count == 1:
            return _make_power(struct.unpack_from(">H", body, 12)[0] / 256)
        samples = np.frombuffer(body, ">u2", count, 12) / 65535
        if (np.diff(samples) < 0).any() or samples[0] == samples[-1]:
            raise ValueError("a curve that falls")
        return Sampled(tuple(samples.tolist()))
    if body[:4] != b"para":
        raise ValueError("no curve")
    (kind,) = struct.unpack_from(">H", body, 8)
    numbers = [value / 65536 for value in struct.unpack_from(f">{(1, 3, 4, 5, 7)[kind]}i", body, 12)]
    gamma, a, b, c, d = (numbers + [1.0, 0.0, 0.0, 0.0][len(numbers) - 1 :])[:5]
    if a <= 0 or (kind >= 3 and c < 0):
        raise ValueError("a curve that falls")
    if kind == 1:
        return _make_power(gamma, a, b, 0.0, -b / a)
    if kind == 2:
        return _make_power(gamma, a, b, 0.0, -b / a, c, c)
    if kind == 3:
        return _make_power(gamma, a, b, c, d)
    return _make_power(gamma, a, b, c, d, *numbers[5:]) if kind == 4 else _make_power(gamma)


def _is_sensible(curve: Curve) -> bool:
    """Whether a curve rises from about no light to about white, and has an inverse."""
    steps = np.linspace(0, 1, 33)
    light = curve.to_light(steps)
    rises = bool(np.isfinite(light).all() and (np.diff(light) >= 0).all() and light[0] > -0.1)
    return rises and 0.5 < light[-1] < 2 and bool(np.isfinite(curve.from_light(light)).all())


def _make_power(gamma: float, *rest: float) -> Power:
    if not 0.1 <= gamma <= 10:
        raise ValueError("no tone curve has such an exponent")
    return Power(gamma, *rest)


def make_profile(name: str, matrix: NDArray[np.float64], curve: Power) -> bytes:
    """A version 4 display profile of one curve and a matrix from `compute_matrix`. Equal arguments give equal bytes."""

    def text(words: str) -> bytes:
        encoded = words.encode("utf-16-be")
        return b"mluc\0\0\0\0" + struct.pack(">II4sII", 1, 12, b"enUS", len(encoded), 28) + encoded

    def colour(values: NDArray[np.float64] | tuple[float, ...]) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(float(value) * 65536) for value in values))

    numbers = (curve.gamma, curve.a, curve.b, curve.c, curve.d, curve.e, curve.f)
    tone = b"para\0\0\0\0" + struct.pack(">HH7i", 4, 0, *(round(value * 65536) for value in numbers))
    elements = {
        b"desc": text(name),
        b"cprt": text("No copyright, use freely"),
        b"wtpt": colour(D50),
        **{channel + b"XYZ": colour(matrix[:, index]) for index, channel in enumerate((b"r", b"g", b"b"))},
        **{channel + b"TRC": tone for channel in (b"r", b"g", b"b")},
    }
    at = 128 + 4 + 12 * len(elements)
    directory, bodies = struct.pack(">I", len(elements)), b""
    placed: dict[bytes, int] = {}
    for tag, body in elements.items():
        if body not in placed:
            placed[body] = at + len(bodies)
            bodies += body + bytes(-len(body) % 4)
        directory += struct.pack(">4sII", tag, placed[body], len(body))
    header = struct.pack(">I4sI4s4s4s", at + len(bodies), b"", 0x04300000, b"mntr", b"RGB ", b"XYZ ")
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(4 + 4 + 4 + 4 + 8 + 4)
    header += struct.pack(">3i", *(round(value * 65536) for value in D50))
    return header + bytes(128 - len(header)) + directory + bodies


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
    if b"R03" not in exif:  # parsing tags takes a third of the time that decoding a small picture takes
        return False
    try:
        tags = Image.Exif()
        tags.load(exif)
        index = tags.get_ifd(0xA005).get(1)
        return str(index).startswith("R03")
    except Exception:  # odd tags in many ways; sRGB then
        return False
