"""`lumen decompose`: pictures in, reflectance and illumination out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lumen_cli.imaging.picture import read_picture
from tests.conftest import Finished, MakeModel, dark_pixels, folder_bytes, read_pixels, write_dark

Lumen = Callable[..., Finished]
CAN = ["enhance", "decompose"]
MANIFEST = ".lumen-manifest.jsonl"


@pytest.fixture
def tiny(make_model: MakeModel) -> Path:
    return make_model("tiny", abilities=CAN)


@pytest.fixture
def latent(make_model: MakeModel) -> Path:
    return make_model("latent", abilities=CAN, network={"latent": 8, "multiple": 16}, size_multiple=16)


def lines(finished: Finished) -> list[dict[str, Any]]:
    return [json.loads(line) for line in finished.out.splitlines()]


def maps_of(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the tiny model makes of a picture: R, L."""
    picture = pixels.astype(np.float32) / np.iinfo(pixels.dtype).max
    illumination = np.minimum(picture.max(axis=2) + np.float32(0.1), 1)
    return picture / illumination[:, :, None], illumination


def test_a_folder_becomes_maps_in_the_same_tree_beside_it(tiny: Path, photos: Path, lumen: Lumen) -> None:
    finished = lumen("decompose", photos, "-m", "tiny")
    assert finished.code == 0, finished.err
    assert finished.out == ""
    assert "5 pictures: 5 decomposed" in finished.err
    twin = photos.with_name("photos-decomposed")
    names = [f"{stem}-{part}.png" for stem in ("a", "b", "c", "night/d", "night/e") for part in PARTS]
    assert set(folder_bytes(twin)) == {*names, MANIFEST}
    reflectance, illumination = maps_of(read_pixels(photos / "night/d.png"))
    assert np.abs(read_pixels(twin / "night/d-reflectance.png") - 255 * reflectance).max() <= 0.51
    assert np.abs(read_pixels(twin / "night/d-illumination.png") - 255 * illumination).max() <= 0.51


PARTS = ("reflectance", "illumination")


def test_the_maps_of_a_picture_named_alone_lie_beside_it(tiny: Path, photos: Path, lumen: Lumen) -> None:
    before = set(folder_bytes(photos))
    finished = lumen("decompose", photos / "b.jpg", "-m", "tiny")
    assert finished.code == 0, finished.err
    assert set(folder_bytes(photos)) - before == {"b-reflectance.png", "b-illumination.png"}
    assert "b-reflectance.png, b-illumination.png" in " ".join(finished.err.split())


def test_16_bits_carry_more_than_8(tiny: Path, photos: Path, lumen: Lumen) -> None:
    lumen("decompose", photos / "a.png", "-m", "tiny", "--depth", "16")
    reflectance, illumination = maps_of(read_pixels(photos / "a.png"))
    for part, wanted in zip(PARTS, (reflectance, illumination), strict=True):
        picture = read_picture(photos / f"a-{part}.png")
        assert picture.bit_depth == 16
        assert picture.grey == (part == "illumination")
        given = picture.pixels if wanted.ndim == 3 else picture.pixels[:, :, 0]
        assert np.abs(given - wanted).max() < 1e-5


def test_numpy_files_hold_the_very_numbers(tiny: Path, photos: Path, lumen: Lumen) -> None:
    pixels = read_pixels(photos / "a.png")
    assert lumen("decompose", photos / "a.png", "-m", "tiny", "--format", "npy").code == 0
    assert lumen("decompose", photos / "a.png", "-m", "tiny", "--format", "npz").code == 0
    with np.load(photos / "a-retinex.npz") as arrays:
        assert set(arrays) == set(PARTS)
        for part, wanted in zip(PARTS, maps_of(pixels), strict=True):
            single = np.load(photos / f"a-{part}.npy")
            assert single.dtype == np.float32
            assert single.shape == wanted.shape == pixels.shape[: wanted.ndim]
            assert np.array_equal(single, arrays[part])
            assert np.abs(single - wanted).max() < 1e-6


def test_a_latent_models_npz_holds_latents_and_its_pictures_are_renderings(
    latent: Path, tmp_path: Path, lumen: Lumen
) -> None:
    photo = write_dark(tmp_path / "p.png", 21, 37)
    assert lumen("decompose", photo, "-m", "latent", "--format", "npz").code == 0
    assert lumen("decompose", photo, "-m", "latent", "--format", "npy").code == 0
    with np.load(tmp_path / "p-retinex.npz") as arrays:
        assert {name: arrays[name].shape for name in arrays} == {
            "reflectance": (3, 3, 5),
            "illumination": (1, 3, 5),
            "latent": (3, 3, 5),
        }
        assert np.allclose(arrays["reflectance"] * arrays["illumination"], arrays["latent"], atol=1e-6)
        enlarged = arrays["illumination"][0].repeat(8, axis=0).repeat(8, axis=1)[:21, :37]
        assert np.array_equal(np.load(tmp_path / "p-illumination.npy"), enlarged)
        blocks = arrays["reflectance"].transpose(1, 2, 0).repeat(8, axis=0).repeat(8, axis=1)[:21, :37]
        assert np.array_equal(np.load(tmp_path / "p-reflectance.npy"), blocks)


def test_the_reconstruction_is_written_and_its_error_said(tiny: Path, photos: Path, lumen: Lumen) -> None:
    finished = lumen("decompose", photos, "-m", "tiny", "--reconstruct", "--json")
    assert finished.code == 0
    twin = photos.with_name("photos-decomposed")
    for line in lines(finished):
        rebuilt, source = read_picture(Path(line["outputs"]["reconstruction"])), read_picture(Path(line["input"]))
        assert np.abs(rebuilt.pixels - source.pixels).max() < 0.51 / 255 + 1e-6
        assert 0 <= line["reconstruction"]["mae"] < 1e-6
        assert line["reconstruction"]["psnr"] is None or line["reconstruction"]["psnr"] > 100
    assert (twin / "night" / "e-reconstructed.png").is_file()
    for said in ("reconstruction of", "mean of 5 pictures", "dB", "photos/night/e.tif"):
        assert said in "".join(finished.err.split("\n")), said


def test_the_error_is_that_of_the_product_against_the_picture(latent: Path, photos: Path, lumen: Lumen) -> None:
    finished = lumen("decompose", photos / "a.png", "-m", "latent", "--reconstruct", "--depth", "16", "--json")
    (line,) = lines(finished)
    difference = read_picture(photos / "a-reconstructed.png").pixels - read_picture(photos / "a.png").pixels
    assert line["reconstruction"]["mae"] == pytest.approx(np.abs(difference).mean(), abs=1e-5)
    assert line["reconstruction"]["psnr"] == pytest.approx(-10 * np.log10(np.square(difference).mean()), abs=0.01)
    assert line["reconstruction"]["mae"] > 1e-3
    assert f"{line['reconstruction']['mae']:.4f}" in finished.err
    assert f"{line['reconstruction']['psnr']:.2f} dB" in finished.err


def test_a_model_that_changes_the_range_first_is_measured_against_what_it_took_apart(
    make_model: MakeModel, photos: Path, lumen: Lumen
) -> None:
    make_model("stretching", abilities=CAN, network={"stretch": 2.0})
    (line,) = lines(lumen("decompose", photos / "a.png", "-m", "stretching", "--reconstruct", "--json"))
    assert line["reconstruction"]["mae"] < 1e-6
    twice = np.clip(2.0 * read_pixels(photos / "a.png"), 0, 255)
    assert np.abs(read_pixels(photos / "a-reconstructed.png") - twice).max() <= 1


def test_a_sheet_shows_input_maps_and_product(tiny: Path, photos: Path, lumen: Lumen) -> None:
    (line,) = lines(lumen("decompose", photos / "a.png", "-m", "tiny", "--side-by-side", "--json"))
    assert set(line["outputs"]) == {"reflectance", "illumination", "sheet"}
    assert line["reconstruction"] is None
    sheet = read_pixels(photos / "a-sheet.png")
    original = read_pixels(photos / "a.png")
    height, width = original.shape[:2]
    found = [
        (top, left)
        for top in range(sheet.shape[0] - height + 1)
        for left in range(sheet.shape[1] - width + 1)
        if (sheet[top, left] == original[0, 0]).all()
        and np.abs(sheet[top : top + height, left : left + width].astype(int) - original).max() <= 1
    ]
    assert len(found) == 2, "the input, and the product that rebuilds it"


def test_large_pictures_are_reduced_on_the_sheet(tiny: Path, tmp_path: Path, lumen: Lumen) -> None:
    write_dark(tmp_path / "wide.png", 40, 3000)
    write_dark(tmp_path / "dot.png", 1, 1)
    finished = lumen("decompose", tmp_path / "wide.png", tmp_path / "dot.png", "-m", "tiny", "--side-by-side")
    assert finished.code == 0, finished.err
    height, width, _ = read_pixels(tmp_path / "wide-sheet.png").shape
    assert 2 * 1024 < width < 2 * 1024 + 100
    assert height < 400
    assert read_pixels(tmp_path / "dot-sheet.png").shape[1] > 500


def test_json_is_one_object_a_picture(tiny: Path, photos: Path, lumen: Lumen) -> None:
    (photos / "bad.png").write_text("no picture")
    finished = lumen("decompose", photos, "-m", "tiny", "--json", "--format", "npz")
    assert finished.code == 1
    results = lines(finished)
    assert len(results) == 6
    for line in results:
        if line["status"] == "done":
            assert Path(line["outputs"]["maps"]).stat().st_size == line["bytes"]
    (failed,) = (line for line in results if line["status"] == "failed")
    assert "not a picture" in failed["reason"]


def test_a_dry_run_names_every_file_and_touches_nothing(tiny: Path, photos: Path, lumen: Lumen) -> None:
    finished = lumen("decompose", photos, "-m", "tiny", "--dry-run", "--reconstruct")
    assert finished.code == 0
    twin = photos.with_name("photos-decomposed")
    files = "a-reflectance.png, a-illumination.png, a-reconstructed.png"
    assert f"{photos / 'a.png'} → {twin}{os.sep}{files}  (new)" in finished.out
    assert not twin.exists()
    planned = lines(lumen("decompose", photos, "-m", "tiny", "--dry-run", "--json"))
    assert [line["status"] for line in planned] == ["planned"] * 5
    assert set(planned[0]["outputs"]) == set(PARTS)


def test_the_same_command_again_makes_what_is_missing_and_keeps_the_rest(
    tiny: Path, photos: Path, lumen: Lumen
) -> None:
    lumen("decompose", photos, "-m", "tiny")
    twin = photos.with_name("photos-decomposed")
    first = folder_bytes(twin)
    assert "5 kept" in lumen("decompose", photos, "-m", "tiny").err
    (twin / "a-illumination.png").unlink()
    (twin / "b-reflectance.png").write_bytes(b"")
    results = lines(lumen("decompose", photos, "-m", "tiny", "--json"))
    assert {Path(line["input"]).name: line["why"] for line in results if line["status"] == "done"} == {
        "a.png": "a file of it is missing",
        "b.jpg": "unfinished",
    }
    assert folder_bytes(twin) == first
    again = lines(lumen("decompose", photos, "-m", "tiny", "--reconstruct", "--json"))
    assert {line["status"] for line in again} == {"done"}, "a file of every picture was missing"
    deeper = lines(lumen("decompose", photos, "-m", "tiny", "--resume", "--depth", "16", "--json"))
    assert {line["status"] for line in deeper} == {"done"}


def test_of_files_that_belong_together_none_is_replaced_that_somebody_changed(
    tiny: Path, photos: Path, lumen: Lumen
) -> None:
    lumen("decompose", photos, "-m", "tiny")
    twin = photos.with_name("photos-decomposed")
    (twin / "a-illumination.png").unlink()
    (twin / "a-reflectance.png").write_bytes(b"retouched")
    finished = lumen("decompose", photos, "-m", "tiny", "--json")
    assert finished.code == 1
    (left,) = (line for line in lines(finished) if line["status"] == "left")
    assert Path(left["input"]).name == "a.png"
    assert "was changed since lumen wrote it" in left["reason"]
    assert (twin / "a-reflectance.png").read_bytes() == b"retouched"
    assert not (twin / "a-illumination.png").exists()


def test_maps_are_named_by_a_template(tiny: Path, photos: Path, lumen: Lumen) -> None:
    named = ["--name-template", "{part}-{stem}{suffix}", "-o", photos.parent / "out"]
    assert lumen("decompose", photos, "-m", "tiny", *named).code == 0
    names = {f"{folder}{part}-{stem}.png" for folder, stem in PICTURES for part in PARTS}
    assert set(folder_bytes(photos.parent / "out")) == {*names, MANIFEST}
    finished = lumen("decompose", photos, "-m", "tiny", "--name-template", "{stem}{suffix}")
    assert finished.code == 2
    assert "{part}" in finished.err


PICTURES = (("", "a"), ("", "b"), ("", "c"), ("night/", "d"), ("night/", "e"))


def test_enhanced_pictures_are_not_taken_for_maps(tiny: Path, photos: Path, lumen: Lumen) -> None:
    output = photos.parent / "out"
    assert lumen("enhance", photos, "-m", "tiny", "-o", output).code == 0
    assert lumen("decompose", photos, "-m", "tiny", "-o", output).code == 0
    assert "5 kept" in lumen("enhance", photos, "-m", "tiny", "-o", output, "--resume").err
    assert "5 kept" in lumen("decompose", photos, "-m", "tiny", "-o", output, "--resume").err


@pytest.mark.parametrize("form", ["png", "npy", "npz"])
def test_the_same_picture_gives_the_same_bytes_in_any_company(
    form: str, tiny: Path, photos: Path, lumen: Lumen
) -> None:
    lumen("decompose", photos, "-m", "tiny", "--format", form, "--jobs", "3")
    lumen("decompose", photos / "night/d.png", "-m", "tiny", "--format", form, "-o", photos.parent / "alone")
    twin = photos.with_name("photos-decomposed")
    alone = folder_bytes(photos.parent / "alone")
    assert alone
    for name, content in alone.items():
        assert (twin / "night" / name).read_bytes() == content


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_run_resumed_leaves_the_bytes_of_an_unbroken_one(
    make_model: MakeModel, tmp_path: Path, lumen: Lumen
) -> None:
    make_model("slow", abilities=CAN, network={"seconds": 0.05})
    for index in range(12):
        write_dark(tmp_path / "in" / f"{index}.png", 20 + index, 30, seed=index)
    arguments = ["decompose", str(tmp_path / "in"), "-m", "slow", "--reconstruct"]
    lumen(*arguments, "-o", tmp_path / "unbroken")
    command = [sys.executable, "-m", "lumen_cli", *arguments, "-o", str(tmp_path / "broken"), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    finished = lumen(*arguments, "-o", tmp_path / "broken", "--resume", "--json")
    assert finished.code == 0
    assert "kept" in {line["status"] for line in lines(finished)}
    assert folder_bytes(tmp_path / "broken") == folder_bytes(tmp_path / "unbroken")


def test_a_model_that_cannot_decompose_names_those_that_can(
    tiny: Path, latent: Path, make_model: MakeModel, photos: Path, lumen: Lumen
) -> None:
    make_model("plain")
    finished = lumen("decompose", photos, "-m", "plain")
    assert finished.code == 2
    (line,) = finished.err.splitlines()
    assert line.startswith("lumen: plain cannot decompose pictures; models that can: ")
    assert {"tiny", "latent"} <= set(line.rpartition(": ")[2].split(", "))
    assert "plain" not in line.rpartition(": ")[2].split(", ")


def test_maps_that_are_no_numbers_fail_their_picture_alone(make_model: MakeModel, photos: Path, lumen: Lumen) -> None:
    from PIL import Image

    make_model("fragile", abilities=CAN, network={"fails_above": 0.9})
    Image.new("RGB", (32, 24), (250, 250, 250)).save(photos / "white.png")
    finished = lumen("decompose", photos, "-m", "fragile", "--json")
    assert finished.code == 1
    (failed,) = (line for line in lines(finished) if line["status"] == "failed")
    assert Path(failed["input"]).name == "white.png"
    assert "not finite" in failed["reason"]
    assert not (photos.with_name("photos-decomposed") / "white-reflectance.png").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--format", "tiff"],
        ["--depth", "12"],
        ["--format", "npy", "--depth", "16"],
        ["--overwrite", "--resume"],
        ["-o", "maps.png"],
        ["-o", "maps.npz"],
        ["-o", ""],
        ["--strength", "0.5"],
        ["--precision", "fp16"],
        ["--model", "no-such-model"],
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_ends_with_2_before_any_work(
    arguments: list[str], tiny: Path, photos: Path, lumen: Lumen
) -> None:
    before = folder_bytes(photos.parent)
    finished = lumen("decompose", photos, "-m", "tiny", *arguments)
    assert finished.code == 2
    assert finished.err
    assert "Traceback" not in finished.err
    assert folder_bytes(photos.parent) == before


def test_no_input_is_overwritten_and_no_input_folder_written_into(tiny: Path, photos: Path, lumen: Lumen) -> None:
    write_dark(photos / "a-reflectance.png", seed=7)
    before = folder_bytes(photos)
    finished = lumen("decompose", photos / "a.png", photos / "a-reflectance.png", "-m", "tiny", "--overwrite")
    assert finished.code == 2
    assert "would overwrite the input" in finished.err
    for output in (photos, photos / "night", photos / "new"):
        assert lumen("decompose", photos, "-m", "tiny", "-o", output).code == 2
    write_dark(photos.with_name("photos-decomposed") / "x.png")
    finished = lumen("decompose", photos, photos.with_name("photos-decomposed"), "-m", "tiny")
    assert finished.code == 2
    assert "input folder" in finished.err
    assert folder_bytes(photos) == before


def test_pictures_of_one_name_get_maps_of_their_own(tiny: Path, tmp_path: Path, lumen: Lumen) -> None:
    write_dark(tmp_path / "in/a.png", seed=1)
    write_dark(tmp_path / "in/a.tif", seed=2)
    assert lumen("decompose", tmp_path / "in", "-m", "tiny").code == 0
    names = {name for name in folder_bytes(tmp_path / "in-decomposed") if not name.startswith(".")}
    assert names == {f"a_{ending}-{part}.png" for ending in ("png", "tif") for part in PARTS}


def test_files_of_one_name_in_folders_planned_apart_are_refused(tiny: Path, tmp_path: Path, lumen: Lumen) -> None:
    write_dark(tmp_path / "in/sub/a.png", seed=1)
    other = write_dark(tmp_path / "in-decomposed/sub/a.jpg", seed=2)
    finished = lumen("decompose", tmp_path / "in", other, "-m", "tiny")
    assert finished.code == 2
    assert "would both be written" in finished.err


def test_grey_alpha_profile_and_tags_come_through(tiny: Path, tmp_path: Path, lumen: Lumen) -> None:
    from PIL import Image, ImageCms

    pixels = dark_pixels(24, 32)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x010F] = "A camera"
    alpha = np.full((24, 32, 1), 128, np.uint8)
    rgba = Image.fromarray(np.concatenate([pixels, alpha], axis=2))
    rgba.save(tmp_path / "rgba.png", icc_profile=profile, exif=exif)
    Image.fromarray(pixels[:, :, 0]).save(tmp_path / "grey.png")
    options = ["--reconstruct", "--side-by-side"]
    finished = lumen("decompose", tmp_path / "rgba.png", tmp_path / "grey.png", "-m", "tiny", *options)
    assert finished.code == 0, finished.err

    def opened(name: str) -> Image.Image:
        with Image.open(tmp_path / name) as picture:
            picture.load()
            return picture

    for part, mode, has_profile in (
        ("reflectance", "RGBA", True),
        ("reconstructed", "RGBA", True),
        ("sheet", "RGB", True),
        ("illumination", "L", False),
    ):
        picture = opened(f"rgba-{part}.png")
        assert picture.mode == mode
        assert (picture.info.get("icc_profile") == profile) == has_profile
        assert picture.getexif().get(0x010F) == "A camera"
    assert {opened(f"grey-{part}.png").mode for part in ("reflectance", "illumination", "reconstructed")} == {"L"}


def test_an_upright_picture_has_a_sheet_of_one_row(tiny: Path, tmp_path: Path, lumen: Lumen) -> None:
    write_dark(tmp_path / "tall.png", 400, 300)
    lumen("decompose", tmp_path / "tall.png", "-m", "tiny", "--side-by-side")
    height, width, _ = read_pixels(tmp_path / "tall-sheet.png").shape
    assert width > 4 * 300
    assert 400 < height < 600


def test_help_says_what_is_which(lumen: Lumen) -> None:
    said = " ".join(lumen("decompose", "--help").out.split())
    for words in ("npz holds the latents:", "the reflectance decoded", "the illumination enlarged by 8", "H×W×3"):
        assert words in said
