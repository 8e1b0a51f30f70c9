"""Read and make ICC profiles of the matrix and tone curve kind: every usual working space of photographs is one.

Source: ICC.1:2022. Values are floats throughout, unlike Pillow's ImageCms, which knows 8 bits a channel only.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lumen_cli.imaging.colour.convert import Curve, Power, Sampled

_MOST_TAGS = 200
_D50 = (0.9642, 1.0, 0.8249)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


@dataclass(frozen=True, eq=False)
class Shaper:
    """Tone curves, then a matrix.

    curves: three for RGB, one for grey; matrix: 3×3, linear RGB → XYZ under D50 with Y of white 1, None for grey.
    """

    curves: tuple[Curve, ...]
    matrix: NDArray[np.float64] | None


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


Point = tuple[float, float]
"""x and y of a colour in the CIE 1931 diagram."""


def compute_matrix(primaries: tuple[Point, Point, Point], white: Point) -> NDArray[np.float64]:
    """Linear RGB → XYZ under D50, from x, y of red, green, blue and white; adapted as Bradford's (ICC.1, annex E).

    Raises:
        ValueError: no such set of lights gives that white.
    """
    if min(y for _, y in (*primaries, white)) <= 0:
        raise ValueError("chromaticities without light")
    colours = np.array([[x / y, 1.0, (1 - x - y) / y] for x, y in primaries]).T
    if abs(np.linalg.det(colours)) < 1e-9:
        raise ValueError("chromaticities that span no gamut")
    source = np.array([white[0] / white[1], 1.0, (1 - white[0] - white[1]) / white[1]])
    matrix = colours * np.linalg.solve(colours, source)
    cones = (_BRADFORD @ np.array(_D50)) / (_BRADFORD @ source)
    adapted: NDArray[np.float64] = np.linalg.inv(_BRADFORD) @ np.diag(cones) @ _BRADFORD @ matrix
    return adapted


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
        b"wtpt": colour(_D50),
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
    header += struct.pack(">3i", *(round(value * 65536) for value in _D50))
    return header + bytes(128 - len(header)) + directory + bodies
