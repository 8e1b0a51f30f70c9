"""Which tags a result gets under --metadata keep, private and strip, and lumen's own stamp."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image

from lumen_cli.errors import UsageError
from lumen_cli.imaging.formats import find_format
from lumen_cli.imaging.read import read_picture
from lumen_cli.imaging.tags.exif import read_software, write_software
from lumen_cli.imaging.tags.rules import Keeping, TagRules
from lumen_cli.imaging.tags.writer import TagWriter
from lumen_cli.imaging.write import write_picture
from tests.imaging import make
from tests.imaging.tags.test_metadata import MAKER_NOTE, camera_file, needs_exiftool

STAMP = "lumen 0.1.0, model tiny (weights 0123456789ab), seed 0, strength 1, fp32"
FORMATS = ["jpeg", "png", "webp", "tiff"]
OF_THE_CONTAINER = {"SourceFile", "ExifTool", "System", "File", "Composite", "JFIF", "PNG", "RIFF"}
# A tag of every kind that `private` leaves behind, in every place a tag can stand, each with a value to look for.
PERSONAL_TAGS = {
    "position": [
        "GPS:GPSLatitude=47.3681",
        "GPS:GPSAltitude=408.5",
        "GPS:GPSDateStamp=2024:01:02",
        "XMP-exif:GPSLongitude=8.5417",
        "XMP-iptcExt:LocationCreatedCity=Quxville",
        "XMP-iptcExt:LocationShownSublocation=Quxlane",
        "XMP-iptcCore:Location=Quxsquare",
        "XMP-photoshop:City=Quxtown",
        "IPTC:City=Quxcity",
        "IPTC:Sub-location=Quxyard",
    ],
    "serial numbers": [
        "ExifIFD:SerialNumber=QX0815",
        "ExifIFD:LensSerialNumber=QX0816",
        "XMP-aux:SerialNumber=QX0817",
        "XMP-exifEX:LensSerialNumber=QX0818",
        "IFD0:CameraSerialNumber=QX0819",
    ],
    "people": [
        "IFD0:Artist=Quentin Artist",
        "IFD0:Copyright=Quentin Copyright",
        "IFD0:XPAuthor=Quentin Author",
        "IFD0:HostComputer=Quentins Laptop",
        "ExifIFD:OwnerName=Quentin Owner",
        "IPTC:By-line=Quentin Byline",
        "IPTC:CopyrightNotice=Quentin Notice",
        "IPTC:Credit=Quentin Credit",
        "IPTC:Contact=Quentin Contact",
        "IPTC:Writer-Editor=Quentin Writer",
        "XMP-dc:Creator=Quentin Creator",
        "XMP-dc:Rights=Quentin Rights",
        "XMP-aux:OwnerName=Quentin Aux",
        "XMP-photoshop:CaptionWriter=Quentin Caption",
        "XMP-photoshop:Credit=Quentin Photoshop",
        "XMP-iptcCore:CreatorWorkEmail=quentin@example.com",
        "XMP-iptcExt:PersonInImage=Quentin Inside",
        "XMP-plus:CopyrightOwnerName=Quentin Plus",
        "XMP-xmpRights:Owner=Quentin Xmprights",
    ],
    "faces": [
        "XMP-mwg-rs:RegionInfo={RegionList=[{Name=Quentin Face,Type=Face}]}",
        "XMP-MP:RegionPersonDisplayName=Quentin Region",
    ],
    "unique ids": [
        "ExifIFD:ImageUniqueID=0123456789abcdef0123456789abcdef",
        "XMP-exif:ImageUniqueID=qx0001",
        "XMP-xmpMM:DocumentID=qx0002",
        "XMP-xmpMM:OriginalDocumentID=qx0003",
        "XMP-xmpMM:History={Action=saved,InstanceID=qx0004}",
        "XMP-dc:Identifier=qx0005",
        "IPTC:UniqueDocumentID=qx0006",
    ],
}
WRITTEN_BY_PEOPLE = ["XMP-dc:Title=Night", "IPTC:Keywords=street", "XMP-dc:Subject=street"]


def dump(path: Path) -> dict[str, Any]:
    """All tags by group and name; values of all kinds and unknown ones too."""
    command = ["exiftool", "-j", "-n", "-G1", "-a", "-s", "-u", "-b", "-struct", str(path)]
    tags: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)[0]
    return {name: value for name, value in tags.items() if name.split(":")[0] not in OF_THE_CONTAINER}


def write_tags(path: Path, *tags: str) -> None:
    command = ["exiftool", "-q", "-m", "-n", "-overwrite_original", *(f"-{tag}" for tag in tags), str(path)]
    subprocess.run(command, check=True, cwd=path.parent)


def carried(
    source: Path, format: str, metadata: Keeping, stamp: str | None = None, engine: Any = "exiftool"
) -> tuple[Path, list[str]]:
    picture = read_picture(source)
    target = source.parent / f"out-{metadata}{find_format(format).suffix}"
    write_picture(picture, target, format=format)
    with TagWriter(engine, rules=TagRules(metadata, stamp)) as writer:
        return target, writer.copy(source, target, picture)


@pytest.fixture(scope="module")
def personal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A camera's file full of what is nobody's business, and an XMP property without a name."""
    path = camera_file(tmp_path_factory.mktemp("personal") / "in.jpg")
    packet = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description xmlns:my="http://example.com/my/1.0/" my:Home="Quxhome"/></rdf:RDF></x:xmpmeta>'
    )
    (path.parent / "packet.xmp").write_text(packet)
    command = ["exiftool", "-q", "-overwrite_original", "-tagsFromFile", "packet.xmp", "-XMP", path.name]
    subprocess.run(command, check=True, cwd=path.parent)
    write_tags(path, *(tag for tags in PERSONAL_TAGS.values() for tag in tags), *WRITTEN_BY_PEOPLE)
    return path


@needs_exiftool
@pytest.mark.parametrize("format", FORMATS)
def test_private_leaves_every_personal_tag_behind_and_keeps_the_rest(personal: Path, format: str) -> None:
    data = personal.read_bytes()
    assert MAKER_NOTE in data
    target, warnings = carried(personal, format, "private", STAMP)
    assert warnings == []
    before, after = dump(personal), dump(target)
    for tag in (tag.split("=")[0] for tags in (*PERSONAL_TAGS.values(), WRITTEN_BY_PEOPLE) for tag in tags):
        assert not [name for name in after if name.split(":")[0] == tag.split(":")[0] and tag.split(":")[1] in name]
    said = json.dumps(after) + target.read_bytes().decode("latin-1")
    for trace in ("qux", "quentin", "qx0", "47.36", "8.5417", "0123456789abcdef0123", MAKER_NOTE.decode().lower()):
        assert trace in (json.dumps(before) + data.decode("latin-1")).lower()
        assert trace not in said.lower()
    assert not any(name.startswith("GPS") or "MakerNote" in name for name in after)
    for tag in ("IFD0:Make", "IFD0:Model", "ExifIFD:FNumber", "ExifIFD:ISO"):
        assert after[tag] == before[tag]
    assert after["IFD0:ProcessingSoftware"] == STAMP
    assert after["IFD0:Orientation"] == 1


@needs_exiftool
@pytest.mark.parametrize("format", FORMATS)
def test_strip_leaves_nothing_but_the_profile(personal: Path, format: str) -> None:
    target, warnings = carried(personal, format, "strip", STAMP)
    assert warnings == []
    groups = {name.split(":")[0] for name in dump(target)}
    assert {group for group in groups if not group.startswith("ICC")} <= ({"IFD0"} if format == "tiff" else set())
    assert not Image.open(target).getexif().get(ExifTags.Base.Model)
    assert read_picture(target).icc == read_picture(personal).icc


@needs_exiftool
def test_strip_of_what_a_tag_alone_says_is_adobe_rgb_has_the_profile(tmp_path: Path) -> None:
    Image.fromarray(make.photo()).save(tmp_path / "in.jpg")
    write_tags(tmp_path / "in.jpg", "IFD0:Model=Nocturne 1", "ExifIFD:ColorSpace=65535", "InteropIFD:InteropIndex=R03")
    target, warnings = carried(tmp_path / "in.jpg", "jpeg", "strip")
    assert warnings == []
    after = dump(target)
    assert "Adobe RGB" in after["ICC_Profile:ProfileDescription"]
    assert not [tag for tag in after if not tag.startswith("ICC")]


def test_without_exiftool_private_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="only exiftool can tell private tags") as caught:
        TagWriter(rules=TagRules("private"))
    assert "\n" not in str(caught.value)
    assert "choose strip" in str(caught.value)
    assert caught.value.remedy == "metadata"


def test_without_exiftool_strip_leaves_nothing(tmp_path: Path) -> None:
    source = camera_file(tmp_path / "in.jpg")
    for format in FORMATS:
        target, warnings = carried(source, format, "strip", STAMP, engine="pillow")
        assert warnings == []
        assert b"Nocturne" not in target.read_bytes()
        assert b"lumen 0" not in target.read_bytes()


@pytest.mark.parametrize("engine", [pytest.param("exiftool", marks=needs_exiftool), "pillow"])
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("tagged", [True, False])
def test_the_stamp_is_the_same_whoever_carries_the_tags(tmp_path: Path, engine: Any, format: str, tagged: bool) -> None:
    source = tmp_path / "in.jpg"
    if tagged:
        camera_file(source)
    else:
        Image.fromarray(make.photo()).save(source)
    target, warnings = carried(source, format, "keep", STAMP, engine)
    assert warnings == []
    with Image.open(target) as result:
        result.load()
        exif = result.getexif()
        assert exif[0x000B].rstrip("\0") == STAMP
        assert exif.get(ExifTags.Base.Model) == ("Nocturne 1" if tagged else None)
        if tagged:
            assert exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ISOSpeedRatings] == 6400
    first = target.read_bytes()
    assert carried(source, format, "keep", STAMP, engine)[0].read_bytes() == first


@needs_exiftool
@pytest.mark.parametrize("format", FORMATS)
def test_a_picture_without_tags_gets_the_stamp_and_no_claim_besides(tmp_path: Path, format: str) -> None:
    Image.fromarray(make.photo()).save(tmp_path / "in.png")
    target, _ = carried(tmp_path / "in.png", format, "keep", STAMP)
    added = {name: value for name, value in dump(target).items() if format != "tiff" or "Software" in name}
    assert added == {"IFD0:ProcessingSoftware": STAMP}


@pytest.mark.parametrize("engine", [pytest.param("exiftool", marks=needs_exiftool), "pillow"])
def test_the_stamp_joins_what_other_programs_said_and_leaves_the_cameras_software(tmp_path: Path, engine: Any) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Software], exif[0x000B] = "Firmware 1.2", "digiKam-8.1.0"
    Image.fromarray(make.photo()).save(tmp_path / "in.jpg", exif=exif)
    target, _ = carried(tmp_path / "in.jpg", "jpeg", "keep", STAMP, engine)
    after = Image.open(target).getexif()
    assert after[ExifTags.Base.Software] == "Firmware 1.2"
    assert after[0x000B].rstrip("\0") == f"digiKam-8.1.0; {STAMP}"


@needs_exiftool
def test_a_stamp_is_only_text_to_exiftool(tmp_path: Path) -> None:
    nasty = 'lumen, model ${Model;`touch x`} $Make %f\n-execute "; -Model=other'
    target, _ = carried(camera_file(tmp_path / "in.jpg"), "jpeg", "keep", nasty)
    after = dump(target)
    assert after["IFD0:ProcessingSoftware"] == " ".join(nasty.split())
    assert after["IFD0:Model"] == "Nocturne 1"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jpg", "out-keep.jpg"]


@pytest.mark.parametrize("order", ["little", "big"])
def test_stamping_a_block_moves_no_other_value(order: Any) -> None:
    exif = Image.Exif()
    exif.endian = "<" if order == "little" else ">"
    exif[ExifTags.Base.Model], exif[ExifTags.Base.Orientation] = "Nocturne 1", 6
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.MakerNote] = MAKER_NOTE
    block = exif.tobytes().removeprefix(b"Exif\0\0")
    result = write_software(block, STAMP)
    assert result[8 : len(block)] == block[8:]
    assert read_software(result) == STAMP
    assert read_software(write_software(result, "short")) == "short"
    assert read_software(write_software(None, "abc")) == "abc"
    again = Image.Exif()
    again.load(result)
    assert again[ExifTags.Base.Model] == "Nocturne 1"
    assert again.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.MakerNote] == MAKER_NOTE
    assert read_software(b"II*\0\x08\0\0\0\xff\xff") is None
    with pytest.raises(ValueError, match="damaged"):
        write_software(b"II*\0\x08\0\0\0\xff\xff", STAMP)


@needs_exiftool
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_keep_changes_the_tags_that_the_rules_name_and_no_other(tmp_path: Path, suffix: str, orientation: int) -> None:
    """exiftool's dump before and after: fractions, unknown tags, several languages, maker notes, IPTC, lists."""
    source = tmp_path / f"in{suffix}"
    camera_file(tmp_path / "camera.jpg", orientation)
    picture = Image.open(tmp_path / "camera.jpg")
    exif = picture.getexif()
    exif[0xC000], exif[ExifTags.Base.Orientation] = "a tag without a name", orientation
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ShutterSpeedValue] = (7643856, 1000000)
    exif.get_ifd(ExifTags.IFD.Exif)[0x9102] = (5, 1)
    picture.save(source, exif=exif, icc_profile=picture.info["icc_profile"])
    write_tags(
        source,
        "XMP-dc:Title=Night",
        "XMP-dc:Title-de=Nacht",
        "XMP-tiff:Orientation=6",
        "XMP-exif:ApertureValue=2.8000020",
        "XMP-dc:Subject=one",
        "XMP-dc:Subject=two",
        "XMP-xmp:CreatorTool=14.4.2",
        "IFD0:Software=Firmware 1.2",
        *(["IPTC:Keywords=street", "IPTC:Caption-Abstract=Nächtlich"] if suffix == ".jpg" else []),
        *(["Comment=by hand"] if suffix != ".webp" else []),
    )
    target, warnings = carried(source, read_picture(source).format, "keep", STAMP)
    assert warnings == []
    before, after = dump(source), dump(target)
    differing = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    turned = {"IFD0:Orientation", "XMP-tiff:Orientation"} if orientation == 6 else {"XMP-tiff:Orientation"}
    sizes = {"ExifIFD:ExifImageWidth", "ExifIFD:ExifImageHeight"}
    assert differing == turned | sizes | {"IFD0:ProcessingSoftware"}
    assert (after["ExifIFD:ExifImageWidth"], after["ExifIFD:ExifImageHeight"]) == (40, 24)


@needs_exiftool
def test_exif_too_large_for_jpeg_still_comes_through_tag_by_tag(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Model], exif[0xC000] = "Nocturne 1", "x" * 70000
    Image.fromarray(make.photo()).save(tmp_path / "in.png", exif=exif)
    target, _ = carried(tmp_path / "in.png", "jpeg", "keep", STAMP)
    after = dump(target)
    assert after["IFD0:Model"] == "Nocturne 1"
    assert target.read_bytes().count(b"Exif\0\0") == 1


def test_this_needs_exiftool_where_it_is_installed() -> None:
    if shutil.which("exiftool"):
        with TagWriter(rules=TagRules("private")) as writer:
            assert writer.engine.startswith("exiftool")
