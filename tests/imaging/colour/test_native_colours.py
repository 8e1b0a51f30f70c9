"""Colour spaces beside sRGB: agreement with LittleCMS, and what a network's change becomes in them."""

from __future__ import annotations

import io
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from skimage.color import deltaE_ciede2000, rgb2lab

from lumen_cli.imaging.colour import interpret_colours, make_profile, read_shaper
from lumen_cli.imaging.colour.convert import SRGB
from lumen_cli.imaging.colour.spaces import NativeColours, compute_matrix
from lumen_cli.imaging.picture import Picture, find_losses, read_picture, write_picture
from tests.imaging import make, profiles

MATRIX = {
    "display-p3": profiles.display_p3,
    "adobe-rgb": profiles.adobe_rgb,
    "prophoto": profiles.prophoto,
    "sampled-curves": profiles.sampled_rgb,
}
SRGB_PROFILE = ImageCms.createProfile("sRGB")


def native_of(values: np.ndarray, icc: bytes | None, model: str = "rgb") -> NativeColours:
    colours = interpret_colours(model, icc, chunks={}, cicp=None, exif=None)
    assert colours.space is not None
    return NativeColours(values, colours.space, colours.icc)


def littlecms(values: np.ndarray, icc: bytes, mode: str = "RGB", back: bool = False) -> np.ndarray:
    """H×W×C of 8 bits through another program, relative colorimetric."""
    ends = [(io.BytesIO(icc), mode), (SRGB_PROFILE, "RGB")]
    (source, mode_in), (target, mode_out) = reversed(ends) if back else ends
    flags = ImageCms.Flags.BLACKPOINTCOMPENSATION
    transform = ImageCms.buildTransform(source, target, mode_in, mode_out, 1, flags)
    image = Image.frombytes(mode_in, values.shape[1::-1], np.ascontiguousarray(values).tobytes())
    turned = np.asarray(ImageCms.applyTransform(image, transform))
    return turned if turned.ndim == 3 else turned[:, :, None]


def every_colour(steps: int = 18) -> np.ndarray:
    """A grid over all RGB values, dark ones more closely."""
    scale = np.rint(255 * np.linspace(0, 1, steps) ** 1.5).astype(np.uint8)
    return np.stack(np.meshgrid(scale, scale, scale), axis=-1).reshape(steps, -1, 3)


def delta_e(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return deltaE_ciede2000(rgb2lab(one), rgb2lab(other))


@pytest.mark.parametrize("name", MATRIX)
def test_the_network_sees_what_littlecms_shows(name: str) -> None:
    icc, values = MATRIX[name](), every_colour()
    pixels = native_of(values, icc).to_srgb()
    shown = littlecms(values, icc)
    # LittleCMS rounds to 8 bits here; so no more than a step, and no more than that rounding in what people see.
    assert np.abs(pixels * 255 - shown).max() <= 0.75
    assert np.percentile(delta_e(pixels, shown / 255), 99) <= 0.5


@pytest.mark.parametrize("name", MATRIX)
def test_an_unchanged_picture_has_the_very_values(name: str) -> None:
    values = make.deep(40, 60)
    native = native_of(values, MATRIX[name]())
    assert np.array_equal(np.rint(native.apply_change(native.to_srgb()) * 65535), values)


@pytest.mark.parametrize("name", MATRIX)
def test_a_changed_picture_gets_the_values_that_littlecms_gives_the_networks_colours(name: str) -> None:
    icc = MATRIX[name]()
    inside = littlecms(every_colour() // 3 + 40, icc, back=True)
    native = native_of(inside, icc)
    wanted = np.rint(np.clip(native.to_srgb() * 1.6 + 0.02, 0, 1) * 255).astype(np.uint8)
    carried = np.rint(native.apply_change((wanted / 255).astype(np.float32)) * 255)
    assert np.abs(carried - littlecms(wanted, icc, back=True)).max() <= 1


def test_sixteen_bits_have_no_step_of_eight() -> None:
    ramp = np.repeat(np.arange(20000, 20512, dtype=np.uint16)[None, :, None], 3, axis=2)
    native = native_of(ramp, profiles.display_p3())
    brighter = native.apply_change(np.minimum(native.to_srgb() * np.float32(1.4), 1))
    assert len(np.unique(np.rint(brighter * 65535))) == 512


@pytest.mark.parametrize("name", ["display-p3", "adobe-rgb", "prophoto"])
def test_saturated_colours_stay_saturated_when_they_get_brighter(name: str) -> None:
    """Twice the light in sRGB's clipped picture becomes twice the light of the original's own colours."""
    icc = MATRIX[name]()
    shaper = read_shaper(icc)
    assert shaper is not None
    dark = np.rint(shaper.curves[0].from_light(np.array([[[0.1, 0, 0.003], [0, 0.1, 0], [0.007, 0.08, 0.1]]])) * 65535)
    native = native_of(dark.astype(np.uint16), icc)
    pixels = native.to_srgb()
    assert (pixels == 0).any()  # sRGB has not these colours
    doubled = SRGB.from_light(SRGB.to_light(pixels.astype(float)) * 2).clip(0, 1).astype(np.float32)
    light = shaper.curves[0].to_light(native.apply_change(doubled).astype(float))
    assert np.allclose(light, 2 * shaper.curves[0].to_light(dark / 65535), atol=2e-4)


def test_what_the_network_makes_white_is_white() -> None:
    native = native_of(np.array([[[0, 40, 0], [60, 0, 0], [0, 0, 0]]], np.uint8), profiles.display_p3())
    assert native.apply_change(np.ones((1, 3, 3), np.float32)).min() > 0.999


def test_light_beyond_white_comes_back_and_gets_brighter_with_the_rest(tmp_path: Path) -> None:
    import tifffile

    values = np.linspace(-0.1, 3, 24 * 40 * 3, dtype=np.float32).reshape(24, 40, 3)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
    picture = read_picture(tmp_path / "a.tif")
    assert (picture.pixels.min(), picture.pixels.max(), picture.bit_depth) == (0, 1, 32)
    write_picture(picture, tmp_path / "b.tif", format="tiff")
    assert np.array_equal(tifffile.imread(tmp_path / "b.tif"), values)
    assert find_losses(picture, "png") == ["floating-point values (16 bits are written)"]


@pytest.mark.parametrize("transfer", [16, 18])
def test_highlights_of_hdr_pictures_stay_where_they_were(transfer: int) -> None:
    """The network sees them as white; they must not come back as white."""
    values = np.linspace(0, 65535, 600).astype(np.uint16).reshape(10, 20, 3)
    colours = interpret_colours("rgb", None, chunks={}, cicp=(9, transfer), exif=None)
    assert colours.space is not None
    native = NativeColours(values, colours.space, None, colours.source, colours.cicp)
    pixels = native.to_srgb()
    assert (pixels == 1).all(axis=2).mean() > 0.1
    bright = (pixels == 1).all(axis=2)
    brighter = native.apply_change(np.clip(pixels * np.float32(1.02), 0, 1)) * 65535
    assert np.abs(brighter - values)[bright].max() < 2
    dimmed = native.apply_change(pixels * np.float32(0.9)) * 65535
    assert (np.diff(dimmed[:, :, 1].ravel()) > 0).all()
    assert (dimmed < values)[bright].all()


def test_profiles_of_srgb_leave_values_and_bytes_alone(tmp_path: Path) -> None:
    primaries = (0.64, 0.33), (0.3, 0.6), (0.15, 0.06)
    for icc in (make.srgb_profile(), make_profile("sRGB", compute_matrix(primaries, (0.3127, 0.329)), SRGB)):
        assert interpret_colours("rgb", icc, chunks={}, cicp=None, exif=None).space is None
        Image.fromarray(make.photo()).save(tmp_path / "a.png", icc_profile=icc)
        picture = read_picture(tmp_path / "a.png")
        assert picture.native is None
        assert picture.icc == icc
        assert np.array_equal(np.rint(picture.pixels * 255), make.photo())


def test_made_profiles_say_what_the_published_ones_say() -> None:
    p3 = (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)
    made = compute_matrix(p3, (0.3127, 0.3290))
    assert np.allclose(made, np.array(profiles.DISPLAY_P3).T, atol=2e-4)
    ours = littlecms(every_colour(), make_profile("P3", made, SRGB))
    assert np.abs(ours.astype(int) - littlecms(every_colour(), profiles.display_p3()).astype(int)).max() <= 1


@pytest.mark.parametrize("depth", [8, 16])
def test_grey_goes_through_its_own_curve_and_stays_grey(tmp_path: Path, depth: int) -> None:
    icc = profiles.grey(1.8)
    values = make.photo(channels=1)[:, :, 0] if depth == 8 else make.deep(channels=1)
    if depth == 8:
        Image.fromarray(values).save(tmp_path / "a.png", icc_profile=icc)
    else:
        import zlib

        make.png16(tmp_path / "a.png", values, (b"iCCP", b"p\0\0" + zlib.compress(icc)))
    picture = read_picture(tmp_path / "a.png")
    assert picture.grey
    light = (values / np.iinfo(values.dtype).max) ** (round(1.8 * 256) / 256)
    assert np.allclose(picture.pixels[:, :, 1], SRGB.from_light(light), atol=1e-4)
    tinted = Picture(**{**vars(picture), "values": np.clip(picture.pixels * np.float32([1.1, 1.2, 1.0]), 0, 1)})
    write_picture(tinted, tmp_path / "b.png", format="png")
    assert Image.open(tmp_path / "b.png").mode == ("L" if depth == 8 else "I;16")
    assert Image.open(tmp_path / "b.png").info["icc_profile"] == icc


def test_a_grey_picture_with_an_rgb_profile_uses_its_curve() -> None:
    colours = interpret_colours("grey", profiles.prophoto(), chunks={}, cicp=None, exif=None)
    assert colours.space is not None
    assert colours.space.channels == 1


def test_cmyk_is_seen_through_its_profile_and_returned_through_it() -> None:
    icc = profiles.cmyk()
    values = make.photo(channels=4)
    native = native_of(values, icc, "cmyk")
    assert np.array_equal(np.rint(native.to_srgb() * 255), littlecms(values, icc, "CMYK"))
    assert np.abs(native.apply_change(native.to_srgb()) * 255 - values).max() < 0.01
    brighter = np.clip(native.to_srgb() + np.float32(77 / 255), 0, 1)
    wanted = littlecms(np.rint(brighter * 255).astype(np.uint8), icc, "CMYK", back=True)
    much = (np.abs(brighter - native.to_srgb()) > 0.11).any(axis=2)
    assert much.mean() > 0.5
    assert np.abs(np.rint(native.apply_change(brighter) * 255) - wanted)[much].max() <= 1


def test_a_slight_change_keeps_the_printers_choice_of_inks() -> None:
    """Grey of black ink alone must not become four inks because a network moved it by one step."""
    native = native_of(np.full((4, 4, 4), [0, 0, 0, 128], np.uint8), profiles.cmyk(), "cmyk")
    inks = native.apply_change(native.to_srgb() + np.float32(1 / 255)) * 255
    assert np.abs(inks - [0, 0, 0, 128]).max() < 12


def test_cmyk_without_a_profile_keeps_black_and_16_bits() -> None:
    values = make.deep(channels=4)
    native = native_of(values, None, "cmyk")
    assert np.array_equal(np.rint(native.apply_change(native.to_srgb()) * 65535), values)
    wanted = np.clip(native.to_srgb() * 1.5, 0, 1)
    inks = native.apply_change(wanted)
    assert np.allclose((1 - inks[..., :3]) * (1 - inks[..., 3:]), wanted, atol=1e-5)
    assert (inks[..., 3] <= values[..., 3] / 65535 + 1e-6).all()


@pytest.mark.parametrize("format", ["jpeg", "tiff", "png", "webp", "bmp"])
def test_cmyk_in_every_container(tmp_path: Path, format: str) -> None:
    image = Image.frombytes("CMYK", (40, 24), make.photo(channels=4).tobytes())
    image.save(tmp_path / "a.tif", icc_profile=profiles.cmyk())
    picture = read_picture(tmp_path / "a.tif")
    write_picture(picture, tmp_path / "b", format=format)
    written = Image.open(tmp_path / "b")
    if format in ("jpeg", "tiff"):
        assert (written.mode, written.info["icc_profile"]) == ("CMYK", profiles.cmyk())
        assert find_losses(picture, format) == []
    else:
        assert written.mode == "RGB"
        assert not written.info.get("icc_profile")
        difference = np.abs(np.asarray(written) - picture.pixels * 255)
        assert difference.mean() < 3 if format == "webp" else difference.max() < 0.51
        assert find_losses(picture, format) == ["CMYK (colours became sRGB)"]


def test_a_container_without_profiles_gets_srgb(tmp_path: Path) -> None:
    Image.fromarray(make.photo()).save(tmp_path / "a.png", icc_profile=profiles.adobe_rgb())
    picture = read_picture(tmp_path / "a.png")
    write_picture(picture, tmp_path / "a.bmp", format="bmp")
    shown = littlecms(make.photo(), profiles.adobe_rgb())
    assert np.abs(np.asarray(Image.open(tmp_path / "a.bmp")).astype(int) - shown).max() <= 1
    assert find_losses(picture, "bmp") == ["its colour space (colours became sRGB)"]


def test_cameras_that_mark_adobe_rgb_by_tag_alone(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 65535
    exif.get_ifd(0x8769)[0xA005] = {1: "R03"}
    Image.fromarray(make.photo()).save(tmp_path / "a.jpg", quality=95, subsampling=0, exif=exif)
    stored = np.asarray(Image.open(tmp_path / "a.jpg"))
    picture = read_picture(tmp_path / "a.jpg")
    assert np.abs(picture.pixels * 255 - littlecms(stored, profiles.adobe_rgb())).max() <= 1
    write_picture(picture, tmp_path / "b.png", format="png")
    result = Image.open(tmp_path / "b.png")
    assert np.array_equal(np.asarray(result), stored)
    assert np.abs(littlecms(stored, result.info["icc_profile"]) - picture.pixels * 255).max() <= 1


def test_png_chunks_about_colour(tmp_path: Path) -> None:
    linear = (b"gAMA", struct.pack(">I", 100000))
    values = make.deep()
    picture = read_picture(make.png16(tmp_path / "a.png", values, linear))
    assert np.allclose(picture.pixels, SRGB.from_light(values / 65535), atol=1e-4)
    write_picture(picture, tmp_path / "b.png", format="png")
    assert linear[0] + linear[1] in (tmp_path / "b.png").read_bytes()
    write_picture(picture, tmp_path / "b.jpg", format="jpeg")
    with Image.open(tmp_path / "b.jpg") as other:
        assert other.info["icc_profile"]
    p3 = (b"cICP", bytes((12, 13, 0, 1)))
    coded = read_picture(make.png16(tmp_path / "c.png", values, p3))
    assert np.allclose(coded.pixels, native_of(values, profiles.display_p3()).to_srgb(), atol=2e-3)


@pytest.mark.parametrize(
    "spoilt", [b"", b"no profile", make.srgb_profile()[:200], profiles.grey(), profiles.cmyk()[:3000]]
)
def test_a_profile_that_makes_no_sense_is_said_and_does_no_harm(tmp_path: Path, spoilt: bytes) -> None:
    colours = interpret_colours("rgb", spoilt, chunks={}, cicp=None, exif=None)
    assert colours.space is None
    assert colours.icc == spoilt
    assert "read as sRGB" in colours.notices[0]


def test_profiles_cut_anywhere_raise_nothing() -> None:
    for whole in (profiles.display_p3(), profiles.sampled_rgb(), profiles.grey(), make.srgb_profile()):
        for end in range(0, len(whole), 37):
            read_shaper(whole[:end])


def test_a_picture_goes_through_a_pickle(tmp_path: Path) -> None:
    """Decoders may run in a process of their native."""
    for name, values, icc in (
        ("a.png", make.photo(), profiles.display_p3()),
        ("a.tif", make.photo(channels=4), profiles.cmyk()),
    ):
        mode = "CMYK" if name == "a.tif" else "RGB"
        Image.frombytes(mode, (40, 24), values.tobytes()).save(tmp_path / name, icc_profile=icc)
        picture = read_picture(tmp_path / name)
        again = pickle.loads(pickle.dumps(picture))
        assert again.digest() == picture.digest()
        assert np.array_equal(again.native.apply_change(again.pixels), picture.native.apply_change(picture.pixels))


def test_the_digest_tells_spaces_apart(tmp_path: Path) -> None:
    digests = set()
    for index, icc in enumerate((None, profiles.display_p3(), profiles.adobe_rgb())):
        Image.fromarray(make.photo()).save(tmp_path / f"{index}.png", icc_profile=icc)
        digests.add(read_picture(tmp_path / f"{index}.png").digest())
    assert len(digests) == 3
