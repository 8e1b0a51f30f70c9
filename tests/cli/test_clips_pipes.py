"""Videos through pipes: y4m and NUT on standard input and output."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests.cli.test_streams import closed_pipe, posix
from tests.clips import Recipe, av, dark_frames, hold, lights, write_clip
from tests.conftest import Finished, MakeModel

Lumen = Callable[..., Finished]
COMMAND = [sys.executable, "-m", "lumen_cli", "enhance", "-", "-o", "-", "-m", "tiny", "--device", "cpu"]


@pytest.fixture(autouse=True)
def tiny(make_model: MakeModel) -> Path:
    return make_model("tiny")


def write_y4m(path: Path, pixels: str, count: int = 7, height: int = 49, width: int = 65) -> Path:
    with av.open(str(path), "w", format="yuv4mpegpipe", options={"strict": "-1"}) as container:
        stream = container.add_stream("wrapped_avframe", rate=Fraction(30000, 1001))
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        for frame in dark_frames(count, height, width):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24").reformat(format=pixels)))
        container.mux(stream.encode(None))
    return path


def piped(source: Path, output: Path, *more: str) -> subprocess.CompletedProcess[str]:
    with source.open("rb") as stdin, output.open("wb") as stdout:
        command = [*COMMAND, *more]
        return subprocess.run(command, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)


@pytest.mark.parametrize("pixels", ["yuv420p", "yuv444p10le"])
def test_y4m_goes_through_with_all_frames_and_its_header(pixels: str, tmp_path: Path) -> None:
    source = write_y4m(tmp_path / "a.y4m", pixels)
    finished = piped(source, tmp_path / "b.y4m")
    assert finished.returncode == 0, finished.stderr
    before, after = (path.read_bytes() for path in (source, tmp_path / "b.y4m"))
    assert len(before) == len(after)
    assert set(before.split(b"\n")[0].split()) <= set(after.split(b"\n")[0].split())
    assert hold(tmp_path / "b.y4m").times(0) == hold(source).times(0)
    assert lights(tmp_path / "b.y4m").mean() > 1.3 * lights(source).mean()


def test_nut_brings_sound_along(tmp_path: Path) -> None:
    recipe = Recipe(dark_frames(12), codec="rawvideo", sound="flac", chapters=False, options={})
    source = write_clip(tmp_path / "a.nut", recipe)
    finished = piped(source, tmp_path / "b.nut")
    assert finished.returncode == 0, finished.stderr
    before, after = hold(source), hold(tmp_path / "b.nut")
    assert after.streams == before.streams
    assert after.times(0) == before.times(0)
    assert after.packets[1] == before.packets[1]
    assert lights(tmp_path / "b.nut").mean() > 1.3 * lights(source).mean()


def test_y4m_becomes_a_video_and_frames_at_uneven_times_do_not_become_y4m(lumen: Lumen, tmp_path: Path) -> None:
    source = write_y4m(tmp_path / "a.y4m", "yuv420p", 7, 48, 64)
    assert lumen("enhance", source, "-o", tmp_path / "b.mp4", "-m", "tiny").code == 0
    assert hold(tmp_path / "b.mp4").times(0) == hold(source).times(0)
    uneven = write_clip(tmp_path / "c.mkv", Recipe(dark_frames(4), [0, 40, 120, 160], Fraction(1, 1000), sound=None))
    finished = lumen("enhance", uneven, "-o", tmp_path / "d.y4m", "-m", "tiny")
    assert finished.code == 1
    assert "do not come at equal steps" in finished.err
    assert not (tmp_path / "d.y4m").exists()


@posix
def test_a_reader_that_has_gone_and_a_stream_that_is_cut_off_are_one_line(tmp_path: Path) -> None:
    source = write_y4m(tmp_path / "a.y4m", "yuv420p", 3)
    with source.open("rb") as stdin:
        ended = subprocess.run(
            COMMAND, stdin=stdin, stdout=closed_pipe(), stderr=subprocess.PIPE, text=True, check=False
        )
    assert ended.returncode == 141
    assert "Traceback" not in ended.stderr
    cut = tmp_path / "cut.y4m"
    cut.write_bytes(source.read_bytes()[:-1000])
    finished = piped(cut, tmp_path / "b.y4m")
    assert np.isin(finished.returncode, [0, 1])
    assert "Traceback" not in finished.stderr
    assert finished.returncode or len(hold(tmp_path / "b.y4m").packets[0]) == 2
