"""The head of a JPEG XL codestream (ISO/IEC 18181-1, annex D): size, bits and kind of coding, nothing decoded."""

from __future__ import annotations

from dataclasses import dataclass

from lumen_cli.imaging.formats.isobmff import boxes

CODESTREAM = b"\xff\x0a"
CONTAINER = b"\x00\x00\x00\x0cJXL \r\n\x87\n"
_RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}
_ALPHA = 0
_LARGEST_NAME = 1071


@dataclass(frozen=True)
class JxlHead:
    """width, height: as stored, orientation (1 to 8) not applied yet, which decoders do; bits: of a colour channel.

    floating: whether values are floats; animated: several frames; extra: further channels, alpha included; alpha:
    whether one of them is it; premultiplied: colours were multiplied by it; lossy: colours are in XYB, which loses.
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


def codestream(data: bytes) -> bytes:
    """The first bytes of the codestream, enough for its head, of a bare file or a container.

    Raises:
        ValueError: there is none.
    """
    if data.startswith(CODESTREAM):
        return data[:_HEAD]
    for name, begin, stop in boxes(data):
        if name == b"jxlc":
            return data[begin : min(stop, begin + _HEAD)]
        if name == b"jxlp":
            return data[begin + 4 : min(stop, begin + 4 + _HEAD)]
    raise ValueError("there is no picture in it")


_HEAD = 8192


def read_head(data: bytes) -> JxlHead:
    """What a JPEG XL file says about its picture.

    Raises:
        ValueError: it is cut off or not as the standard has it.
    """
    stream = codestream(data)
    if not stream.startswith(CODESTREAM):
        raise ValueError("it does not begin as the standard has it")
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
