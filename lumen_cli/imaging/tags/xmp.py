"""An XMP packet corrected for a brightened picture; every other byte stays as it is.

Sources: ISO 16684-1 (XMP), XMP specification part 3 (JPEG's extended packets).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from xml.parsers import expat

_TIFF, _EXIF = "http://ns.adobe.com/tiff/1.0/", "http://ns.adobe.com/exif/1.0/"
_XMP, _RDF = "http://ns.adobe.com/xap/1.0/", "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_BEHIND = (
    "http://ns.google.com/photos/1.0/camera/",
    "http://ns.google.com/photos/1.0/container/",
    "http://ns.adobe.com/hdr-gain-map/1.0/",
    "http://ns.apple.com/HDRGainMap/1.0/",
)
"""Namespaces of `rules.BEHIND`: they point to what lay behind the picture."""
_Property = tuple[str, str]
_TAG = re.compile(rb"""<[^\s/>]+((?:\s+[^\s=]+\s*=\s*(?:"[^"]*"|'[^']*'))*)\s*(/?)>""")
_ATTRIBUTE = re.compile(rb"""\s+([^\s=]+)\s*=\s*(?:"([^"]*)"|'([^']*)')""")
_NUMBER = re.compile(rb"\s*\d+\s*")
_USUAL_NAMES = (b"tiff:Orientation", b"tiff:ImageWidth|exif:PixelXDimension", b"tiff:ImageLength|exif:PixelYDimension")
"""Names of orientation, width and height for packets that cannot be parsed."""
_WIDE = ((b"<\0\0\0", "utf-32-le"), (b"\0\0\0<", "utf-32-be"), (b"<\0", "utf-16-le"), (b"\0<", "utf-16-be"))

STARTS = (b"adobe:ns:meta/", b"<rdf:RDF", _RDF.encode())
"""Every packet has one of them; drone and thermal cameras leave out the wrapper that the first one names."""


class _DoctypeError(Exception):
    """XMP has no document types; entities could stand for anything."""


def update_xmp(packet: bytes, width: int, height: int, *, keep_all: bool = False) -> bytes:
    """The packet with orientation 1, this size, and without thumbnails and pointers to what lay behind the picture.

    A packet that ends early is changed as far as it can be parsed. keep_all: keep thumbnails and pointers, as in a
    sidecar.
    """
    bare = packet.removeprefix(b"\xff\xfe").removeprefix(b"\xfe\xff")
    for start, encoding in _WIDE:
        if bare.startswith(start):
            text, rest = _decode(bare, encoding)
            new = update_xmp(text.encode("utf-8", "surrogatepass"), width, height, keep_all=keep_all)
            changed = new.decode("utf-8", "surrogatepass")
            mark = packet[: len(packet) - len(bare)]
            return packet if changed == text else mark + changed.encode(encoding, "surrogatepass") + rest
    edits = _Edits(packet, width, height, keep_all)
    if not edits.parse():
        for names, value in zip(_USUAL_NAMES, (1, width, height), strict=True):
            attribute_or_element = rb"""(%s)(\s*=\s*["']|\s*>\s*)(\d+)""" % names
            packet = re.sub(attribute_or_element, rb"\g<1>\g<2>%d" % value, packet)
        return packet
    for begin, end, content in reversed(edits.found):
        packet = packet[:begin] + content + packet[end:]
    return packet


def _decode(packet: bytes, encoding: str) -> tuple[str, bytes]:
    """The text up to the first damaged character, and the bytes from there."""
    try:
        return packet.decode(encoding, "surrogatepass"), b""
    except UnicodeDecodeError as error:
        return packet[: error.start].decode(encoding, "surrogatepass"), packet[error.start :]


def repair_xmp(packet: bytes) -> bytes | None:
    """A packet without a wrapper, cut short behind its last element, or padded, in the form that programs expect.

    None where it has that form, or cannot be repaired.
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


def _refuse(*_: object) -> None:
    raise _DoctypeError


class _Edits:
    """The changes to a packet, found by a parser: (begin, end, new bytes), in order."""

    def __init__(self, packet: bytes, width: int, height: int, keep_all: bool) -> None:
        self.found: list[tuple[int, int, bytes]] = []
        self._packet, self._keep_all = packet, keep_all
        self._values: dict[_Property, bytes] = {
            (_TIFF, "Orientation"): b"1",
            **dict.fromkeys([(_TIFF, "ImageWidth"), (_EXIF, "PixelXDimension")], b"%d" % width),
            **dict.fromkeys([(_TIFF, "ImageLength"), (_EXIF, "PixelYDimension")], b"%d" % height),
        }
        self._path: list[_Property] = []
        self._finish: Callable[[int], None] | None = None
        """Adds the edit of the open element, at the place of its end tag."""
        self._depth = 0
        self._is_closed = False

    def parse(self) -> bool:
        """Whether the outermost element is complete."""
        self._parser = expat.ParserCreate(namespace_separator="\n")
        self._parser.ordered_attributes = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.StartDoctypeDeclHandler = _refuse
        # What follows the last element may be cut short or padded.
        with contextlib.suppress(expat.ExpatError, _DoctypeError, ValueError):
            self._parser.Parse(self._packet, True)
        return self._is_closed

    def _start(self, name: str, attributes: list[str]) -> None:
        self._path.append(_split(name))
        tag = _TAG.match(self._packet, self._parser.CurrentByteIndex)
        if self._finish is not None or tag is None:  # no tag: UTF-16, or faulty
            return
        *_, grandparent, parent, own = [("", "")] * 2 + self._path
        if parent == (_RDF, "RDF") and own == (_RDF, "Description"):
            raw = (m for m in _ATTRIBUTE.finditer(tag[1]) if m[1] != b"xmlns" and not m[1].startswith(b"xmlns:"))
            for key, match in zip(attributes[::2], raw, strict=False):
                self._edit_attribute(_split(key), tag.start(1), match)
        elif (grandparent, parent) == ((_RDF, "RDF"), (_RDF, "Description")):
            self._edit_element(own, tag)

    def _edit_attribute(self, name: _Property, base: int, match: re.Match[bytes]) -> None:
        begin, end = match.span()
        if name in self._values:
            begin, end = match.span(2 if match[2] is not None else 3)
        elif not self._is_gone(name):
            return
        self.found.append((base + begin, base + end, self._values.get(name, b"")))

    def _edit_element(self, name: _Property, tag: re.Match[bytes]) -> None:
        is_empty = bool(tag[2])

        def replace(end: int) -> None:
            if _NUMBER.fullmatch(self._packet, tag.end(), end):
                self.found.append((tag.end(), end, self._values[name]))

        def cut(end: int) -> None:
            stop = tag.end() if is_empty else self._packet.index(b">", end) + 1
            self.found.append((tag.start(), stop, b""))

        if name in self._values and not is_empty:
            self._finish, self._depth = replace, len(self._path)
        elif self._is_gone(name):
            self._finish, self._depth = cut, len(self._path)

    def _end(self, _: str) -> None:
        if self._finish is not None and len(self._path) == self._depth:
            self._finish(self._parser.CurrentByteIndex)
            self._finish = None
        self._path.pop()
        self._is_closed = self._is_closed or not self._path

    def _is_gone(self, name: _Property) -> bool:
        return not self._keep_all and (name[0] in _BEHIND or name == (_XMP, "Thumbnails"))


def _split(name: str) -> _Property:
    namespace, _, own = name.rpartition("\n")
    return namespace, own
