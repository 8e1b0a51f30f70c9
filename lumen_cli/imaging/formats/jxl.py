"""JPEG XL through pyjpegxl (libjxl), with all its bits and the profile that its values are in."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from lumen_cli.imaging.colour import read_model, read_shaper
from lumen_cli.imaging.colour.convert import SRGB, divide_by_alpha
from lumen_cli.imaging.colour.spaces import ShaperSpace
from lumen_cli.imaging.extent import find_boxes_end, note_boxes, read_at, read_bounded, walk_boxes
from lumen_cli.imaging.formats.format import Decoded, Format, Package, Raster, Storage, UnreadableError, check_size
from lumen_cli.imaging.formats.pillow import strip_exif_prefix

_PACKAGE = Package("pyjpegxl", "pyjpegxl", "jxl")
_CODESTREAM, _CONTAINER = b"\xff\x0a", b"\x00\x00\x00\x0cJXL \r\n\x87\n"
_HEAD_BYTES = 8192
_RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}
_ALPHA = 0
_LARGEST_NAME = 1071


@dataclass(frozen=True)
class JxlHead:
    """The head of a codestream. Width and height are as stored: decoders apply the orientation (1 to 8).

    bits: of a colour channel; floating: whether values are floats; animated: several frames; extra: further channels,
    alpha included; alpha: whether one of them is alpha; premultiplied: whether colours were multiplied by it; lossy:
    colours are in XYB, which loses something.
    """

    width: int
    height: int
    orientation: int = 1
    bits: int = 8
    floating: bool = False
    animated: bool = False
    extra: int = 0
    alpha: bool = False
    premultiplied: bool = False
    lossy: bool = True


class _Bits:
    """Bits of bytes, the lowest first; ValueError past the end."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "little"), 8 * len(data)

    def take(self, count: int) -> int:
        if count > self._left:
            raise ValueError("the header is cut off")
        value, self._value = self._value & ((1 << count) - 1), self._value >> count
        self._left -= count
        return value

    def flag(self) -> bool:
        return bool(self.take(1))

    def choice(self, *ways: tuple[int, int]) -> int:
        """U32: two bits choose among (offset, further bits)."""
        offset, bits = ways[self.take(2)]
        return offset + self.take(bits)


def _read_codestream(file: BinaryIO) -> bytes:
    """The first bytes of the codestream of a bare file or a container, enough for its head."""
    if (start := read_at(file, 0, _HEAD_BYTES)).startswith(_CODESTREAM):
        return start
    for name, begin, stop in walk_boxes(file):
        if name in (b"jxlc", b"jxlp"):
            begin += 4 if name == b"jxlp" else 0  # the number of the part
            return read_at(file, begin, min(_HEAD_BYTES, stop - begin))
    raise ValueError("there is no picture in it")


def read_head(file: BinaryIO) -> JxlHead:
    """The head of the codestream (ISO/IEC 18181-1, annex D); nothing is decoded.

    Raises:
        ValueError: it is cut off or breaks the standard.
    """
    stream = _read_codestream(file)
    if not stream.startswith(_CODESTREAM):
        raise ValueError("it does not begin as the standard demands")
    bits = _Bits(stream[2:])
    width, height = _size(bits)
    if bits.flag():  # all as usual
        return JxlHead(width, height)
    orientation, animated = 1, False
    if bits.flag():
        orientation = 1 + bits.take(3)
        if bits.flag():
            _size(bits)
        if bits.flag():
            _preview(bits)
        animated = bits.flag()
        if animated:
            bits.choice((100, 0), (1000, 0), (1, 10), (1, 30))
            bits.choice((1, 0), (1001, 0), (1, 8), (1, 10))
            bits.choice((0, 0), (0, 3), (0, 16), (0, 32))
            bits.flag()
    depth, floating = _depth(bits)
    bits.flag()
    extra = bits.choice((0, 0), (1, 0), (2, 4), (1, 12))
    kinds = [_extra_channel(bits) for _ in range(extra)]
    alphas = [premultiplied for kind, premultiplied in kinds if kind == _ALPHA]
    lossy = bits.flag()
    return JxlHead(width, height, orientation, depth, floating, animated, extra, bool(alphas), any(alphas), lossy)


def _size(bits: _Bits) -> tuple[int, int]:
    small = bits.flag()

    def side() -> int:
        return 8 * (1 + bits.take(5)) if small else 1 + bits.take((9, 13, 18, 30)[bits.take(2)])

    height = side()
    ratio = bits.take(3)
    if ratio == 0:
        return side(), height
    wide, high = _RATIOS[ratio]
    return height * wide // high, height


def _preview(bits: _Bits) -> None:
    by_eights = bits.flag()
    ways = ((16, 0), (32, 0), (1, 5), (33, 9)) if by_eights else ((1, 6), (65, 8), (321, 10), (1345, 12))
    bits.choice(*ways)
    if bits.take(3) == 0:
        bits.choice(*ways)


def _depth(bits: _Bits) -> tuple[int, bool]:
    if bits.flag():
        depth = bits.choice((32, 0), (16, 0), (24, 0), (1, 6))
        bits.take(4)
        return depth, True
    return bits.choice((8, 0), (10, 0), (12, 0), (1, 6)), False


def _extra_channel(bits: _Bits) -> tuple[int, bool]:
    """The kind of a further channel, and whether colours were multiplied by it."""
    if bits.flag():
        return _ALPHA, False
    kind = bits.choice((0, 0), (1, 0), (2, 4), (18, 6))
    _depth(bits)
    bits.choice((0, 0), (3, 0), (4, 0), (1, 3))
    length = bits.choice((0, 0), (0, 4), (16, 5), (48, 10))
    if length > _LARGEST_NAME:
        raise ValueError("a channel's name is too long")
    bits.take(8 * length)
    if kind == _ALPHA:
        return kind, bits.flag()
    if kind == 2:  # a spot colour: red, green, blue, how much
        bits.take(64)
    elif kind == 5:  # which colour of a filter array
        bits.choice((1, 0), (0, 2), (3, 4), (19, 8))
    return kind, False


_LINEAR = "_Lin".encode("utf-16-be")
"""A part of the name of the profile that libjxl makes for linear light."""
_SRGB_CODES = (1, 13)


def _decode(file: BinaryIO, max_pixels: int) -> Decoded:
    """Of an animation the first frame. libjxl turns the pixels upright itself."""
    pyjpegxl = _PACKAGE.load("JPEG XL")
    try:
        head = read_head(file)
    except ValueError as error:
        raise UnreadableError(f"the JPEG XL file is damaged or cut off ({error})") from None
    check_size(head.width, head.height, max_pixels)
    # The decoder stops where the picture is complete, whatever follows.
    data = read_bounded(file, find_boxes_end(file), head.width * head.height, cut=True)
    try:
        probed = pyjpegxl.probe(data)
        check_size(probed.width, probed.height, max_pixels)
        icc, cicp = probed.icc, None
        kind = "float32" if head.floating else "uint16" if head.bits > 8 else "uint8"
        if head.lossy and icc and _LINEAR in icc:
            # libjxl gives what was lossily coded under an embedded profile as linear light: too coarse in 8 bits.
            values = _from_linear(_decode_values(pyjpegxl, data, "float32"), np.uint16 if head.bits > 8 else np.uint8)
            icc, cicp = None, _SRGB_CODES
        else:
            values = _decode_values(pyjpegxl, data, kind)
    except (UnreadableError, MemoryError):
        raise
    except Exception as error:  # the binding has no error class of its own
        text = (str(error).splitlines() or [type(error).__name__])[0]
        raise UnreadableError(f"the JPEG XL file is damaged or cut off ({text})") from None
    if values.dtype.kind != "f" and head.premultiplied and values.shape[2] in (2, 4):
        values = divide_by_alpha(values)
    # The values of a repacked JPEG are not worth keeping exactly.
    is_jpeg = any(name == b"jbrd" for name, _, _ in walk_boxes(file))
    storage = Storage(lossless=not head.lossy and not is_jpeg, bits=head.bits if head.bits in (10, 12) else None)
    exif, notices = strip_exif_prefix(probed.exif), _note_left_out(head) + note_boxes(file)
    return Decoded(values, icc=icc or None, exif=exif, notices=notices, cicp=cicp, storage=storage)


def _decode_values(pyjpegxl: ModuleType, data: bytes, kind: str) -> NDArray[Any]:
    values: NDArray[Any] = pyjpegxl.decode_to_numpy(data, dtype=kind)[1]
    return values if values.ndim == 3 else values[:, :, None]


def _note_left_out(head: JxlHead) -> tuple[str, ...]:
    frames = ("only the first frame of the animation was read",) if head.animated else ()
    left = head.extra - head.alpha
    return frames + ((f"{left} extra channel{'s' * (left > 1)} of the JPEG XL file left out",) if left else ())


def _from_linear(linear: NDArray[Any], kind: type) -> NDArray[Any]:
    """Linear light of sRGB's primaries under sRGB's transfer function (IEC 61966-2-1), clipped; alpha as it is."""
    values = np.clip(linear.astype(np.float32), 0, 1)
    colours = values[:, :, : 1 if values.shape[2] <= 2 else 3]
    values[:, :, : colours.shape[2]] = SRGB.from_light(colours)
    return np.rint(values * np.iinfo(kind).max).astype(kind)


def _measure(file: BinaryIO) -> tuple[int, int]:
    head = read_head(file)
    return head.width, head.height


_TYPE = b"\0\0\0\x14ftypjxl \0\0\0\0jxl "
"""What follows in a container, which has room for tags; a bare codestream has none."""
_FINEST, _COARSEST = 0.1, 25.0
"""Distances in libjxl's measure: 1 is what an eye just does not see."""


def _holds_profile(icc: bytes) -> bool:
    """Only one of sRGB: the codestream names that itself, and pyjpegxl puts no profile where programs look for it."""
    shaper = read_shaper(icc)
    return shaper is not None and ShaperSpace(shaper, read_model(icc) == "GRAY").is_srgb


def _encode(raster: Raster) -> bytes:
    """Colours are sRGB; 10 and 12 bits are stored as 16; a quality of 100 is lossless.

    Raises:
        MissingPackageError: pyjpegxl is not installed.
        ValueError: it refuses.
    """
    pyjpegxl = _PACKAGE.load("JPEG XL")
    exact = raster.lossless or raster.lossy_quality >= 100
    speed = pyjpegxl.EncoderSpeed.Thunder if exact else pyjpegxl.EncoderSpeed.Cheetah
    # A keyword called quality, but the distance of libjxl.
    options = {"lossless": True} if exact else {"quality": _find_distance(raster.lossy_quality)}
    try:
        data: bytes = pyjpegxl.encode_from_numpy(np.ascontiguousarray(raster.values), speed=speed, **options)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"pyjpegxl: {' '.join(str(error).split())}") from None
    box = (len(data) + 8).to_bytes(4, "big") + b"jxlc"
    return data if data.startswith(_CONTAINER) else _CONTAINER + _TYPE + box + data


def _find_distance(quality: int) -> float:
    """The rule of libjxl's own tools for a JPEG's quality."""
    if quality >= 30:
        return max(_FINEST, 0.1 + (100 - quality) * 0.09)
    return min(_COARSEST, 53 / 3000 * quality * quality - 23 / 20 * quality + 25)


JXL = Format(
    name="jxl",
    title="JPEG XL",
    accepts=lambda start: start.startswith((_CODESTREAM, _CONTAINER)),
    decode=_decode,
    measure=_measure,
    find_end=find_boxes_end,
    encode=_encode,
    depths=(8, 10, 12, 16),
    holds_profile=_holds_profile,
    package=_PACKAGE,
)
