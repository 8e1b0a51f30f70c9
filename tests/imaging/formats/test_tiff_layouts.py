"""TIFF as it is found: depths, kinds of numbers, compressions, planes, tiles, inks, pages."""

from __future__ import annotations

import io
import shutil
import subprocess
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from lumen_cli.errors import PictureError
from lumen_cli.imaging.formats.format import Raster, Storage
from lumen_cli.imaging.formats.tiff import TIFF
from lumen_cli.imaging.picture import read_picture, write_picture
from tests.imaging import make

COLOURS = {1: "minisblack", 2: "minisblack", 3: "rgb", 4: "rgb"}


def encode(values: np.ndarray, compression: str, cmyk: bool = False) -> bytes:
    bits = values.dtype.itemsize * 8
    return TIFF.encode(Raster(values, bits, cmyk=cmyk, storage=Storage(compression=compression)))


def read(path: Path) -> np.ndarray:
    """The values as the decoder hands them on."""
    return TIFF.decode(io.BytesIO(path.read_bytes()), 0).values


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_floating_point_is_read_as_it_is(tmp_path: Path, channels: int, kind: type, byteorder: str) -> None:
    values = np.random.default_rng(0).uniform(0, 1, (20, 31, channels)).astype(kind)
    tifffile.imwrite(
        tmp_path / "a.tif",
        values[:, :, 0] if channels == 1 else values,
        photometric=COLOURS[channels],
        extrasamples=["unassalpha"] if channels in (2, 4) else None,
        planarconfig="contig" if channels > 1 else None,
        byteorder=byteorder,
    )
    assert np.array_equal(read(tmp_path / "a.tif"), values.astype(np.float32))
    picture = read_picture(tmp_path / "a.tif")
    assert (picture.bit_depth, picture.grey, picture.alpha is not None) == (32, channels <= 2, channels in (2, 4))
    assert bool(picture.notices) == (kind is not np.float32)  # floats of other sizes become 32-bit ones


def test_floats_come_back_exactly_and_through_the_command_line_format(tmp_path: Path) -> None:
    values = np.random.default_rng(0).uniform(0, 1, (20, 31, 3)).astype(np.float32)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
    picture = read_picture(tmp_path / "a.tif")
    write_picture(picture, tmp_path / "b.tif", format="tiff")
    assert np.array_equal(tifffile.imread(tmp_path / "b.tif"), values)


def test_integers_of_32_bits_become_floats_and_say_so(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 1 << 32, (20, 31, 3), np.uint32)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
    picture = read_picture(tmp_path / "a.tif")
    assert np.abs(picture.pixels - values / (2**32 - 1)).max() < 1e-7
    assert picture.notices == ("its 32-bit integers became floating point",)


@pytest.mark.parametrize(("wrong", "expected"), [(np.nan, 0.0), (np.inf, 0.75), (-np.inf, 0.25), (1e300, 0.75)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_float_that_is_no_number_costs_its_pixel_not_the_picture(
    tmp_path: Path, wrong: float, expected: float, channels: int
) -> None:
    values = np.full((4, 4, channels), 0.5)
    values[0, 0], values[0, 1] = 0.25, 0.75
    values[2, 1, 0] = values[3, 3, 0] = wrong
    kind = np.float64 if wrong == 1e300 else np.float32
    options = {"photometric": "minisblack" if channels == 1 else "rgb", "extrasamples": [2] * (channels == 4)}
    tifffile.imwrite(tmp_path / "a.tif", values.squeeze().astype(kind), **options)
    picture = read_picture(tmp_path / "a.tif")
    assert picture.notices[-1] == "2 pixels held NaN or infinity, which became 0 or the outermost value"
    values[2, 1, 0] = values[3, 3, 0] = expected
    assert np.array_equal(picture.pixels, np.broadcast_to(values[:, :, :3], (4, 4, 3)).astype(np.float32))
    write_picture(picture, tmp_path / "b.tif", format="tiff")
    assert np.array_equal(tifffile.imread(tmp_path / "b.tif"), values.squeeze().astype(np.float32))


def test_a_picture_without_any_number_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.full((4, 4, 3), np.nan, np.float32), photometric="rgb")
    with pytest.raises(PictureError, match="no numbers"):
        read_picture(tmp_path / "a.tif")


@pytest.mark.parametrize("compression", ["none", "lzw", "deflate"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("alpha", [False, True])
def test_inks_are_read_as_they_are(tmp_path: Path, compression: str, kind: type, alpha: bool) -> None:
    values = np.random.default_rng(0).integers(0, np.iinfo(kind).max + 1, (20, 31, 4 + alpha)).astype(kind)
    (tmp_path / "a.tif").write_bytes(encode(values, compression, cmyk=True))
    decoded = TIFF.decode(io.BytesIO((tmp_path / "a.tif").read_bytes()), 0)
    assert decoded.cmyk
    assert np.array_equal(decoded.values, values)


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("tile", [None, (16, 32)])
@pytest.mark.parametrize("predictor", [False, True])
@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_strips_tiles_and_planes(
    tmp_path: Path, separate: bool, tile: tuple[int, int] | None, predictor: bool, kind: type
) -> None:
    if predictor and kind is np.float32:
        pytest.skip("tifffile does not write it without a further package")
    values = make.deep(37, 45).astype(kind)
    tifffile.imwrite(
        tmp_path / "a.tif",
        np.moveaxis(values, 2, 0) if separate else values,
        photometric="rgb",
        planarconfig="separate" if separate else "contig",
        tile=tile,
        rowsperstrip=None if tile else 7,
        compression="zlib",
        predictor=predictor,
    )
    assert np.array_equal(read(tmp_path / "a.tif"), values)


def test_deep_grey_with_alpha_in_lzw(tmp_path: Path) -> None:
    values = make.deep(channels=2)
    (tmp_path / "a.tif").write_bytes(encode(values, "lzw"))
    assert np.array_equal(read(tmp_path / "a.tif"), values)


def test_a_strip_that_unpacks_to_more_than_belongs_there_is_cut(tmp_path: Path) -> None:
    """A few kilobytes that would fill the memory, behind a header that speaks of a small picture."""
    values = make.deep()
    bomb = zlib.compress(values.tobytes() + bytes(64 << 20))
    tifffile.imwrite(
        tmp_path / "a.tif", iter([bomb]), shape=values.shape, dtype="uint16", photometric="rgb", compression="zlib"
    )
    tracemalloc.start()
    assert np.array_equal(read(tmp_path / "a.tif"), values)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 << 20


def test_pages_are_counted_without_previews_and_masks(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(make.photo(), photometric="rgb")
        file.write(make.photo(6, 10), photometric="rgb", subfiletype=1)
    assert read_picture(tmp_path / "a.tif").notices == ()
    with tifffile.TiffWriter(tmp_path / "b.tif") as file:
        file.write(make.deep(), photometric="rgb")
        file.write(make.photo(6, 10), photometric="rgb", subfiletype=1)
        file.write(make.deep(), photometric="rgb")
    assert read_picture(tmp_path / "b.tif").notices == ("only the first of 2 pages was read",)


def test_channels_beside_colours_and_alpha_are_announced(tmp_path: Path) -> None:
    values = make.deep(channels=6)
    tifffile.imwrite(
        tmp_path / "a.tif", values, photometric="rgb", extrasamples=["unassalpha", "unspecified", "unspecified"]
    )
    picture = read_picture(tmp_path / "a.tif")
    assert picture.notices == ("2 extra channels of the TIFF file left out",)
    assert picture.alpha is not None
    assert np.array_equal(np.rint(picture.alpha * 65535).astype(np.uint16), values[:, :, 3])


def test_what_lumen_does_not_read_is_named(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "s.tif", make.deep().astype(np.int16), photometric="rgb")
    with pytest.raises(PictureError, match="16-bit signed"):
        read_picture(tmp_path / "s.tif")
    tifffile.imwrite(tmp_path / "m.tif", make.deep(channels=20), photometric="minisblack", planarconfig="contig")
    with pytest.raises(PictureError, match="20 channels"):
        read_picture(tmp_path / "m.tif")


CONVERT = next((name for name in ("magick", "convert") if shutil.which(name)), None)


def imagemagick() -> bool:
    """Whether ImageMagick itself is there, not a program of the same name."""
    if CONVERT is None:
        return False
    said = subprocess.run([CONVERT, "-version"], capture_output=True, text=True, check=False).stdout
    return "ImageMagick" in said


@pytest.mark.skipif(not imagemagick(), reason="ImageMagick is not installed")
@pytest.mark.parametrize(
    ("options", "within"),
    [
        ("-compress RLE", 0.0),
        ("-compress LZW -endian MSB", 0.0),
        ("-compress LZW -interlace plane", 0.0),
        ("-compress LZW -define quantum:format=floating-point -depth 32", 1e-6),
        ("-compress Zip -define quantum:format=floating-point -depth 16", 3e-4),
        ("-compress Zip -depth 32", 1e-6),
        ("-compress LZW -colorspace CMYK", 2e-5),
    ],
)
def test_tiff_of_imagemagick(tmp_path: Path, options: str, within: float) -> None:
    assert CONVERT is not None
    make.png16(tmp_path / "a.png", make.deep())
    arguments = [CONVERT, str(tmp_path / "a.png"), *options.split(), str(tmp_path / "a.tif")]
    subprocess.run(arguments, check=True, capture_output=True)
    before, after = read_picture(tmp_path / "a.png"), read_picture(tmp_path / "a.tif")
    assert np.abs(after.pixels - before.pixels).max() <= within


@pytest.mark.skipif(shutil.which("vips") is None, reason="vips (libvips-tools) is not installed")
@pytest.mark.parametrize(
    "options",
    [
        "none --tile",
        "lzw --predictor horizontal",
        "deflate --tile --predictor horizontal",
        "packbits",
        "zstd --bigtiff",
    ],
)
def test_tiff_of_libvips(tmp_path: Path, options: str) -> None:
    make.png16(tmp_path / "a.png", make.deep(70, 90))
    source, target = str(tmp_path / "a.png"), str(tmp_path / "a.tif")
    arguments = ["vips", "tiffsave", source, target, "--compression", *options.split()]
    subprocess.run(arguments, check=True, capture_output=True)
    assert np.array_equal(read(tmp_path / "a.tif"), make.deep(70, 90))


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_few_bits(tmp_path: Path, bits: int) -> None:
    image = Image.fromarray(make.photo(channels=1)[:, :, 0])
    if bits == 1:
        image = image.convert("1")
    if bits == 4:
        image = image.quantize(16)
    image.save(tmp_path / "a.tif")
    expected = np.asarray(image.convert("RGB"))
    assert np.array_equal(np.rint(read_picture(tmp_path / "a.tif").pixels * 255).astype(np.uint8), expected)


@pytest.mark.parametrize("big", [False, True], ids=["TIFF", "BigTIFF"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite", "rgb"])
def test_headers_of_all_kinds(tmp_path: Path, photometric: str, order: str, big: bool) -> None:
    pixels = make.photo(channels=3 if photometric == "rgb" else 1).squeeze()
    options = {"compression": "zlib", "predictor": True}
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric=photometric, byteorder=order, bigtiff=big, **options)
    expected = 255 - pixels if photometric == "miniswhite" else pixels
    found = np.rint(read_picture(tmp_path / "a.tif").pixels * 255).astype(np.uint8)
    assert np.array_equal(found, expected if expected.ndim == 3 else np.dstack([expected] * 3))
