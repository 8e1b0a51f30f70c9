"""Boxes of AVIF, HEIF and JPEG XL files (ISO/IEC 14496-12): what they say of the main picture, without decoding it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

_CONTAINERS = {b"meta": 4, b"iprp": 0, b"ipco": 0}
"""Boxes to look into, and the bytes of version and flags before their content."""
_MOST_BOXES = 10_000


@dataclass(frozen=True)
class MainPicture:
    """What a file says about its main picture.

    bits: of a channel; grey: one channel of light; cicp: colour primaries, transfer and matrix (ITU-T H.273).
    """

    bits: int | None = None
    grey: bool = False
    cicp: tuple[int, int, int] | None = None


def brands(data: bytes) -> set[bytes]:
    """The kinds of file that the first box announces; empty where the data do not begin that way."""
    if data[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(data[:4], "big"), len(data))
    return {data[8:12], *(data[at : at + 4] for at in range(16, end - 3, 4))}


def boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[bytes, int, int]]:
    """Name, begin and end of the content of each box that follows another; stops at the first that cannot be."""
    end = len(data) if end is None else end
    for _ in range(_MOST_BOXES):
        if start + 8 > end:
            return
        size, name = int.from_bytes(data[start : start + 4], "big"), data[start + 4 : start + 8]
        content = start + 8
        if size == 1:
            size, content = int.from_bytes(data[content : content + 8], "big"), content + 8
        stop = end if size == 0 else start + size
        if stop > end or stop < content:
            return
        yield name, content, stop
        start = stop


def main_picture(data: bytes) -> MainPicture:
    """The properties of a HEIF or AVIF file's main picture; of one made of tiles, those its tiles share."""
    found = _Found()
    _look(data, 0, len(data), found)
    own = [found.properties[index - 1] for index in found.of(found.primary) if 0 < index <= len(found.properties)]
    return _described(data, own, _described(data, found.properties, MainPicture()))


@dataclass
class _Found:
    primary: int = 0
    properties: list[tuple[bytes, int, int]] = field(default_factory=list)
    belongs: dict[int, list[int]] = field(default_factory=dict)

    def of(self, item: int) -> list[int]:
        return self.belongs.get(item, [])


def _look(data: bytes, start: int, end: int, found: _Found) -> None:
    for name, begin, stop in boxes(data, start, end):
        if name == b"ipco":
            found.properties = list(boxes(data, begin, stop))
        elif name in _CONTAINERS:
            _look(data, begin + _CONTAINERS[name], stop, found)
        elif name == b"pitm":
            found.primary = int.from_bytes(data[begin + 4 : stop], "big")
        elif name == b"ipma":
            found.belongs.update(_associations(data[begin:stop]))


def _associations(body: bytes) -> dict[int, list[int]]:
    """For each item the numbers, from 1, of its properties."""
    item_bytes = 4 if body[:1] >= b"\1" else 2
    wide = bool(body[3:4] and body[3] & 1)
    position, result = 8, dict[int, list[int]]()
    for _ in range(min(int.from_bytes(body[4:8], "big"), _MOST_BOXES)):
        item = int.from_bytes(body[position : position + item_bytes], "big")
        position += item_bytes
        count = int.from_bytes(body[position : position + 1], "big")
        position += 1
        size = 2 if wide else 1
        places = range(position, position + count * size, size)
        result[item] = [int.from_bytes(body[at : at + size], "big") & (0x7FFF if wide else 0x7F) for at in places]
        position += count * size
    return result


def _described(data: bytes, properties: list[tuple[bytes, int, int]], known: MainPicture) -> MainPicture:
    """What these properties say, the first of a kind winning; `known` where they say nothing."""
    bits, grey, cicp = None, None, None
    for name, begin, stop in properties:
        body = data[begin:stop]
        if name == b"av1C" and len(body) >= 4 and bits is None:
            bits = 12 if body[2] & 0x20 else 10 if body[2] & 0x40 else 8
            grey = bool(body[2] & 0x10)
        elif name == b"colr" and body[:4] == b"nclx" and len(body) >= 10 and cicp is None:
            primaries, transfer, matrix = (int.from_bytes(body[at : at + 2], "big") for at in (4, 6, 8))
            cicp = primaries, transfer, matrix
    return MainPicture(
        known.bits if bits is None else bits, known.grey if grey is None else grey, known.cicp if cicp is None else cicp
    )
