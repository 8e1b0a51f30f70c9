"""Colour profiles for the tests, as bytes, from published numbers and the ICC specification; not by code under test."""

from __future__ import annotations

import struct
from functools import cache

import numpy as np

D50 = (0.9642, 1.0, 0.8249)
SRGB_CURVE = b"para\0\0\0\0" + struct.pack(
    ">HH5i", 3, 0, *(round(v * 65536) for v in (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045))
)

# Columns red, green, blue of linear RGB → XYZ (D50), as the profiles that programs ship say.
DISPLAY_P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
ADOBE_RGB = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
PROPHOTO = ((0.79767, 0.28804, 0.0), (0.13519, 0.71188, 0.0), (0.03134, 0.00009, 0.82491))


def gamma(exponent: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(exponent * 256))


def samples(values: np.ndarray) -> bytes:
    numbers = np.rint(np.asarray(values) * 65535).astype(">u2")
    return b"curv\0\0\0\0" + struct.pack(">I", len(numbers)) + numbers.tobytes()


def xyz(values: tuple[float, ...]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in values))


def profile(space: bytes, elements: dict[bytes, bytes], *, pcs: bytes = b"XYZ ", kind: bytes = b"mntr") -> bytes:
    """A version 2 profile of these elements."""
    name = b"test"
    elements = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(name) + 1) + name + bytes(1 + 4 + 4 + 2 + 1 + 67),
        b"cprt": b"text\0\0\0\0none\0",
        b"wtpt": xyz(D50),
        **elements,
    }
    at, directory, bodies = 132 + 12 * len(elements), struct.pack(">I", len(elements)), b""
    for tag, body in elements.items():
        directory += struct.pack(">4sII", tag, at + len(bodies), len(body))
        bodies += body + bytes(-len(body) % 4)
    header = struct.pack(">I4sI4s4s4s", at + len(bodies), b"", 0x02400000, kind, space, pcs)
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    header += struct.pack(">3i", *(round(v * 65536) for v in D50))
    return header + bytes(128 - len(header)) + directory + bodies


def matrix(primaries: tuple[tuple[float, ...], ...], curve: bytes) -> bytes:
    names = (b"r", b"g", b"b")
    colours = {name + b"XYZ": xyz(values) for name, values in zip(names, primaries, strict=True)}
    return profile(b"RGB ", {**colours, **{name + b"TRC": curve for name in names}})


def display_p3() -> bytes:
    return matrix(DISPLAY_P3, SRGB_CURVE)


def adobe_rgb() -> bytes:
    return matrix(ADOBE_RGB, gamma(563 / 256))


def prophoto() -> bytes:
    return matrix(PROPHOTO, gamma(1.8))


def sampled_rgb() -> bytes:
    """Adobe RGB's primaries with L* as 1024 samples: the kind of curve that scanners' profiles have."""
    lightness = np.linspace(0, 100, 1024)
    light = np.where(lightness > 8, ((lightness + 16) / 116) ** 3, lightness * 27 / 24389)
    return matrix(ADOBE_RGB, samples(light))


def grey(exponent: float = 1.8) -> bytes:
    return profile(b"GRAY", {b"kTRC": gamma(exponent)})


# The light of paper under each set of inks, XYZ / white: multiplied inks that are not quite pure.
_INKS = np.array([[0.15, 0.25, 0.75], [0.35, 0.17, 0.22], [0.75, 0.80, 0.10], [0.012, 0.012, 0.012]])


def _lab(light: np.ndarray) -> np.ndarray:
    f = np.where(light > 216 / 24389, np.cbrt(light), (24389 / 27 * light + 16) / 116)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def _light_of_inks(inks: np.ndarray) -> np.ndarray:
    return np.prod(1 - inks[..., None] * (1 - _INKS), axis=-2)


@cache
def cmyk() -> bytes:
    """A printer with tables both ways (lut16Type, PCS Lab): grids of 9⁴ and of 9³ nodes."""
    grid = np.stack(np.meshgrid(*[np.linspace(0, 1, 9)] * 4, indexing="ij"), axis=-1).reshape(-1, 4)
    forth = _lut16(4, 3, 9, _lab16(_lab(_light_of_inks(grid))))
    nodes = np.stack(np.meshgrid(*[np.linspace(0, 1, 9)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    wanted = nodes * 65535 / 65280 * [100, 255, 255] - [0, 128, 128]
    generator = np.random.default_rng(0)
    inks = generator.random((20000, 4)) ** 1.5
    inks[:, 3] = np.where(inks[:, :3].min(axis=1) > 0.3, inks[:, 3], 0)  # black only where all inks are
    inks[:16] = np.stack(np.meshgrid(*[[0, 1]] * 4), axis=-1).reshape(-1, 4)
    found = _lab(_light_of_inks(inks)).astype(np.float32)
    best = np.concatenate(
        [((part[:, None] - found) ** 2).sum(axis=2).argmin(axis=1) for part in np.split(wanted.astype(np.float32), 9)]
    )
    back = _lut16(3, 4, 9, np.rint(inks[best] * 65535))
    tables = {f"A2B{n}".encode(): forth for n in range(2)} | {f"B2A{n}".encode(): back for n in range(2)}
    return profile(b"CMYK", tables, pcs=b"Lab ", kind=b"prtr")


def _lab16(lab: np.ndarray) -> np.ndarray:
    return np.rint(np.clip((lab + np.array([0, 128, 128])) / np.array([100, 255, 255]) * 65280, 0, 65535))


def _lut16(inputs: int, outputs: int, nodes: int, table: np.ndarray) -> bytes:
    identity = (65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    head = struct.pack(">4s4xBBBB9iHH", b"mft2", inputs, outputs, nodes, 0, *identity, 2, 2)
    line = np.array([0, 65535], ">u2").tobytes()
    return head + line * inputs + table.astype(">u2").tobytes() + line * outputs
