"""Clips through `lumen enhance`: pictures brighter, everything else packet by packet as it was."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests.clips import Recipe, av, dark_frames, hold, lights, write_clip
from tests.conftest import Finished, MakeModel, folder_bytes, write_dark

Lumen = Callable[..., Finished]


@pytest.fixture(autouse=True)
def tiny(make_model: MakeModel) -> Path:
    return make_model("tiny")


def enhance(lumen: Lumen, source: Path, output: Path, *more: str) -> dict[str, object]:
    finished = lumen("enhance", source, "-o", output, "-m", "tiny", "--json", *more)
    (line,) = map(json.loads, finished.out.splitlines())
    assert finished.code == (0 if line["status"] in ("done", "kept", "skipped") else 1), finished.err
    return line


VARIABLE = [0, 300, 811, 1200, 2048, 2100, 4000, 4001, 6000, 6500, 7000, 9000]
KINDS = {
    "turned.mp4": Recipe(dark_frames(12), turned=90),
    "variable.mkv": Recipe(dark_frames(12), VARIABLE, Fraction(1, 1000)),
    "variable.mp4": Recipe(dark_frames(12), VARIABLE, Fraction(1, 90000)),
    "ten-bit.mov": Recipe(
        dark_frames(12), codec="libx265", pixels="yuv420p10le", options={"x265-params": "log-level=none"}
    ),
    "odd.webm": Recipe(
        dark_frames(12, 49, 65),
        codec="libvpx-vp9",
        sound="libopus",
        time_base=Fraction(1, 1000),
        stamps=range(0, 480, 40),
    ),
    "full-chroma.mkv": Recipe(dark_frames(12), pixels="yuv444p", colours=5),
    "texts.mkv": Recipe(dark_frames(12), time_base=Fraction(1, 1000), stamps=range(0, 480, 40), texts="subrip"),
    "texts.mp4": Recipe(dark_frames(12), texts="mov_text"),
    "broadcast.ts": Recipe(dark_frames(12), time_base=Fraction(1, 90000), stamps=range(0, 43200, 3600), chapters=False),
    "film.mpg": Recipe(
        dark_frames(12, 96, 128),
        codec="mpeg2video",
        sound="mp2",
        time_base=Fraction(1, 25),
        stamps=range(12),
        chapters=False,
        options={},
    ),
    "telephone.mov": Recipe(dark_frames(12), names={"com.apple.quicktime.make": "Apple", "location": "+52.5+013.4/"}),
    "covered.mp4": Recipe(dark_frames(12), cover=True),
    "silent.avi": Recipe(
        dark_frames(12), codec="mpeg4", sound=None, chapters=False, time_base=Fraction(1, 25), stamps=range(12)
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_everything_but_the_pictures_stays(lumen: Lumen, tmp_path: Path, name: str) -> None:
    source = write_clip(tmp_path / name, KINDS[name])
    output = tmp_path / "out" / name
    line = enhance(lumen, source, output)
    assert line["clip"]["frames"] == 12
    before, after = hold(source), hold(output)
    assert after.texts == before.texts
    assert after.chapters == before.chapters
    assert after.streams == before.streams
    assert after.turned == before.turned
    assert after.times(0) == before.times(0)
    for stream in set(before.packets) - {0}:
        assert after.packets[stream] == before.packets[stream]
    assert lights(output).mean() > 1.3 * lights(source).mean()


def test_a_time_code_stays_and_names_can_be_left_out(lumen: Lumen, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mov", Recipe(dark_frames(3), timecode="01:02:03:04"))
    enhance(lumen, source, tmp_path / "b.mov")
    with av.open(str(tmp_path / "b.mov")) as container:
        assert container.streams.video[0].metadata["timecode"] == "01:02:03:04"
    enhance(lumen, source, tmp_path / "c.mov", "--metadata", "strip")
    assert "title" not in hold(tmp_path / "c.mov").texts
    assert "title" in hold(tmp_path / "b.mov").texts


def test_transparency_stays(lumen: Lumen, tmp_path: Path) -> None:
    frames = [
        np.dstack([frame, np.full(frame.shape[:2], 40 * (index % 5), np.uint8)])
        for index, frame in enumerate(dark_frames(6))
    ]
    source = write_clip(tmp_path / "a.mov", Recipe(frames, codec="prores_ks", pixels="yuva444p10le", options={}))
    line = enhance(lumen, source, tmp_path / "b.mov")
    assert line["status"] == "done", line["reason"]

    def alphas(path: Path) -> list[float]:
        with av.open(str(path)) as container:
            return [frame.to_ndarray(format="rgba")[:, :, 3].mean() for frame in container.decode(video=0)]

    assert alphas(tmp_path / "b.mov") == pytest.approx([0, 40, 80, 120, 160, 0], abs=1)


def test_a_clip_is_resumed_like_a_picture_and_equal_runs_give_equal_bytes(lumen: Lumen, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write_dark(folder / "a.png")
    (folder / "day").mkdir()
    write_clip(folder / "day" / "b.mp4", Recipe(dark_frames(12, 192, 256)))  # x264 varies below 100 rows
    outputs = []
    for name in ("one", "two"):
        finished = lumen("enhance", folder, "-o", tmp_path / name, "-m", "tiny", "--json")
        assert [json.loads(line)["status"] for line in finished.out.splitlines()] == ["done", "done"]
        outputs.append(folder_bytes(tmp_path / name))
    assert outputs[0] == outputs[1]
    assert set(outputs[0]) == {"a.png", "day/b.mp4", ".lumen-manifest.jsonl"}
    again = lumen("enhance", folder, "-o", tmp_path / "one", "-m", "tiny", "--json")
    assert [json.loads(line)["status"] for line in again.out.splitlines()] == ["kept", "kept"]
    other = lumen("enhance", folder, "-o", tmp_path / "one", "-m", "tiny", "--json", "--seed", "7")
    assert [json.loads(line)["why"] for line in other.out.splitlines()] == ["settings changed"] * 2
    assert folder_bytes(tmp_path / "one")["day/b.mp4"] != outputs[0]["day/b.mp4"]


def test_strength_brightness_and_dark_threshold_count_for_clips(lumen: Lumen, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mp4", Recipe(dark_frames(6, 96, 128), sound=None))
    given = lights(source).mean()
    enhance(lumen, source, tmp_path / "none.mp4", "--strength", "0")
    assert lights(tmp_path / "none.mp4").mean() == pytest.approx(given, rel=0.01)
    enhance(lumen, source, tmp_path / "double.mp4", "--brightness", "2")
    assert lights(tmp_path / "double.mp4").mean() == pytest.approx(2 * given, rel=0.03)
    line = enhance(lumen, source, tmp_path / "left.mp4", "--dark-threshold", f"{given / 2}")
    assert line["status"] == "skipped"
    assert not (tmp_path / "left.mp4").exists()
    planned = lumen("enhance", source, "-o", tmp_path / "dry.mp4", "-m", "tiny", "--dry-run")
    assert planned.code == 0
    assert "1 picture to make" in planned.err
    assert not (tmp_path / "dry.mp4").exists()


def damaged(tmp_path: Path, name: str) -> Path:
    source = write_clip(tmp_path / "whole.mp4", Recipe(dark_frames(12), options={"movflags": "faststart"}))
    path = tmp_path / f"{name}.mp4"
    content = source.read_bytes()
    if name == "cut-off":
        path.write_bytes(content[: len(content) - 4000])
    elif name == "first-half":
        path.write_bytes(content[: len(content) // 2])
    elif name == "sound-only":
        with av.open(str(path), "w") as container:
            sound = container.add_stream("aac", rate=48000)
            sound.layout = "stereo"
            frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
            frame.rate = 48000
            container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
    elif name == "text":
        path.write_text("not a clip")
    elif name == "hdr":
        write_clip(
            path,
            Recipe(
                dark_frames(3),
                pixels="yuv420p10le",
                codec="libx265",
                transfer=16,
                colours=9,
                options={"x265-params": "log-level=none"},
            ),
        )
    return path


@pytest.mark.parametrize(
    ("name", "reason"),
    {
        "cut-off": "cut off",
        "first-half": "cut off",
        "sound-only": "no pictures, only sound",
        "text": "damaged, cut off or not a clip",
        "hdr": "HDR (PQ)",
    }.items(),
)
def test_a_bad_clip_is_one_line_and_leaves_no_file(lumen: Lumen, tmp_path: Path, name: str, reason: str) -> None:
    line = enhance(lumen, damaged(tmp_path, name), tmp_path / "out" / "a.mp4")
    assert line["status"] == "failed"
    assert reason in line["reason"]
    assert "\n" not in line["reason"]
    assert list((tmp_path / "out").iterdir()) == []


def test_too_many_pixels_whole_frames_and_other_kinds_of_output_are_refused(lumen: Lumen, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mp4", Recipe(dark_frames(3)))
    assert "--max-pixels" in enhance(lumen, source, tmp_path / "b.mp4", "--max-pixels", "1000")["reason"]
    assert "--detail auto" in enhance(lumen, source, tmp_path / "b.mp4", "--detail", "whole")["reason"]
    finished = lumen("enhance", source, "-o", tmp_path / "b.png", "-m", "tiny")
    assert finished.code == 2
    assert "is a clip, and its output has to be one too" in finished.err
    vorbis = write_clip(tmp_path / "c.mkv", Recipe(dark_frames(3), sound="flac"))
    reason = enhance(lumen, vorbis, tmp_path / "c.webm")["reason"]
    assert "cannot hold its audio stream (flac)" in reason
    assert not list(tmp_path.glob("*/c.webm"))


def test_other_commands_say_that_they_take_no_clips(lumen: Lumen, tmp_path: Path, make_model: MakeModel) -> None:
    source = write_clip(tmp_path / "a.mp4", Recipe(dark_frames(3)))
    apart = lumen("decompose", source, "-o", tmp_path / "maps", "-m", "kind")
    assert apart.code == 1
    assert "a clip; only pictures are taken apart" in apart.err
    compared = lumen("compare", source, source, "-o", tmp_path / "page.html")
    assert compared.code != 0
    assert "Traceback" not in compared.err
    write_dark(tmp_path / "in" / "b.png")
    write_clip(tmp_path / "in" / "a.mp4", Recipe(dark_frames(3)))
    assert lumen("decompose", tmp_path / "in", "-o", tmp_path / "more", "-m", "kind").code == 0


def test_without_pyav_one_line_names_the_extra(lumen: Lumen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_clip(tmp_path / "a.mp4", Recipe(dark_frames(3)))
    monkeypatch.setitem(sys.modules, "av", None)
    assert "pip install 'lumen-cli[video]'" in enhance(lumen, source, tmp_path / "b.mp4")["reason"]


def test_a_run_of_pictures_imports_neither_imageio_nor_pyav(tmp_path: Path, make_model: MakeModel) -> None:
    picture = write_dark(tmp_path / "a.jpg")
    arguments = ["enhance", str(picture), "-o", str(tmp_path / "b.jpg"), "-m", "tiny", "--device", "cpu"]
    code = (
        "import sys\nfrom lumen_cli.__main__ import main\n"
        f"try: main({arguments!r})\nexcept SystemExit as end: assert not end.code\n"
        "print(sorted({'av', 'imageio', 'lumen_cli.imaging.video', 'lumen_cli.engine.video'} & set(sys.modules)))"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.splitlines()[-1] == "[]"
