"""What a file holds beside the picture that is read, and what is left out of it: one line each."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from lumen_cli.imaging.extent import pack_png_chunk
from lumen_cli.imaging.picture import read_picture
from lumen_cli.imaging.tags.containers import XMP, pack_segment
from tests.imaging import make
from tests.imaging.tags.tagged import jpeg, small_jpeg

VIDEO = b"\0\0\0\x18ftypmp42\0\0\0\0isommp42" + bytes(4000)


def _gain_map() -> bytes:
    data = small_jpeg()
    packet = b'<rdf:Description xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0"/>'
    return data[:2] + pack_segment(0xE1, XMP + packet) + data[2:]


@pytest.mark.parametrize(
    ("behind", "words"),
    [
        (_gain_map(), ["gain map"]),
        (VIDEO, ["video (motion photo)"]),
        (_gain_map() + VIDEO, ["gain map", "video (motion photo)"]),
        (b"\0\0\x30\x0a\x10\0\0\0MotionPhoto_Data" + VIDEO + b"SEFH\0\0\0\0SEFT", ["video", "Samsung's trailer"]),
        (small_jpeg(), ["1 further picture behind it"]),
        (b"a letter", ["8 bytes behind its end"]),
        (bytes(100_000), []),
        (b"\xff\xd9\r\n", []),
    ],
)
def test_what_lies_behind_a_jpeg_is_reported(tmp_path: Path, behind: bytes, words: list[str]) -> None:
    notices = read_picture(jpeg(tmp_path / "in.jpg", behind=behind)).notices
    assert len(notices) == len(words)
    assert all(word in notice for word, notice in zip(words, notices, strict=True))


def test_what_lies_behind_a_hole_is_found(tmp_path: Path) -> None:
    path = jpeg(tmp_path / "in.jpg")
    with path.open("r+b") as file:
        file.truncate(200 << 20)
    assert read_picture(path).notices == ()
    with path.open("r+b") as file:
        file.seek(0, 2)
        file.write(b"cbipcbbl")
    assert read_picture(path).notices == ("left out: Photo Mechanic's trailer",)


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_what_lies_behind_other_pictures_is_reported(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"in{suffix}"
    Image.fromarray(make.photo()).save(path)
    path.write_bytes(path.read_bytes() + b"a letter")
    assert read_picture(path).notices == ("left out: 8 bytes behind its end",)


def test_an_incomplete_profile_is_reported(tmp_path: Path) -> None:
    profile = make.srgb_profile()
    line = ("its colour profile is incomplete and was left out",)
    half = pack_segment(0xE2, b"ICC_PROFILE\0\1\2" + profile[: len(profile) // 2])
    assert read_picture(jpeg(tmp_path / "a.jpg", half)).notices == line
    chunk = pack_png_chunk(b"iCCP", b"name\0\0" + zlib.compress(profile)[:-20])
    Image.fromarray(make.photo()).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[:33] + chunk + data[33:])
    assert read_picture(tmp_path / "a.png").notices == line
    make.png16(tmp_path / "b.png", make.deep(), (b"iCCP", b"name\0\0" + zlib.compress(profile)[:-20]))
    assert read_picture(tmp_path / "b.png").notices == line


def test_a_profile_in_a_bmp_is_reported(tmp_path: Path) -> None:
    Image.fromarray(make.photo()).save(tmp_path / "a.bmp")
    data = (tmp_path / "a.bmp").read_bytes()
    head = bytearray(data[14:54].ljust(124, b"\0"))
    head[:4], head[56:60] = struct.pack("<I", 124), b"DEBM"
    moved = data[:10] + struct.pack("<I", 138) + bytes(head) + data[54:]
    (tmp_path / "b.bmp").write_bytes(moved + make.srgb_profile())
    assert read_picture(tmp_path / "a.bmp").notices == ()
    assert read_picture(tmp_path / "b.bmp").notices == ("its colour profile was left out",)
