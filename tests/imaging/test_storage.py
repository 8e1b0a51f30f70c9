"""`--format keep`: a copy is stored the way its original was."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, JpegImagePlugin

from lumen_cli.imaging.formats.format import ColourLabel, Raster, Storage
from lumen_cli.imaging.formats.png import read_head
from lumen_cli.imaging.formats.tiff import TIFF
from lumen_cli.imaging.picture import find_changes, read_picture, write_picture
from tests.imaging import make


def rewritten(source: Path, quality: int | None = None) -> Path:
    """The file read and written in its own format."""
    picture = read_picture(source)
    target = source.with_name(f"again{source.suffix}")
    write_picture(picture, target, format=picture.format, quality=quality)
    return target


def jpeg(path: Path, values: np.ndarray | None = None, **options: Any) -> Path:
    Image.fromarray(make.photo(64, 96) if values is None else values).save(path, **options)
    return path


def steps(image: JpegImagePlugin.JpegImageFile) -> list[list[int]]:
    """The quantisation of each component."""
    return [list(image.quantization[part[3]]) for part in image.layer]


@pytest.mark.parametrize("quality", [30, 75, 90, 97, 100])
@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_a_jpeg_keeps_its_quality_and_sampling(tmp_path: Path, quality: int, sampling: str) -> None:
    source = jpeg(tmp_path / "a.jpg", quality=quality, subsampling=sampling)
    with Image.open(source) as before, Image.open(rewritten(source)) as after:
        assert isinstance(before, JpegImagePlugin.JpegImageFile)
        assert isinstance(after, JpegImagePlugin.JpegImageFile)
        assert steps(after) == steps(before)
        assert JpegImagePlugin.get_sampling(after) == JpegImagePlugin.get_sampling(before)
        assert not after.info.get("progressive")
    ratio = rewritten(source).stat().st_size / source.stat().st_size
    assert abs(ratio - 1) < (0.1 if quality < 100 else 0.25)  # the finest steps store rounding too


def test_tables_of_a_camera_of_its_own_are_kept(tmp_path: Path) -> None:
    tables = [[3 + i // 7 for i in range(64)], [2 + i // 5 for i in range(64)]]
    source = jpeg(tmp_path / "a.jpg", qtables=tables)
    with Image.open(rewritten(source)) as after:
        assert [list(table) for table in after.quantization.values()] == tables


def test_unchanged_pixels_survive_many_generations(tmp_path: Path) -> None:
    first = jpeg(tmp_path / "a.jpg", quality=85)
    latest = first
    for generation in range(5):
        target = tmp_path / f"{generation}.jpg"
        target.write_bytes(rewritten(latest).read_bytes())
        latest = target
    assert np.abs(np.asarray(Image.open(latest)).astype(int) - np.asarray(Image.open(first))).max() <= 2


@pytest.mark.parametrize("sampling", ["4:2:2", "4:2:0"])
def test_colours_do_not_blur_from_generation_to_generation(tmp_path: Path, sampling: str) -> None:
    """Averaging what a decoder interpolated takes something off every colour edge; plain re-encoding shows how much."""
    coarse = np.random.default_rng(2).integers(90, 166, (17, 23, 3)).astype(np.uint8)
    values = coarse.repeat(4, axis=0).repeat(4, axis=1)[:67, :91]
    first = latest = jpeg(tmp_path / "a.jpg", values, quality=95, subsampling=sampling)
    plain = Image.open(first)
    for generation in range(4):
        target = tmp_path / f"{generation}.jpg"
        target.write_bytes(rewritten(latest).read_bytes())
        plain.convert("RGB").save(tmp_path / f"p{generation}.jpg", quality=95, subsampling=sampling)
        latest, plain = target, Image.open(tmp_path / f"p{generation}.jpg")
    start = np.asarray(Image.open(first)).astype(float)
    ours, theirs = (np.abs(np.asarray(image) - start).mean() for image in (Image.open(latest), plain))
    assert ours < 0.3
    assert ours < theirs / 4


def test_progressive_stays_progressive_and_grey_grey(tmp_path: Path) -> None:
    source = jpeg(tmp_path / "a.jpg", quality=90, progressive=True)
    assert Image.open(rewritten(source)).info["progressive"]
    grey = jpeg(tmp_path / "g.jpg", make.photo(64, 96, channels=1)[:, :, 0], quality=80)
    with Image.open(grey) as before, Image.open(rewritten(grey)) as after:
        assert after.mode == "L"
        assert after.quantization == before.quantization


def test_a_jpeg_of_red_green_and_blue_stays_one(tmp_path: Path) -> None:
    source = jpeg(tmp_path / "a.jpg", keep_rgb=True)
    after = Image.open(rewritten(source))
    assert [part[0] for part in after.layer] == [ord(name) for name in "RGB"]
    assert np.abs(np.asarray(after).astype(int) - np.asarray(Image.open(source))).max() <= 1


def with_segments(path: Path, jfif: bool, transform: int | None, names: bytes = b"\1\2\3") -> Path:
    """A JPEG whose segments are taken away, with these in their place: its data stay what they were."""
    data = path.read_bytes()
    frame = re.search(rb"\xff[\xc0-\xc2]\0\x11", data)
    assert frame is not None
    start, body = frame.start(), bytearray(data)
    scan = data.index(b"\xff\xda\0\x0c", start)
    for index in range(3):
        body[start + 10 + 3 * index] = body[scan + 5 + 2 * index] = names[index]
    first = data.index(b"\xff\xdb")
    head = b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0" if jfif else b""
    adobe = b"" if transform is None else b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + bytes([transform])
    path.write_bytes(b"\xff\xd8" + head + adobe + bytes(body[first:]))
    return path


@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize(
    ("jfif", "transform", "names", "rgb"),
    [
        (True, 0, b"\1\2\3", False),  # JFIF wins over Adobe
        (True, None, b"RGB", False),
        (True, 1, b"\1\2\3", False),
        (False, 0, b"\1\2\3", True),
        (False, 1, b"RGB", False),  # Adobe wins over names
        (False, None, b"RGB", True),
        (False, None, b"\1\2\3", False),
    ],
)
def test_the_colours_of_a_jpeg_are_what_decoders_take_them_for(
    tmp_path: Path, sampling: str, jfif: bool, transform: int | None, names: bytes, rgb: bool
) -> None:
    source = with_segments(jpeg(tmp_path / "a.jpg", subsampling=sampling, quality=92), jfif, transform, names)
    before = np.asarray(Image.open(source)).astype(int)
    picture = read_picture(source)
    with Image.open(rewritten(source)) as after:
        assert isinstance(after, JpegImagePlugin.JpegImageFile)
        assert ([part[0] for part in after.layer] == list(b"RGB")) == rgb
        assert JpegImagePlugin.get_sampling(after) == (0 if rgb else ["4:4:4", "4:2:2", "4:2:0"].index(sampling))
        assert np.abs(np.asarray(after).astype(int) - before).mean() < 1.0
    announced = ["its red, green and blue of different resolution were all written in full (4:4:4)"]
    assert find_changes(picture, "jpeg") == (announced if rgb and sampling != "4:4:4" else [])
    assert find_changes(picture, "png") == []


def test_quality_overrides_and_the_sampling_stays(tmp_path: Path) -> None:
    source = jpeg(tmp_path / "a.jpg", quality=95, subsampling="4:2:0")
    with Image.open(rewritten(source, quality=40)) as after:
        standard = jpeg(tmp_path / "b.jpg", quality=40)
        assert after.quantization == Image.open(standard).quantization
        assert JpegImagePlugin.get_sampling(after) == 2


@pytest.mark.parametrize("unit", [0, 1, 2])
def test_the_density_of_a_jpeg_is_kept(tmp_path: Path, unit: int) -> None:
    source = jpeg(tmp_path / "a.jpg", dpi=(300, 200))
    data = source.read_bytes()
    source.write_bytes(data[:13] + bytes([unit]) + data[14:])
    after = Image.open(rewritten(source))
    assert (after.info["jfif_unit"], after.info["jfif_density"]) == (unit, (300, 200))


def test_chunks_of_a_png_are_kept(tmp_path: Path) -> None:
    chunks = (
        (b"sRGB", b"\0"),
        (b"gAMA", struct.pack(">I", 45455)),
        (b"pHYs", struct.pack(">IIB", 11811, 11811, 1)),
    )
    source = make.png16(tmp_path / "a.png", make.deep(), *chunks)
    after = read_head(rewritten(source).read_bytes()).before_pixels
    assert {name: after.get(name) for name, _ in chunks} == dict(chunks)


def test_webp_without_loss_stays_without_loss(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (24, 40, 4)).astype(np.uint8)
    values[:8, :, 3] = 0  # colours under full transparency count too
    Image.fromarray(values).save(tmp_path / "a.webp", lossless=True, exact=True)
    again = rewritten(tmp_path / "a.webp")
    assert b"VP8L" in again.read_bytes()[:64]
    assert np.array_equal(np.asarray(Image.open(again)), values)
    Image.fromarray(make.photo()).save(tmp_path / "b.webp", quality=80)
    assert b"VP8L" not in rewritten(tmp_path / "b.webp").read_bytes()[:64]
    assert b"VP8L" not in rewritten(tmp_path / "a.webp", quality=80).read_bytes()[:64]


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("compression", ["none", "lzw", "deflate"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_tiff_keeps_its_compression(tmp_path: Path, compression: str, kind: str, channels: int) -> None:
    icc = make.srgb_profile()
    values = make.deep(300, 700, 4)[:, :, :channels]  # more than one strip
    values = {"uint8": (values >> 8).astype(np.uint8), "float32": (values / 65535).astype(np.float32)}.get(kind, values)
    source = tmp_path / "a.tif"
    storage = Storage(compression=compression)
    source.write_bytes(TIFF.encode(Raster(values, values.dtype.itemsize * 8, ColourLabel(icc), storage=storage)))
    again = rewritten(source)
    with tifffile.TiffFile(again) as file:
        page = file.pages.first
        assert int(page.compression) == {"none": 1, "lzw": 5, "deflate": 8}[compression]
        assert page.dtype == kind
        assert bytes(page.tags[34675].value) == icc
    assert read_picture(again).digest() == read_picture(source).digest()
    if kind == "uint8":
        assert np.array_equal(np.asarray(Image.open(again)), values if channels > 1 else values[:, :, 0])


def test_lzw_of_another_program_is_read_and_kept(tmp_path: Path) -> None:
    import cv2

    values = make.deep(200, 400)
    cv2.imwrite(str(tmp_path / "a.tif"), values[:, :, ::-1], [cv2.IMWRITE_TIFF_COMPRESSION, 5])
    again = rewritten(tmp_path / "a.tif")
    with tifffile.TiffFile(again) as file:
        assert int(file.pages.first.compression) == 5
    assert np.array_equal(cv2.imread(str(again), cv2.IMREAD_UNCHANGED)[:, :, ::-1], values)


@pytest.mark.parametrize(
    ("compression", "name"),
    [("jpeg", "JPEG"), ("packbits", "PACKBITS"), ("tiff_lzw", None), ("tiff_adobe_deflate", None), ("raw", None)],
)
def test_a_tiff_compression_that_is_not_written_is_announced(
    tmp_path: Path, compression: str, name: str | None
) -> None:
    Image.fromarray(make.photo(64, 96)).save(tmp_path / "a.tif", compression=compression)
    picture = read_picture(tmp_path / "a.tif")
    assert find_changes(picture, "tiff") == ([] if name is None else [f"its {name} compression became Deflate"])
    with Image.open(rewritten(tmp_path / "a.tif")) as after:
        assert np.array_equal(np.asarray(after), np.asarray(Image.open(tmp_path / "a.tif")))
