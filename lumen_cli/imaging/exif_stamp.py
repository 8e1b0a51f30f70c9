"""lumen's stamp in EXIF: ProcessingSoftware, the tag for programs that worked on a picture after the camera.

The camera's own Software tag stays the camera's; what another program wrote into ProcessingSoftware stays before ours.
"""

from __future__ import annotations

import struct

from lumen_cli.imaging.exif_block import header

_PROCESSING_SOFTWARE = 0x000B
_ASCII = 2
EMPTY = b"II*\0" + struct.pack("<IHI", 8, 0, 0)
"""A block without a tag."""


def with_stamp(earlier: str | None, stamp: str) -> str:
    """The tag's new text: what was there, then the stamp; said once when the same run is made of its own result."""
    said = " ".join(stamp.split())
    before = " ".join((earlier or "").split())
    if before == said or before.endswith(f"; {said}"):
        return before
    return f"{before}; {said}" if before else said


def processing_software(block: bytes | None) -> str | None:
    """The ProcessingSoftware of a raw EXIF block; None where there is none, or the block is damaged."""
    if block is None:
        return None
    try:
        order, first = header(block)
        (count,) = struct.unpack_from(f"{order}H", block, first)
        for i in range(count):
            tag, kind, length = struct.unpack_from(f"{order}HHI", block, first + 2 + 12 * i)
            if (tag, kind) == (_PROCESSING_SOFTWARE, _ASCII):
                at = first + 10 + 12 * i
                if length > 4:
                    (at,) = struct.unpack_from(f"{order}I", block, at)
                return block[at : at + length].split(b"\0")[0].decode("utf-8", "replace")
    except (ValueError, struct.error):
        pass
    return None


def stamped(block: bytes | None, text: str) -> bytes:
    """A raw EXIF block with this ProcessingSoftware; None makes a block with nothing else.

    Only the main directory moves, to the end: every other offset stays true, those of maker notes as well.

    Raises:
        ValueError: the block is damaged.
    """
    block = EMPTY if block is None else block
    try:
        order, first = header(block)
        (count,) = struct.unpack_from(f"{order}H", block, first)
        link_at = first + 2 + 12 * count
        entries = [block[at : at + 12] for at in range(first + 2, link_at, 12)]
        (link,) = struct.unpack_from(f"{order}I", block, link_at)
    except struct.error:
        raise ValueError("its EXIF is damaged") from None
    value = text.encode() + b"\0"
    kept = block[:8] if block == EMPTY else block + b"\0" * (len(block) % 2)
    place = struct.pack(f"{order}I", len(kept)) if len(value) > 4 else value.ljust(4, b"\0")
    entry = struct.pack(f"{order}HHI", _PROCESSING_SOFTWARE, _ASCII, len(value)) + place
    others = [old for old in entries if struct.unpack(f"{order}H", old[:2])[0] != _PROCESSING_SOFTWARE]
    entries = sorted([*others, entry], key=lambda one: int(struct.unpack(f"{order}H", one[:2])[0]))
    value += b"\0" * (len(value) % 2)
    directory = struct.pack(f"{order}H", len(entries)) + b"".join(entries) + struct.pack(f"{order}I", link)
    return kept[:4] + struct.pack(f"{order}I", len(kept) + len(value)) + kept[8:] + value + directory
