"""What exiftool could not copy is found in the finished file and named; the census finds what is not."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from lumen_cli.imaging.tags.containers import XMP, pack_segment
from lumen_cli.imaging.tags.rules import TagRules
from lumen_cli.imaging.tags.transfer import find_differences, is_reported, report_missing
from lumen_cli.imaging.tags.xmp import repair_xmp
from tests import census
from tests.imaging import make
from tests.imaging.tags.tagged import (
    PACKET,
    PACKETS,
    carry_by,
    jpeg,
    list_tags,
    needs_exiftool,
    read_tags,
    write_tags,
)

RULES = TagRules("keep", "lumen")


@needs_exiftool
@pytest.mark.parametrize("format", ["png", "tiff", "webp", "avif"])
@pytest.mark.parametrize("packet", PACKETS.values(), ids=PACKETS)
def test_xmp_that_exiftool_refuses_is_copied_to_other_formats(tmp_path: Path, packet: bytes, format: str) -> None:
    target, lines = carry_by(RULES, jpeg(tmp_path / "in.jpg", pack_segment(0xE1, XMP + packet)), format)
    assert lines == []
    assert str(read_tags(target)["XMP-my:Shelf"]) == "42"


@needs_exiftool
@pytest.mark.parametrize("format", ["png", "tiff"])
def test_xmp_beyond_repair_is_copied_tag_by_tag_or_reported(tmp_path: Path, format: str) -> None:
    broken = PACKET.replace(
        b"<rdf:Description", b'<rdf:Description xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="4"', 1
    ).replace(b"</x:xmpmeta>", b"<oops></x:xmpmeta>")
    target, lines = carry_by(RULES, jpeg(tmp_path / "in.jpg", pack_segment(0xE1, XMP + broken)), format)
    after = read_tags(target)
    assert str(after["XMP-xmp:Rating"]) == "4"
    assert "XMP-my:Shelf" in after or lines == ["not copied: XMP-my:Shelf"]


@needs_exiftool
@pytest.mark.parametrize("format", ["jpeg", "png", "tiff", "avif"])
def test_exif_of_a_webp_with_the_prefix_of_a_jpeg_reaches_other_formats(tmp_path: Path, format: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Orientation] = "TestMake", 6
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    Image.fromarray(make.photo()).save(tmp_path / "in.webp", lossless=True, exif=exif)
    data = (tmp_path / "in.webp").read_bytes()
    at = data.index(b"EXIF")
    block = b"Exif\0\0" + exif.tobytes().removeprefix(b"Exif\0\0")
    data = data[:at] + b"EXIF" + struct.pack("<I", len(block)) + block + b"\0" * (len(block) % 2)
    (tmp_path / "in.webp").write_bytes(b"RIFF" + struct.pack("<I", len(data) - 8) + data[8:])
    target, lines = carry_by(RULES, tmp_path / "in.webp", format)
    assert lines == []
    after = read_tags(target)
    assert (after["IFD0:Make"], after["GPS:GPSLatitudeRef"]) == ("TestMake", "N")
    assert after.get("IFD0:Orientation", 1) == 1


@needs_exiftool
def test_png_texts_that_cannot_be_copied_are_reported(tmp_path: Path) -> None:
    info = PngInfo()
    info.add_text("parameters", "a castle")
    Image.fromarray(make.photo()).save(tmp_path / "in.png", pnginfo=info)
    assert carry_by(RULES, tmp_path / "in.png", "jpeg")[1] == ["jpeg cannot hold PNG's texts"]


@needs_exiftool
def test_xmp_of_a_gif_is_copied(tmp_path: Path) -> None:
    Image.fromarray(make.photo()).save(tmp_path / "in.gif", comment=b"by hand")
    write_tags(tmp_path / "in.gif", "XMP-dc:Title=Night")
    target, lines = carry_by(RULES, tmp_path / "in.gif", "png")
    assert lines == []
    assert read_tags(target)["XMP-dc:Title"] == "Night"


@needs_exiftool
@pytest.mark.parametrize("order", "<>")
def test_unusual_tags_of_a_tiff_are_kept_or_reported(tmp_path: Path, order: str) -> None:
    records = b"\x1c\x02\x19\0\x03abc"
    resources = b"8BIM\x04\x04\0\0\0\0\0" + bytes([len(records)]) + records + b"8BIM\x03\xed\0\0\0\0\0\x10" + bytes(16)
    tags = [
        (33723, 7, len(records), records, True),
        (34377, 1, len(resources), resources, True),
        (37680, 7, 40, bytes(range(40)), True),  # MSPropertySetStorage
        (50000, 3, 4, (1, 2, 3, 4), True),
        (65003, 5, 2, (1, 3, 2, 7), True),
    ]
    pixels = np.ascontiguousarray(make.photo())
    tifffile.imwrite(tmp_path / "in.tif", pixels, photometric="rgb", byteorder=order, extratags=tags, metadata=None)
    target, lines = carry_by(RULES, tmp_path / "in.tif", "tiff")
    assert not [line for line in lines if "argument" in line or "Traceback" in line]
    listed = list_tags([tmp_path / "in.tif", target])
    before, after = listed["in.tif"], listed[target.name]
    assert "EXIF:IFD0:Exif_0xc350" in before
    assert {name for name in before if "IPTC2" in name}
    assert find_differences(before, after, RULES, "tiff", "tiff", lines) == {}


def test_missing_tags_are_reported_by_group() -> None:
    names = ["EXIF:IFD0:Model", "PNG:Title", *(f"MakerNotes:Canon:Tag{n}" for n in range(5))]
    (line,) = report_missing(names)
    assert line == "not copied: IFD0:Model, PNG:Title, 5 tags of Canon"
    assert all(is_reported(name, line) for name in names)
    assert not is_reported("EXIF:IFD0:Make", line)
    assert not is_reported("EXIF:IFD0:Model", "another line about IFD0:Model")
    assert report_missing([]) == []


def test_a_packet_is_repaired_only_where_needed() -> None:
    assert repair_xmp(PACKET) is None
    assert repair_xmp(b"<broken") is None
    for packet in (PACKET[:-2], PACKET + bytes(9), PACKET.replace(b"x:xmpmeta", b"rdf:none").replace(b"rdf:none", b"")):
        mended = repair_xmp(packet)
        assert mended is None or repair_xmp(mended) is None


@needs_exiftool
def test_the_census_prints_what_no_rule_and_no_line_explains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = jpeg(
        tmp_path / "a.jpg", pack_segment(0xFE, b"by hand"), pack_segment(0xEB, b"JP\0\1" + bytes(16) + b"c2pa")
    )
    target, lines = carry_by(RULES, source, "jpeg")
    result = {"status": "done", "input": str(source), "output": str(target), "notices": [], "warnings": lines}
    assert census.census(tmp_path, [result]) == 0
    assert capsys.readouterr().out == ""
    target.write_bytes(target.read_bytes().replace(pack_segment(0xFE, b"by hand"), b""))
    assert census.census(tmp_path, [result]) == 1
    assert capsys.readouterr().out == "a.jpg: File:Comment: by hand → —\n"


@needs_exiftool
@pytest.mark.slow
def test_the_census_runs_a_folder_through_the_command(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    jpeg(folder / "a.jpg", pack_segment(0xFE, b"by hand"))
    done = subprocess.run([sys.executable, "-m", "tests.census", str(folder)], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    (result,) = census.run(folder, tmp_path / "out", None, "kind")
    assert result["status"] == "done"
