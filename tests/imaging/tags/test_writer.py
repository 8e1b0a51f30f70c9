"""Tags from the original to the result, by exiftool and by the fallback."""

from __future__ import annotations

import base64
import io
import os
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
from PIL.PngImagePlugin import PngInfo

from lumen_cli.errors import PictureError, UsageError
from lumen_cli.imaging.formats import find_format
from lumen_cli.imaging.picture import read_picture
from lumen_cli.imaging.tags import ExifToolPool, TagWriter
from lumen_cli.imaging.tags.containers import may_hold_tags
from tests.imaging import make
from tests.imaging.tags.tagged import (
    FORMATS,
    MAKER_NOTE,
    both_engines,
    camera_file,
    carry,
    needs_exiftool,
    read_tags,
    running_exiftools,
    write_tags,
    write_xmp,
)


@pytest.fixture(scope="module")
def by_exiftool() -> Iterator[TagWriter]:
    with TagWriter("exiftool") as writer:
        yield writer


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The camera's file after a photographer's catalogue program: XMP (a name of its own too), IPTC, a thumbnail."""
    folder = tmp_path_factory.mktemp("described")
    path = camera_file(folder / "in.jpg")
    namespaces = 'xmlns:my="http://example.com/my/1.0/" xmlns:tiff="http://ns.adobe.com/tiff/1.0/"'
    write_xmp(path, f'{namespaces} my:Shelf="42" tiff:Orientation="6"')
    Image.new("RGB", (16, 12)).save(folder / "thumbnail.jpg")
    tags = ["XMP-dc:Title=Nächtliche Straße", "IPTC:Keywords=night", "IPTC:Keywords=street", "IPTC:City=Zürich"]
    write_tags(path, *tags, "ThumbnailImage<=thumbnail.jpg")
    return path


def assert_thumbnail_shows(source: Path, target: Path, format: str) -> None:
    """The original's, a black one, is gone; the new one shows the result. In TIFF it would be a second page."""
    before, after = read_tags(source), read_tags(target)
    if format == "tiff":
        assert not any("Thumbnail" in tag or tag.startswith("IFD1:") for tag in after)
        return
    old, new = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(tags["IFD1:ThumbnailImage"].removeprefix("base64:")))))
        for tags in (before, after)
    )
    pixels = read_picture(source).pixels
    assert old.max() < 5
    assert new.shape == pixels.shape
    assert np.abs(new / 255 - pixels).max() < 0.1


@needs_exiftool
@pytest.mark.parametrize("format", FORMATS)
def test_tags_of_camera_and_photographer_are_in_the_result(
    tmp_path: Path, by_exiftool: TagWriter, described: Path, format: str
) -> None:
    target, lines = carry(by_exiftool, described, format, tmp_path / f"out{find_format(format).suffix}")
    before, after = read_tags(described), read_tags(target)
    assert lines == (["webp cannot hold IPTC"] if format == "webp" else [])
    for tag in (
        *("IFD0:Make", "IFD0:Model", "IFD0:ModifyDate", "ExifIFD:ExposureTime", "ExifIFD:FNumber", "ExifIFD:ISO"),
        *("ExifIFD:FocalLength", "GPS:GPSLatitude", "GPS:GPSLongitude", "XMP-dc:Title", "XMP-my:Shelf"),
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
    assert_thumbnail_shows(described, target, format)
    assert read_picture(target).icc == read_picture(described).icc


@both_engines
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_eight_orientations_give_eight_equal_pictures(tmp_path: Path, engine: Any, suffix: str) -> None:
    results, original = [], make.photo()
    with TagWriter(engine) as writer:
        for orientation in range(1, 9):
            source = make.save_oriented(tmp_path / f"{orientation}{suffix}", original, orientation)
            target, lines = carry(writer, source)
            assert lines == []
            with Image.open(target) as result:
                assert result.getexif().get(0x0112, 1) == 1
            results.append(read_picture(target).pixels)
    # Turned blocks are other blocks to a lossy encoder: equal there means equal to the eye.
    tolerance = 6 / 255 if suffix == ".jpg" else 10 / 255 if suffix == ".webp" else 0
    for pixels in results:
        assert pixels.shape == (24, 40, 3)
        assert np.abs(pixels - original / np.float32(255)).max() <= tolerance


@pytest.mark.parametrize("format", FORMATS)
def test_the_fallback_copies_exif_and_corrects_it(tmp_path: Path, format: str) -> None:
    source = camera_file(tmp_path / "in.jpg")
    with TagWriter("pillow") as writer:
        assert writer.engine == "pillow"
        target, lines = carry(writer, source, format)
    assert lines == []
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
    before, after = read_picture(source), read_picture(target)
    assert after.icc == before.icc
    assert np.abs(after.pixels - before.pixels).max() <= (0 if format in ("png", "tiff") else 12 / 255)


@needs_exiftool
@pytest.mark.parametrize("format", FORMATS)
def test_exiftool_finds_nothing_wrong_with_the_fallbacks_files(tmp_path: Path, described: Path, format: str) -> None:
    with TagWriter("pillow") as writer:
        target, _ = carry(writer, described, format, tmp_path / f"out{find_format(format).suffix}")
    after = read_tags(target)
    assert after["ExifIFD:ISO"] == 6400
    assert after["IFD0:Orientation"] == 1
    assert_thumbnail_shows(described, target, format)
    checked = subprocess.run(["exiftool", "-validate", "-warning", "-a", str(target)], capture_output=True, text=True)
    assert "Error" not in checked.stdout + checked.stderr


def test_the_dark_thumbnails_bytes_are_gone_with_the_fallback_too(tmp_path: Path) -> None:
    thumbnail = b"\xff\xd8THIS WAS THE DARK THUMBNAIL\xff\xd9"
    first = struct.pack("<HHHIHHI", 1, 0x0112, 3, 1, 6, 0, 26)
    second = struct.pack("<HHHIIHHIII", 2, 0x0201, 4, 1, 56, 0x0202, 4, 1, len(thumbnail), 0)
    exif = b"Exif\0\0" + b"II*\0" + struct.pack("<I", 8) + first + second + thumbnail
    Image.fromarray(make.photo()).save(tmp_path / "in.jpg", exif=exif)
    with TagWriter("pillow") as writer:
        target, _ = carry(writer, tmp_path / "in.jpg", "jpeg")
    assert b"THIS WAS" in (tmp_path / "in.jpg").read_bytes()
    assert b"THIS WAS" not in target.read_bytes()


@both_engines
def test_a_picture_without_tags_gets_none(tmp_path: Path, engine: Any) -> None:
    Image.fromarray(make.photo()).save(tmp_path / "in.png")
    with TagWriter(engine) as writer:
        target, lines = carry(writer, tmp_path / "in.png")
    assert lines == []
    assert not Image.open(target).getexif()


@needs_exiftool
@pytest.mark.parametrize(
    "name",
    [
        *("a b.jpg", " a.jpg ", "-a.jpg", "-execute", "@a.jpg", "new\nline.jpg", "cr\r.jpg", "ünï.jpg"),
        *("100%d %f.jpg", "#[CSTR]\\n.jpg", "$(touch x) `touch x`;&'\".jpg", "touch x|", "夜" * 83 + ".jpg"),
    ],
)
def test_files_with_odd_names(tmp_path: Path, by_exiftool: TagWriter, name: str) -> None:
    source = camera_file(tmp_path / "plain.jpg").rename(tmp_path / name)
    (tmp_path / "out folder%d").mkdir()
    target, lines = carry(by_exiftool, source, "tiff", tmp_path / "out folder%d" / name)
    assert lines == []
    assert Image.open(target).getexif()[ExifTags.Base.Model] == "Nocturne 1"
    assert [path.name for path in target.parent.iterdir()] == [name]
    assert not Path("x").exists()


@needs_exiftool
@pytest.mark.skipif(sys.platform != "linux", reason="only here are names any bytes")
def test_names_that_are_not_utf8(tmp_path: Path, by_exiftool: TagWriter) -> None:
    source = camera_file(tmp_path / "plain.jpg").rename(tmp_path / os.fsdecode(b"\xff\xfe.jpg"))
    target, lines = carry(by_exiftool, source, "tiff", tmp_path / os.fsdecode(b"out\xff.tif"))
    assert lines == []
    assert Image.open(target).getexif()[ExifTags.Base.Model] == "Nocturne 1"


@needs_exiftool
def test_every_thread_that_writes_has_its_own_process(tmp_path: Path) -> None:
    sources, others, counts = [], running_exiftools(), set()
    for i in range(8):
        exif = Image.Exif()
        exif[ExifTags.Base.Model] = f"Camera {i}"
        Image.fromarray(make.photo()).save(tmp_path / f"in{i}.jpg", exif=exif)
        sources.append(tmp_path / f"in{i}.jpg")
    together = threading.Barrier(3)

    def work(mine: list[Path]) -> None:
        for source in mine:
            together.wait()
            carry(writer, source, "tiff", source.with_name(f"out-{source.name}"))

    with TagWriter("exiftool") as writer:
        assert len(running_exiftools() - others) == 1  # the others are started when they are needed
        threads = [threading.Thread(target=work, args=(sources[i::3][:2],)) for i in range(3)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            counts.add(len(running_exiftools() - others))
            time.sleep(0.01)
        assert max(counts) in (2, 3)
    models = [Image.open(s.with_name(f"out-{s.name}")).getexif()[ExifTags.Base.Model] for s in sources[:6]]
    assert models == [f"Camera {i}" for i in range(6)]
    assert running_exiftools() == others


@needs_exiftool
def test_a_process_outlives_the_thread_that_needed_it_first() -> None:
    pool, first = ExifToolPool(seconds=20), []

    def work() -> None:
        with pool.process() as tool:
            first.append(tool)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    time.sleep(0.3)  # a thread ends a little after it has been joined
    with pool.process() as tool:
        assert tool is first[0]
        assert tool.execute("-ver").strip() == tool.version
    pool.close()


@needs_exiftool
@pytest.mark.parametrize("fate", [signal.SIGKILL, signal.SIGSTOP])
def test_an_exiftool_that_dies_or_hangs_is_replaced(tmp_path: Path, fate: signal.Signals) -> None:
    source, others = camera_file(tmp_path / "in.jpg"), running_exiftools()
    with TagWriter("exiftool", seconds=3) as writer:
        (old,) = running_exiftools() - others
        os.kill(old, fate)
        target, lines = carry(writer, source, "tiff")
        assert lines == []
        (new,) = running_exiftools() - others
        assert new != old
        assert Image.open(target).getexif()[ExifTags.Base.Model] == "Nocturne 1"


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
            carry(writer, source, "tiff")
        assert "\n" not in str(caught.value)


def test_without_exiftool_one_line_says_what_is_lost(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with TagWriter() as writer:
        assert writer.engine == "pillow"
        assert writer.notice is not None
        assert "\n" not in writer.notice
        assert all(word in writer.notice for word in ("exiftool is not installed", "XMP", "IPTC", "without root"))
        target, _ = carry(writer, camera_file(tmp_path / "in.jpg"), "png")
    assert Image.open(target).getexif()[ExifTags.Base.Model] == "Nocturne 1"
    with pytest.raises(UsageError, match="not installed"):
        TagWriter("exiftool")


@needs_exiftool
def test_with_exiftool_its_version_is_named_and_the_process_ends_with_the_writer() -> None:
    others = running_exiftools()
    with TagWriter() as writer:
        assert writer.engine.startswith("exiftool 1")
        assert writer.notice is None
        assert len(running_exiftools() - others) == 1
    assert running_exiftools() == others


@needs_exiftool
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_exif_does_not_fail_the_picture(tmp_path: Path, by_exiftool: TagWriter) -> None:
    camera_file(tmp_path / "in.jpg")
    data = (tmp_path / "in.jpg").read_bytes()
    at = data.index(b"Exif\0\0") + 6
    (tmp_path / "in.jpg").write_bytes(data[: at + 8] + b"\xff\xff" + data[at + 10 :])  # 65535 entries
    target, _ = carry(by_exiftool, tmp_path / "in.jpg")
    assert read_picture(target).width in (24, 40)


@both_engines
def test_bmp_says_that_it_holds_no_tags(tmp_path: Path, engine: Any) -> None:
    with TagWriter(engine) as writer:
        _, lines = carry(writer, camera_file(tmp_path / "in.jpg"), "bmp")
    assert lines == ["BMP holds no tags"]


@needs_exiftool
def test_png_texts_and_resolution_stay(tmp_path: Path, by_exiftool: TagWriter) -> None:
    info = PngInfo()
    info.add_text("Author", "Somebody")
    Image.fromarray(make.photo()).save(tmp_path / "in.png", pnginfo=info, dpi=(300, 300))
    target, _ = carry(by_exiftool, tmp_path / "in.png")
    with Image.open(target) as result:
        result.load()
        assert result.info["Author"] == "Somebody"
        assert result.info["dpi"] == pytest.approx((300, 300), abs=0.1)


def test_pictures_without_a_place_for_tags_are_recognized(tmp_path: Path) -> None:
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
    for name in ("camera.jpg", "exif.png", "exif.webp", "comment.jpg", "dpi.jpg", "dpi.png", "any.tif"):
        assert may_hold_tags(tmp_path / name), name


@needs_exiftool
@pytest.mark.skipif(sys.platform != "linux", reason="only here does a child learn of its parent's death")
def test_exiftool_does_not_outlive_a_killed_run(tmp_path: Path) -> None:
    code = (
        "import time; from tests.imaging.tags.tagged import TagWriter, running_exiftools\n"
        "writer = TagWriter('exiftool'); print(*running_exiftools(), flush=True); time.sleep(60)\n"
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
