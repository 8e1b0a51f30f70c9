"""Putting a raw EXIF block into a finished JPEG, PNG, WebP or TIFF file without touching its pixels."""

from __future__ import annotations

from lumen_cli.imaging import png

EMBEDDABLE = ("jpeg", "png", "webp", "tiff")
"""Formats that `embedded` knows."""

UNMOVABLE_TAGS = (0x927C, 0xA005)
"""Maker notes and the interoperability folder hold offsets that only their old place makes true."""

_RESOLUTION = (0x011A, 0x011B, 0x0128)


def embedded(data: bytes, block: bytes, size: tuple[int, int]) -> bytes:
    """The file with the EXIF block (beginning with its TIFF header) in it.

    Args:
        data: a whole file as `write_picture` makes it, without EXIF.
        block: the raw EXIF block.
        size: width and height of the picture.

    Raises:
        ValueError: the format is none of `EMBEDDABLE`, or the block is too large for it.
    """
    if data.startswith(b"\xff\xd8"):
        return _in_jpeg(data, block)
    if data.startswith(png.SIGNATURE):
        at = data.index(b"IDAT", len(png.SIGNATURE)) - 4
        return data[:at] + png.chunk(b"eXIf", block) + data[at:]
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _in_webp(data, block, size)
    if data[:4] == b"II*\0":
        return _in_tiff(data, block)
    raise ValueError("only exiftool writes EXIF into this format")


def _in_jpeg(data: bytes, block: bytes) -> bytes:
    body = b"Exif\0\0" + block
    if len(body) + 2 > 0xFFFF:
        raise ValueError("the EXIF block is larger than JPEG allows (64 KiB)")
    at = 2
    if data[2:4] == b"\xff\xe0":  # JFIF's segment stays first
        at += 2 + int.from_bytes(data[4:6], "big")
    return data[:at] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + data[at:]


def _in_webp(data: bytes, block: bytes, size: tuple[int, int]) -> bytes:
    chunks = data[12:]
    if chunks[:4] == b"VP8X":
        chunks = chunks[:8] + bytes((chunks[8] | 0x08,)) + chunks[9:]
    else:  # the simple format becomes the extended one
        has_alpha = chunks[:4] == b"VP8L" and bool(chunks[12] & 0x10)
        flags = bytes((0x08 | (0x10 if has_alpha else 0), 0, 0, 0))
        canvas = (size[0] - 1).to_bytes(3, "little") + (size[1] - 1).to_bytes(3, "little")
        chunks = b"VP8X" + (10).to_bytes(4, "little") + flags + canvas + chunks
    chunks += b"EXIF" + len(block).to_bytes(4, "little") + block + b"\0" * (len(block) % 2)
    return b"RIFF" + (len(chunks) + 4).to_bytes(4, "little") + b"WEBP" + chunks


def _in_tiff(data: bytes, block: bytes) -> bytes:
    """Append a new first directory of the file's own entries, unchanged, and the block's; all data stay in place."""
    from PIL import ExifTags, Image
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    first = int.from_bytes(data[4:8], "little")
    exif = Image.Exif()
    exif.load(block)
    replaced = {tag.to_bytes(2, "little") for tag in _RESOLUTION if tag in exif}
    own = [entry for entry in _entries(data, first) if entry[:2] not in replaced]
    added = ImageFileDirectory_v2(data[:8])
    present = {entry[:2] for entry in own}
    for tag, value in exif.items():
        if tag.to_bytes(2, "little") not in present and tag not in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            added[tag] = value
    for group in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        values = {tag: value for tag, value in exif.get_ifd(group).items() if tag not in UNMOVABLE_TAGS}
        if values:
            added[group] = values
            added.tagtype[group] = 4  # a LONG, which is what makes Pillow write the folder of tags
    padded = data + b"\0" * (len(data) % 2)
    # Where Pillow must believe to write for its offsets to be right once the file's own entries lie before.
    written = added.tobytes(len(padded) + 12 * len(own))
    fresh = _entries(written, 0)
    entries = sorted([*own, *fresh], key=lambda entry: int.from_bytes(entry[:2], "little"))
    directory = len(entries).to_bytes(2, "little") + b"".join(entries) + bytes(4) + written[2 + 12 * len(fresh) + 4 :]
    return padded[:4] + len(padded).to_bytes(4, "little") + padded[8:] + directory


def _entries(data: bytes, at: int) -> list[bytes]:
    count = int.from_bytes(data[at : at + 2], "little")
    return [data[at + 2 + 12 * i : at + 14 + 12 * i] for i in range(count)]
