"""Headers that announce more than a machine can hold are refused before anything is decoded, by every decoder."""

from __future__ import annotations

import importlib.util
import io
import struct
import tracemalloc
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, features

from lumen_cli.errors import PictureError
from lumen_cli.imaging.formats.format import in_megapixels
from lumen_cli.imaging.formats.jxl import read_head
from lumen_cli.imaging.formats.png import PngHead
from lumen_cli.imaging.picture import read_picture, write_picture
from tests.imaging import make
from tests.imaging.formats.test_containers import picture, require
from tests.imaging.formats.test_raw import dng, ramp

SMALL = 24 * 40


def refused(path: Path, max_pixels: int) -> str:
    with pytest.raises(PictureError) as caught:
        read_picture(path, max_pixels=max_pixels)
    assert "\n" not in caught.value.reason
    assert caught.value.remedy == "max_pixels"
    return caught.value.reason


@pytest.mark.parametrize(
    "kind", ["jpg", "png", "16.png", "webp", "tif", "16.tif", "f.tif", "bmp", "gif", "avif", "heic", "jxl", "dng"]
)
def test_the_limit_holds_for_every_decoder(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    pixels = SMALL
    if kind in ("avif", "heic", "jxl"):
        format = {"heic": "heif"}.get(kind, kind)
        require(format)
        write_picture(picture(make.photo(), format, None, False), path, format=format)
    elif kind == "dng":
        pytest.importorskip("rawpy")
        dng(path, ramp())
        pixels = 64 * 96
    elif kind == "16.png":
        make.png16(path, make.deep())
    elif kind == "16.tif":
        tifffile.imwrite(path, make.deep(), photometric="rgb")
    elif kind == "f.tif":
        tifffile.imwrite(path, make.deep().astype(np.float32) / 65535, photometric="rgb")
    else:
        Image.fromarray(make.photo()).save(path)
    reason = refused(path, pixels - 1)
    assert "megapixels" in reason
    assert read_picture(path, max_pixels=pixels).width in (40, 96)
    assert read_picture(path, max_pixels=0).width in (40, 96)


def giant_png(side: int, depth: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", side, side, depth, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")


def giant_jpeg(side: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(make.photo()).save(buffer, "JPEG")
    data = bytearray(buffer.getvalue())
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", side, side)
    return bytes(data)


def giant_gif(side: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(make.photo()).save(buffer, "GIF")
    data = bytearray(buffer.getvalue())
    data[6:10] = struct.pack("<HH", side, side)
    return bytes(data)


def giant_tiff(side: int, depth: int) -> bytes:
    buffer = io.BytesIO()
    values = make.photo() if depth == 8 else make.deep() if depth == 16 else make.deep().astype(np.float32)
    tifffile.imwrite(buffer, values, photometric="rgb")
    buffer.seek(0)
    with tifffile.TiffFile(buffer, mode="r+") as file:
        for tag in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            file.pages.first.tags[tag].overwrite(side)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.png", giant_png(100_000, 8)),
        ("b.png", giant_png(100_000, 16)),
        ("a.jpg", giant_jpeg(60_000)),
        ("a.gif", giant_gif(60_000)),
        ("a.tif", giant_tiff(100_000, 8)),
        ("b.tif", giant_tiff(100_000, 16)),
        ("c.tif", giant_tiff(100_000, 32)),
        ("a.bmp", b"BM" + struct.pack("<IHHIIiiHH", 1000, 0, 0, 54, 40, 60_000, 60_000, 1, 24) + bytes(900)),
    ],
)
def test_a_small_file_that_claims_a_giant_picture_costs_nothing(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    refused(tmp_path / name, 250_000_000)  # what has to be imported for it has been
    tracemalloc.start()
    assert "more than the limit of 250;" in refused(tmp_path / name, 250_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def test_nothing_is_decoded_by_opencv_before_the_size_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def decoded(*arguments: object) -> None:
        raise AssertionError("decoded although it is too large")

    make.png16(tmp_path / "a.png", make.deep())
    monkeypatch.setattr(cv2, "imdecode", decoded)
    assert "megapixels" in refused(tmp_path / "a.png", 100)
    if features.check("avif") and cv2.haveImageWriter(".avif"):
        write_picture(picture(make.deep(), "avif", 10, True), tmp_path / "a.avif", format="avif")
        assert "megapixels" in refused(tmp_path / "a.avif", 100)


def test_a_profile_that_unpacks_to_gigabytes_is_left_out() -> None:
    packed = b"name\0\0" + zlib.compress(bytes(64 << 20))
    assert PngHead(1, 1, 8, 2, {b"iCCP": packed}).icc is None
    assert PngHead(1, 1, 8, 2, {b"iCCP": b"name\0\0" + zlib.compress(b"profile")}).icc == b"profile"


@pytest.mark.skipif(importlib.util.find_spec("pyjpegxl") is None, reason="pyjpegxl is not installed")
@pytest.mark.parametrize("size", [(1, 1), (8, 16), (300, 400), (24, 24), (1000, 3), (2, 9000)])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_the_size_of_a_jpeg_xl_is_in_its_head(size: tuple[int, int], channels: int) -> None:
    import pyjpegxl

    values = np.zeros((*size, channels), np.uint16 if channels % 2 else np.uint8)
    head = read_head(io.BytesIO(pyjpegxl.encode_from_numpy(values, lossless=channels > 2)))
    assert (head.height, head.width, head.bits) == (*size, values.dtype.itemsize * 8)
    assert (head.alpha, head.extra, head.lossy) == (channels % 2 == 0, 1 - channels % 2, channels <= 2)


def test_megapixels_are_said_with_the_digits_that_matter() -> None:
    assert [in_megapixels(pixels) for pixels in (250_000_000, 12_345_678, 300_000, 960)] == [
        "250",
        "12",
        "0.3",
        "0.00096",
    ]
