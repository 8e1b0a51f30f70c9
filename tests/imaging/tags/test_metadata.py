"""Tags carried from the original to the result, by exiftool and by the fallback."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import signal
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational

from lumen_cli.errors import PictureError, UsageError
from lumen_cli.imaging.formats import find_format
from lumen_cli.imaging.picture import Picture
from lumen_cli.imaging.read import read_picture
from lumen_cli.imaging.tags.containers import may_hold_tags
from lumen_cli.imaging.tags.exiftool import ExifToolPool
from lumen_cli.imaging.tags.writer import TagWriter
from lumen_cli.imaging.write import write_picture
from tests.imaging import make

needs_exiftool = pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool is not installed")
FORMATS = ["jpeg", "png", "webp", "tiff"]
MAKER_NOTE = b"LUMENCAM serial 0815 shutter count 12345"


@pytest.fixture(scope="module")
def by_exiftool() -> Iterator[TagWriter]:
    with TagWriter("exiftool") as writer:
        yield writer


def dump(path: Path) -> dict[str, Any]:
    done = subprocess.run(["exiftool", "-j", "-n", "-G1", "-a", "-s", "-b", str(path)], capture_output=True, check=True)
    tags: dict[str, Any] = json.loads(done.stdout)[0]
    return tags


def camera_file(path: Path, orientation: int = 6) -> Path:
    """A JPEG as from a camera: exposure, GPS, a maker note, a thumbnail; turned by its tag."""
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Model] = "Lumen", "Nocturne 1"
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.DateTime] = "2024:01:02 03:04:05"
    inner = exif.get_ifd(ExifTags.IFD.Exif)
    inner[ExifTags.Base.ExposureTime], inner[ExifTags.Base.FNumber] = IFDRational(1, 15), 1.8
    inner[ExifTags.Base.FocalLength] = 21.3125
    inner[ExifTags.Base.ISOSpeedRatings] = 6400
    inner[ExifTags.Base.ExifImageWidth], inner[ExifTags.Base.ExifImageHeight] = 6000, 4000
    inner[ExifTags.Base.MakerNote] = MAKER_NOTE
    gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    gps[ExifTags.GPS.GPSLatitudeRef], gps[ExifTags.GPS.GPSLatitude] = "N", (47.0, 22.0, 5.5)
    gps[ExifTags.GPS.GPSLongitudeRef], gps[ExifTags.GPS.GPSLongitude] = "E", (8.0, 32.0, 30.25)
    upright = make.photo()
    Image.fromarray(make.stored(upright, orientation)).save(
        path, exif=exif, quality=98, subsampling=0, icc_profile=make.srgb_profile()
    )
    return path


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The camera's file after a photographer's catalogue program: XMP (a name of its own too), IPTC, a thumbnail."""
    folder = tmp_path_factory.mktemp("described")
    path = camera_file(folder / "in.jpg")
    packet = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description xmlns:my="http://example.com/my/1.0/" my:Shelf="42" '
        'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
    )
    (folder / "packet.xmp").write_text(packet)
    Image.new("RGB", (16, 12)).save(folder / "thumbnail.jpg")
    tags = ["-XMP-dc:Title=Nächtliche Straße", "-IPTC:Keywords=night", "-IPTC:Keywords=street", "-IPTC:City=Zürich"]
    for command in (["-tagsFromFile", str(folder / "packet.xmp"), "-XMP"], [*tags, "-ThumbnailImage<=thumbnail.jpg"]):
        subprocess.run(["exiftool", "-q", "-overwrite_original", *command, str(path)], check=True, cwd=folder)
    return path


def assert_thumbnail_is_true(before: dict[str, Any], after: dict[str, Any], picture: Picture, format: str) -> None:
    """The original's, a black one, is gone; the new one shows the result. In TIFF it would be a second page."""
    if format == "tiff":
        assert not any("Thumbnail" in tag or tag.startswith("IFD1:") for tag in after)
        return
    old, new = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(tags["IFD1:ThumbnailImage"].removeprefix("base64:")))))
        for tags in (before, after)
    )
    assert old.max() < 5
    assert new.shape == picture.pixels.shape
    assert np.abs(new / 255 - picture.pixels).max() < 0.1


def carried(
    writer: TagWriter, source: Path, format: str, target: Path | None = None
) -> tuple[Path, Picture, list[str]]:
    """Read, write unchanged, copy tags; as the pipeline does."""
    picture = read_picture(source)
    target = target or source.parent / f"out{find_format(format).suffix}"
    write_picture(picture, target, format=format)
    warnings = writer.copy(source, target, picture)
    return target, picture, warnings


@needs_exiftool
@pytest.mark.parametrize("format", FORMATS)
def test_what_camera_and_photographer_wrote_is_in_the_result(
    tmp_path: Path, by_exiftool: TagWriter, described: Path, format: str
) -> None:
    source = described
    target, picture, warnings = carried(by_exiftool, source, format, tmp_path / f"out{find_format(format).suffix}")
    before, after = dump(source), dump(target)
    assert warnings == (["webp cannot hold IPTC"] if format == "webp" else [])
    for tag in (
        "IFD0:Make",
        "IFD0:Model",
        "IFD0:ModifyDate",
        "ExifIFD:ExposureTime",
        "ExifIFD:FNumber",
        "ExifIFD:ISO",
        "ExifIFD:FocalLength",
        "GPS:GPSLatitude",
        "GPS:GPSLongitude",
        "XMP-dc:Title",
        "XMP-my:Shelf",
    ):
        assert after.get(tag) == before.get(tag), tag
    assert before["ExifIFD:FocalLength"] == 21.3125
    assert MAKER_NOTE in target.read_bytes()
    if format != "webp":
        assert after["IPTC:Keywords"] == ["night", "street"]
        assert after["IPTC:City"] == "Zürich"
    assert after["IFD0:Orientation"] == 1
    assert (after["ExifIFD:ExifImageWidth"], after["ExifIFD:ExifImageHeight"]) == (40, 24)
    assert after["XMP-tiff:Orientation"] == 1
    assert_thumbnail_is_true(before, after, picture, format)
    assert read_picture(target).icc == picture.icc


@pytest.mark.parametrize("engine", [pytest.param("exiftool", marks=needs_exiftool), "pillow"])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_eight_orientations_give_eight_equal_pictures(tmp_path: Path, engine: Any, suffix: str) -> None:
    results, original = [], make.photo()
    with TagWriter(engine) as writer:
        for orientation in range(1, 9):
            source = make.save_oriented(tmp_path / f"{orientation}{suffix}", original, orientation)
            picture = read_picture(source)
            target = tmp_path / f"out{orientation}{suffix}"
            write_picture(picture, target, format=picture.format)
            assert writer.copy(source, target, picture) == []
            with Image.open(target) as result:
                assert result.getexif().get(0x0112, 1) == 1
            results.append(read_picture(target).pixels)
    # Turned blocks are other blocks to a lossy encoder: equal there means equal to the eye.
    tolerance = 6 / 255 if suffix == ".jpg" else 10 / 255 if suffix == ".webp" else 0
    for result in results:
        assert result.shape == (24, 40, 3)
        assert np.abs(result - original / np.float32(255)).max() <= tolerance


@pytest.mark.parametrize("format", FORMATS)
def test_the_fallback_carries_exif_and_corrects_it(tmp_path: Path, format: str) -> None:
    source = camera_file(tmp_path / "in.jpg")
    with TagWriter("pillow") as writer:
        assert writer.engine == "pillow"
        target, picture, warnings = carried(writer, source, format)
    assert warnings == []
    with Image.open(target) as result:
        result.load()
        exif = result.getexif()
        assert exif[ExifTags.Base.Model] == "Nocturne 1"
        assert exif.get(ExifTags.Base.Orientation, 1) == 1
        inner = exif.get_ifd(ExifTags.IFD.Exif)
        assert float(inner[ExifTags.Base.FocalLength]) == 21.3125
        assert (inner[ExifTags.Base.ExifImageWidth], inner[ExifTags.Base.ExifImageHeight]) == (40, 24)
        assert exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] == (47.0, 22.0, 5.5)
    assert (MAKER_NOTE in target.read_bytes()) == (format != "tiff")
    again = read_picture(target)
    assert again.icc == picture.icc
    assert np.abs(again.pixels - picture.pixels).max() <= (0 if format in ("png", "tiff") else 12 / 255)


@needs_exiftool
@pytest.mark.parametrize("format", FORMATS)
def test_exiftool_finds_nothing_wrong_with_the_fallbacks_files(tmp_path: Path, described: Path, format: str) -> None:
    with TagWriter("pillow") as writer:
        target, picture, _ = carried(writer, described, format, tmp_path / f"out{find_format(format).suffix}")
    after = dump(target)
    assert after["ExifIFD:ISO"] == 6400
    assert after["IFD0:Orientation"] == 1
    assert_thumbnail_is_true(dump(described), after, picture, format)
    checked = subprocess.run(["exiftool", "-validate", "-warning", "-a", str(target)], capture_output=True, text=True)
    assert "Error" not in checked.stdout + checked.stderr


def test_the_dark_thumbnails_bytes_are_gone_with_the_fallback_too(tmp_path: Path) -> None:
    thumbnail = b"\xff\xd8THIS WAS THE DARK THUMBNAIL\xff\xd9"
    first = struct.pack("<HHHIHHI", 1, 0x0112, 3, 1, 6, 0, 26)
    second = struct.pack("<HHHIIHHIII", 2, 0x0201, 4, 1, 56, 0x0202, 4, 1, len(thumbnail), 0)
    exif = b"Exif\0\0" + b"II*\0" + struct.pack("<I", 8) + first + second + thumbnail
    Image.fromarray(make.photo()).save(tmp_path / "in.jpg", exif=exif)
    with TagWriter("pillow") as writer:
        target, _, _ = carried(writer, tmp_path / "in.jpg", "jpeg")
    assert b"THIS WAS" in (tmp_path / "in.jpg").read_bytes()
    assert b"THIS WAS" not in target.read_bytes()


@pytest.mark.parametrize("engine", [pytest.param("exiftool", marks=needs_exiftool), "pillow"])
@pytest.mark.parametrize("format", FORMATS)
def test_the_same_source_gives_the_same_bytes(tmp_path: Path, engine: Any, format: str) -> None:
    source = camera_file(tmp_path / "in.jpg")
    with TagWriter(engine) as writer:
        first = carried(writer, source, format)[0].read_bytes()
        assert carried(writer, source, format)[0].read_bytes() == first


@pytest.mark.parametrize("engine", [pytest.param("exiftool", marks=needs_exiftool), "pillow"])
def test_a_picture_without_tags_gets_none(tmp_path: Path, engine: Any) -> None:
    Image.fromarray(make.photo()).save(tmp_path / "in.png")
    with TagWriter(engine) as writer:
        target, _, warnings = carried(writer, tmp_path / "in.png", "png")
    assert warnings == []
    assert not Image.open(target).getexif()


@needs_exiftool
@pytest.mark.parametrize(
    "name",
    [
        "a b.jpg",
        " a.jpg ",
        "-a.jpg",
        "-execute",
        "@a.jpg",
        "new\nline.jpg",
        "cr\r.jpg",
        "ünï.jpg",
        "100%d %f.jpg",
        "#[CSTR]\\n.jpg",
        "$(touch x) `touch x`;&'\".jpg",
        "touch x|",
        "夜" * 83 + ".jpg",
    ],
)
def test_files_with_odd_names(tmp_path: Path, by_exiftool: TagWriter, name: str) -> None:
    source = camera_file(tmp_path / "plain.jpg").rename(tmp_path / name)
    (tmp_path / "out folder%d").mkdir()
    target, _, warnings = carried(by_exiftool, source, "jpeg", tmp_path / "out folder%d" / name)
    assert warnings == []
    assert Image.open(target).getexif()[ExifTags.Base.Model] == "Nocturne 1"
    assert sorted(path.name for path in target.parent.iterdir()) == [name]
    assert not Path("x").exists()


@needs_exiftool
@pytest.mark.skipif(sys.platform != "linux", reason="only here are names any bytes")
def test_names_that_are_no_utf8(tmp_path: Path, by_exiftool: TagWriter) -> None:
    source = camera_file(tmp_path / "plain.jpg").rename(tmp_path / os.fsdecode(b"\xff\xfe.jpg"))
    target, _, warnings = carried(by_exiftool, source, "jpeg", tmp_path / os.fsdecode(b"out\xff.jpg"))
    assert warnings == []
    assert Image.open(target).getexif()[ExifTags.Base.Model] == "Nocturne 1"


@needs_exiftool
def test_every_thread_that_writes_has_a_process_of_its_own(tmp_path: Path) -> None:
    sources, seen = [], set()
    for i in range(8):
        exif = Image.Exif()
        exif[ExifTags.Base.Model] = f"Camera {i}"
        Image.fromarray(make.photo()).save(tmp_path / f"in{i}.jpg", exif=exif)
        sources.append(tmp_path / f"in{i}.jpg")
    together = threading.Barrier(3)

    def work(mine: list[Path]) -> None:
        for source in mine:
            together.wait()
            carried(writer, source, "tiff", source.with_name(f"out-{source.name}"))

    with TagWriter("exiftool") as writer:
        assert len(writer.processes()) == 1  # the others are started when they are needed
        threads = [threading.Thread(target=work, args=(sources[i::3][:2],)) for i in range(3)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            seen.add(len(writer.processes()))
            time.sleep(0.01)
        assert max(seen) in (2, 3)
        left = writer.processes()
    models = [Image.open(s.with_name(f"out-{s.name}")).getexif()[ExifTags.Base.Model] for s in sources[:6]]
    assert models == [f"Camera {i}" for i in range(6)]
    for number in left:
        with pytest.raises(ProcessLookupError):
            os.kill(number, 0)


@needs_exiftool
def test_a_process_outlives_the_thread_that_needed_it_first() -> None:
    pool, first = ExifToolPool(seconds=20), []

    def work() -> None:
        with pool.process() as tool:
            first.append(tool)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    time.sleep(0.3)  # a thread is gone a little after it has been joined
    with pool.process() as tool:
        assert tool is first[0]
        assert tool.execute("-ver").strip() == tool.version
    pool.close()


def process_of(writer: TagWriter) -> int:
    (number,) = writer.processes()
    return number


@needs_exiftool
@pytest.mark.parametrize("fate", [signal.SIGKILL, signal.SIGSTOP])
def test_an_exiftool_that_dies_or_hangs_is_started_anew(tmp_path: Path, fate: signal.Signals) -> None:
    source = camera_file(tmp_path / "in.jpg")
    with TagWriter("exiftool", seconds=3) as writer:
        old = process_of(writer)
        os.kill(old, fate)
        target, _, warnings = carried(writer, source, "tiff")
        assert warnings == []
        assert process_of(writer) != old
        assert Image.open(target).getexif()[ExifTags.Base.Model] == "Nocturne 1"
        with pytest.raises(ProcessLookupError):
            os.kill(old, 0)


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a shell script")
def test_an_exiftool_that_hangs_twice_is_one_line_about_the_picture(tmp_path: Path) -> None:
    """In its place a script that answers the first command, the question for its version, and then sleeps."""
    script = tmp_path / "stuck"
    script.write_text(
        "#!/bin/sh\n"
        "while IFS= read -r line; do\n"
        '  case "$before" in -echo4) printf "%s\\n" "$line" | sed "s/[$]{status}/0/" >&2;; esac\n'
        '  case "$line" in -execute*) printf "12.57\\n{ready%s}\\n" "${line#-execute}"; exec sleep 30;; esac\n'
        '  before="$line"\n'
        "done\n"
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    source = camera_file(tmp_path / "in.jpg")
    with TagWriter("exiftool", seconds=1, executable=str(script)) as writer:
        with pytest.raises(PictureError, match=r"could not be copied.*twice") as caught:
            carried(writer, source, "tiff")
        assert "\n" not in str(caught.value)


def test_without_exiftool_one_line_says_what_stays_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with TagWriter() as writer:
        assert writer.engine == "pillow"
        assert writer.notice is not None
        assert "\n" not in writer.notice
        assert all(word in writer.notice for word in ("exiftool is not installed", "XMP", "IPTC", "without root"))
        target, _, _ = carried(writer, camera_file(tmp_path / "in.jpg"), "jpeg")
    assert Image.open(target).getexif()[ExifTags.Base.Model] == "Nocturne 1"
    with pytest.raises(UsageError, match="not installed"):
        TagWriter("exiftool")


@needs_exiftool
def test_with_exiftool_its_version_is_told_and_the_process_ends_with_the_writer() -> None:
    with TagWriter() as writer:
        assert writer.engine.startswith("exiftool 1")
        assert writer.notice is None
        number = process_of(writer)
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)


@needs_exiftool
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_exif_does_not_fail_the_picture(tmp_path: Path, by_exiftool: TagWriter) -> None:
    camera_file(tmp_path / "in.jpg")
    data = (tmp_path / "in.jpg").read_bytes()
    at = data.index(b"Exif\0\0") + 6
    (tmp_path / "in.jpg").write_bytes(data[: at + 8] + b"\xff\xff" + data[at + 10 :])  # 65535 entries
    target, _, _ = carried(by_exiftool, tmp_path / "in.jpg", "jpeg")
    assert read_picture(target).width in (24, 40)


@pytest.mark.parametrize("engine", [pytest.param("exiftool", marks=needs_exiftool), "pillow"])
def test_bmp_says_that_it_holds_no_tags(tmp_path: Path, engine: Any) -> None:
    with TagWriter(engine) as writer:
        _, _, warnings = carried(writer, camera_file(tmp_path / "in.jpg"), "bmp")
    assert warnings == ["BMP holds no tags"]


@needs_exiftool
def test_png_texts_and_resolution_stay(tmp_path: Path, by_exiftool: TagWriter) -> None:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("Author", "Somebody")
    Image.fromarray(make.photo()).save(tmp_path / "in.png", pnginfo=info, dpi=(300, 300))
    target, _, _ = carried(by_exiftool, tmp_path / "in.png", "png")
    with Image.open(target) as result:
        result.load()
        assert result.info["Author"] == "Somebody"
        assert result.info["dpi"] == pytest.approx((300, 300), abs=0.1)


def test_pictures_that_can_hold_no_tags_are_told_apart(tmp_path: Path) -> None:
    image, icc = Image.fromarray(make.photo()), make.srgb_profile()
    for name in ("plain.png", "plain.jpg", "plain.webp"):
        image.save(tmp_path / name, icc_profile=icc)
        assert not may_hold_tags(tmp_path / name)
    camera_file(tmp_path / "camera.jpg")
    exif = Image.Exif()
    exif[ExifTags.Base.Model] = "Nocturne 1"
    for name in ("exif.png", "exif.webp"):
        image.save(tmp_path / name, exif=exif)
    image.save(tmp_path / "comment.jpg", comment=b"hello")
    image.save(tmp_path / "dpi.jpg", dpi=(300, 300))
    image.save(tmp_path / "dpi.png", dpi=(300, 300))
    image.save(tmp_path / "any.tif")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "plain.jpg").read_bytes()[:100])
    for name in ("camera.jpg", "exif.png", "exif.webp", "comment.jpg", "dpi.jpg", "dpi.png", "any.tif", "cut.jpg"):
        assert may_hold_tags(tmp_path / name), name


@needs_exiftool
@pytest.mark.skipif(sys.platform != "linux", reason="only here does a child learn of its parent's death")
def test_exiftool_does_not_outlive_a_killed_run(tmp_path: Path) -> None:
    code = (
        "import time; from lumen_cli.imaging.tags.writer import TagWriter\n"
        "writer = TagWriter('exiftool'); print(writer.processes()[0], flush=True); time.sleep(60)\n"
    )
    run = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    number = int(run.stdout.readline())
    run.kill()
    run.wait()
    for _ in range(100):
        state = Path(f"/proc/{number}/stat")
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.05)
    os.kill(number, signal.SIGKILL)
    pytest.fail("exiftool was left running")
