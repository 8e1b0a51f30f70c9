"""Containers as other programs write them: read right, announced where something is left out, back without loss."""

from __future__ import annotations

import dataclasses
import io
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, features

from lumen_cli.errors import PictureError, UsageError
from lumen_cli.imaging.colour.convert import narrow, widen
from lumen_cli.imaging.formats import find_format
from lumen_cli.imaging.formats.avif import read_main_picture
from lumen_cli.imaging.formats.format import Storage
from lumen_cli.imaging.picture import Picture, find_losses, measure_picture, read_picture, write_picture
from tests.imaging import make

needs_avif = pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
needs_deep_avif = pytest.mark.skipif(not cv2.haveImageWriter(".avif"), reason="this OpenCV has no AVIF")
NEEDS = {"avif": None, "heif": "pillow_heif", "jxl": "pyjpegxl"}


def require(format: str) -> None:
    """Skip where the format's package is not installed."""
    if format == "avif" and not (features.check("avif") and cv2.haveImageWriter(".avif")):
        pytest.skip("these libraries have no AVIF")
    if module := NEEDS[format]:
        pytest.importorskip(module)


def as_bytes(values: np.ndarray) -> np.ndarray:
    return np.floor(values * 255 + 0.5).astype(int)


def picture(values: np.ndarray, format: str, bits: int | None, lossless: bool) -> Picture:
    """As reading a file of this format would give it."""
    values = values if values.ndim == 3 else values[:, :, None]
    channels = values.shape[2]
    colours = np.repeat(values[:, :, :1], 3, axis=2) if channels <= 2 else values[:, :, :3]
    maximum = np.float32(np.iinfo(values.dtype).max)
    alpha = values[:, :, -1] / maximum if channels in (2, 4) else None
    depth = values.dtype.itemsize * 8
    storage = Storage(lossless=lossless, bits=bits)
    return Picture(colours / maximum, alpha, depth, channels <= 2, format, None, None, storage=storage)


@pytest.mark.parametrize("format", ["avif", "heif", "jxl"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_what_was_stored_without_loss_is_again(tmp_path: Path, format: str, channels: int, bits: int) -> None:
    require(format)
    if format == "avif" and channels == 1:
        pytest.skip("nothing in such a file says that it lost nothing")
    values = make.photo(channels=4)[:, :, :channels] if bits == 8 else make.deep(channels=channels)
    if bits in (10, 12):
        values = widen(narrow(values, bits), bits)
    before = picture(values, format, bits if bits in (10, 12) else None, lossless=True)
    path = tmp_path / f"a{find_format(format).suffix}"
    write_picture(before, path, format=format)
    after = read_picture(path)
    if bits == 16 and format != "jxl":
        assert find_losses(before, format) == ["16 bits (12 bits are written)"]
        bits = 12
    else:
        assert find_losses(before, format) == []
    step = 1 / (2**bits - 1)
    assert np.abs(after.pixels - before.pixels).max() <= step / 2 + 1e-6
    assert (after.alpha is None) == (before.alpha is None)
    if before.alpha is not None:
        assert np.abs(after.alpha - before.alpha).max() <= step / 2 + 1e-6
    assert after.storage.lossless
    assert after.bit_depth == (8 if bits == 8 else 16)
    assert after.storage.bits == (bits if bits in (10, 12) and format != "jxl" else None)
    assert measure_picture(path) == (after.width, after.height)


@pytest.mark.parametrize("format", ["avif", "heif", "jxl"])
@pytest.mark.parametrize("bits", [8, 10])
def test_lossy_is_close_and_quality_counts(tmp_path: Path, format: str, bits: int) -> None:
    require(format)
    values = make.photo(60, 90)
    if bits == 10:
        values = widen(values.astype(np.uint16) * 4, 10)
    before = picture(values, format, bits if bits == 10 else None, lossless=False)
    sizes = []
    for quality in (30, None):
        write_picture(before, tmp_path / "a", format=format, quality=quality)
        sizes.append((tmp_path / "a").stat().st_size)
    assert sizes[0] < sizes[1]
    assert np.abs(read_picture(tmp_path / "a").pixels - before.pixels).mean() < 0.01


@pytest.mark.parametrize("format", ["avif", "heif"])
@pytest.mark.parametrize("bits", [8, 10])
def test_the_profile_is_embedded_at_every_depth(tmp_path: Path, format: str, bits: int) -> None:
    require(format)
    icc = make.srgb_profile()
    values = make.photo() if bits == 8 else make.deep()
    before = dataclasses.replace(picture(values, format, bits if bits == 10 else None, lossless=True), icc=icc)
    write_picture(before, tmp_path / "a", format=format)
    assert read_picture(tmp_path / "a").icc == icc


@needs_avif
@needs_deep_avif
def test_avif_without_a_profile_says_srgb(tmp_path: Path) -> None:
    for lossless in (False, True):
        write_picture(picture(make.photo(), "avif", None, lossless), tmp_path / "a.avif", format="avif")
        said = read_main_picture(io.BytesIO((tmp_path / "a.avif").read_bytes())).cicp
        assert said is not None
        assert said[:2] == (1, 13)


@needs_avif
@pytest.mark.parametrize(("mode", "alpha"), [("RGB", False), ("RGBA", True)])
def test_avif_of_pillow(tmp_path: Path, mode: str, alpha: bool) -> None:
    image = Image.fromarray(make.photo(channels=4)).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.avif", quality=95, subsampling="4:4:4", exif=exif)
    read = read_picture(tmp_path / "a.avif")
    assert (read.format, read.bit_depth, read.alpha is not None, read.width) == ("avif", 8, alpha, 24)
    expected = np.rot90(np.asarray(image), -1)
    assert np.abs(as_bytes(read.pixels) - expected[..., :3]).max() <= 4


@needs_avif
@needs_deep_avif
@pytest.mark.parametrize("bits", [10, 12])
def test_deep_avif_of_opencv_is_exact(tmp_path: Path, bits: int) -> None:
    values = narrow(make.deep(), bits)
    options = [cv2.IMWRITE_AVIF_QUALITY, 100, cv2.IMWRITE_AVIF_DEPTH, bits]
    (tmp_path / "a.avif").write_bytes(cv2.imencode(".avif", values[..., ::-1], options)[1].tobytes())
    read = read_picture(tmp_path / "a.avif")
    assert (read.bit_depth, read.storage.bits) == (16, bits)
    assert np.array_equal(np.rint(read.pixels * (2**bits - 1)).astype(np.uint16), values)


def frames(kind: str) -> list[Image.Image]:
    return [Image.fromarray(make.photo(seed=seed) // (1 + seed)) for seed in range(3)]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a.gif", "only the first of 3 frames was read"),
        ("a.png", "only the first of 3 frames was read"),
        ("a.webp", "only the first of 3 frames was read"),
        pytest.param("a.avif", "only the first of 3 frames was read", marks=needs_avif),
        ("a.tif", "only the first of 3 pages was read"),
    ],
)
def test_of_several_frames_the_first_is_read_and_the_rest_announced(tmp_path: Path, name: str, said: str) -> None:
    first, *others = frames(name)
    lossless = {"lossless": True} if name == "a.webp" else {}
    first.save(tmp_path / name, save_all=True, append_images=others, **lossless)
    read = read_picture(tmp_path / name)
    assert read.notices == (said,)
    # A GIF has 256 colours, and this AVIF a quarter of them.
    assert np.abs(as_bytes(read.pixels) - np.asarray(first)).max() <= (24 if name in ("a.gif", "a.avif") else 0)
    first.save(tmp_path / f"one-{name}")
    assert read_picture(tmp_path / f"one-{name}").notices == ()


def test_several_pictures_in_a_jpeg_are_announced(tmp_path: Path) -> None:
    first, *others = frames("mpo")
    first.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=others, quality=95)
    assert read_picture(tmp_path / "a.jpg").notices == ("only the first of 3 pictures was read",)


def test_an_animated_png_of_sixteen_bits_gives_its_still_picture(tmp_path: Path) -> None:
    values = make.deep()
    control = (2).to_bytes(4, "big") + bytes(4)
    path = make.png16(tmp_path / "a.png", values, (b"acTL", control))
    read = read_picture(path)
    assert read.notices == ("only the first of 2 frames was read",)
    assert np.array_equal(np.rint(read.pixels * 65535).astype(np.uint16), values)


@pytest.mark.parametrize("transparent", [False, True])
def test_gif_keeps_every_colour_of_its_palette(tmp_path: Path, transparent: bool) -> None:
    image = Image.fromarray(make.photo()).convert("P", palette=Image.Palette.ADAPTIVE, colors=8)
    image.save(tmp_path / "a.gif", **({"transparency": 3} if transparent else {}))
    read = read_picture(tmp_path / "a.gif")
    assert np.array_equal(as_bytes(read.pixels), np.asarray(image.convert("RGB")))
    assert (read.alpha is not None) == transparent
    if read.alpha is not None:
        assert np.array_equal(read.alpha == 0, np.asarray(image) == 3)


def test_bmp_with_alpha_comes_back(tmp_path: Path) -> None:
    values = make.photo(channels=4)
    write_picture(picture(values, "bmp", None, False), tmp_path / "a.bmp", format="bmp")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.bmp")), values)
    read = read_picture(tmp_path / "a.bmp")
    assert read.alpha is not None
    assert np.array_equal(as_bytes(read.alpha), values[..., 3])


def test_pillow_heif_and_what_telephones_put_beside_the_picture(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    images = frames("heic")
    file = pillow_heif.from_pillow(images[0])
    file.add_from_pillow(images[1])
    file.save(tmp_path / "a.heic", quality=-1, chroma=444, matrix_coefficients=0)
    read = read_picture(tmp_path / "a.heic")
    assert (read.format, read.notices) == ("heif", ("only the first of 2 pictures was read",))
    assert np.array_equal(as_bytes(read.pixels), np.asarray(images[0]))


def test_a_missing_extra_is_named_and_only_its_files_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("pillow_heif", "pyjpegxl", "rawpy"):
        monkeypatch.setitem(sys.modules, module, None)  # what Python does when a module cannot be imported
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64))
    (tmp_path / "a.jxl").write_bytes(b"\xff\x0a" + bytes(64))
    (tmp_path / "a.cr3").write_bytes(b"\0\0\0\x18ftypcrx \0\0\0\0crx isom" + bytes(64))
    for name, extra in (("a.heic", "heif"), ("a.jxl", "jxl"), ("a.cr3", "raw")):
        with pytest.raises(PictureError) as caught:
            read_picture(tmp_path / name)
        assert f"pip install 'lumen-cli[{extra}]'" in caught.value.reason
        assert "\n" not in caught.value.reason
    Image.fromarray(make.photo()).save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png").width == 40


def test_a_format_that_cannot_be_written_is_said_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"lumen-cli\[heif\]"):
        find_format("heif").require_package()
    find_format("png").require_package()


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".jpg", ".gif", ".avif", ".heic", ".jxl"])
def test_a_picture_can_travel_between_processes(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    if suffix in (".avif", ".heic", ".jxl"):
        format = {".heic": "heif"}.get(suffix, suffix[1:])
        require(format)
        write_picture(picture(make.photo(), format, None, False), path, format=format)
    else:
        Image.fromarray(make.photo()).save(path)
    read = read_picture(path)
    again = pickle.loads(pickle.dumps(read))
    assert again.digest() == read.digest()
    assert (again.notices, again.format) == (read.notices, read.format)


def run(*arguments: str | Path) -> None:
    subprocess.run([str(argument) for argument in arguments], check=True, capture_output=True)


@pytest.mark.skipif(shutil.which("cjxl") is None, reason="cjxl (libjxl-tools) is not installed")
@pytest.mark.parametrize("kind", ["rgb", "rgba", "grey", "rgb16"])
def test_jpeg_xl_of_libjxl_is_exact(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("pyjpegxl")
    original = tmp_path / "a.png"
    if kind.endswith("16"):
        make.png16(original, make.deep())
    else:
        channels = {"rgb": 3, "rgba": 4, "grey": 1}[kind]
        values = make.photo(channels=4)[:, :, :channels]
        Image.fromarray(values[:, :, 0] if channels == 1 else values).save(original)
    for container in ("0", "1"):
        run("cjxl", original, tmp_path / "a.jxl", "-q", "100", f"--container={container}")
        before, after = read_picture(original), read_picture(tmp_path / "a.jxl")
        assert after.digest() == before.digest()
        assert (after.grey, after.bit_depth, after.storage.lossless) == (before.grey, before.bit_depth, True)


@pytest.mark.skipif(shutil.which("cjxl") is None, reason="cjxl (libjxl-tools) is not installed")
def test_jpeg_xl_animation_and_wide_colours(tmp_path: Path) -> None:
    pytest.importorskip("pyjpegxl")
    first, *others = frames("gif")
    first.save(tmp_path / "a.gif", save_all=True, append_images=others)
    run("cjxl", tmp_path / "a.gif", tmp_path / "a.jxl")
    assert read_picture(tmp_path / "a.jxl").notices == ("only the first frame of the animation was read",)
    first.save(tmp_path / "p.png")
    run("cjxl", tmp_path / "p.png", tmp_path / "p.jxl", "-q", "100", "-x", "color_space=RGB_D65_DCI_Rel_SRG")
    wide, plain = read_picture(tmp_path / "p.jxl"), read_picture(tmp_path / "p.png")
    assert wide.native is not None  # the values are Display P3's
    assert np.abs(wide.pixels - plain.pixels).max() > 0.02


@pytest.mark.skipif(shutil.which("avifenc") is None, reason="avifenc (libavif-bin) is not installed")
@pytest.mark.parametrize("bits", [8, 10, 12])
def test_avif_of_libavif(tmp_path: Path, bits: int) -> None:
    require("avif")
    Image.fromarray(make.photo()).save(tmp_path / "a.png")
    run("avifenc", "--lossless", "-d", bits, tmp_path / "a.png", tmp_path / "a.avif")
    read = read_picture(tmp_path / "a.avif")
    assert read.storage.lossless
    assert np.array_equal(as_bytes(read.pixels), make.photo())
    run("avifenc", "-y", "400", "-d", bits, tmp_path / "a.png", tmp_path / "g.avif")
    assert read_picture(tmp_path / "g.avif").grey
    for option, expected in (("--irot", np.rot90(make.photo())), ("--imir", make.photo()[::-1])):
        value = "1" if option == "--irot" else "0"
        run("avifenc", "--lossless", "-d", bits, option, value, tmp_path / "a.png", tmp_path / "t.avif")
        assert np.array_equal(as_bytes(read_picture(tmp_path / "t.avif").pixels), expected)


@pytest.mark.skipif(shutil.which("heif-enc") is None, reason="heif-enc (libheif-examples) is not installed")
def test_heic_of_libheif(tmp_path: Path) -> None:
    pytest.importorskip("pillow_heif")
    Image.fromarray(make.photo(64, 96)).save(tmp_path / "a.png")
    run("heif-enc", "-q", "95", tmp_path / "a.png", "-o", tmp_path / "a.heic")
    read = read_picture(tmp_path / "a.heic")
    assert (read.format, read.width, read.height) == ("heif", 96, 64)
    assert np.abs(as_bytes(read.pixels) - make.photo(64, 96)).mean() < 3


@pytest.mark.parametrize("kind", ["avif", "heif", "jxl", "gif"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_what_is_cut_off_is_one_line(tmp_path: Path, kind: str, share: float) -> None:
    whole = tmp_path / "whole"
    if kind == "gif":
        Image.fromarray(make.photo(60, 90)).save(whole, "GIF")
    else:
        require(kind)
        write_picture(picture(make.photo(60, 90), kind, None, True), whole, format=kind)
    data = whole.read_bytes()
    (tmp_path / "cut").write_bytes(data[: max(16, int(len(data) * share))])
    with pytest.raises(PictureError) as caught:
        read_picture(tmp_path / "cut")
    assert any(word in caught.value.reason for word in ("damaged", "cut off"))
    assert "\n" not in caught.value.reason


@pytest.mark.parametrize("registered", [False, True])
def test_avif_that_is_called_heif_by_its_brand(
    registered: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require("avif")
    if registered:  # by imageio, when it reads an animation in the same process, perhaps before Pillow's own readers
        pytest.importorskip("pillow_heif").register_heif_opener()
        Image.init()
        monkeypatch.setattr(Image, "ID", sorted(Image.ID, key=lambda name: name != "HEIF"))
    buffer = io.BytesIO()
    Image.fromarray(make.photo()).save(buffer, "AVIF")
    (tmp_path / "a.heif").write_bytes(buffer.getvalue().replace(b"ftypavif", b"ftypmif1", 1))
    assert read_picture(tmp_path / "a.heif").format == "avif"
