"""Camera raw files: developed with the camera's white balance into 16 bits of sRGB, never written under a raw name."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from lumen_cli.errors import PictureError, UsageError
from lumen_cli.files.find import find_pictures
from lumen_cli.files.outputs import plan_outputs
from lumen_cli.imaging.formats import keep_suffix
from lumen_cli.imaging.picture import measure_picture, read_picture
from tests.conftest import write_dark
from tests.imaging import make

NEUTRAL = (0.5, 1.0, 0.7)
"""What the sensor sees of grey: the white balance has to undo it."""
XYZ_TO_SRGB = (3.2404542, -1.5371385, -0.4985314, -0.9692660, 1.8760108, 0.0415560, 0.0556434, -0.2040259, 1.0572252)


def dng(path: Path, light: np.ndarray, orientation: int = 1) -> Path:
    """A raw file of a grey scene, H×W linear light in [0, 1], under a Bayer pattern, by the DNG specification."""

    def rationals(values: tuple[float, ...]) -> list[int]:
        return [part for value in values for part in (round(value * 10000), 10000)]

    mosaic = light.copy()
    mosaic[0::2, 0::2] *= NEUTRAL[0]
    mosaic[1::2, 1::2] *= NEUTRAL[2]
    tags = [
        (274, 3, 1, orientation, True),
        (271, 2, 0, "Lumen", True),
        (272, 2, 0, "Test", True),
        (33421, 3, 2, (2, 2), True),
        (33422, 1, 4, bytes([0, 1, 1, 2]), True),
        (50706, 1, 4, bytes([1, 4, 0, 0]), True),
        (50707, 1, 4, bytes([1, 1, 0, 0]), True),
        (50708, 2, 0, "Lumen Test", True),
        (50714, 3, 1, 0, True),
        (50717, 3, 1, 65535, True),
        (50721, 10, 9, rationals(XYZ_TO_SRGB), True),
        (50728, 5, 3, rationals(NEUTRAL), True),
        (50778, 3, 1, 21, True),
    ]
    values = np.round(mosaic * 65535).astype(np.uint16)
    tifffile.imwrite(path, values, photometric=32803, extratags=tags, metadata=None, software=False)
    return path


def ramp(height: int = 64, width: int = 96) -> np.ndarray:
    return np.linspace(0.005, 0.6, width)[None, :] * np.ones((height, 1))


def srgb(light: np.ndarray) -> np.ndarray:
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def test_light_comes_out_as_srgb_and_grey_as_grey(tmp_path: Path) -> None:
    pytest.importorskip("rawpy")
    picture = read_picture(dng(tmp_path / "a.dng", ramp()))
    assert (picture.format, picture.bit_depth, picture.width, picture.height) == ("raw", 16, 96, 64)
    inside = picture.pixels[8:-8, 8:-8]
    assert np.abs(inside - srgb(ramp())[8:-8, 8:-8, None]).max() < 2e-3
    steps = np.unique(np.rint(inside[0, :, 1] * 65535).astype(int) % 257)
    assert len(steps) > 40  # 8-bit values would all be multiples of 257
    # A profile says that it is sRGB now, whatever the camera's tags say of its own JPEGs.
    assert picture.icc is not None
    profile = ImageCms.ImageCmsProfile(io.BytesIO(picture.icc))
    assert ImageCms.getProfileDescription(profile).strip() == "sRGB"
    assert measure_picture(tmp_path / "a.dng") == (96, 64)


def test_dark_stays_dark(tmp_path: Path) -> None:
    """No automatic brightening: that is what lumen's models are for."""
    pytest.importorskip("rawpy")
    dark = read_picture(dng(tmp_path / "a.dng", ramp() / 50))
    assert dark.pixels.max() < 0.12


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_raw_files_are_turned_upright(tmp_path: Path, orientation: int) -> None:
    pytest.importorskip("rawpy")
    plain = read_picture(dng(tmp_path / "a.dng", ramp())).pixels
    turned = read_picture(dng(tmp_path / "b.dng", ramp(), orientation)).pixels
    assert np.array_equal(turned, np.rot90(plain, {3: 2, 6: -1, 8: 1}[orientation]))


def test_the_name_does_not_matter(tmp_path: Path) -> None:
    pytest.importorskip("rawpy")
    assert read_picture(dng(tmp_path / "a.tif", ramp())).format == "raw"


def test_a_tiff_under_a_raw_name_or_a_damaged_one_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("rawpy")
    Image.fromarray(make.photo()).save(tmp_path / "a.tif")
    (tmp_path / "a.tif").rename(tmp_path / "a.nef")
    whole = dng(tmp_path / "whole.dng", ramp()).read_bytes()
    (tmp_path / "cut.dng").write_bytes(whole[: len(whole) // 2])
    for name in ("a.nef", "cut.dng"):
        with pytest.raises(PictureError) as caught:
            read_picture(tmp_path / name)
        assert "raw file" in caught.value.reason
        assert "\n" not in caught.value.reason


def test_results_are_tiff_whatever_is_beside_them(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    write_dark(folder / "a.tif")
    for name in ("a.NEF", "b.cr2", "c.gif"):
        (folder / name).write_bytes(b"something")
    jobs = plan_outputs(find_pictures([folder]), None, None)
    assert {job.source.path.name: job.target.name for job in jobs} == {
        "a.tif": "a.tif",
        "a.NEF": "a_NEF.tif",
        "b.cr2": "b.tif",
        "c.gif": "c.png",
    }
    assert {job.target.suffix for job in plan_outputs(find_pictures([folder]), None, ".jpg")} == {".jpg"}
    with pytest.raises(UsageError, match="not a format lumen writes"):
        plan_outputs(find_pictures([folder / "b.cr2"]), tmp_path / "out.dng", None)
    assert [keep_suffix(suffix) for suffix in (".ARW", ".jpg", ".Gif", ".HEIC", "")] == [
        ".tif",
        ".jpg",
        ".png",
        ".HEIC",
        "",
    ]
