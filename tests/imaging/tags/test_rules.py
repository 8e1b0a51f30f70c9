"""Which tags a result gets with keep, private and strip, lumen's own stamp, and that only the listed changes happen."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image

from lumen_cli.errors import UsageError
from lumen_cli.imaging.formats import find_format
from lumen_cli.imaging.picture import read_picture, write_picture
from lumen_cli.imaging.tags import TagWriter
from lumen_cli.imaging.tags.rules import CHANGES, NO_IPTC, Keeping, TagRules
from lumen_cli.imaging.tags.transfer import explain, find_differences
from tests.imaging import make
from tests.imaging.tags.tagged import (
    CONTAINERS,
    FORMATS,
    MAKER_NOTE,
    STAMP,
    both_engines,
    camera_file,
    carry,
    carry_by,
    list_tags,
    needs_exiftool,
    own_tags,
    write_tags,
    write_xmp,
)

# A tag of every kind that `private` leaves behind, in every place a tag can be, each with a value to look for.
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


@pytest.fixture(scope="module")
def personal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A camera's file full of personal data, and an XMP property without a name."""
    path = camera_file(tmp_path_factory.mktemp("personal") / "in.jpg")
    write_xmp(path, 'xmlns:my="http://example.com/my/1.0/" my:Home="Quxhome"')
    write_tags(path, *(tag for tags in PERSONAL_TAGS.values() for tag in tags), *WRITTEN_BY_PEOPLE)
    return path


@needs_exiftool
@pytest.mark.parametrize("format", FORMATS)
def test_private_leaves_every_personal_tag_behind_and_keeps_the_rest(personal: Path, format: str) -> None:
    data = personal.read_bytes()
    assert MAKER_NOTE in data
    target, lines = carry_by(TagRules("private", STAMP), personal, format)
    assert lines == []
    before, after = own_tags(personal), own_tags(target)
    for tag in (tag.split("=")[0] for tags in (*PERSONAL_TAGS.values(), WRITTEN_BY_PEOPLE) for tag in tags):
        assert not [name for name in after if name.split(":")[0] == tag.split(":")[0] and tag.split(":")[1] in name]
    text = json.dumps(after) + target.read_bytes().decode("latin-1")
    for trace in ("qux", "quentin", "qx0", "47.36", "8.5417", "0123456789abcdef0123", MAKER_NOTE.decode().lower()):
        assert trace in (json.dumps(before) + data.decode("latin-1")).lower()
        assert trace not in text.lower()
    assert not any(name.startswith("GPS") or "MakerNote" in name for name in after)
    for tag in ("IFD0:Make", "IFD0:Model", "ExifIFD:FNumber", "ExifIFD:ISO"):
        assert after[tag] == before[tag]
    assert after["IFD0:ProcessingSoftware"] == STAMP
    assert after["IFD0:Orientation"] == 1


@needs_exiftool
@pytest.mark.parametrize("format", FORMATS)
def test_strip_leaves_nothing_but_the_profile(personal: Path, format: str) -> None:
    target, lines = carry_by(TagRules("strip", STAMP), personal, format)
    assert lines == []
    groups = {name.split(":")[0] for name in own_tags(target)}
    assert {group for group in groups if not group.startswith("ICC")} <= ({"IFD0"} if format == "tiff" else set())
    assert not Image.open(target).getexif().get(ExifTags.Base.Model)
    assert read_picture(target).icc == read_picture(personal).icc


@needs_exiftool
def test_strip_of_adobe_rgb_by_tag_alone_has_the_profile(tmp_path: Path) -> None:
    Image.fromarray(make.photo()).save(tmp_path / "in.jpg")
    write_tags(tmp_path / "in.jpg", "IFD0:Model=Nocturne 1", "ExifIFD:ColorSpace=65535", "InteropIFD:InteropIndex=R03")
    target, lines = carry_by(TagRules("strip"), tmp_path / "in.jpg", "jpeg")
    assert lines == []
    after = own_tags(target)
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
        target, lines = carry_by(TagRules("strip", STAMP), source, format, "pillow")
        assert lines == []
        assert b"Nocturne" not in target.read_bytes()
        assert b"lumen 0" not in target.read_bytes()


@both_engines
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("tagged", [True, False])
def test_both_engines_write_the_same_stamp_and_bytes(tmp_path: Path, engine: Any, format: str, tagged: bool) -> None:
    source = tmp_path / "in.jpg"
    if tagged:
        camera_file(source)
    else:
        Image.fromarray(make.photo()).save(source)
    target, lines = carry_by(TagRules("keep", STAMP), source, format, engine)
    assert lines == []
    with Image.open(target) as result:
        result.load()
        exif = result.getexif()
        assert exif[0x000B].rstrip("\0") == STAMP
        assert exif.get(ExifTags.Base.Model) == ("Nocturne 1" if tagged else None)
        if tagged:
            assert exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ISOSpeedRatings] == 6400
    first = target.read_bytes()
    assert carry_by(TagRules("keep", STAMP), source, format, engine)[0].read_bytes() == first


@needs_exiftool
@pytest.mark.parametrize("format", FORMATS)
def test_a_picture_without_tags_gets_the_stamp_alone(tmp_path: Path, format: str) -> None:
    Image.fromarray(make.photo()).save(tmp_path / "in.png")
    target, _ = carry_by(TagRules("keep", STAMP), tmp_path / "in.png", format)
    added = {name: value for name, value in own_tags(target).items() if format != "tiff" or "Software" in name}
    assert added == {"IFD0:ProcessingSoftware": STAMP}


@both_engines
def test_the_stamp_joins_those_of_other_programs_and_leaves_the_cameras_software(tmp_path: Path, engine: Any) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Software], exif[0x000B] = "Firmware 1.2", "digiKam-8.1.0"
    Image.fromarray(make.photo()).save(tmp_path / "in.jpg", exif=exif)
    target, _ = carry_by(TagRules("keep", STAMP), tmp_path / "in.jpg", "jpeg", engine)
    after = Image.open(target).getexif()
    assert after[ExifTags.Base.Software] == "Firmware 1.2"
    assert after[0x000B].rstrip("\0") == f"digiKam-8.1.0; {STAMP}"


@needs_exiftool
def test_a_stamp_is_only_text_to_exiftool(tmp_path: Path) -> None:
    nasty = 'lumen, model ${Model;`touch x`} $Make %f\n-execute "; -Model=other'
    target, _ = carry_by(TagRules("keep", nasty), camera_file(tmp_path / "in.jpg"), "tiff")
    after = own_tags(target)
    assert after["IFD0:ProcessingSoftware"] == " ".join(nasty.split())
    assert after["IFD0:Model"] == "Nocturne 1"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jpg", "out.tif"]


@needs_exiftool
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_keep_in_one_format_changes_orientation_size_and_stamp_alone(tmp_path: Path, suffix: str) -> None:
    """What exiftool lists before and after: fractions, unknown tags, several languages, maker notes, IPTC, lists."""
    source = tmp_path / f"in{suffix}"
    camera_file(tmp_path / "camera.jpg")
    picture = Image.open(tmp_path / "camera.jpg")
    exif = picture.getexif()
    exif[0xC000] = "a tag without a name"
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
    target, lines = carry_by(TagRules("keep", STAMP), source)
    assert lines == []
    before, after = own_tags(source), own_tags(target)
    differing = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    expected = {"IFD0:Orientation", "XMP-tiff:Orientation", "IFD0:ProcessingSoftware"}
    assert differing == expected | {"ExifIFD:ExifImageWidth", "ExifIFD:ExifImageHeight"}
    assert (after["ExifIFD:ExifImageWidth"], after["ExifIFD:ExifImageHeight"]) == (40, 24)


@needs_exiftool
def test_exif_too_large_for_jpeg_is_copied_tag_by_tag(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Model], exif[0xC000] = "Nocturne 1", "x" * 70000
    Image.fromarray(make.photo()).save(tmp_path / "in.png", exif=exif)
    target, _ = carry_by(TagRules("keep", STAMP), tmp_path / "in.png", "jpeg")
    after = own_tags(target)
    assert after["IFD0:Model"] == "Nocturne 1"
    assert target.read_bytes().count(b"Exif\0\0") == 1


WRITTEN = [
    "XMP-dc:Title=Night",
    "XMP-dc:Title-de=Nacht",
    "XMP-dc:Subject=one",
    "XMP-dc:Subject=two",
    "XMP-xmp:CreatorTool=14.4.2",
    "XMP-tiff:Orientation=6",
    "XMP-tiff:ImageWidth=24",
    "XMP-exif:ExifImageHeight=40",
    "XMP-exif:GPSLatitude=47.3681",
    "XMP-GCamera:MicroVideo=1",
    "XMP-xmpMM:DocumentID=quux",
    "XMP-mwg-rs:RegionInfo={RegionList=[{Name=Quentin,Type=Face}]}",
    "IFD0:Artist=Quentin",
    "IFD0:Software=Firmware 1.2",
    "IFD0:XPComment=for Windows",
    "ExifIFD:LensModel=50 mm",
    "ExifIFD:SerialNumber=0815",
    "ExifIFD:UserComment=Nächtlich",
    "ExifIFD:ShutterSpeedValue=0.0050000006",
    "InteropIFD:InteropIndex=R98",
]
IN_IPTC = ["IPTC:Keywords=street", "IPTC:City=Zürich", "IPTC:Caption-Abstract=Nächtlich"]
STAYS_IN_PRIVATE = ["Make", "Model", "LensModel", "FNumber"]
STAYS = [*STAYS_IN_PRIVATE, "Title", "Title-de", "Subject", "XPComment", "UserComment", "Software"]


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One picture a container, turned by its tag, full of what cameras and catalogue programs write."""
    folder = tmp_path_factory.mktemp("originals")
    camera = Image.open(camera_file(folder / "camera.jpg"))
    Image.new("RGB", (16, 12)).save(folder / "small.jpg")
    files = {}
    for container in CONTAINERS:
        path = folder / f"in{find_format(container).suffix}"
        if container not in FORMATS:
            write_picture(read_picture(folder / "camera.jpg"), path, format=container)
        else:
            exif = camera.getexif()
            exif[0xC000] = "a tag without a name"
            camera.save(path, exif=exif, icc_profile=make.srgb_profile())
        tags = [*WRITTEN, *(IN_IPTC if container in ("jpeg", "png", "tiff") else [])]
        tags += ["Comment=by hand"] if container in ("jpeg", "png") else []
        tags += ["IFD1:ThumbnailImage<=small.jpg"] if container != "tiff" else []
        tags += ["IFD0:Make=Lumen", "IFD0:Model=Nocturne 1", "ExifIFD:FNumber=1.8", "GPS:GPSLatitude=47.3681"]
        write_tags(path, *tags)
        files[container] = path
    return files


@needs_exiftool
@pytest.mark.parametrize("metadata", ["keep", "private", "strip"])
def test_only_what_the_rules_list_differs(tmp_path: Path, originals: dict[str, Path], metadata: Keeping) -> None:
    """From every container to every other."""
    rules = TagRules(metadata, None if metadata == "strip" else STAMP)
    befores, results, lines, sizes = list_tags(originals.values()), {}, {}, {}
    with TagWriter("exiftool", rules=rules) as writer:
        for container, source in originals.items():
            picture = read_picture(source)
            sizes[container] = {"Width": str(picture.width), "Height": str(picture.height)}
            for target in originals:
                path = tmp_path / f"{container}-to{find_format(target).suffix}"
                write_picture(picture, path, format=target)
                lines[path.name] = writer.copy(source, path, picture)
                results[path] = (container, target)
    afters = list_tags(results)
    for path, (container, target) in results.items():
        before, after = befores[originals[container].name], afters[path.name]
        unexplained = find_differences(before, after, rules, container, target, lines[path.name])
        assert unexplained == {}, path.name
        names = {name.split(":")[-1]: value for name, value in after.items()}
        if metadata == "strip":
            assert not names.keys() & {*STAYS, "ProcessingSoftware", "GPSLatitude", "Comment", "City"}
            continue
        assert names.keys() >= ({*STAYS} if metadata == "keep" else {*STAYS_IN_PRIVATE})
        assert names["ProcessingSoftware"] == STAMP
        for name, value in after.items():
            if name.endswith(":Orientation"):
                assert value == "1"
            elif sized := re.search(r"(Exif|XMP-tiff:)Image(Width|Height)$", name):
                assert value == sizes[container][sized[2]]
        assert any(name.startswith("EXIF:GPS") for name in after) == (metadata == "keep")
        assert ("DocumentID" in names) == (metadata == "keep")
        commented, comment = container in ("jpeg", "png"), target in ("jpeg", "png")
        keep = metadata == "keep"
        assert ("Comment" in names) == (keep and commented and comment)
        assert (f"{target} cannot hold a comment" in lines[path.name]) == (keep and commented and not comment)
        assert (f"{target} cannot hold IPTC" in lines[path.name]) == (
            keep and container in ("jpeg", "tiff") and target in NO_IPTC
        )


def test_the_rules_explain_no_other_differences() -> None:
    keep, private = TagRules("keep"), TagRules("private")

    def why(tag: str, before: object, after: object, rules: TagRules = keep, target: str = "jpeg") -> str | None:
        return explain(tag, before, after, rules, "jpeg", target)

    assert why("EXIF:IFD0:Orientation", 6, 1) == "the pixels are upright"
    assert why("EXIF:IFD0:Orientation", 6, None) is None
    assert why("EXIF:IFD0:Model", "Nocturne 1", None) is None
    assert why("EXIF:IFD0:Model", "Nocturne 1", None, private) is None
    assert why("EXIF:GPS:GPSLatitude", "47.3", None) is None
    assert "not on the list" in str(why("EXIF:GPS:GPSLatitude", "47.3", None, private))
    assert why("EXIF:GPS:GPSLatitude", "47.3", "47.4", private) is None
    assert why("MakerNotes:Canon:SerialNumber", "0815", None) is None
    assert "not on the list" in str(why("MakerNotes:Canon:SerialNumber", "0815", None, private))
    assert why("XMP:XMP-dc:Title", "Night", None, TagRules("private", credits=True)) is None
    assert why("EXIF:ExifIFD:FNumber", "1.8", "1.8000001") is None
    assert why("EXIF:ExifIFD:FNumber", "1.8", "1.8000001", target="tiff") is not None
    assert why("EXIF:ExifIFD:FNumber", "1.8", "1.81", target="tiff") is None
    assert why("IPTC:City", "Zürich", None) is None
    assert why("IPTC:City", "Zürich", None, target="webp") is None
    line = "webp cannot hold IPTC"
    assert explain("IPTC:City", "Zürich", None, keep, "jpeg", "webp", [line]) is not None
    assert explain("XMP:XMP-dc:Title", "Night", None, keep, "jpeg", "webp", [line]) is None
    assert why("ICC_Profile:ICC-header:ProfileClass", "mntr", None) is None
    assert why("XMP:XMP-dc:Title", None, "invented") is None
    assert all(set(change.happens) <= set("+-~") and change.tags for change in CHANGES)


def test_of_exif_turning_changes_the_orientation_alone(tmp_path: Path) -> None:
    """Without exiftool the raw block keeps every other byte."""
    for orientation in (1, 6):
        camera_file(tmp_path / f"{orientation}.jpg", orientation)
    blocks = [read_picture(tmp_path / f"{orientation}.jpg").exif for orientation in (1, 6)]
    results = []
    with TagWriter("pillow") as writer:
        for orientation in (1, 6):
            target, _ = carry(writer, tmp_path / f"{orientation}.jpg")
            results.append(Image.open(target).info["exif"])
    assert blocks[0] != blocks[1]
    assert results[0] == results[1]
    exif = Image.Exif()
    exif.load(results[0])
    assert exif[ExifTags.Base.Orientation] == 1
