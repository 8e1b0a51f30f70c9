"""Tags that lumen copies by itself: JPEG to JPEG, PNG to PNG, WebP to WebP."""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from lumen_cli.imaging.extent import pack_png_chunk
from lumen_cli.imaging.formats import png
from lumen_cli.imaging.picture import read_picture
from lumen_cli.imaging.tags import TagWriter
from lumen_cli.imaging.tags.containers import EXTENDED_XMP, XMP, pack_segment, read_segments
from lumen_cli.imaging.tags.exif import has_thumbnail, put_thumbnail
from lumen_cli.imaging.tags.rules import TagRules
from lumen_cli.imaging.tags.xmp import update_xmp
from tests.imaging import make
from tests.imaging.tags.tagged import PACKET, PACKETS, STAMP, camera_file, carry, jpeg, small_jpeg


@pytest.fixture(params=["auto", "pillow"])
def writer(request: pytest.FixtureRequest) -> Iterator[TagWriter]:
    """With exiftool and without: it has no part in this."""
    with TagWriter(request.param, rules=TagRules("keep", STAMP)) as tags:
        yield tags


def xmp(path: Path) -> bytes:
    with Image.open(path) as image:
        image.load()
        found = image.info["xmp"]
        return found if isinstance(found, bytes) else found.encode()


# JPEG


def test_segments_of_a_jpeg_are_copied_raw(tmp_path: Path, writer: TagWriter) -> None:
    segments = [
        pack_segment(0xE1, b"FLIR\0\1\0\0" + bytes(range(256))),
        pack_segment(0xE2, b"FPXR\0\0\1" + b"streams"),
        pack_segment(0xE0, b"II\x1a\0\0\0HEAPJPGM" + b"CIFF"),
        pack_segment(0xE3, b"Meta\0\0" + b"Kodak"),
        pack_segment(0xE4, b"thermal parameters"),
        pack_segment(0xEC, b"[picture info]\nExposure=1/30\0"),
        pack_segment(0xEC, b"Ducky\0\1\0\4\0\0\0\x50"),
        pack_segment(0xED, b"Photoshop 3.0\0" + b"8BIM\x03\xed\0\0\0\0\0\x02\0\x01"),
        pack_segment(0xFE, b"first comment"),
        pack_segment(0xFE, b"second comment\0\xff"),
    ]
    target, lines = carry(writer, jpeg(tmp_path / "in.jpg", *segments))
    assert lines == []
    data = target.read_bytes()
    assert all(data.count(segment) == 1 for segment in segments)
    assert Image.open(target).getexif()[0x000B] == STAMP


@pytest.mark.parametrize(
    ("segment", "words"),
    [
        (pack_segment(0xEB, b"JP\0\1\0\0\0\1" + b"\0\0\0\x40jumb\0\0\0\x20jumdc2pa\0\x11\0\x10\x80\0\0\xaa"), "C2PA"),
        (pack_segment(0xE0, b"JFXX\0\x10" + small_jpeg()), "an old preview"),
        (pack_segment(0xE3, small_jpeg()), "an old preview"),
        (pack_segment(0xE4, b"SCALADO\0index"), "Scalado"),
        (pack_segment(0xE8, b"SPIFF\0header"), "SPIFF"),
    ],
)
def test_segments_that_do_not_hold_for_the_result_are_reported(
    tmp_path: Path, writer: TagWriter, segment: bytes, words: str
) -> None:
    target, lines = carry(writer, jpeg(tmp_path / "in.jpg", segment))
    assert len(lines) == 1
    assert words in lines[0]
    assert segment[-20:-4] not in target.read_bytes()


def test_a_preview_over_two_segments_is_one_line(tmp_path: Path, writer: TagWriter) -> None:
    preview = small_jpeg(400, 300, 98)
    parts = [pack_segment(0xE4, preview[at : at + 60000]) for at in range(0, len(preview), 60000)]
    assert len(parts) > 1
    target, lines = carry(writer, jpeg(tmp_path / "in.jpg", *parts))
    assert lines == ["left out: an old preview"]
    assert len(target.read_bytes()) < len(preview)


@pytest.mark.parametrize("packet", [*PACKETS.values(), b"<broken"], ids=[*PACKETS, "broken"])
def test_an_xmp_packet_is_copied_byte_for_byte(tmp_path: Path, writer: TagWriter, packet: bytes) -> None:
    source = jpeg(tmp_path / "in.jpg", pack_segment(0xE1, XMP + packet))
    target, lines = carry(writer, source)
    assert lines == []
    assert pack_segment(0xE1, XMP + packet) in target.read_bytes()


def test_extended_xmp_over_several_segments_is_copied(tmp_path: Path, writer: TagWriter) -> None:
    shelf = '<my:Long xmlns:my="http://example.com/my/">' + "x" * 150_000 + "</my:Long>"
    thumbnails = '<xmp:Thumbnails xmlns:xmp="http://ns.adobe.com/xap/1.0/">dark</xmp:Thumbnails>'
    for inner, kept in ((shelf, shelf), (thumbnails + shelf, shelf)):
        form = (
            '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
            "<rdf:Description>{}</rdf:Description></rdf:RDF></x:xmpmeta>"
        )
        extended = form.format(inner).encode()
        name = hashlib.md5(extended).hexdigest().upper().encode()
        main = PACKET.replace(
            b"my:Shelf", b'xmlns:n="http://ns.adobe.com/xmp/note/" n:HasExtendedXMP="%s" my:Shelf' % name
        )
        heads = EXTENDED_XMP + name + struct.pack(">I", len(extended))
        parts = [
            pack_segment(0xE1, heads + struct.pack(">I", at) + extended[at : at + 65000])
            for at in range(0, len(extended), 65000)
        ]
        source = jpeg(tmp_path / "in.jpg", pack_segment(0xE1, XMP + main), *parts)
        target, lines = carry(writer, source)
        assert lines == []
        result = form.format(kept).encode()
        renamed = hashlib.md5(result).hexdigest().upper().encode()
        assert b'HasExtendedXMP="%s"' % renamed in xmp(target)
        found = {}
        with target.open("rb") as file:
            for _, body in read_segments(file):
                if body.startswith(EXTENDED_XMP + renamed):
                    found[int.from_bytes(body[71:75], "big")] = body[75:]
        assert b"".join(found[at] for at in sorted(found)) == result


@pytest.mark.parametrize("order", "<>")
def test_exif_over_several_segments_in_both_byte_orders(tmp_path: Path, writer: TagWriter, order: str) -> None:
    exif = Image.Exif()
    exif.endian = order
    exif[ExifTags.Base.Model], exif[0xC000] = "Nocturne 1", "x" * 70_000
    exif[ExifTags.Base.Orientation] = 1
    block = exif.tobytes().removeprefix(b"Exif\0\0")
    parts = [pack_segment(0xE1, b"Exif\0\0" + block[at : at + 65000]) for at in range(0, len(block), 65000)]
    target, lines = carry(writer, jpeg(tmp_path / "in.jpg", *parts))
    assert lines == []
    after = Image.open(target).getexif()
    assert (after[ExifTags.Base.Model], after[0xC000], after[0x000B]) == ("Nocturne 1", "x" * 70_000, STAMP)


def test_small_pictures_in_exif_and_photoshop_show_the_result(tmp_path: Path, writer: TagWriter) -> None:
    """The thumbnail, the preview in maker notes and Photoshop's: of the dark picture before."""
    note = b"MAKER" + small_jpeg(96, 64, 95) + b"behind the preview"
    exif = Image.Exif()
    exif[ExifTags.Base.Model] = "Nocturne 1"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.MakerNote] = note
    exif.get_ifd(ExifTags.IFD.IFD1).update({0x0112: 6, 0x011A: 72.0})
    resource = struct.pack(">6I2H", 1, 64, 48, 192, 9216, 0, 24, 1) + small_jpeg()
    resources = b"8BIM\x04\x0c\0\0" + struct.pack(">I", len(resource)) + resource + b"\0" * (len(resource) % 2)
    resources += b"8BIM\x04\x04\0\0\0\0\0\x08\x1c\x02\x19\0\x03abc"
    source = jpeg(tmp_path / "in.jpg", pack_segment(0xED, b"Photoshop 3.0\0" + resources), exif=exif.tobytes())
    target, lines = carry(writer, source)
    assert lines == []
    expected = read_picture(source).pixels.mean(axis=(0, 1))
    after = Image.open(target)
    new = after.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.MakerNote]
    assert len(new) == len(note)
    assert new.startswith(b"MAKER\xff\xd8\xff")
    assert new.endswith(b"\0behind the preview")
    photoshop = after.info["photoshop"]
    for data in (new[5:], photoshop[0x040C][28:]):
        shown = Image.open(io.BytesIO(data)).convert("RGB")
        mean = [sum(band.getdata()) / 255 / (shown.width * shown.height) for band in shown.split()]
        assert max(abs(mean - expected)) < 0.03
    assert photoshop[0x0404] == b"\x1c\x02\x19\0\x03abc"


def test_a_new_thumbnail_takes_the_old_ones_place(tmp_path: Path, writer: TagWriter) -> None:
    block = read_picture(camera_file(tmp_path / "camera.jpg")).exif
    assert block is not None
    old = small_jpeg(160, 120, 95)
    source = jpeg(tmp_path / "in.jpg", pack_segment(0xE1, b"Exif\0\0" + put_thumbnail(block, old)))
    target, _ = carry(writer, source)
    after = read_picture(target).exif
    assert after is not None
    assert has_thumbnail(after)
    assert len(after) < len(put_thumbnail(block, old)) + 1000
    assert old[-300:-200] not in after


# What XMP says


def test_xmp_is_corrected_and_every_other_byte_stays() -> None:
    packet = (
        b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'>"
        b"<rdf:Description xmlns:t='http://ns.adobe.com/tiff/1.0/' t:Orientation='6' t:Make='a&amp;b'\n"
        b" xmlns:e='http://ns.adobe.com/exif/1.0/' e:PixelXDimension = \"6000\"/>"
        b"<rdf:Description xmlns:c='http://ns.google.com/photos/1.0/camera/' c:MotionPhoto='1' rdf:about=''>"
        b"<e:PixelYDimension xmlns:e='http://ns.adobe.com/exif/1.0/'>4000</e:PixelYDimension>"
        b"<d:Directory xmlns:d='http://ns.google.com/photos/1.0/container/'><rdf:Seq><rdf:li/></rdf:Seq></d:Directory>"
        b"<h:Version xmlns:h='http://ns.adobe.com/hdr-gain-map/1.0/'/>"
        b"<m:Of xmlns:m='http://example.com/' rdf:parseType='Resource'><t:Orientation xmlns:t="
        b"'http://ns.adobe.com/tiff/1.0/'>8</t:Orientation></m:Of></rdf:Description></rdf:RDF></x:xmpmeta>"
    )
    expected = (
        packet.replace(b"t:Orientation='6'", b"t:Orientation='1'")
        .replace(b'"6000"', b'"40"')
        .replace(b">4000<", b">24<")
        .replace(b" c:MotionPhoto='1'", b"")
        .replace(b"<h:Version xmlns:h='http://ns.adobe.com/hdr-gain-map/1.0/'/>", b"")
    )
    start, end = expected.index(b"<d:Directory"), expected.index(b"</d:Directory>") + len(b"</d:Directory>")
    expected = expected[:start] + expected[end:]
    assert update_xmp(packet, 40, 24) == expected
    assert b"MotionPhoto" in update_xmp(packet, 40, 24, keep_all=True)
    bomb = b"<!DOCTYPE a [<!ENTITY b 'bbbb'>]>" + packet
    assert b"t:Orientation='6'" in update_xmp(bomb, 40, 24)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_a_wide_packet_that_is_cut_within_a_character_is_changed_up_to_there(encoding: str) -> None:
    text = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6">\ud800 and'
    )
    cut = text.encode(encoding, "surrogatepass")[:-1]
    changed = text.replace('"6"', '"1"').encode(encoding, "surrogatepass")[:-1]
    assert update_xmp(cut, 40, 24) == changed


@pytest.mark.parametrize("start", [b"<\0\0\0", b"\0\0\0<", b"<\0", b"\0<", b"\xff\xfe<\0"])
def test_bytes_that_are_no_text_stay(start: bytes) -> None:
    packet = start + b"\xff" * 7 + b"\xd8\xd9\0"
    assert update_xmp(packet, 40, 24) == packet


# PNG

TEXTS = {"parameters": "a castle, steps: 20", "workflow": '{"nodes": []}', "date:create": "2020", "Comment": "grüß"}


def test_every_text_of_a_png_stays_where_it_was(tmp_path: Path, writer: TagWriter) -> None:
    info = PngInfo()
    for index, (keyword, text) in enumerate(TEXTS.items()):
        if index % 2:
            info.add_text(keyword, text, zip=index == 1)
        else:
            info.add_itxt(keyword, text, "en", keyword, zip=index == 2)
    info.add(b"tIME", bytes((7, 228, 1, 2, 3, 4, 5)))
    info.add(b"prVt", b"safe to copy")
    info.add_text("behind", "the pixels")
    Image.fromarray(make.photo()).save(tmp_path / "in.png", pnginfo=info)
    data = (tmp_path / "in.png").read_bytes()
    chunk = pack_png_chunk(b"tEXt", b"behind\0the pixels")
    (tmp_path / "in.png").write_bytes(data.replace(chunk, b"")[:-12] + chunk + data[-12:])
    target, lines = carry(writer, tmp_path / "in.png")
    assert lines == []

    def others(path: Path) -> list[tuple[bytes, bytes]]:
        found = [(name, bytes(body)) for name, body in png.walk_chunks(path.read_bytes())]
        return [(name, body) for name, body in found if name not in (b"IHDR", b"IDAT", b"eXIf")]

    assert others(target) == others(tmp_path / "in.png")
    assert others(target)[-2][0] == b"tEXt"


def test_chunks_that_depend_on_the_pixels_are_reported(tmp_path: Path, writer: TagWriter) -> None:
    info = PngInfo()
    info.add(b"caBX", b"jumb c2pa")
    info.add(b"prVT", b"unsafe to copy")
    Image.fromarray(make.photo()).save(tmp_path / "in.png", pnginfo=info)
    target, lines = carry(writer, tmp_path / "in.png")
    assert len(lines) == 2
    assert "C2PA" in lines[0]
    assert "prVT" in lines[1]
    assert b"prVT" not in target.read_bytes()


def test_exif_in_a_png_text_is_corrected_in_place(tmp_path: Path, writer: TagWriter) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Model], exif[ExifTags.Base.Orientation] = "Nocturne 1", 6
    digits = exif.tobytes().hex()
    lines = "\n".join(digits[at : at + 72] for at in range(0, len(digits), 72))
    info = PngInfo()
    info.add_text("Raw profile type exif", f"\nexif\n{len(digits) // 2:8d}\n{lines}\n", zip=True)
    Image.fromarray(make.photo()).save(tmp_path / "in.png", pnginfo=info)
    target, left_out = carry(writer, tmp_path / "in.png")
    assert left_out == []
    assert read_picture(target).width == 24
    with Image.open(target) as after:
        assert "Raw profile type exif" in after.info
        assert after.getexif()[ExifTags.Base.Model] == "Nocturne 1"
        assert after.getexif()[ExifTags.Base.Orientation] == 1
        assert after.getexif()[0x000B] == STAMP


def test_xmp_in_a_png_packed_and_plain(tmp_path: Path, writer: TagWriter) -> None:
    for packed in (False, True):
        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", PACKET.decode(), zip=packed)
        Image.fromarray(make.photo()).save(tmp_path / "in.png", pnginfo=info)
        target, lines = carry(writer, tmp_path / "in.png")
        assert lines == []
        assert xmp(target) == PACKET


# WebP


@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0"])
@pytest.mark.parametrize("lossless", [True, False])
def test_exif_in_webp_is_kept_whatever_it_begins_with(
    tmp_path: Path, writer: TagWriter, prefix: bytes, lossless: bool
) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "TestMake"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    plain = Image.fromarray(make.photo())
    plain.save(tmp_path / "plain.webp", lossless=lossless, xmp=PACKET)
    data = (tmp_path / "plain.webp").read_bytes()
    block = prefix + exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = b"EXIF" + struct.pack("<I", len(block)) + block + b"\0" * (len(block) % 2)
    data = data[:20] + bytes((data[20] | 8,)) + data[21:] + chunk
    (tmp_path / "in.webp").write_bytes(b"RIFF" + struct.pack("<I", len(data) - 8) + data[8:])
    target, lines = carry(writer, tmp_path / "in.webp")
    assert lines == []
    with Image.open(target) as after:
        after.load()
        assert after.getexif()[ExifTags.Base.Make] == "TestMake"
        assert after.getexif().get_ifd(ExifTags.IFD.GPSInfo)[1] == "N"
        assert after.info["xmp"] == PACKET
    assert b"EXIF" + struct.pack("<I", len(block)) + b"Exif" not in target.read_bytes()
