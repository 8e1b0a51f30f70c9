"""--metadata, --no-stamp, --preserve-times and sidecar files, through the command."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lumen_cli import __version__
from tests.conftest import Finished, MakeModel, folder_bytes, write_dark
from tests.imaging.tags.tagged import camera_file, needs_exiftool

Lumen = Callable[..., Finished]
SIDECAR = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:exif="http://ns.adobe.com/exif/1.0/"'
    ' tiff:Orientation="6" exif:PixelXDimension="24"><exif:PixelYDimension>40</exif:PixelYDimension>'
    "<my:Stars xmlns:my='http://example.com/'>5</my:Stars></rdf:Description></rdf:RDF></x:xmpmeta>\n"
)


@pytest.fixture
def enhance(make_model: MakeModel, lumen: Lumen) -> Lumen:
    make_model("tiny")

    def run(*arguments: str | Path) -> Finished:
        return lumen("enhance", *arguments, "-m", "tiny", "--strength", "0")

    return run


def tags_of(path: Path) -> dict[str, Any]:
    done = subprocess.run(["exiftool", "-j", "-G1", "-s", "-n", str(path)], capture_output=True, check=True)
    tags: dict[str, Any] = json.loads(done.stdout)[0]
    return tags


@needs_exiftool
def test_each_way_with_tags_is_what_its_help_says(tmp_path: Path, enhance: Lumen) -> None:
    (tmp_path / "in").mkdir()
    camera_file(tmp_path / "in" / "a.jpg")
    found = {}
    for way in ("keep", "private", "strip"):
        finished = enhance(tmp_path / "in", "-o", tmp_path / way, "--metadata", way)
        assert finished.code == 0, finished.err
        found[way] = tags_of(tmp_path / way / "a.jpg")
    assert found["keep"]["GPS:GPSLatitude"] == pytest.approx(47.3682, abs=1e-3)
    assert not [tag for tag in found["private"] if tag.startswith("GPS")]
    assert found["private"]["IFD0:Model"] == found["keep"]["IFD0:Model"] == "Nocturne 1"
    assert not [tag for tag in found["strip"] if tag.startswith(("IFD0", "ExifIFD", "GPS", "XMP"))]
    assert all("ICC_Profile:DeviceMfg" in tags or "ICC-header:ProfileClass" in tags for tags in found.values())


def test_a_word_that_is_none_of_the_three_is_refused(photos: Path, enhance: Lumen) -> None:
    finished = enhance(photos, "--metadata", "some")
    assert finished.code == 2
    assert not photos.with_name("photos-enhanced").exists()


def test_private_without_exiftool_is_refused_before_any_work(
    photos: Path, enhance: Lumen, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    finished = enhance(photos, "--metadata", "private")
    assert finished.code == 2
    assert "only exiftool can tell private tags" in finished.err
    assert len(finished.err.splitlines()) == 1
    assert not photos.with_name("photos-enhanced").exists()
    assert enhance(photos, "--metadata", "strip").code == 0


@needs_exiftool
def test_the_stamp_names_version_model_and_settings(photos: Path, enhance: Lumen) -> None:
    assert enhance(photos, "--seed", "7", "--steps", "3").code == 0
    twin = photos.with_name("photos-enhanced")
    for name in ("a.png", "b.jpg", "c.webp", "night/d.png", "night/e.tif"):
        stamp = tags_of(twin / name)["IFD0:ProcessingSoftware"]
        assert stamp.startswith(f"lumen {__version__}, model tiny (weights ")
        assert all(word in stamp for word in ("3 steps", "seed 7", "strength 0", "fp32"))


@needs_exiftool
def test_without_a_stamp_nothing_is_added(photos: Path, enhance: Lumen) -> None:
    assert enhance(photos, "--no-stamp").code == 0
    for path in photos.with_name("photos-enhanced").rglob("*.*"):
        if path.suffix != ".jsonl":
            assert "IFD0:ProcessingSoftware" not in tags_of(path)


def test_stamp_and_tags_take_part_in_what_is_current(photos: Path, enhance: Lumen) -> None:
    enhance(photos)
    first = folder_bytes(photos.with_name("photos-enhanced"))
    assert "5 kept" in enhance(photos, "--resume").err
    assert enhance(photos, "--overwrite").code == 0
    assert folder_bytes(photos.with_name("photos-enhanced")) == first
    assert "5 enhanced" in enhance(photos, "--resume", "--no-stamp").err
    assert "5 enhanced" in enhance(photos, "--resume", "--metadata", "strip").err
    assert "5 kept" in enhance(photos, "--resume", "--metadata", "strip", "--no-stamp").err


def test_sidecars_follow_to_the_outputs_names(tmp_path: Path, enhance: Lumen) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    camera_file(folder / "a.jpg", orientation=6)
    write_dark(folder / "b.png")
    (folder / "a.xmp").write_text(SIDECAR)
    (folder / "b.png.xmp").write_text("of b")
    finished = enhance(folder, "-o", tmp_path / "out", "--format", "webp", "--json")
    assert finished.code == 0, finished.err
    assert "2 files copied" in finished.err
    true = SIDECAR.replace('Orientation="6"', 'Orientation="1"').replace('"24"', '"40"').replace(">40<", ">24<")
    assert (tmp_path / "out" / "a.xmp").read_text() == true
    assert (tmp_path / "out" / "b.webp.xmp").read_text() == "of b"
    assert (folder / "a.xmp").read_text() == SIDECAR
    lines = {Path(line["input"]).name: line for line in map(json.loads, finished.out.splitlines())}
    assert lines["a.jpg"]["sidecars"] == [str(tmp_path / "out" / "a.xmp")]
    assert not list((tmp_path / "out").glob(".lumen-[0-9]*"))


@pytest.mark.parametrize("way", ["private", "strip"])
@needs_exiftool
def test_sidecars_are_left_out_where_tags_are(tmp_path: Path, enhance: Lumen, way: str) -> None:
    write_dark(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "a.xmp").write_text(SIDECAR)
    finished = enhance(tmp_path / "in", "-o", tmp_path / "out", "--metadata", way)
    assert "its sidecar was not copied" in finished.err
    assert not list((tmp_path / "out").rglob("*.xmp"))


def test_two_pictures_sidecars_do_not_meet(tmp_path: Path, enhance: Lumen) -> None:
    for name in ("x/a.jpg", "y/a.png"):
        write_dark(tmp_path / name).with_suffix(".xmp").write_text(name)
    arguments = (tmp_path / "x" / "a.jpg", tmp_path / "y" / "a.png", "-o", f"{tmp_path / 'out'}{os.sep}")
    assert enhance(*arguments).code == 0
    out = tmp_path / "out"
    assert {path.name: path.read_text() for path in out.glob("*.xmp")} == {
        "a.jpg.xmp": "x/a.jpg",
        "a.png.xmp": "y/a.png",
    }
    before = folder_bytes(out)
    (out / "a.jpg").unlink()
    assert enhance(*arguments, "--resume").code == 0
    assert folder_bytes(out) == before


def test_no_file_that_was_there_is_lost_to_a_sidecar(tmp_path: Path, enhance: Lumen) -> None:
    write_dark(tmp_path / "a.jpg")
    (tmp_path / "a.xmp").write_text(SIDECAR)
    (tmp_path / "b.xmp").write_text("somebody's")
    finished = enhance(tmp_path / "a.jpg", "-o", tmp_path / "b.png")
    assert finished.code == 0
    assert (tmp_path / "b.xmp").read_text() == "somebody's"
    assert "another file of that name exists" in finished.err
    # Beside itself under another ending: the input's own sidecar has the output's short name.
    assert enhance(tmp_path / "a.jpg", "-o", tmp_path / "a.png").code == 0
    assert enhance(tmp_path / "a.jpg", "-o", tmp_path / "a.png", "--overwrite").code == 0
    assert (tmp_path / "a.xmp").read_text() == SIDECAR
    assert 'Orientation="1"' in (tmp_path / "a.png.xmp").read_text()


def test_times_are_the_inputs_to_the_nanosecond(photos: Path, enhance: Lumen) -> None:
    (photos / "a.xmp").write_text("sidecar")
    for index, path in enumerate(path for path in photos.rglob("*") if path.is_file()):
        os.utime(path, ns=(1_500_000_000_123_456_789 + index, 1_400_000_000_987_654_321 + index))
    times = {path: (path.stat().st_atime_ns, path.stat().st_mtime_ns) for path in photos.rglob("*.*")}
    assert enhance(photos, "--preserve-times").code == 0
    for path, (accessed, modified) in times.items():
        output = (photos.with_name("photos-enhanced") / path.relative_to(photos)).stat()
        assert output.st_mtime_ns == modified
        assert path.suffix == ".xmp" or output.st_atime_ns == accessed
    assert "5 kept" in enhance(photos, "--preserve-times", "--resume").err


@needs_exiftool
def test_maps_have_the_same_options(tmp_path: Path, make_model: MakeModel, lumen: Lumen) -> None:
    make_model("tiny", abilities=["decompose"])
    camera_file(tmp_path / "a.jpg")
    os.utime(tmp_path / "a.jpg", ns=(10**18, 10**18))
    finished = lumen("decompose", tmp_path / "a.jpg", "-m", "tiny", "--metadata", "private", "--preserve-times")
    assert finished.code == 0, finished.err
    after = tags_of(tmp_path / "a-reflectance.png")
    assert (tmp_path / "a-reflectance.png").stat().st_mtime_ns == 10**18
    assert after["IFD0:Model"] == "Nocturne 1"
    assert not [tag for tag in after if tag.startswith("GPS")]
    assert after["IFD0:ProcessingSoftware"].endswith("decomposed, fp32")
    assert lumen("decompose", tmp_path / "a.jpg", "-m", "tiny", "--overwrite", "--no-stamp").code == 0
    assert "IFD0:ProcessingSoftware" not in tags_of(tmp_path / "a-reflectance.png")
