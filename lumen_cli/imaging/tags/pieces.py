"""What a JPEG, PNG or WebP file holds beside its pixels and colours, piece by piece, and the file with them put in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal

from lumen_cli.imaging.formats import png
from lumen_cli.imaging.tags.exif import EMPTY
from lumen_cli.imaging.tags.segments import (
    APP1,
    APP13,
    EXIF,
    EXTENDED_XMP,
    MOST_IN_SEGMENT,
    PHOTOSHOP,
    XMP,
    Segment,
    Text,
    as_raw_profile,
    as_segment,
    is_of_the_encoder,
    is_preview,
    raw_profile,
    read_segments,
    unpacked_text,
    why_left_out,
)

SPLICED = ("jpeg", "png", "webp")
"""Formats whose tags lumen copies by itself, from one file to another of the same format."""

_MOST_EXTENDED = 65400
"""Bytes of extended XMP in a segment, as Adobe's programs cut it."""
_MOST_BYTES = 64 << 20
"""Of all pieces together, and of one that unpacks."""

Kind = Literal["exif", "xmp", "extended xmp", "photoshop", "raw"]


class NotSplicedError(Exception):
    """These tags are a matter for exiftool; the text says why."""


@dataclass(frozen=True)
class Piece:
    """kind: what `body` holds; wrap: the container's bytes that hold a body; behind: it lies behind the pixels.

    body: EXIF from its TIFF header on, an XMP packet, Photoshop's resources; of "raw" the container's own bytes. name:
    what the main XMP packet calls an extended one.
    """

    kind: Kind
    body: bytes
    wrap: Callable[[bytes], bytes] = bytes
    behind: bool = False
    name: bytes = b""


@dataclass
class Pieces:
    """found: in the order of the file; left_out: what is untrue of another picture, in words."""

    found: list[Piece] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def leave_out(self, what: str) -> None:
        """Note something once."""
        if what not in self.left_out:
            self.left_out.append(what)

    def joined(self, kind: Kind) -> bytes:
        """The bodies of a kind."""
        return b"".join(piece.body for piece in self.found if piece.kind == kind)


def read_pieces(path: Path, format: str) -> Pieces:
    """The pieces of a file of one of the formats `SPLICED`; pixels are not read.

    Raises:
        NotSplicedError: they are too many.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        reader = {"jpeg": _of_jpeg, "png": _of_png, "webp": _of_webp}[format]
        pieces = reader(_Bounded(file))
    return pieces


class _Bounded:
    """A file from which no more than `_MOST_BYTES` are read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._left = file, _MOST_BYTES

    def read(self, size: int) -> bytes:
        if size > self._left:
            raise NotSplicedError("its tags are larger than 64 MiB")
        self._left -= size
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)


def _of_jpeg(file: _Bounded) -> Pieces:
    file.seek(2)
    pieces, groups = Pieces(), _JpegGroups()
    preview: int | None = None
    for segment in read_segments(file):  # type: ignore[arg-type]
        if is_of_the_encoder(segment) or groups.takes(segment):
            continue
        why = why_left_out(segment, in_preview=segment.marker == preview)
        preview = segment.marker if is_preview(why) else None
        if why is not None:
            pieces.leave_out(why)
        else:
            groups.pieces.append(Piece("raw", as_segment(segment.marker, segment.body)))
    pieces.found = groups.complete()
    return pieces


class _JpegGroups:
    """Puts together what several segments hold of one block."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self._exif: list[bytes] = []
        self._photoshop: list[bytes] = []
        self._extended: dict[bytes, dict[int, bytes]] = {}
        self._lengths: dict[bytes, int] = {}

    def takes(self, segment: Segment) -> bool:
        marker, body = segment.marker, segment.body
        if marker == APP1 and body.startswith(EXIF):
            content = body[len(EXIF) :]
            # A block that does not fit into one segment goes on in the next, without a header of its own.
            if self._exif and content[:4] not in (b"II*\0", b"MM\0*"):
                self._exif[-1] += content
            else:
                self._exif.append(content)
        elif marker == APP1 and body.startswith(XMP):
            self.pieces.append(Piece("xmp", body[len(XMP) :], lambda new: as_segment(0xE1, XMP + new)))
        elif marker == APP1 and body.startswith(EXTENDED_XMP) and len(body) > len(EXTENDED_XMP) + 40:
            content = body[len(EXTENDED_XMP) :]
            guid, offset = content[:32], int.from_bytes(content[36:40], "big")
            self._lengths[guid] = int.from_bytes(content[32:36], "big")
            self._extended.setdefault(guid, {})[offset] = content[40:]
        elif marker == APP13 and body.startswith(PHOTOSHOP):
            self._photoshop.append(body[len(PHOTOSHOP) :])
        else:
            return False
        return True

    def complete(self) -> list[Piece]:
        exif = [Piece("exif", block, _split_exif) for block in self._exif]
        extended = []
        for guid, parts in self._extended.items():
            whole = b"".join(parts[offset] for offset in sorted(parts))
            if len(whole) != self._lengths[guid] or sum(map(len, parts.values())) != len(whole):
                raise NotSplicedError("its extended XMP is incomplete")
            extended.append(_extended(guid, whole))
        photoshop = [Piece("photoshop", b"".join(self._photoshop), _split_photoshop)] if self._photoshop else []
        return [*exif, *(p for p in self.pieces if p.kind == "xmp"), *extended, *photoshop] + [
            piece for piece in self.pieces if piece.kind != "xmp"
        ]


def _cut(content: bytes, most: int) -> Iterator[tuple[int, bytes]]:
    for at in range(0, max(1, len(content)), most):
        yield at, content[at : at + most]


def _split_exif(block: bytes) -> bytes:
    most = MOST_IN_SEGMENT - len(EXIF)
    return b"".join(as_segment(APP1, EXIF + part) for _, part in _cut(block, most))


def _split_photoshop(resources: bytes) -> bytes:
    most = MOST_IN_SEGMENT - len(PHOTOSHOP)
    return b"".join(as_segment(APP13, PHOTOSHOP + part) for _, part in _cut(resources, most))


def _extended(guid: bytes, whole: bytes) -> Piece:
    def split(packet: bytes) -> bytes:
        name = guid if packet == whole else extended_guid(packet)
        head, length = EXTENDED_XMP + name, len(packet).to_bytes(4, "big")
        parts = _cut(packet, _MOST_EXTENDED)
        return b"".join(as_segment(APP1, head + length + at.to_bytes(4, "big") + part) for at, part in parts)

    return Piece("extended xmp", whole, split, name=guid)


def extended_guid(packet: bytes) -> bytes:
    """What the main packet names an extended one by: its MD5 in 32 hexadecimal digits."""
    import hashlib

    return hashlib.md5(packet, usedforsecurity=False).hexdigest().upper().encode()


def empty_exif(format: str) -> Piece:
    """EXIF without a tag, for a file that has none."""
    wraps: dict[str, Callable[[bytes], bytes]] = {
        "jpeg": _split_exif,
        "png": lambda new: png.chunk(b"eXIf", new),
        "webp": lambda new: _webp_chunk(b"EXIF", new),
    }
    return Piece("exif", EMPTY, wraps[format])


_PNG_OF_THE_ENCODER = {
    *(b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"cICP", b"mDCV", b"cLLI"),
    *(b"sBIT", b"bKGD", b"hIST", b"sPLT", b"pHYs", b"acTL", b"fcTL", b"fdAT", b"iDOT"),
}
"""Written with the pixels where it is true of them, or about how the old ones lay in the file."""
_PNG_TRUE = (b"tIME", b"sTER")
"""Chunks that PNG takes for depending on the pixels; these hold of a brighter picture too."""
_PNG_LEFT_OUT = {b"caBX": "content credentials (C2PA), whose signature no longer holds"}


def _of_png(file: _Bounded) -> Pieces:
    pieces, behind = Pieces(), False
    file.seek(len(png.SIGNATURE))
    while len(head := file.read(8)) == 8:
        length, name = int.from_bytes(head[:4], "big"), head[4:]
        if name == b"IEND":
            break
        behind = behind or name == b"IDAT"
        if name in _PNG_OF_THE_ENCODER:
            file.seek(length + 4, 1)
            continue
        body = file.read(length)
        file.seek(4, 1)
        if name in _PNG_LEFT_OUT:
            pieces.leave_out(_PNG_LEFT_OUT[name])
        # Its fourth letter says whether a program that does not know a chunk may copy it (PNG, 5.4).
        elif name[3:4].isupper() and name not in _PNG_TRUE:
            pieces.leave_out(f"a chunk of another program ({name.decode('latin-1')})")
        else:
            pieces.found.append(_png_piece(name, body, behind))
    return pieces


def _png_piece(name: bytes, body: bytes, behind: bool) -> Piece:
    if name == b"eXIf":
        return Piece("exif", body.removeprefix(EXIF), lambda new: png.chunk(name, new), behind)
    text = unpacked_text(name, body, _MOST_BYTES) if name in (b"tEXt", b"zTXt", b"iTXt") else None
    if text is None:
        return Piece("raw", png.chunk(name, body), behind=behind)
    if text.keyword == b"XML:com.adobe.xmp":
        return Piece("xmp", text.content, lambda new: png.chunk(name, text.packed(new)), behind)
    if text.keyword.lower() in (b"raw profile type exif", b"raw profile type app1"):
        profile = raw_profile(text.content) or b""
        if profile.startswith(EXIF):
            return Piece("exif", profile[len(EXIF) :], _profile_wrap(name, text, EXIF), behind)
        if profile.startswith(XMP):
            return Piece("xmp", profile[len(XMP) :], _profile_wrap(name, text, XMP), behind)
    return Piece("raw", png.chunk(name, body), behind=behind)


def _profile_wrap(name: bytes, text: Text, start: bytes) -> Callable[[bytes], bytes]:
    return lambda new: png.chunk(name, text.packed(as_raw_profile(text.content, start + new)))


_WEBP_OF_THE_ENCODER = (b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF", b"ICCP")


def _of_webp(file: _Bounded) -> Pieces:
    pieces = Pieces()
    head = file.read(12)
    left = int.from_bytes(head[4:8], "little") - 4
    while left >= 8 and len(head := file.read(8)) == 8:
        name, length = head[:4], int.from_bytes(head[4:], "little")
        left -= 8 + length + length % 2
        if name in _WEBP_OF_THE_ENCODER:
            file.seek(length + length % 2, 1)
            continue
        body = file.read(length)
        file.seek(length % 2, 1)
        if name == b"EXIF":
            # Several writers put JPEG's mark before it, and some readers then see nothing.
            pieces.found.append(Piece("exif", body.removeprefix(EXIF), lambda new: _webp_chunk(b"EXIF", new)))
        elif name == b"XMP ":
            pieces.found.append(Piece("xmp", body, lambda new: _webp_chunk(b"XMP ", new)))
        elif name == b"C2PA":
            pieces.leave_out(_PNG_LEFT_OUT[b"caBX"])
        else:
            pieces.found.append(Piece("raw", _webp_chunk(name, body)))
    return pieces


def _webp_chunk(name: bytes, body: bytes) -> bytes:
    return name + len(body).to_bytes(4, "little") + body + b"\0" * (len(body) % 2)


def with_pieces(data: bytes, format: str, pieces: list[Piece], size: tuple[int, int]) -> bytes:
    """A finished file with these pieces in it.

    Args:
        data: a whole file as `write_picture` makes it.
        format: its format, one of `SPLICED`; the pieces are of the same.
        pieces: what it shall hold.
        size: width and height of the picture.

    Raises:
        NotSplicedError: one does not fit.
    """
    try:
        before = b"".join(piece.wrap(piece.body) for piece in pieces if not piece.behind)
        behind = b"".join(piece.wrap(piece.body) for piece in pieces if piece.behind)
    except ValueError as error:
        raise NotSplicedError(str(error)) from None
    if format == "jpeg":
        at = 2
        if data[2:4] == b"\xff\xe0":  # JFIF's segment stays first
            at += 2 + int.from_bytes(data[4:6], "big")
        return b"".join((data[:at], before, data[at:]))
    if format == "png":
        at = png.place_of(data, b"IDAT")
        return b"".join((data[:at], before, data[at:-12], behind, data[-12:]))
    return _in_webp(data, before, size, {piece.kind for piece in pieces})


_WEBP_FLAGS: dict[Kind, int] = {"exif": 0x08, "xmp": 0x04}


def _in_webp(data: bytes, added: bytes, size: tuple[int, int], kinds: set[Kind]) -> bytes:
    flags = sum(flag for kind, flag in _WEBP_FLAGS.items() if kind in kinds)
    chunks = data[12:]
    if chunks[:4] == b"VP8X":
        chunks = chunks[:8] + bytes((chunks[8] | flags,)) + chunks[9:]
    else:  # the simple format becomes the extended one
        has_alpha = chunks[:4] == b"VP8L" and bool(chunks[12] & 0x10)
        canvas = (size[0] - 1).to_bytes(3, "little") + (size[1] - 1).to_bytes(3, "little")
        chunks = _webp_chunk(b"VP8X", bytes((flags | (0x10 if has_alpha else 0), 0, 0, 0)) + canvas) + chunks
    return b"RIFF" + (4 + len(chunks) + len(added)).to_bytes(4, "little") + b"WEBP" + chunks + added
