"""Every format keeps what its value claims: how files are recognised and measured, and what they can hold."""

from __future__ import annotations

import importlib.util
import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, features

from lumen_cli.errors import PictureError, UsageError
from lumen_cli.imaging.formats import FORMATS, SUFFIXES, find_format, keep_suffix, load_format, recognise
from lumen_cli.imaging.formats.format import Format, UnreadableError
from lumen_cli.imaging.picture import Picture, find_losses, measure_picture, read_picture, write_picture
from tests.imaging import make
from tests.imaging.formats.test_raw import dng, ramp

WRITTEN = [name for name in FORMATS if load_format(name).encode is not None]
READ_ONLY = [name for name in FORMATS if name not in WRITTEN]


def usable(name: str) -> Format:
    """The format; the test is skipped where its libraries are not installed."""
    format = load_format(name)
    if format.package is not None and importlib.util.find_spec(format.package.module) is None:
        pytest.skip(f"{format.package.name} is not installed")
    if name == "avif" and not (features.check("avif") and cv2.haveImageWriter(".avif")):
        pytest.skip("these libraries have no AVIF")
    return format


def picture(format: Format, bits: int = 8, grey: bool = False, alpha: bool = False) -> Picture:
    """A ramp as a file of this format without loss would give it, where the format has the choice."""
    columns = np.linspace(0.1, 0.9, 96, dtype=np.float32)
    values = np.stack([np.tile(columns * share, (64, 1)) for share in ((1, 1, 1) if grey else (1, 0.8, 0.6))], axis=2)
    if bits != 32:
        values = np.rint(values * (2**bits - 1)).astype(np.float32) / np.float32(2**bits - 1)
    plane = np.tile(np.rint(columns * 255) / np.float32(255), (64, 1)) if alpha else None
    made = Picture(values, plane, bits if bits in (8, 32) else 16, grey, format.name, None, None)
    return replace(made, storage=replace(made.storage, lossless=True, bits=bits if bits in (10, 12) else None))


def write_sample(name: str, path: Path) -> Path:
    """A small file of the format."""
    format = usable(name)
    if name == "gif":
        Image.fromarray(make.photo(64, 96)).save(path, "GIF")
    elif name == "raw":
        dng(path, ramp())
    else:
        write_picture(picture(format), path, format=name)
    return path


def test_the_list_and_the_values_agree() -> None:
    assert [load_format(name).name for name in FORMATS] == list(FORMATS)
    assert [name for name, entry in FORMATS.items() if entry.kept_as] == READ_ONLY
    suffixes = [suffix for name in FORMATS for suffix in load_format(name).suffixes]
    assert len(suffixes) == len(set(suffixes)) == len(SUFFIXES)
    assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in suffixes)
    assert len({load_format(name).title for name in FORMATS}) == len(FORMATS)


def test_the_list_is_loaded_without_libraries() -> None:
    program = (
        "import sys; from lumen_cli.imaging.formats import SUFFIXES;"
        "print([name for name in sys.modules if name.split('.')[0] in ('numpy', 'PIL', 'cv2', 'tifffile', 'torch')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_is_recognised_whatever_its_name_says(name: str, tmp_path: Path) -> None:
    path = write_sample(name, tmp_path / "picture.dat")
    with path.open("rb") as file:
        format = recognise(file)
    assert format is not None
    assert format.name == name
    read = read_picture(path)
    assert read.format == name
    assert measure_picture(path) == (read.width, read.height) == (96, 64)


@pytest.mark.parametrize("name", FORMATS)
def test_what_follows_the_picture_is_not_part_of_it(name: str, tmp_path: Path) -> None:
    path = write_sample(name, tmp_path / "picture.dat")
    data = path.read_bytes()
    end = load_format(name).find_end(io.BytesIO(data))
    assert end == len(data)
    before = read_picture(path).digest()
    path.write_bytes(data + bytes(5000))
    assert read_picture(path).digest() == before


@pytest.mark.parametrize("name", FORMATS)
def test_the_limit_of_pixels_holds(name: str, tmp_path: Path) -> None:
    path = write_sample(name, tmp_path / "picture.dat")
    format = load_format(name)
    with path.open("rb") as file:
        assert format.decode(file, 96 * 64).values.shape[:2] == (64, 96)
        with pytest.raises(UnreadableError) as caught:
            format.decode(file, 96 * 64 - 1)
    assert caught.value.remedy == "max_pixels"


@pytest.mark.parametrize("name", FORMATS)
def test_half_a_file_is_one_clear_line(name: str, tmp_path: Path) -> None:
    path = write_sample(name, tmp_path / "picture.dat")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(PictureError) as caught:
        read_picture(path)
    assert load_format(name).title in caught.value.reason
    assert "\n" not in caught.value.reason


@pytest.mark.parametrize("name", WRITTEN)
def test_the_depths_of_a_format_come_back_with_all_bits(name: str, tmp_path: Path) -> None:
    format, path = usable(name), tmp_path / "picture.dat"
    for bits in format.depths:
        before = picture(format, bits)
        write_picture(before, path, format=name)
        after = read_picture(path)
        assert after.bit_depth == before.bit_depth
        assert find_losses(before, name) == []
        if bits > 8:  # finer steps than the depth below has
            assert len(np.unique(after.pixels[:, :, 0])) > 64
            assert np.abs(after.pixels - before.pixels).max() < 1 / (2 ** (bits - 1))


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize(("grey", "alpha"), [(True, False), (False, True), (True, True)])
def test_grey_and_alpha_come_back_where_the_format_claims_them(
    name: str, grey: bool, alpha: bool, tmp_path: Path
) -> None:
    format, path = usable(name), tmp_path / "picture.dat"
    before = picture(format, grey=grey, alpha=alpha)
    write_picture(before, path, format=name)
    after = read_picture(path)
    assert (after.alpha is not None) == (alpha and format.alpha)
    assert ("alpha" in find_losses(before, name)) == (alpha and not format.alpha)
    if after.alpha is not None and before.alpha is not None:
        assert np.abs(after.alpha - before.alpha).max() < 0.01
    if grey and not alpha:
        assert after.grey == format.grey
    assert np.abs(after.pixels - before.pixels).max() < 0.05


@pytest.mark.parametrize("name", WRITTEN)
def test_a_profile_comes_back_where_the_format_claims_it(name: str, tmp_path: Path) -> None:
    format, path, icc = usable(name), tmp_path / "picture.dat", make.srgb_profile()
    before = replace(picture(format), icc=icc)
    write_picture(before, path, format=name)
    assert ("colour profile" in find_losses(before, name)) == (not format.holds_profile(icc))
    if name != "jxl":  # the codestream names sRGB itself
        assert (read_picture(path).icc == icc) == format.holds_profile(icc)


@pytest.mark.parametrize("name", WRITTEN)
def test_larger_sides_than_a_format_has_are_refused(name: str, tmp_path: Path) -> None:
    format = usable(name)
    if format.largest_side > 1 << 17:
        pytest.skip("the format has no limit")
    wide = np.zeros((1, format.largest_side + 1, 3), np.uint8)
    with pytest.raises(PictureError, match=f"at most {format.largest_side}"):
        write_picture(Picture(wide, None, 8, False, name, None, None), tmp_path / "a", format=name)


@pytest.mark.parametrize("name", READ_ONLY)
def test_outputs_of_formats_that_are_only_read_get_another_one(name: str) -> None:
    format = load_format(name)
    assert format.output.encode is not None
    assert keep_suffix(format.suffix) == format.output.suffix
    with pytest.raises(UsageError, match="not a format lumen writes"):
        find_format(f"a{format.suffix}")
