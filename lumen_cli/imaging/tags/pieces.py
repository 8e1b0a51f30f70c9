"""What a JPEG, PNG or WebP file holds beside its pixels and colours, piece by piece, and the file with them put in."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO, Literal, cast

from lumen_cli.imaging.extent import find_png_chunk, pack_png_chunk
from lumen_cli.imaging.tags.containers import (
    APP0,
    APP1,
    APP13,
    EXIF,
    EXTENDED_XMP,
    EXTENSIONS,
    MOST_IN_SEGMENT,
    PHOTOSHOP,
    PNG_PIXELS,
    PNG_TEXTS,
    XMP,
    pack_profile,
    pack_segment,
    pack_webp_chunk,
    read_chunks,
    read_segments,
    unpack_profile,
    unpack_text,
)
from lumen_cli.imaging.tags.exif import EMPTY

SPLICED = ("jpeg", "png", "webp")
"""Formats whose tags lumen copies by itself, from one file to another of the same format."""

_MOST_EXTENDED = 65400
"""Bytes of extended XMP in a segment, as Adobe's programs cut it."""
_MOST_BYTES = 64 << 20
"""Of all pieces together, and of one that unpacks."""

Kind = Literal["exif", "xmp", "extended xmp", "photoshop", "raw"]


class NotSplicedError(Exception):
    """exiftool has to copy these tags; the text says why."""


@dataclass(frozen=True)
class Piece:
    """One block of tags."""

    kind: Kind
    body: bytes
    """EXIF from its TIFF header on, an XMP packet, Photoshop's resources; for "raw" the container's own bytes."""
    wrap: Callable[[bytes], bytes] = bytes
    """Gives the container's bytes that hold a body."""
    is_behind: bool = False
    """Whether it lies behind the pixels."""
    name: bytes = b""
    """The name by which the main XMP packet refers to an extended one."""


@dataclass
class Pieces:
    """The pieces of a file."""

    found: list[Piece] = field(default_factory=list)
    """In the order of the file."""
    left_out: list[str] = field(default_factory=list)
    """What does not hold for another picture, in words."""

    def leave_out(self, what: str) -> None:
        """Note something once."""
        if what not in self.left_out:
            self.left_out.append(what)


def read_pieces(path: Path, format: str) -> Pieces:
    """The pieces of a file of one of the formats `SPLICED`, without the pixels.

    Raises:
        NotSplicedError: they are too many.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return {"jpeg": _read_jpeg, "png": _read_png, "webp": _read_webp}[format](cast(BinaryIO, _Bounded(file)))


class _Bounded:
    """A file that gives `_MOST_BYTES` at most."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._left, self.seek = file, _MOST_BYTES, file.seek

    def read(self, size: int) -> bytes:
        if size > self._left:
            raise NotSplicedError("its tags are larger than 64 MiB")
        self._left -= size
        return self._file.read(size)


# JPEG

_OLD_PREVIEW = "an old preview"
_BAD_SIGNATURE = "content credentials (C2PA), whose signature no longer holds"
_LEFT_OUT: tuple[tuple[int, bytes, str], ...] = (
    (0xE0, b"JFXX\0", _OLD_PREVIEW),
    (0xE0, b"AVI1", "the frame order of a video (AVI1)"),
    (0xE4, b"SCALADO\0", "an index into its old data (Scalado)"),
    (0xE8, b"SPIFF\0", "its SPIFF header"),
    (0xE8, b"SEAL\0", "a signature (SEAL) that no longer holds"),
    (0xE9, b"SEAL\0", "a signature (SEAL) that no longer holds"),
    (0xEA, b"AROT\0\0", "the curve of a gain map (AROT)"),
    (0xEB, b"HDR_RI", "a high dynamic range layer (JPEG-HDR)"),
)
"""Segments that do not hold for another picture: marker, first bytes, and what it is."""
_OF_THE_ENCODER = (
    (0xE0, b"JFIF\0"),
    (0xE2, b"ICC_PROFILE\0"),
    (0xEE, b"Adobe"),
    # Where the pictures behind this one lie. Those are left out and reported when the picture is read.
    (0xE2, b"MPF\0"),
    (0xE2, b"urn:iso:std:iso:ts:21496:-1\0"),
)
_SIGNERS = (b"c2pa", b"c2ma", b"c2cl", b"cai")


def _read_jpeg(file: BinaryIO) -> Pieces:
    pieces, exif, xmp, photoshop, raw = Pieces(), list[bytes](), list[Piece](), list[bytes](), list[Piece]()
    extended, lengths = defaultdict[bytes, dict[int, bytes]](dict), dict[bytes, int]()
    preview: int | None = None
    for marker, body in read_segments(file):
        if any(marker == known and body.startswith(start) for known, start in _OF_THE_ENCODER):
            continue
        if marker == APP1 and body.startswith(EXIF):
            block = body[len(EXIF) :]
            # A block that does not fit into one segment goes on in the next, without a header of its own.
            if exif and block[:4] not in (b"II*\0", b"MM\0*"):
                exif[-1] += block
            else:
                exif.append(block)
        elif marker == APP1 and body.startswith(XMP):
            xmp.append(Piece("xmp", body[len(XMP) :], lambda new: pack_segment(APP1, XMP + new)))
        elif marker == APP1 and body.startswith(EXTENDED_XMP) and len(body) > len(EXTENDED_XMP) + 40:
            content = body[len(EXTENDED_XMP) :]
            lengths[content[:32]] = int.from_bytes(content[32:36], "big")
            extended[content[:32]][int.from_bytes(content[36:40], "big")] = content[40:]
        elif marker == APP13 and body.startswith(PHOTOSHOP):
            photoshop.append(body[len(PHOTOSHOP) :])
        else:
            why = _why_left_out(marker, body, in_preview=marker == preview)
            preview = marker if why == _OLD_PREVIEW else None
            if why is None:
                raw.append(Piece("raw", pack_segment(marker, body)))
            else:
                pieces.leave_out(why)
    pieces.found = [Piece("exif", block, partial(_pack_segments, APP1, EXIF)) for block in exif] + xmp
    pieces.found += [_join_extended(name, lengths[name], parts) for name, parts in extended.items()]
    if photoshop:
        pieces.found.append(Piece("photoshop", b"".join(photoshop), partial(_pack_segments, APP13, PHOTOSHOP)))
    pieces.found += raw
    return pieces


def _why_left_out(marker: int, body: bytes, in_preview: bool) -> str | None:
    """What a segment is that does not hold for another picture; None for one that stays.

    in_preview: whether the segment before, of the same marker, is part of a preview.
    """
    if marker in EXTENSIONS:
        return "an extension of JPEG"
    if 0xE2 <= marker <= 0xEA and (body.startswith(b"\xff\xd8\xff") or in_preview):
        return _OLD_PREVIEW
    if marker == 0xEB and body.startswith(b"JP"):
        return _BAD_SIGNATURE if any(word in body[:400] for word in _SIGNERS) else "a JUMBF box"
    found = (what for known, start, what in _LEFT_OUT if marker == known and body.startswith(start))
    return next(found, None)


def _pack_segments(marker: int, head: bytes, content: bytes) -> bytes:
    most = MOST_IN_SEGMENT - len(head)
    parts = (content[at : at + most] for at in range(0, max(1, len(content)), most))
    return b"".join(pack_segment(marker, head + part) for part in parts)


def _join_extended(name: bytes, length: int, parts: dict[int, bytes]) -> Piece:
    whole = b"".join(parts[offset] for offset in sorted(parts))
    if len(whole) != length:
        raise NotSplicedError("its extended XMP is incomplete")

    def wrap(packet: bytes) -> bytes:
        head = EXTENDED_XMP + (name if packet == whole else extended_name(packet)) + len(packet).to_bytes(4, "big")
        starts = range(0, max(1, len(packet)), _MOST_EXTENDED)
        return b"".join(
            pack_segment(APP1, head + at.to_bytes(4, "big") + packet[at : at + _MOST_EXTENDED]) for at in starts
        )

    return Piece("extended xmp", whole, wrap, name=name)


def extended_name(packet: bytes) -> bytes:
    """The name by which the main packet refers to an extended one: its MD5 in 32 hexadecimal digits."""
    return hashlib.md5(packet, usedforsecurity=False).hexdigest().upper().encode()


# PNG

_PNG_OF_THE_ENCODER = PNG_PIXELS | {b"cICP", b"mDCV", b"cLLI", b"sPLT", b"pHYs", b"acTL", b"fcTL", b"fdAT", b"iDOT"}
"""Chunks that are written with the pixels where they hold for them, or say how the old ones lay in the file."""
_PNG_KEPT = (b"tIME", b"sTER")
"""Chunks that PNG counts among those that depend on pixels; these hold for a brighter picture too."""
_IN_PROFILES: tuple[tuple[Kind, bytes], ...] = (("exif", EXIF), ("xmp", XMP))


def _read_png(file: BinaryIO) -> Pieces:
    pieces, behind = Pieces(), False
    for name, length in read_chunks(file, "png"):
        behind = behind or name == b"IDAT"
        if name in _PNG_OF_THE_ENCODER:
            continue
        body = file.read(length)
        if name == b"caBX":
            pieces.leave_out(_BAD_SIGNATURE)
        # The fourth letter says whether a program that does not know a chunk may copy it (PNG, 5.4).
        elif name[3:4].isupper() and name not in _PNG_KEPT:
            pieces.leave_out(f"a chunk of another program ({name.decode('latin-1')})")
        else:
            pieces.found.append(_read_png_chunk(name, body, behind))
    return pieces


def _read_png_chunk(name: bytes, body: bytes, behind: bool) -> Piece:
    if name == b"eXIf":
        return Piece("exif", body.removeprefix(EXIF), partial(pack_png_chunk, name), behind)
    text = unpack_text(name, body, _MOST_BYTES) if name in PNG_TEXTS else None
    if text is not None:
        keyword, content, pack = text
        if keyword == b"XML:com.adobe.xmp":
            return Piece("xmp", content, pack, behind)
        if keyword.lower() in (b"raw profile type exif", b"raw profile type app1"):
            profile = unpack_profile(content) or b""
            for kind, start in _IN_PROFILES:
                if profile.startswith(start):
                    wrap = partial(_pack_profile, content, start, pack)
                    return Piece(kind, profile.removeprefix(start), wrap, behind)
    return Piece("raw", pack_png_chunk(name, body), is_behind=behind)


def _pack_profile(old: bytes, start: bytes, pack: Callable[[bytes], bytes], new: bytes) -> bytes:
    return pack(pack_profile(old, start + new))


# WebP

_WEBP_OF_THE_ENCODER = (b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF", b"ICCP")
_WEBP_FLAGS: dict[Kind, int] = {"exif": 0x08, "xmp": 0x04}


def _read_webp(file: BinaryIO) -> Pieces:
    pieces = Pieces()
    for name, length in read_chunks(file, "webp"):
        if name in _WEBP_OF_THE_ENCODER:
            continue
        body = file.read(length)
        if name == b"EXIF":
            # Several writers put JPEG's mark before it, and some readers then see nothing.
            pieces.found.append(Piece("exif", body.removeprefix(EXIF), partial(pack_webp_chunk, name)))
        elif name == b"XMP ":
            pieces.found.append(Piece("xmp", body, partial(pack_webp_chunk, name)))
        elif name == b"C2PA":
            pieces.leave_out(_BAD_SIGNATURE)
        else:
            pieces.found.append(Piece("raw", pack_webp_chunk(name, body)))
    return pieces


def _put_in_webp(data: bytes, added: bytes, size: tuple[int, int], kinds: set[Kind]) -> bytes:
    flags = sum(flag for kind, flag in _WEBP_FLAGS.items() if kind in kinds)
    chunks = data[12:]
    if chunks[:4] == b"VP8X":
        chunks = chunks[:8] + bytes((chunks[8] | flags,)) + chunks[9:]
    else:  # the simple format becomes the extended one
        has_alpha = chunks[:4] == b"VP8L" and bool(chunks[12] & 0x10)
        canvas = (size[0] - 1).to_bytes(3, "little") + (size[1] - 1).to_bytes(3, "little")
        chunks = pack_webp_chunk(b"VP8X", bytes((flags | (0x10 if has_alpha else 0), 0, 0, 0)) + canvas) + chunks
    return b"RIFF" + (4 + len(chunks) + len(added)).to_bytes(4, "little") + b"WEBP" + chunks + added


def exif_piece(format: str, block: bytes = EMPTY) -> Piece:
    """EXIF for a file that has none; without a block there is no tag in it."""
    wraps: dict[str, Callable[[bytes], bytes]] = {
        "jpeg": lambda block: pack_segment(APP1, EXIF + block),
        "png": partial(pack_png_chunk, b"eXIf"),
        "webp": partial(pack_webp_chunk, b"EXIF"),
    }
    return Piece("exif", block, wraps[format])


def put_pieces(data: bytes, format: str, pieces: list[Piece], size: tuple[int, int]) -> bytes:
    """A finished file, as `write_picture` makes it, with these pieces in it. size: width and height of the picture.

    Raises:
        NotSplicedError: one does not fit.
    """
    try:
        before = b"".join(piece.wrap(piece.body) for piece in pieces if not piece.is_behind)
        behind = b"".join(piece.wrap(piece.body) for piece in pieces if piece.is_behind)
    except ValueError as error:
        raise NotSplicedError(str(error)) from None
    if format == "jpeg":
        has_jfif = data[2:4] == bytes((0xFF, APP0))  # that segment stays first
        at = 4 + int.from_bytes(data[4:6], "big") if has_jfif else 2
        return b"".join((data[:at], before, data[at:]))
    if format == "png":
        at = find_png_chunk(data, b"IDAT")
        return b"".join((data[:at], before, data[at:-12], behind, data[-12:]))
    return _put_in_webp(data, before, size, {piece.kind for piece in pieces})
