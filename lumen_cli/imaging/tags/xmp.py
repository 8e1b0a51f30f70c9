"""An XMP packet made true of a brightened picture, every other byte left as it is.

Sources: ISO 16684-1 (XMP), XMP specification part 3 (JPEG's extended packets).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from xml.parsers import expat

_TIFF, _EXIF = "http://ns.adobe.com/tiff/1.0/", "http://ns.adobe.com/exif/1.0/"
_XMP, _RDF = "http://ns.adobe.com/xap/1.0/", "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_GONE = (
    "http://ns.google.com/photos/1.0/camera/",
    "http://ns.google.com/photos/1.0/container/",
    "http://ns.adobe.com/hdr-gain-map/1.0/",
    "http://ns.apple.com/HDRGainMap/1.0/",
)
"""What `tag_rules.BEHIND` names: they point at what lay behind the picture."""
_THUMBNAILS = (_XMP, "Thumbnails")
_SIZES = {
    (_TIFF, "ImageWidth"): "width",
    (_EXIF, "PixelXDimension"): "width",
    (_TIFF, "ImageLength"): "height",
    (_EXIF, "PixelYDimension"): "height",
}
_TAG = re.compile(rb"""<[^\s/>]+((?:\s+[^\s=]+\s*=\s*(?:"[^"]*"|'[^']*'))*)\s*(/?)>""")
_ATTRIBUTE = re.compile(rb"""\s+([^\s=]+)\s*=\s*(?:"([^"]*)"|'([^']*)')""")
_NUMBER = re.compile(rb"\s*\d+\s*")
# Where a packet cannot be parsed: attribute or element, under the usual prefixes.
_VALUE = rb"""(\s*=\s*["']|\s*>\s*)(\d+)"""
_ORIENTATION = re.compile(rb"(tiff:Orientation)" + _VALUE)
_WIDTH = re.compile(rb"(tiff:ImageWidth|exif:PixelXDimension)" + _VALUE)
_HEIGHT = re.compile(rb"(tiff:ImageLength|exif:PixelYDimension)" + _VALUE)

_WIDE = ((b"<\0\0\0", "utf-32-le"), (b"\0\0\0<", "utf-32-be"), (b"<\0", "utf-16-le"), (b"\0<", "utf-16-be"))

STARTS = (b"adobe:ns:meta/", b"<rdf:RDF", b"http://www.w3.org/1999/02/22-rdf-syntax-ns#")
"""Any of them stands in every packet; drone and thermal cameras leave out the wrapper that the first one names."""


class _DoctypeError(Exception):
    """Entities could stand for anything; no XMP has them."""


def made_true(packet: bytes, width: int, height: int, *, whole: bool = False) -> bytes:
    """The packet with orientation 1, this size, and without thumbnails and pointers to what lay behind the picture.

    A packet that ends early is changed as far as it can be parsed.

    Args:
        packet: XMP, with or without its wrapper.
        width: columns of the picture that it shall describe.
        height: its rows.
        whole: keep thumbnails and pointers (a sidecar's).
    """
    bare = packet.removeprefix(b"\xff\xfe").removeprefix(b"\xfe\xff")
    for start, encoding in _WIDE:
        if bare.startswith(start):
            mark = packet[: len(packet) - len(bare)]
            text = bare.decode(encoding, "surrogatepass").encode("utf-8", "surrogatepass")
            true = made_true(text, width, height, whole=whole)
            return packet if true == text else mark + true.decode("utf-8", "surrogatepass").encode(encoding)
    edits = _Edits(packet, width, height, whole)
    if not edits.parse():
        for pattern, value in ((_ORIENTATION, 1), (_WIDTH, width), (_HEIGHT, height)):
            packet = pattern.sub(rb"\g<1>\g<2>%d" % value, packet)
        return packet
    for begin, end, new in reversed(edits.found):
        packet = packet[:begin] + new + packet[end:]
    return packet


def repaired(packet: bytes) -> bytes | None:
    """The packet as programs expect it, where it has no wrapper, is cut short behind its last element, or padded.

    None where it is as they expect it, or cannot be repaired.
    """
    if _is_sound(packet) and b"xmpmeta" in packet and packet.rstrip().endswith(b"?>") and b"\0" not in packet:
        return None
    start = min((at for word in (b"<x:xmpmeta", b"<rdf:RDF") if (at := packet.find(word)) >= 0), default=-1)
    end = max(packet.rfind(word) + len(word) for word in (b"</x:xmpmeta>", b"</rdf:RDF>"))
    body = packet[start:end] if 0 <= start < end else b""
    if not _is_sound(body):
        return None
    if not body.startswith(b"<x:xmpmeta"):
        body = b'<x:xmpmeta xmlns:x="adobe:ns:meta/">' + body + b"</x:xmpmeta>"
    return b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>\n' + body + b'\n<?xpacket end="w"?>'


def _is_sound(packet: bytes) -> bool:
    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = _refuse
    try:
        parser.Parse(packet, True)
    except (expat.ExpatError, _DoctypeError, ValueError):
        return False
    return True


class _Edits:
    """What is changed, by the places where a parser sees it: (begin, end, new bytes), in order."""

    def __init__(self, packet: bytes, width: int, height: int, whole: bool) -> None:
        self.found: list[tuple[int, int, bytes]] = []
        self._packet, self._whole = packet, whole
        self._values = {"width": width, "height": height, "orientation": 1}
        self._path: list[tuple[str, str]] = []
        self._open: Callable[[int], None] | None = None
        self._depth = 0
        self._closed = False

    def parse(self) -> bool:
        """Whether the outermost element was seen from its begin to its end."""
        self._parser = expat.ParserCreate(namespace_separator="\n")
        self._parser.ordered_attributes = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.StartDoctypeDeclHandler = _refuse
        # What follows the last element may be cut short or padded.
        with contextlib.suppress(expat.ExpatError, _DoctypeError, ValueError):
            self._parser.Parse(self._packet, True)
        return self._closed

    def _start(self, name: str, attributes: list[str]) -> None:
        at = self._parser.CurrentByteIndex
        property = _split(name)
        self._path.append(property)
        if self._open is not None:
            return
        tag = _TAG.match(self._packet, at)
        if tag is None:  # UTF-16, or faulty
            return
        parents = self._path[-3:-1]
        if property == (_RDF, "Description") and parents[-1:] == [(_RDF, "RDF")]:
            raw = (m for m in _ATTRIBUTE.finditer(tag[1]) if m[1] != b"xmlns" and not m[1].startswith(b"xmlns:"))
            for key, match in zip(attributes[::2], raw, strict=False):
                value = 2 if match[2] is not None else 3
                self._attribute(_split(key), tag.start(1), match.span(), match.span(value))
        elif parents == [(_RDF, "RDF"), (_RDF, "Description")]:
            self._element(property, tag.start(), tag.end(), empty=bool(tag[2]))

    def _attribute(self, property: tuple[str, str], base: int, span: tuple[int, int], value: tuple[int, int]) -> None:
        new = self._new(property)
        if new is not None:
            self.found.append((base + value[0], base + value[1], new))
        elif self._is_gone(property):
            self.found.append((base + span[0], base + span[1], b""))

    def _element(self, property: tuple[str, str], start: int, content: int, empty: bool) -> None:
        new = self._new(property)
        if new is not None and not empty:
            self._open, self._depth = lambda end: self._replace(content, end, new), len(self._path)
        elif self._is_gone(property):

            def cut(end: int) -> None:
                stop = content if empty else self._packet.index(b">", end) + 1
                self.found.append((start, stop, b""))

            self._open, self._depth = cut, len(self._path)

    def _replace(self, start: int, end: int, new: bytes) -> None:
        if _NUMBER.fullmatch(self._packet, start, end):
            self.found.append((start, end, new))

    def _end(self, _: str) -> None:
        if self._open is not None and len(self._path) == self._depth:
            self._open(self._parser.CurrentByteIndex)
            self._open = None
        self._path.pop()
        self._closed = self._closed or not self._path

    def _new(self, property: tuple[str, str]) -> bytes | None:
        key = "orientation" if property == (_TIFF, "Orientation") else _SIZES.get(property)
        return None if key is None else b"%d" % self._values[key]

    def _is_gone(self, property: tuple[str, str]) -> bool:
        return not self._whole and (property[0] in _GONE or property == _THUMBNAILS)


def _split(name: str) -> tuple[str, str]:
    place, _, own = name.rpartition("\n")
    return place, own


def _refuse(*_: object) -> None:
    raise _DoctypeError
