"""exiftool's dump before and after: the only tags that differ are those that `tag_rules.CHANGES` names."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image, features

from lumen_cli.imaging.formats import find_format
from lumen_cli.imaging.read import read_picture
from lumen_cli.imaging.tags.check import explain, find_differences
from lumen_cli.imaging.tags.rules import CHANGES, NO_IPTC, Keeping, TagRules
from lumen_cli.imaging.tags.writer import TagWriter
from lumen_cli.imaging.write import write_picture
from tests.imaging import make
from tests.imaging.tags.test_metadata import camera_file, needs_exiftool

NEEDS = {"avif": None, "heif": "pillow_heif", "jxl": "pyjpegxl"}
CONTAINERS = ["jpeg", "png", "webp", "tiff", *NEEDS]
STAMP = "lumen 0.1.0, model tiny (weights 0123456789ab), seed 0, strength 1, fp32"
# About the file, not in it; and what exiftool works out from other tags.
_NOT_TAGS = ("SourceFile", "ExifTool", "System", "Composite")
_OF_THE_FILE = re.compile(r"File:(?!Comment)|File:System:|ExifTool:")
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
STAYS = [
    "Make",
    "Model",
    "LensModel",
    "FNumber",
    "Title",
    "Title-de",
    "Subject",
    "XPComment",
    "UserComment",
    "Software",
]
STAYS_IN_PRIVATE = STAYS[:4]


def can_write(container: str) -> bool:
    """Whether the encoder, an extra for some formats, is there."""
    if container == "avif":
        return bool(features.check("avif"))
    return not NEEDS.get(container) or importlib.util.find_spec(str(NEEDS[container])) is not None


def dumps(paths: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """What exiftool prints of each file: values by groups and name, several of one name as a sorted list."""
    command = ["exiftool", "-j", "-n", "-G0:1:4", "-a", "-s", "-u", "-b", "-struct", *map(str, paths)]
    found = {}
    for tags in json.loads(subprocess.run(command, capture_output=True, check=True).stdout):
        values = defaultdict(list)
        for name, value in tags.items():
            name = re.sub(r":Copy\d+:", ":", name)
            if name.split(":")[0] not in _NOT_TAGS and not _OF_THE_FILE.match(name):
                values[name].append(json.dumps(value) if isinstance(value, dict | list) else str(value))
        found[Path(tags["SourceFile"]).name] = {
            name: several[0] if len(several) == 1 else sorted(several) for name, several in values.items()
        }
    return found


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One picture a container, turned by its tag, full of what cameras and catalogue programs write."""
    folder = tmp_path_factory.mktemp("originals")
    camera = Image.open(camera_file(folder / "camera.jpg"))
    Image.new("RGB", (16, 12)).save(folder / "small.jpg")
    files = {}
    for container in filter(can_write, CONTAINERS):
        path = folder / f"in{find_format(container).suffix}"
        if container in NEEDS:
            write_picture(read_picture(folder / "camera.jpg"), path, format=container)
        else:
            exif = camera.getexif()
            exif[0xC000] = "a tag without a name"
            camera.save(path, exif=exif, icc_profile=make.srgb_profile())
        tags = [*WRITTEN, *(IN_IPTC if container in ("jpeg", "png", "tiff") else [])]
        tags += ["Comment=by hand"] if container in ("jpeg", "png") else []
        tags += ["IFD1:ThumbnailImage<=small.jpg"] if container != "tiff" else []
        tags += ["IFD0:Make=Lumen", "IFD0:Model=Nocturne 1", "ExifIFD:FNumber=1.8", "GPS:GPSLatitude=47.3681"]
        options = ["-q", "-m", "-n", "-overwrite_original", *(f"-{tag}" for tag in tags)]
        subprocess.run(["exiftool", *options, path.name], check=True, cwd=folder)
        files[container] = path
    return files


@needs_exiftool
@pytest.mark.parametrize("metadata", ["keep", "private", "strip"])
def test_only_what_the_rules_name_differs(tmp_path: Path, originals: dict[str, Path], metadata: Keeping) -> None:
    """From every container to every other."""
    rules = TagRules(metadata, None if metadata == "strip" else STAMP)
    befores, results, said, sizes = dumps(originals.values()), {}, {}, {}
    with TagWriter("exiftool", rules=rules) as writer:
        for container, source in originals.items():
            picture = read_picture(source)
            sizes[container] = {"Width": str(picture.width), "Height": str(picture.height)}
            for target in originals:
                path = tmp_path / f"{container}-to{find_format(target).suffix}"
                write_picture(picture, path, format=target)
                said[path.name] = writer.copy(source, path, picture)
                results[path] = (container, target)
    afters = dumps(results)
    for path, (container, target) in results.items():
        before, after = befores[originals[container].name], afters[path.name]
        unexplained = find_differences(before, after, rules, container, target, said[path.name])
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
        assert (f"{target} cannot hold a comment" in said[path.name]) == (keep and commented and not comment)
        assert (f"{target} cannot hold IPTC" in said[path.name]) == (
            keep and container in ("jpeg", "tiff") and target in NO_IPTC
        )


def test_the_rules_name_no_more_than_they_say() -> None:
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


def test_the_orientation_is_the_only_claim_of_exif_that_turning_changes(tmp_path: Path) -> None:
    """Without exiftool the raw block keeps every other byte."""
    for orientation in (1, 6):
        camera_file(tmp_path / f"{orientation}.jpg", orientation)
    blocks = [read_picture(tmp_path / f"{orientation}.jpg").exif for orientation in (1, 6)]
    results = []
    with TagWriter("pillow") as writer:
        for orientation in (1, 6):
            source, target = tmp_path / f"{orientation}.jpg", tmp_path / f"out{orientation}.jpg"
            picture = read_picture(source)
            write_picture(picture, target, format="jpeg")
            writer.copy(source, target, picture)
            results.append(Image.open(target).info["exif"])
    assert blocks[0] != blocks[1]
    assert results[0] == results[1]
    exif = Image.Exif()
    exif.load(results[0])
    assert exif[ExifTags.Base.Orientation] == 1
