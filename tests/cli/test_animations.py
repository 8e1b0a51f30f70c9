"""Animated pictures through `lumen enhance`: all frames, their lengths, the loop count, transparency."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image, ImageSequence, features

from tests.conftest import Finished, MakeModel, dark_pixels, folder_bytes, write_dark

Lumen = Callable[..., Finished]
LENGTHS = [40, 120, 40, 500, 80, 40]


@pytest.fixture(autouse=True)
def tiny(make_model: MakeModel) -> Path:
    return make_model("tiny")


def write_animation(path: Path, loop: int = 3, holes: bool = False, **options: object) -> Path:
    """Six dark frames that move; with `holes` a part of each is transparent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = [np.roll(dark_pixels(48, 64), 5 * index, axis=1) for index in range(len(LENGTHS))]
    if holes:
        frames = [np.dstack([frame, np.full((48, 64), 255, np.uint8)]) for frame in frames]
        for index, frame in enumerate(frames):
            frame[: 8 + index, :16, 3] = 0
    iio.imwrite(path, np.stack(frames), plugin="pillow", duration=LENGTHS, loop=loop, **options)
    return path


def held(path: Path) -> tuple[list[float], int | None, list[np.ndarray]]:
    """Milliseconds of each frame, loop count, frames as RGBA."""
    with Image.open(path) as image:
        lengths, frames = [], []
        for frame in ImageSequence.Iterator(image):
            frames.append(np.asarray(frame.convert("RGBA")))
            lengths.append(frame.info["duration"])
        return lengths, image.info.get("loop"), frames


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.apng", "a.webp"])
@pytest.mark.parametrize("holes", [False, True])
def test_all_frames_their_lengths_loops_and_transparency_stay(
    lumen: Lumen, tmp_path: Path, name: str, holes: bool
) -> None:
    source = write_animation(tmp_path / "in" / name, holes=holes, lossless=True)
    finished = lumen("enhance", source.parent, "-o", tmp_path / "out", "-m", "tiny", "--json")
    (line,) = map(json.loads, finished.out.splitlines())
    assert line["status"] == "done", line["reason"]
    assert (line["clip"]["frames"], line["clip"]["fps"]) == (6, pytest.approx(6000 / sum(LENGTHS), rel=1e-3))
    lengths, loop, frames = held(tmp_path / "out" / name)
    before = held(source)
    assert (lengths, loop) == (LENGTHS, before[1])
    for dark, bright in zip(before[2], frames, strict=True):
        assert np.array_equal(dark[:, :, 3], bright[:, :, 3])
        seen = dark[:, :, 3] > 0
        assert bright[seen][:, :3].mean() > 1.3 * dark[seen][:, :3].mean()


def test_an_animation_changes_its_kind_and_a_still_gif_becomes_png(lumen: Lumen, tmp_path: Path) -> None:
    source = write_animation(tmp_path / "a.gif")
    assert lumen("enhance", source, "-o", tmp_path / "b.webp", "-m", "tiny").code == 0
    assert held(tmp_path / "b.webp")[0] == LENGTHS
    first = lumen("enhance", source, "-o", tmp_path / "b.jpg", "-m", "tiny")
    assert "only the first of 6 frames was read" in first.err
    still = write_dark(tmp_path / "still.gif")
    assert lumen("enhance", still, "-m", "tiny").code == 0
    assert (tmp_path / "still-enhanced.png").exists()


def test_an_avif_sequence_keeps_its_frames(lumen: Lumen, tmp_path: Path) -> None:
    if not features.check("avif"):
        pytest.skip("needs Pillow with AVIF")
    frames = [Image.fromarray(np.roll(dark_pixels(48, 64), 5 * index, axis=1)) for index in range(len(LENGTHS))]
    source = tmp_path / "a.avif"
    frames[0].save(source, save_all=True, append_images=frames[1:], duration=LENGTHS, quality=95)
    assert lumen("enhance", source, "-o", tmp_path / "b.avif", "-m", "tiny").code == 0
    before, after = held(source), held(tmp_path / "b.avif")
    assert after[0] == before[0] == LENGTHS
    for dark, bright in zip(before[2], after[2], strict=True):
        assert bright[:, :, :3].mean() > 1.3 * dark[:, :, :3].mean()
        assert np.corrcoef(dark[:, :, 0].ravel(), bright[:, :, 0].ravel())[0, 1] > 0.8
    assert lumen("enhance", source, "-o", tmp_path / "c.webp", "-m", "tiny").code == 0
    assert held(tmp_path / "c.webp")[0] == LENGTHS
    content = bytearray(source.read_bytes())
    at = content.find(b"av1C")
    content[at + 6] |= 0x40  # as one of 10 bits says it
    source.write_bytes(content)
    deep = lumen("enhance", source, "-o", tmp_path / "d.avif", "-m", "tiny", "--json")
    line = json.loads(deep.out)
    assert line["status"] == "failed" or "only the first of 6 frames was read" in line["notices"]


def test_a_sixteen_bit_apng_says_that_it_becomes_one_picture(lumen: Lumen, tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="needs PyAV")
    source = tmp_path / "a.png"
    with av.open(str(source), "w", format="apng") as container:
        stream = container.add_stream("apng", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb48be"
        for index in range(3):
            pixels = np.roll(dark_pixels(48, 64, depth=16), 5 * index, axis=1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb48le").reformat(format="rgb48be")))
        container.mux(stream.encode(None))
    finished = lumen("enhance", source, "-o", tmp_path / "b.png", "-m", "tiny")
    assert finished.code == 0
    assert "only the first of 3 frames was read" in finished.err


def test_a_folder_of_animations_is_resumed_and_gives_equal_bytes(lumen: Lumen, tmp_path: Path) -> None:
    write_animation(tmp_path / "in" / "a.gif")
    write_animation(tmp_path / "in" / "b.webp")
    write_dark(tmp_path / "in" / "c.png")
    for name in ("one", "two", "one"):
        finished = lumen("enhance", tmp_path / "in", "-o", tmp_path / name, "-m", "tiny", "--json")
        assert finished.code == 0
    assert {json.loads(line)["status"] for line in finished.out.splitlines()} == {"kept"}
    assert folder_bytes(tmp_path / "one") == folder_bytes(tmp_path / "two")


def test_a_damaged_animation_and_one_with_too_many_pixels_are_one_line(lumen: Lumen, tmp_path: Path) -> None:
    source = write_animation(tmp_path / "a.webp")
    finished = lumen("enhance", source, "-o", tmp_path / "b.webp", "-m", "tiny", "--max-pixels", "10000", "--json")
    assert "more than the limit of 0.01; raise it" in json.loads(finished.out)["reason"].replace(" (see", "; raise it")
    content = source.read_bytes()
    source.write_bytes(content[: len(content) * 2 // 3])
    cut = lumen("enhance", source, "-o", tmp_path / "b.webp", "-m", "tiny", "--json")
    assert json.loads(cut.out)["status"] == "failed"
    assert not (tmp_path / "b.webp").exists()
