"""What is written comes back: bits, alpha, grey, profile; and what cannot be written is one line."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lumen_cli.errors import PictureError, UsageError
from lumen_cli.imaging.colour.convert import luma, to_integers, to_unit
from lumen_cli.imaging.formats import find_format, png
from lumen_cli.imaging.formats.format import Raster
from lumen_cli.imaging.picture import Picture, find_losses, read_picture, write_picture
from tests.imaging import make


def picture_of(values: np.ndarray, icc: bytes | None = None) -> Picture:
    """A picture of H×W×C integers, as reading would give it."""
    values = values if values.ndim == 3 else values[:, :, None]
    channels = values.shape[2]
    colours = np.repeat(values[:, :, :1], 3, axis=2) if channels <= 2 else values[:, :, :3]
    alpha = to_unit(values[:, :, -1]) if channels in (2, 4) else None
    return Picture(to_unit(colours), alpha, values.dtype.itemsize * 8, channels <= 2, "png", icc, None)


@pytest.mark.parametrize("format", ["png", "tiff"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("depth", [8, 16])
def test_lossless_formats_give_back_every_bit(tmp_path: Path, format: str, channels: int, depth: int) -> None:
    values = make.deep(channels=channels) if depth == 16 else make.photo(channels=4)[:, :, :channels]
    picture = picture_of(values, icc=None)
    path = tmp_path / f"a{find_format(format).suffix}"
    write_picture(picture, path, format=format)
    again = read_picture(path)
    assert again.digest() == picture.digest()
    assert (again.bit_depth, again.grey, again.format) == (depth, channels <= 2, format)


def test_other_programs_read_the_same_values(tmp_path: Path) -> None:
    values = make.photo(channels=4)
    write_picture(picture_of(values), tmp_path / "a.png", format="png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), values)
    deep = make.deep(channels=4)
    write_picture(picture_of(deep), tmp_path / "a.tif", format="tiff")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        page = file.pages.first
        assert np.array_equal(page.asarray(), deep)
        assert page.extrasamples[0].name == "UNASSALPHA"
    write_picture(picture_of(deep), tmp_path / "deep.png", format="png")
    import cv2

    read = cv2.imread(str(tmp_path / "deep.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(read[:, :, [2, 1, 0, 3]], deep)


@pytest.mark.parametrize("format", ["jpeg", "png", "webp", "tiff"])
@pytest.mark.parametrize("depth", [8, 16])
def test_the_profile_is_embedded(tmp_path: Path, format: str, depth: int) -> None:
    icc = make.srgb_profile()
    picture = picture_of(make.deep() if depth == 16 else make.photo(), icc=icc)
    write_picture(picture, tmp_path / "a", format=format)
    assert Image.open(tmp_path / "a").info["icc_profile"] == icc
    assert read_picture(tmp_path / "a").icc == icc


@pytest.mark.parametrize("format", ["jpeg", "webp", "bmp"])
def test_sixteen_bits_are_rounded_not_cut(tmp_path: Path, format: str) -> None:
    values = np.full((32, 32, 3), 100 * 257 + 129, np.uint16)  # 100.5019… of 255
    write_picture(picture_of(values), tmp_path / "a", format=format, quality=100)
    read = np.asarray(Image.open(tmp_path / "a").convert("RGB"))
    assert np.abs(read.astype(int) - 101).max() <= (0 if format == "bmp" else 1)


def test_jpeg_is_stored_without_colour_subsampling_and_grey_stays_grey(tmp_path: Path) -> None:
    write_picture(picture_of(make.photo()), tmp_path / "a.jpg", format="jpeg")
    assert [layer[1:3] for layer in Image.open(tmp_path / "a.jpg").layer] == [(1, 1)] * 3
    write_picture(picture_of(make.photo(channels=1)), tmp_path / "g.jpg", format="jpeg")
    assert Image.open(tmp_path / "g.jpg").mode == "L"


def test_alpha_survives_webp_and_is_announced_lost_in_jpeg(tmp_path: Path) -> None:
    picture = picture_of(make.photo(channels=4))
    write_picture(picture, tmp_path / "a.webp", format="webp")
    alpha = read_picture(tmp_path / "a.webp").alpha
    assert alpha is not None
    assert picture.alpha is not None
    assert np.array_equal(alpha, picture.alpha)
    assert find_losses(picture, "jpeg") == ["alpha"]
    write_picture(picture, tmp_path / "a.jpg", format="jpeg")
    assert read_picture(tmp_path / "a.jpg").alpha is None


def test_losses_name_what_a_format_cannot_hold() -> None:
    deep = picture_of(make.deep(channels=4), icc=make.srgb_profile())
    assert find_losses(deep, "png") == find_losses(deep, "tiff") == []
    assert find_losses(deep, "webp") == ["16 bits"]
    assert find_losses(deep, "bmp") == ["16 bits", "colour profile"]
    assert find_losses(replace(picture_of(make.photo()), exif=b"MM\0*"), "bmp") == ["tags"]


def test_a_profile_for_grey_is_not_put_into_a_colour_file(tmp_path: Path) -> None:
    grey_profile = bytes(16) + b"GRAY" + bytes(200)
    picture = picture_of(make.photo(channels=1), icc=grey_profile)
    assert find_losses(picture, "webp") == ["colour profile"]
    write_picture(picture, tmp_path / "a.webp", format="webp")
    assert "icc_profile" not in Image.open(tmp_path / "a.webp").info


@pytest.mark.parametrize("format", ["jpeg", "png", "webp", "tiff", "bmp"])
def test_equal_pictures_give_equal_bytes(tmp_path: Path, format: str) -> None:
    for name in ("a", "b"):
        write_picture(picture_of(make.photo(channels=4), icc=make.srgb_profile()), tmp_path / name, format=format)
    # Made anew the profile would hold the time; within one second or not, the picture's bytes are compared.
    icc = make.srgb_profile()
    for name in ("a", "b"):
        write_picture(picture_of(make.photo(channels=4), icc=icc), tmp_path / name, format=format)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("format", ["jpeg", "png", "webp", "tiff", "bmp"])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 1), (700, 3)])
def test_smallest_and_thinnest_pictures(tmp_path: Path, format: str, size: tuple[int, int]) -> None:
    picture = picture_of(make.photo(*size))
    write_picture(picture, tmp_path / "a", format=format)
    again = read_picture(tmp_path / "a")
    assert (again.height, again.width) == size


def test_values_outside_the_range_are_clamped(tmp_path: Path) -> None:
    pixels = np.array([[[-1.0, 0.5, 7.0]]], np.float32)
    write_picture(Picture(pixels, None, 8, False, "png", None, None), tmp_path / "a.png", format="png")
    assert np.asarray(Image.open(tmp_path / "a.png"))[0, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_is_no_number_is_an_error_not_a_black_picture(tmp_path: Path, wrong: float) -> None:
    picture = picture_of(make.photo())
    picture.pixels[3, 4, 1] = wrong
    with pytest.raises(PictureError, match="NaN or infinity"):
        write_picture(picture, tmp_path / "a.png", format="png")
    assert not (tmp_path / "a.png").exists()


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="cannot be written"):
        write_picture(picture_of(make.photo()), tmp_path / "missing" / "a.png", format="png")


def test_more_pixels_than_a_format_takes(tmp_path: Path) -> None:
    wide = picture_of(np.zeros((1, 16384, 3), np.uint8))
    with pytest.raises(PictureError, match="at most 16383"):
        write_picture(wide, tmp_path / "a.webp", format="webp")


def test_formats_by_path_ending_and_name() -> None:
    assert [find_format(text).name for text in ("x/a.JPG", ".jpeg", "jpg", "tif", Path("b.TIFF"))] == ["jpeg"] * 3 + [
        "tiff"
    ] * 2
    assert find_format("tiff").suffix == ".tif"
    with pytest.raises(UsageError, match="xyz"):
        find_format("a.xyz")


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 4), st.sampled_from([np.uint8, np.uint16]), st.randoms())
@settings(max_examples=40, deadline=None)
def test_the_png_writer_loses_nothing(height: int, width: int, channels: int, kind: type, random: object) -> None:
    seed = random.randrange(1 << 30)  # type: ignore[attr-defined]
    values = np.random.default_rng(seed).integers(0, np.iinfo(kind).max + 1, (height, width, channels)).astype(kind)
    data = png.PNG.encode(Raster(values, values.dtype.itemsize * 8))
    head = png.read_head(data)  # every checksum fits
    assert (head.height, head.width, head.bit_depth) == (height, width, values.dtype.itemsize * 8)
    assert np.array_equal(png.PNG.decode(io.BytesIO(data), 0).values, values)


def test_integers_to_floats_and_back_is_the_identity() -> None:
    for kind in (np.uint8, np.uint16):
        everything = np.arange(np.iinfo(kind).max + 1).astype(kind).reshape(2, -1)
        values = to_unit(everything)
        assert values.dtype == np.float32
        assert (values.min(), values.max()) == (0.0, 1.0)
        assert np.array_equal(to_integers(values, everything.dtype.itemsize * 8), everything)


def test_luma_leaves_greys_as_they_are_and_weighs_green_most() -> None:
    grey = np.repeat(to_unit(make.photo(channels=1)), 3, axis=2)
    assert np.array_equal(luma(grey), grey[:, :, 0])
    red, green, blue = luma(np.eye(3, dtype=np.float32)[None])[0]
    assert green > red > blue
    assert red + green + blue == pytest.approx(1.0)
