"""Raw EXIF blocks and file names, whatever is in them: corrected, stamped or refused."""

from __future__ import annotations

import io
import os
import struct
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from lumen_cli.compare.rows import essentials
from lumen_cli.imaging.picture import read_picture, write_picture
from lumen_cli.imaging.tags import TagWriter
from lumen_cli.imaging.tags.arguments import whole_blocks
from lumen_cli.imaging.tags.containers import find_unsupported, may_hold_tags
from lumen_cli.imaging.tags.exif import (
    correct,
    has_thumbnail,
    join_software,
    put_thumbnail,
    read_software,
    write_software,
)
from lumen_cli.imaging.tags.splice import make_thumbnail
from lumen_cli.imaging.tags.xmp import update_xmp
from tests.imaging import make
from tests.imaging.tags.tagged import MAKER_NOTE, STAMP, both_engines, camera_file, needs_exiftool

quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
texts = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=80).filter(str.strip)


def block(order: str, small: bool = True) -> bytes:
    """A camera's raw EXIF with a folder of its own and a thumbnail."""
    exif = Image.Exif()
    exif.endian = order
    exif[0x010F], exif[0x0112], exif[0x000B] = "Lumen", 6, "digiKam"
    exif.get_ifd(0x8769).update({0xA002: 6000, 0xA003: 4000, 0x927C: b"maker note" * 5, 0x8827: 6400})
    exif.get_ifd(0x8825).update({1: "N", 2: (47.0, 22.0, 5.5)})
    raw = exif.tobytes().removeprefix(b"Exif\0\0")
    return put_thumbnail(raw, b"\xff\xd8dark\xff\xd9") if small else raw


@st.composite
def damaged_blocks(draw: st.DrawFn) -> bytes:
    data = bytearray(block(draw(st.sampled_from("<>"))))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(data) - 1))
        data[at : at + draw(st.integers(1, 4))] = draw(st.binary(max_size=4))
        assume(data)
    return bytes(data[: draw(st.integers(1, len(data)))]) if draw(st.booleans()) else bytes(data)


@quick
@given(damaged_blocks() | st.binary(max_size=200), texts)
def test_a_damaged_block_is_corrected_stamped_or_refused(data: bytes, stamp: str) -> None:
    true = correct(data, 40, 24)
    assert true is None or len(true) == len(data)
    for change in (lambda: write_software(data, stamp), lambda: put_thumbnail(data, b"\xff\xd8\xff\xd9")):
        try:
            assert len(change()) > len(data)
        except ValueError as error:
            assert "damaged" in str(error)  # noqa: PT017
    read_software(data)
    has_thumbnail(data)
    assert all(isinstance(value, str) for _, value in essentials(data))


@quick
@given(st.sampled_from("<>"), texts, texts, st.integers(1, 70000), st.integers(1, 70000))
def test_a_block_gives_back_what_is_written_into_it(order: str, one: str, two: str, width: int, height: int) -> None:
    raw = block(order)
    true = correct(raw, width, height)
    assert true is not None
    assert b"dark" not in true
    assert not has_thumbnail(true)
    result = put_thumbnail(write_software(write_software(true, one), two), b"\xff\xd8new\xff\xd9")
    assert read_software(result) == two
    exif = Image.Exif()
    exif.load(result)
    assert (exif[0x010F], exif[0x0112]) == ("Lumen", 1)
    inner = exif.get_ifd(0x8769)
    assert (inner[0xA002], inner[0xA003], inner[0x927C]) == (width, height, b"maker note" * 5)
    assert exif.get_ifd(0x8825)[2] == (47.0, 22.0, 5.5)
    assert has_thumbnail(result)
    start, length = (exif.get_ifd(ExifTags.IFD.IFD1)[tag] for tag in (0x0201, 0x0202))
    assert result[start : start + length] == b"\xff\xd8new\xff\xd9"


@pytest.mark.parametrize("order", "<>")
def test_stamping_a_block_moves_no_other_value(order: str) -> None:
    exif = Image.Exif()
    exif.endian = order
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


@quick
@given(texts | st.none(), texts)
def test_a_stamp_is_appended_once(earlier: str | None, stamp: str) -> None:
    once = join_software(earlier, stamp)
    assert join_software(once, stamp) == once
    assert once.endswith(" ".join(stamp.split()))
    assert once.startswith(" ".join((earlier or "").split()))


@needs_exiftool
@pytest.mark.skipif(sys.platform != "linux", reason="only here are names any bytes")
def test_exiftool_takes_every_name(tmp_path: Path) -> None:
    source, expected = camera_file(tmp_path / "plain.jpg"), "Nocturne 1"
    picture = read_picture(source)
    pieces = st.sampled_from(
        [b"a", b" ", b"-", b"%d", b"%f", b"\n", b"\r", b"\\", b"|", b"$", b"#[CSTR]", b"\xff", b"\x01"]
    )
    names = st.lists(pieces | st.binary(min_size=1, max_size=3), min_size=1, max_size=8).map(b"".join)

    with TagWriter("exiftool") as writer:

        @settings(max_examples=30, deadline=None)
        @given(names.filter(lambda name: not {0, 47} & {*name} and name not in (b".", b"..", b"plain.jpg")))
        def carries(name: bytes) -> None:
            given_name = tmp_path / os.fsdecode(name)
            folder = tmp_path / "out"
            folder.mkdir(exist_ok=True)
            target = folder / given_name.name
            source.rename(given_name)
            try:
                write_picture(picture, target, format="tiff")  # exiftool copies to another format only
                assert writer.copy(given_name, target, picture) == []
                assert Image.open(io.BytesIO(target.read_bytes())).getexif()[0x0110] == expected
                assert [path.name for path in folder.iterdir()] == [target.name]
            finally:
                given_name.rename(source)
                target.unlink()

        carries()


@quick
@given(damaged_blocks(), st.binary(max_size=60), st.sampled_from(["jpeg", "webp", "tiff"]))
def test_damaged_tags_are_searched_without_an_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, rest: bytes, format: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "looked"
    picture = read_picture(_plain(tmp_path_factory))
    exif = b"\xff\xe1" + struct.pack(">H", len(data) + 8) + b"Exif\0\0" + data
    for content in (
        b"\xff\xd8" + exif + rest,
        b"\x89PNG\r\n\x1a\n" + rest + data,
        b"RIFF\0\0\0\0WEBP" + rest + data,
        data + rest,
        rest,
    ):
        path.write_bytes(content)
        assert may_hold_tags(path) in (True, False)
        whole_blocks(path, picture, format)
        find_unsupported(path, format)
    update_xmp(rest + b'tiff:Orientation="6"' + data, picture.width, picture.height)


@both_engines
def test_damaged_tags_never_fail_a_picture(tmp_path: Path, engine: str) -> None:
    """A good picture whose EXIF and XMP were hit in 40 ways: pixels through, warnings of one line."""
    import numpy as np

    camera_file(tmp_path / "camera.jpg")
    Image.open(tmp_path / "camera.jpg").save(
        tmp_path / "in.jpg", exif=b"Exif\0\0" + block("<"), xmp=b"<x:xmpmeta xmlns:x='adobe:ns:meta/'></x:xmpmeta>"
    )
    data, end = (tmp_path / "in.jpg").read_bytes(), 700
    with TagWriter(engine) as writer:  # type: ignore[arg-type]
        for case in range(40):
            random = np.random.default_rng(case)
            hit = bytearray(data)
            for _ in range(int(random.integers(1, 20))):
                hit[int(random.integers(24, end))] = int(random.integers(256))
            source, target = tmp_path / f"{case}.jpg", tmp_path / "out.jpg"
            source.write_bytes(hit)
            try:
                picture = read_picture(source)
            except Exception:  # some hits are between the blocks; the fuzz test looks at those
                continue
            write_picture(picture, target, format="jpeg")
            assert all("\n" not in line for line in writer.copy(source, target, picture))
            assert read_picture(target).width in (24, 40)


def _plain(factory: pytest.TempPathFactory) -> Path:
    path = factory.getbasetemp() / "plain.png"
    if not path.exists():
        Image.fromarray(make.photo()).save(path)
    return path


def test_a_thumbnail_is_small_upright_and_the_same_each_time(tmp_path: Path) -> None:
    for height, width in ((3000, 40), (40, 3000), (1500, 1000), (24, 40)):
        Image.fromarray(make.photo(height, width)).save(tmp_path / "a.png")
        picture = read_picture(tmp_path / "a.png")
        small = Image.open(io.BytesIO(make_thumbnail(picture)))
        assert max(small.size) <= 160
        assert min(small.size) <= 120
        assert (small.width > small.height) == (width > height)
        assert make_thumbnail(picture) == make_thumbnail(picture)
