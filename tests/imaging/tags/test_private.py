"""`private` keeps the tags on its list and no others, whatever tags exiftool can write."""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lumen_cli.errors import UsageError
from lumen_cli.imaging.formats import find_format
from lumen_cli.imaging.picture import read_picture, write_picture
from lumen_cli.imaging.tags.rules import TagRules
from lumen_cli.imaging.tags.transfer import find_unwanted, is_allowed
from lumen_cli.run.operation import tag_rules
from tests.imaging import make
from tests.imaging.tags.tagged import CONTAINERS, STAMP, carry_by, needs_exiftool

MARK = "Quentin"
_PLACES_OF_DATA = ("GeoTiff", "SubIFD", "GPSInfo", "ExifOffset", "InteropOffset", "GlobalParametersIFD", "DNGVersion")
_OF_THE_FILE = ("FileName", "Directory", "TestName", "HardLink", "SymLink", "FileModifyDate", "Geotag", "Geosync")
_STORAGE = ("Image", "Bits", "Compression", "Photometric", "Strip", "Samples", "SampleFormat", "Rows", "Tile", "Planar")
_MORE_STORAGE = ("Predictor", "Extra", "YCbCr", "Subfile", "OldSubfile", "FillOrder", "JPEG", "Free", "T4", "T6", "CFA")
STRUCTURES = [
    "XMP-mwg-rs:RegionInfo={RegionList=[{Name=Quentin Face,Type=Face}]}",
    "XMP-xmpMM:History={Action=saved,SoftwareAgent=/Users/Quentin/app}",
    "XMP-iptcExt:ArtworkOrObject=[{AOCopyrightNotice=Quentin,AOCreator=Quentin}]",
]


def writable(group: str) -> list[str]:
    """The names of a group's tags that exiftool writes, without those that say where or how pixels lie."""
    done = subprocess.run(["exiftool", "-listw", f"-{group}:all"], capture_output=True, text=True, check=True)
    names = [name for line in done.stdout.splitlines()[1:] for name in line.split()]
    left_out = (*_PLACES_OF_DATA, *_OF_THE_FILE, *(_STORAGE + _MORE_STORAGE if group == "EXIF" else ()))
    return [name for name in names if not name.startswith(left_out)]


def read(path: Path) -> dict[str, Any]:
    """Every tag of a file, structures flattened, by "group:name"."""
    command = ["exiftool", "-j", "-n", "-a", "-u", "-G1:4", str(path)]
    tags: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)[0]
    about = ("SourceFile", "System", "ExifTool", "Composite")
    parted = {tuple(name.split(":")): value for name, value in tags.items()}  # "group:Copy1:name" where two are alike
    return {f"{parts[0]}:{parts[-1]}": value for parts, value in parted.items() if parts[0] not in about}


def write(path: Path, *options: str) -> None:
    arguments = path.with_name("arguments")
    arguments.write_text("\n".join(options))
    command = ["exiftool", "-q", "-q", "-m", "-n", "-overwrite_original", "-@", str(arguments), str(path)]
    subprocess.run(command, capture_output=True, check=False)


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A JPEG with as many tags as exiftool writes: texts with a mark, and numbers or dates where it takes no text."""
    path = tmp_path_factory.mktemp("marked") / "in.jpg"
    Image.fromarray(make.photo()).save(path)
    with ThreadPoolExecutor() as several:
        groups = ("EXIF", "IPTC", "XMP", "Photoshop")
        tags = dict(zip(groups, several.map(writable, groups), strict=True))
    names = [f"{group}:{name}" for group in groups for name in tags[group]]
    write(path, *(f"-{name}={MARK} {name}" for name in names), *(f"-{tag}" for tag in STRUCTURES), f"-Comment={MARK}")
    there = {name.split(":")[-1] for name in read(path)}
    lacking = [name for name in names if name.split(":")[1] not in there]
    write(path, *(f"-{n}={'2013:03:17 13:13:13' if 'Date' in n or 'Time' in n else '7'}" for n in lacking))
    return path


def private(source: Path, format: str = "jpeg", *, credits: bool = False) -> tuple[Path, dict[str, Any]]:
    target, lines = carry_by(TagRules("private", STAMP, credits), source, format)
    assert not [line for line in lines if "none were copied" in line]
    return target, read(target)


@needs_exiftool
@pytest.mark.parametrize("format", CONTAINERS)
def test_private_keeps_only_its_list_of_all_tags_that_exiftool_writes(
    marked: Path, tmp_path: Path, format: str
) -> None:
    source = tmp_path / f"in{find_format(format).suffix}"
    write_picture(read_picture(marked), source, format=format)
    write(source, "-tagsFromFile", str(marked), "-all:all", *(f"-{tag}" for tag in STRUCTURES))
    written = read(source)
    assert len([name for name in written if not is_allowed(name, "7", credits=False)]) > 1561, len(written)
    target, kept = private(source, format)
    assert find_unwanted(kept, credits=False, software=STAMP) == []
    named = {name for name, value in kept.items() if MARK in str(value)}
    assert named <= {
        *("IFD0:Make", "IFD0:Model", "ExifIFD:LensMake", "ExifIFD:LensModel", "XMP-tiff:Make", "XMP-tiff:Model"),
        *("XMP-exifEX:LensMake", "XMP-exifEX:LensModel", "XMP-aux:Lens"),
    }
    content = target.read_bytes()
    assert content.count(MARK.encode()) <= len(named)
    assert f"{MARK} EXIF:Model" in str(kept["IFD0:Model"])


@needs_exiftool
def test_title_and_rights_stay_only_on_request(tmp_path: Path) -> None:
    source = tmp_path / "in.jpg"
    Image.fromarray(make.photo()).save(source)
    credits = ["IFD0:Artist", "IFD0:Copyright", "XMP-dc:Title", "XMP-dc:Rights-de", "IPTC:By-line", "XMP-cc:License"]
    others = ["IFD0:ImageDescription", "XMP-dc:Subject", "IPTC:City", "IFD0:Software", "IFD0:ProcessingSoftware"]
    write(source, *(f"-{name}={MARK}" for name in (*credits, *others)), "-ExifIFD:FNumber=1.8")
    _, without = private(source)
    assert MARK not in str(without)
    assert without["ExifIFD:FNumber"] == 1.8
    _, kept = private(source, credits=True)
    assert {name for name, value in kept.items() if MARK in str(value)} >= {*credits} - {"XMP-dc:Rights-de"}
    assert "XMP-dc:Rights-de" in kept
    assert not {*others[:-1]} & {*kept}
    assert kept["IFD0:ProcessingSoftware"] == STAMP


def test_credits_need_private() -> None:
    assert tag_rules("private", STAMP, credits=True).credits
    for way in ("keep", "strip"):
        with pytest.raises(UsageError, match="only be kept with private tags"):
            tag_rules(way, STAMP, credits=True)  # type: ignore[arg-type]


@needs_exiftool
def test_a_value_of_another_kind_is_removed(tmp_path: Path) -> None:
    """A date that holds a name, a number that holds a sentence."""
    source = tmp_path / "in.jpg"
    exif = Image.Exif()
    exif[0x0132], exif[0x010F], exif[0x0110] = f"{MARK} at home", "Lumen", f"{MARK}\n at\x01home"
    exif.get_ifd(0x8769).update({0x9003: "2024:01:02 03:04:05", 0x9291: MARK, 0x9011: MARK})
    Image.fromarray(make.photo()).save(source, exif=exif)
    assert str(read(source)).count(MARK) >= 4
    target, kept = private(source)
    assert MARK not in str(kept)
    assert (kept["IFD0:Make"], kept["ExifIFD:DateTimeOriginal"]) == ("Lumen", "2024:01:02 03:04:05")
    assert MARK.encode() not in target.read_bytes()


@needs_exiftool
def test_a_tag_that_cannot_be_removed_costs_all_tags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "in.jpg"
    Image.fromarray(make.photo()).save(source)
    write(source, "-IFD0:Model=Nocturne", f"-XMP-dc:Title={MARK}")
    monkeypatch.setattr("lumen_cli.imaging.tags.arguments.copied_tags", lambda credits: ["all:all"])
    monkeypatch.setattr("lumen_cli.imaging.tags.arguments.remove_tags", lambda file, tags: [b"-ver"])
    target, (line,) = carry_by(TagRules("private", STAMP), source)
    assert "cannot be removed: XMP-dc:Title" in line
    assert "none were copied" in line
    assert MARK.encode() not in target.read_bytes()


@pytest.mark.parametrize(
    ("tag", "value", "allowed"),
    [
        ("ExifIFD:FNumber", 1.8, True),
        ("ExifIFD:FNumber", "Quentin", False),
        ("ExifIFD:LensInfo", "24 70 2.8 undef", True),
        ("XMP-exif:ISO", [100, 200], True),
        ("ExifIFD:DateTimeOriginal", "2024:01:02 03:04:05.67+01:00", True),
        ("ExifIFD:DateTimeOriginal", "at Quentin's", False),
        ("IFD0:Model", "Nocturne 1", True),
        ("IFD0:Model", "x" * 201, False),
        ("GPS:GPSLatitude", 47.3, False),
        ("File:Comment", "7", False),
        ("MetaIFD:SerialNumber", "7", False),
        ("XMP-dc:Title", "Night", False),
    ],
)
def test_the_list_allows_tags_by_name_and_kind_of_value(tag: str, value: object, allowed: bool) -> None:
    assert is_allowed(tag, value, credits=False) == allowed
