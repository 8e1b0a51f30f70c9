"""Containers by the command: what is left out is announced, what is too large refused, what is missing named."""

from __future__ import annotations

import importlib.util
import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, features

from lumen_cli.imaging.picture import read_picture
from tests.cli.test_enhance import Lumen
from tests.conftest import MakeModel, dark_pixels, write_dark
from tests.imaging import make
from tests.imaging.formats.test_raw import dng, ramp


@pytest.fixture
def tiny(make_model: MakeModel) -> Path:
    return make_model("tiny")


def lines_of(text: str) -> dict[str, dict[str, Any]]:
    return {Path(line["input"]).name: line for line in map(json.loads, text.splitlines())}


def test_what_is_left_out_is_announced_to_people_and_programs(tiny: Path, tmp_path: Path, lumen: Lumen) -> None:
    folder = tmp_path / "in"
    write_dark(folder / "plain.png")
    images = [Image.fromarray(dark_pixels(24, 32, seed)) for seed in range(3)]
    images[0].save(folder / "pages.tif", save_all=True, append_images=images[1:])
    images[0].save(folder / "moving.gif", save_all=True, append_images=images[1:])
    images[0].save(folder / "moving.webp", save_all=True, append_images=images[1:])
    finished = lumen("enhance", folder, "-m", "tiny", "--json")
    assert finished.code == 0, finished.err
    lines = lines_of(finished.out)
    assert lines["plain.png"]["notices"] == []
    assert lines["pages.tif"]["notices"] == ["only the first of 3 pages was read"]
    assert "only the first of 3 pages was read" in finished.err
    for name in ("moving.gif", "moving.webp"):
        assert lines[name]["clip"]["frames"] == 3
        assert Path(lines[name]["output"]).name == name


def test_too_many_pixels_are_one_failed_picture(tiny: Path, tmp_path: Path, lumen: Lumen) -> None:
    folder = tmp_path / "in"
    write_dark(folder / "small.png", 24, 32)
    write_dark(folder / "large.png", 60, 80)

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", 1 << 30, 1 << 30, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    (folder / "bomb.png").write_bytes(bomb)
    finished = lumen("enhance", folder, "-m", "tiny", "--json", "--max-pixels", "0.001M")
    lines = lines_of(finished.out)
    assert finished.code == 1
    assert {name: line["status"] for name, line in lines.items()} == {
        "small.png": "done",
        "large.png": "failed",
        "bomb.png": "failed",
    }
    assert lines["large.png"]["reason"].endswith(
        "more than the limit of 0.001; raise it, or set 0 for none (see --max-pixels)"
    )
    again = lumen("enhance", folder, "-m", "tiny", "--json")
    assert {name: line["status"] for name, line in lines_of(again.out).items()} == {
        "small.png": "kept",
        "large.png": "done",
        "bomb.png": "failed",
    }


@pytest.mark.parametrize("value", ["many", "-1", "1e400", "5T", ""])
def test_nonsense_is_wrong_usage(tiny: Path, photos: Path, lumen: Lumen, value: str) -> None:
    finished = lumen("enhance", photos, "-m", "tiny", f"--max-pixels={value}")
    assert finished.code == 2
    assert "pixels" in finished.err


def test_every_container_keeps_itself_and_its_bits(tiny: Path, tmp_path: Path, lumen: Lumen) -> None:
    """A folder of everything, at --strength 0: same names, same depth, same values where nothing is lossy."""
    folder = tmp_path / "in"
    folder.mkdir()
    Image.fromarray(make.photo()).save(folder / "lossless.webp", lossless=True)
    Image.fromarray(make.photo(channels=4)).save(folder / "alpha.png")
    make.png16(folder / "deep.png", make.deep(channels=4))
    tifffile.imwrite(folder / "deep.tif", make.deep(), photometric="rgb")
    tifffile.imwrite(folder / "float.tif", make.deep().astype(np.float32) / 65535, photometric="rgb")
    if features.check("avif") and cv2.haveImageWriter(".avif"):
        options = [cv2.IMWRITE_AVIF_QUALITY, 100, cv2.IMWRITE_AVIF_DEPTH, 10]
        (folder / "deep.avif").write_bytes(cv2.imencode(".avif", make.deep() >> 6, options)[1].tobytes())
    finished = lumen("enhance", folder, "-m", "tiny", "--strength", "0", "--json")
    assert finished.code == 0, finished.err
    for name, line in lines_of(finished.out).items():
        assert line["warnings"] == line["notices"] == [], name
        before, after = read_picture(folder / name), read_picture(Path(line["output"]))
        assert Path(line["output"]).name == name
        assert (after.format, after.bit_depth, after.storage.bits) == (
            before.format,
            before.bit_depth,
            before.storage.bits,
        )
        assert np.abs(after.pixels - before.pixels).max() <= 1e-7, name


def test_a_raw_file_becomes_a_deep_tiff(tiny: Path, tmp_path: Path, lumen: Lumen) -> None:
    pytest.importorskip("rawpy")
    (tmp_path / "in").mkdir()
    dng(tmp_path / "in" / "a.dng", ramp())
    finished = lumen("enhance", tmp_path / "in", "-m", "tiny", "--json")
    assert finished.code == 0, finished.err
    (line,) = lines_of(finished.out).values()
    assert Path(line["output"]).name == "a.tif"
    assert read_picture(Path(line["output"])).bit_depth == 16
    jpeg = lumen("enhance", tmp_path / "in", "-m", "tiny", "--format", "jpg", "-o", tmp_path / "out")
    assert jpeg.code == 0
    assert (tmp_path / "out" / "a.jpg").read_bytes()[:2] == b"\xff\xd8"
    refused = lumen("enhance", tmp_path / "in" / "a.dng", "-m", "tiny", "-o", tmp_path / "out.dng")
    assert refused.code == 2
    assert "not a format lumen writes" in refused.err


@pytest.mark.parametrize(
    ("format", "suffix", "module"), [("heic", ".heic", "pillow_heif"), ("jxl", ".jxl", "pyjpegxl")]
)
def test_formats_of_extras_are_written(
    tiny: Path, tmp_path: Path, lumen: Lumen, format: str, suffix: str, module: str
) -> None:
    pytest.importorskip(module)
    write_dark(tmp_path / "in" / "a.png")
    finished = lumen("enhance", tmp_path / "in", "-m", "tiny", "--format", format, "--strength", "0")
    assert finished.code == 0, finished.err
    after = read_picture(tmp_path / "in-enhanced" / f"a{suffix}")
    assert np.abs(after.pixels - read_picture(tmp_path / "in" / "a.png").pixels).mean() < 0.01


def test_a_missing_extra_fails_its_own_files_only(tiny: Path, tmp_path: Path) -> None:
    """In a process of its own: a stand-in for a package that is not there."""
    without = tmp_path / "without"
    without.mkdir()
    (without / "rawpy.py").write_text("raise ModuleNotFoundError(__name__)\n")
    write_dark(tmp_path / "in" / "a.png")
    dng(tmp_path / "in" / "b.dng", ramp())
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(without), os.environ["PYTHONPATH"]))}
    command = [sys.executable, "-m", "lumen_cli", "enhance", str(tmp_path / "in"), "-m", "tiny", "--json"]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    lines = lines_of(finished.stdout)
    assert finished.returncode == 1
    assert (lines["a.png"]["status"], lines["b.dng"]["status"]) == ("done", "failed")
    assert lines["b.dng"]["reason"] == "camera raw files need rawpy: pip install 'lumen-cli[raw]'"


def test_a_format_without_its_extra_is_refused_before_any_work(
    tiny: Path, photos: Path, lumen: Lumen, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "pillow_heif" else found(name))
    for arguments in ((photos, "--format", "heic"), (photos / "a.png", "-o", photos.parent / "out.heic")):
        asked = lumen("enhance", *arguments, "-m", "tiny")
        assert asked.code == 2
        assert "pip install 'lumen-cli[heif]'" in asked.err


def test_a_name_that_does_not_fit_the_content_is_announced(tiny: Path, tmp_path: Path, lumen: Lumen) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    image = Image.fromarray(dark_pixels(24, 32))
    contents = {"a.nef": "JPEG", "b.dng": "PNG", "c.jpg": "PNG", "d.png": "JPEG", "e.gif": "WEBP", "f.jpg": "JPEG"}
    for name, kind in contents.items():
        image.save(folder / name, kind)
    finished = lumen("enhance", folder, "-o", tmp_path / "out", "-m", "tiny", "--json")
    assert finished.code == 0, finished.err
    lines = lines_of(finished.out)
    expected = {
        "a.nef": "its content is JPEG, but its name ends with .nef: it became TIFF",
        "b.dng": "its content is PNG, but its name ends with .dng: it became TIFF",
        "c.jpg": "its content is PNG, but its name ends with .jpg: it became JPEG",
        "d.png": "its content is JPEG, but its name ends with .png: it became PNG",
        "e.gif": "its content is WebP, but its name ends with .gif: it became PNG",
    }
    for name in contents:
        said = [line for line in lines[name]["warnings"] if "its content" in line]
        assert said == ([expected[name]] if name in expected else [])
    asked = lumen("enhance", folder, "-o", tmp_path / "asked", "-m", "tiny", "--json", "--format", "webp")
    assert not any("its content" in text for line in lines_of(asked.out).values() for text in line["warnings"])


def test_changes_of_storage_are_announced(tiny: Path, tmp_path: Path, lumen: Lumen) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    values = dark_pixels(24, 32)
    Image.fromarray(values).save(folder / "jpeg.tif", compression="jpeg")
    tifffile.imwrite(folder / "half.tif", (values / 255).astype(np.float16), photometric="rgb")
    holed = (values / 255).astype(np.float32)
    holed[3, 4] = np.nan
    tifffile.imwrite(folder / "holed.tif", holed, photometric="rgb")
    finished = lumen("enhance", folder, "-o", tmp_path / "out", "-m", "tiny", "--json")
    assert finished.code == 0, finished.err
    lines = lines_of(finished.out)
    assert "its JPEG compression became Deflate" in lines["jpeg.tif"]["warnings"]
    assert "its 16-bit floats became 32-bit ones" in lines["half.tif"]["notices"]
    assert lines["holed.tif"]["notices"] == ["1 pixel held NaN or infinity, which became 0 or the outermost value"]
    assert np.isfinite(tifffile.imread(tmp_path / "out" / "holed.tif")).all()
