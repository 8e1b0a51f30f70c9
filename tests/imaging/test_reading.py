"""Pictures as people have them: every orientation, depth and kind of pixel, and files that are none."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from lumen_cli.errors import PictureError
from lumen_cli.imaging.picture import read_picture
from tests.imaging import make


def as_bytes(values: np.ndarray) -> np.ndarray:
    return np.floor(values * 255 + 0.5).astype(np.uint8)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_read_upright(tmp_path: Path, suffix: str, orientation: int) -> None:
    upright = make.photo()
    picture = read_picture(make.save_oriented(tmp_path / f"a{suffix}", upright, orientation))
    assert picture.pixels.shape == (24, 40, 3)
    assert picture.pixels.flags.c_contiguous
    difference = np.abs(as_bytes(picture.pixels).astype(int) - upright)
    assert difference.max() <= (4 if suffix == ".jpg" else 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_of_sixteen_bit_files(tmp_path: Path, orientation: int) -> None:
    upright = make.deep()
    tag = Image.Exif()
    tag[0x0112] = orientation
    png = make.png16(tmp_path / "a.png", make.stored(upright, orientation), (b"eXIf", tag.tobytes()[6:]))
    tiff = tmp_path / "a.tif"
    tifffile.imwrite(
        tiff, make.stored(upright, orientation), photometric="rgb", extratags=[(274, 3, 1, orientation, True)]
    )
    for path in (png, tiff):
        assert np.array_equal(np.round(read_picture(path).pixels * 65535).astype(np.uint16), upright)


def test_a_nonsense_orientation_counts_as_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 99
    Image.fromarray(make.photo()).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(as_bytes(read_picture(tmp_path / "a.png").pixels), make.photo())


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bit_png_is_exact(tmp_path: Path, channels: int) -> None:
    values = make.deep(channels=channels)
    picture = read_picture(make.png16(tmp_path / "a.png", values))
    assert (picture.bit_depth, picture.format, picture.grey) == (16, "png", channels <= 2)
    values = values if values.ndim == 3 else values[:, :, None]
    read = np.round(picture.pixels * 65535).astype(np.uint16)
    assert np.array_equal(read, np.broadcast_to(values[:, :, :1], read.shape) if channels <= 2 else values[:, :, :3])
    if channels in (2, 4):
        assert picture.alpha is not None
        assert np.array_equal(np.round(picture.alpha * 65535).astype(np.uint16), values[:, :, -1])
    else:
        assert picture.alpha is None


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bit_png_with_one_transparent_colour(tmp_path: Path, channels: int) -> None:
    values = make.deep(channels=channels)
    key = np.atleast_1d(values[2, 3]).astype(">u2").tobytes()
    alpha = read_picture(make.png16(tmp_path / "a.png", values, (b"tRNS", key))).alpha
    assert alpha is not None
    assert alpha[2, 3] == 0
    assert alpha.mean() > 0.9


@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bit_tiff_is_exact(tmp_path: Path, channels: int, compression: str | None) -> None:
    values = make.deep(channels=channels)
    path = tmp_path / "a.tif"
    if compression == "lzw":
        bgr = values if channels == 1 else values[..., [2, 1, 0, 3][:channels]]
        path.write_bytes(cv2.imencode(".tiff", bgr, [cv2.IMWRITE_TIFF_COMPRESSION, 5])[1].tobytes())
    else:
        extra = ["unassalpha"] if channels == 4 else None
        kind = "rgb" if channels > 1 else "minisblack"
        tifffile.imwrite(path, values, photometric=kind, compression=compression, extrasamples=extra)
    picture = read_picture(path)
    assert picture.bit_depth == 16
    read = np.round(picture.pixels * 65535).astype(np.uint16)
    assert np.array_equal(read[:, :, 0] if channels == 1 else read, values[..., :3] if channels > 1 else values)
    assert (picture.alpha is not None) == (channels == 4)


def test_sixteen_bit_tiff_in_planes_big_endian_and_white_is_zero(tmp_path: Path) -> None:
    values = make.deep()
    tifffile.imwrite(tmp_path / "p.tif", np.moveaxis(values, 2, 0), photometric="rgb", planarconfig="separate")
    tifffile.imwrite(tmp_path / "b.tif", values.astype(">u2"), photometric="rgb", byteorder=">")
    for name in ("p.tif", "b.tif"):
        assert np.array_equal(np.round(read_picture(tmp_path / name).pixels * 65535).astype(np.uint16), values)
    tifffile.imwrite(tmp_path / "w.tif", values[..., 0], photometric="miniswhite")
    read = read_picture(tmp_path / "w.tif")
    assert np.array_equal(65535 - np.round(read.pixels[..., 0] * 65535).astype(np.uint16), values[..., 0])


def test_multiplied_alpha_is_divided_out(tmp_path: Path) -> None:
    values = np.zeros((4, 4, 4), np.uint16)
    values[..., :3], values[..., 3] = 16384, 32768
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", extrasamples=["assocalpha"])
    assert np.allclose(read_picture(tmp_path / "a.tif").pixels, 0.5, atol=1e-4)


@pytest.mark.parametrize(
    ("mode", "suffix", "grey", "alpha"),
    [
        ("L", ".jpg", True, False),
        ("L", ".png", True, False),
        ("L", ".tif", True, False),
        ("L", ".bmp", True, False),
        ("LA", ".png", True, True),
        ("1", ".png", True, False),
        ("P", ".png", False, False),
        ("RGBA", ".png", False, True),
        ("RGBA", ".webp", False, True),
        ("RGBA", ".tif", False, True),
        ("RGB", ".bmp", False, False),
    ],
)
def test_kinds_of_pixels(tmp_path: Path, mode: str, suffix: str, grey: bool, alpha: bool) -> None:
    image = Image.fromarray(make.photo(channels=4 if alpha else 3)).convert(mode)
    image.save(tmp_path / f"a{suffix}", **({"lossless": True} if suffix == ".webp" else {}))
    picture = read_picture(tmp_path / f"a{suffix}")
    assert (picture.grey, picture.alpha is not None, picture.bit_depth) == (grey, alpha, 8)
    expected = np.asarray(image.convert("RGBA"))
    tolerance = 3 if suffix == ".jpg" else 0
    assert np.abs(as_bytes(picture.pixels).astype(int) - expected[..., :3]).max() <= tolerance
    if alpha:
        assert picture.alpha is not None
        assert np.array_equal(as_bytes(picture.alpha), expected[..., 3])


def test_a_palette_with_transparency_has_alpha(tmp_path: Path) -> None:
    image = Image.fromarray(make.photo()).convert("P", palette=Image.Palette.ADAPTIVE, colors=8)
    image.save(tmp_path / "a.png", transparency=3)
    picture = read_picture(tmp_path / "a.png")
    assert picture.alpha is not None
    assert np.array_equal(picture.alpha == 0, np.asarray(image) == 3)


def test_cmyk_is_shown_as_rgb(tmp_path: Path) -> None:
    rgb = make.photo()
    Image.fromarray(rgb).convert("CMYK").save(tmp_path / "a.jpg", quality=98, subsampling=0)
    picture = read_picture(tmp_path / "a.jpg")
    assert np.abs(as_bytes(picture.pixels).astype(int) - rgb).max() < 8


def test_the_profile_comes_along_untouched(tmp_path: Path) -> None:
    icc = make.srgb_profile()
    for suffix in (".jpg", ".png", ".webp", ".tif"):
        Image.fromarray(make.photo()).save(tmp_path / f"a{suffix}", icc_profile=icc)
        assert read_picture(tmp_path / f"a{suffix}").icc == icc


def test_content_decides_not_the_name(tmp_path: Path) -> None:
    Image.fromarray(make.photo()).save(tmp_path / "real.png")
    (tmp_path / "real.png").rename(tmp_path / "liar.jpg")
    assert read_picture(tmp_path / "liar.jpg").format == "png"


def test_digest_is_of_the_content_alone(tmp_path: Path) -> None:
    upright = make.photo()
    Image.fromarray(upright).save(tmp_path / "a.png")
    Image.fromarray(upright).save(tmp_path / "b.tif", compression="tiff_lzw")
    turned = make.save_oriented(tmp_path / "c.png", upright, 6)
    Image.fromarray(make.photo(seed=3)).save(tmp_path / "other.png")
    digests = [read_picture(path).digest() for path in (tmp_path / "a.png", tmp_path / "b.tif", turned)]
    assert len(set(digests)) == 1
    assert len(digests[0]) == 16
    assert read_picture(tmp_path / "other.png").digest() != digests[0]


def one_line(path: Path) -> str:
    with pytest.raises(PictureError) as caught:
        read_picture(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in caught.value.reason
    return caught.value.reason


def test_missing_empty_and_foreign_files_are_one_clear_line(tmp_path: Path) -> None:
    assert "no such file" in one_line(tmp_path / "missing.jpg")
    (tmp_path / "empty.jpg").touch()
    assert "empty" in one_line(tmp_path / "empty.jpg")
    (tmp_path / "text.jpg").write_text("This is not a picture at all, but it is called one.\n" * 9)
    assert "not a picture" in one_line(tmp_path / "text.jpg")
    (tmp_path / "a.jpg").mkdir()
    assert "folder" in one_line(tmp_path / "a.jpg")
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nowhere")
    assert "link" in one_line(tmp_path / "dangling.jpg")
    (tmp_path / "a.psd").write_bytes(b"8BPS\0\1" + bytes(64))
    assert "Photoshop" in one_line(tmp_path / "a.psd")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    assert "not a regular file" in one_line(tmp_path / "a.jpg")


@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "bmp", "tif", "16.png", "16.tif"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.97])
def test_a_file_cut_off_is_never_decoded_in_part(tmp_path: Path, kind: str, share: float) -> None:
    whole = tmp_path / f"whole.{kind}"
    if kind == "16.png":
        make.png16(whole, make.deep())
    elif kind == "16.tif":
        tifffile.imwrite(whole, make.deep(), photometric="rgb")
    else:
        Image.fromarray(make.photo(60, 90)).save(whole)
    data = whole.read_bytes()
    cut = tmp_path / f"cut.{kind}"
    cut.write_bytes(data[: max(8, int(len(data) * share))])
    reason = one_line(cut)
    assert any(word in reason for word in ("cut off", "damaged", "not a picture"))


def test_a_damaged_png_is_noticed(tmp_path: Path) -> None:
    for path in (make.png16(tmp_path / "deep.png", make.deep()), tmp_path / "plain.png"):
        if path.name == "plain.png":
            Image.fromarray(make.photo()).save(path)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(bytes(data))
        assert "damaged" in one_line(path)


def test_depths_lumen_does_not_read_are_named(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "f.tif", make.deep().astype(np.int16), photometric="rgb")
    assert "16-bit signed" in one_line(tmp_path / "f.tif")
    tifffile.imwrite(tmp_path / "raw.tif", make.photo(), photometric="rgb", subfiletype=1)
    assert "raw" in one_line(tmp_path / "raw.tif")


def test_a_header_that_claims_a_giant_picture_is_refused(tmp_path: Path) -> None:
    data = bytearray(make.png16(tmp_path / "a.png", make.deep()).read_bytes())
    data[16:24] = (200_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(bytes(data))
    assert "megapixels" in one_line(tmp_path / "a.png")


def test_decoders_stay_silent(tmp_path: Path) -> None:
    """In a process of its own: the libraries write to stderr below Python."""
    Image.fromarray(make.photo(60, 90)).save(tmp_path / "a.jpg")
    cut = (tmp_path / "a.jpg").read_bytes()[:-300]
    (tmp_path / "cut.jpg").write_bytes(cut)
    tifffile.imwrite(tmp_path / "cut.tif", make.deep(), photometric="rgb")
    (tmp_path / "cut.tif").write_bytes((tmp_path / "cut.tif").read_bytes()[:3000])
    lzw = cv2.imencode(".tiff", make.deep(), [cv2.IMWRITE_TIFF_COMPRESSION, 5])[1].tobytes()
    (tmp_path / "lzw.tif").write_bytes(lzw[:200] + bytes(64) + lzw[264:])
    exif = Image.Exif()
    exif[0x010E] = "x" * 200
    broken = exif.tobytes()[:60]
    Image.fromarray(make.photo()).save(tmp_path / "exif.jpg", exif=broken)
    code = (
        "import sys; from pathlib import Path; from lumen_cli.errors import PictureError\n"
        "from lumen_cli.imaging.picture import read_picture\n"
        "for name in sys.argv[1:]:\n"
        "    try: read_picture(Path(name))\n"
        "    except PictureError: pass\n"
    )
    names = [str(tmp_path / name) for name in ("cut.jpg", "cut.tif", "lzw.tif", "exif.jpg")]
    done = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")


def test_reading_from_many_threads_gives_the_same(tmp_path: Path) -> None:
    paths = [make.save_oriented(tmp_path / f"{i}.jpg", make.photo(seed=i), i % 8 + 1) for i in range(8)]
    paths += [make.png16(tmp_path / "deep.png", make.deep())]
    expected = [read_picture(path).digest() for path in paths]
    results: list[list[bytes]] = [[] for _ in range(4)]

    def work(into: list[bytes]) -> None:
        into.extend(read_picture(path).digest() for path in paths)

    threads = [threading.Thread(target=work, args=(into,)) for into in results]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(result == expected for result in results)


def test_without_opencv_only_the_files_that_need_it_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)  # what Python does when a module cannot be imported
    assert "opencv-python-headless" in one_line(make.png16(tmp_path / "deep.png", make.deep()))
    Image.fromarray(make.photo()).save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png").width == 40


def test_lab_is_read_through_its_definition(tmp_path: Path) -> None:
    rgb = Image.fromarray(make.photo())
    lab = ImageCms.profileToProfile(
        rgb, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    buffer = io.BytesIO()
    assert lab is not None
    lab.save(buffer, "TIFF")
    (tmp_path / "a.tif").write_bytes(buffer.getvalue())
    assert np.abs(as_bytes(read_picture(tmp_path / "a.tif").pixels).astype(int) - make.photo()).max() < 6
