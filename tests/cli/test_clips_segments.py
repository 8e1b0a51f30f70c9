"""Videos in segments: an interrupted run continues, and the result is that of a run that was not interrupted."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from lumen_cli.run import video
from tests.cli.test_clips_faults import command
from tests.clips import Recipe, av, dark_frames, hold, write_clip
from tests.conftest import Finished, MakeModel

Lumen = Callable[..., Finished]
UNEVEN = np.cumsum(np.random.default_rng(1).integers(300, 2000, 120)).tolist()
KINDS = {
    "even.mp4": Recipe(dark_frames(120, 96, 128)),
    "uneven.mp4": Recipe(dark_frames(120, 96, 128), UNEVEN, Fraction(1, 12800)),
    "still.mov": Recipe(dark_frames(1, 96, 128) * 120, codec="prores_ks", pixels="yuv422p10le", options={}),
    "stream.ts": Recipe(
        dark_frames(120, 96, 128), range(0, 120 * 3600, 3600), Fraction(1, 90000), chapters=False, codec="libx265",
        options={"x265-params": "log-level=none"},
    ),
    "film.mpg": Recipe(
        dark_frames(120, 96, 128), range(120), Fraction(1, 25), codec="mpeg2video", sound="mp2", chapters=False,
        options={},
    ),
}  # fmt: skip


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "SEGMENT", 30)


def frames(path: Path) -> list[tuple[Fraction, bytes]]:
    """Time and values of each frame."""
    with av.open(str(path)) as container:
        return [(frame.pts * frame.time_base, frame.to_ndarray().tobytes()) for frame in container.decode(video=0)]


def fail_at(monkeypatch: pytest.MonkeyPatch, number: int, error: BaseException) -> None:
    """The encoder raises an error instead of taking frame `number`."""
    taken = 0
    add = video.create_segment.__globals__["SegmentWriter"].add_frame

    def add_frame(self: object, frame: object, values: object = None) -> None:
        nonlocal taken
        taken += 1
        if taken > number:
            raise error
        add(self, frame, values)

    monkeypatch.setattr(video.create_segment.__globals__["SegmentWriter"], "add_frame", add_frame)


@pytest.mark.parametrize("name", KINDS)
def test_a_clip_is_continued_and_equals_one_made_at_once(
    name: str, lumen: Lumen, tmp_path: Path, make_model: MakeModel, short: None
) -> None:
    make_model("tiny")
    source = write_clip(tmp_path / name, KINDS[name])
    arguments = ["-m", "tiny", "--json"]
    once, twice = tmp_path / "once" / name, tmp_path / "twice" / name
    assert lumen("enhance", source, "-o", once, *arguments).code == 0
    with pytest.MonkeyPatch.context() as patch:
        fail_at(patch, 80, OSError(28, "No space left on device"))
        finished = lumen("enhance", source, "-o", twice, *arguments)
    assert finished.code == 1
    line = json.loads(finished.out)
    assert re.search(r"No space left on device; [12] of [34] segments are finished and stay", line["reason"])
    assert not twice.exists()
    (folder,) = (path for path in twice.parent.iterdir() if path.is_dir())
    parts = sorted(path for path in folder.iterdir() if path.suffix in (".nut", ".mov"))
    assert sum(len(frames(path)) for path in parts) >= 48  # what is finished plays
    finished = lumen("enhance", source, "-o", twice, *arguments)
    assert finished.code == 0, finished.err
    assert any("continued at frame" in notice for notice in json.loads(finished.out)["notices"])
    assert not folder.exists()
    assert hold(twice) == hold(once)
    assert frames(twice) == frames(once)
    assert hold(twice).times(0) == hold(source).times(0)
    decoded = [packet[1] for packet in hold(twice).packets[0]]
    assert decoded == sorted(set(decoded))
    assert all(packet[1] <= packet[0] for packet in hold(twice).packets[0])


def test_segments_change_nothing_that_an_encoder_without_losses_keeps(
    lumen: Lumen, tmp_path: Path, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model("tiny")
    recipe = Recipe(dark_frames(60), range(0, 2400, 40), Fraction(1, 1000), codec="ffv1", sound=None, options={})
    source = write_clip(tmp_path / "a.mkv", recipe)
    made = []
    for length in (20, 1000):
        monkeypatch.setattr(video, "SEGMENT", length)
        assert lumen("enhance", source, "-o", tmp_path / f"{length}.mkv", "-m", "tiny").code == 0
        made.append(frames(tmp_path / f"{length}.mkv"))
    assert made[0] == made[1]


def test_a_shot_that_fades_is_continued_with_the_light_before_it(
    lumen: Lumen, tmp_path: Path, make_model: MakeModel, short: None
) -> None:
    make_model("tiny")
    base = dark_frames(120, 96, 128)
    fading = [(frame * max(0.0, 1 - index / 70)).astype(np.uint8) for index, frame in enumerate(base)]
    source = write_clip(tmp_path / "a.mkv", Recipe(fading, range(0, 4800, 40), Fraction(1, 1000), sound=None))
    results = []
    for number in (40, 75, 100, None):
        target = tmp_path / f"{number}.mkv"
        if number is not None:
            with pytest.MonkeyPatch.context() as patch:
                fail_at(patch, number, OSError(28, "No space left on device"))
                assert lumen("enhance", source, "-o", target, "-m", "tiny").code == 1
        assert lumen("enhance", source, "-o", target, "-m", "tiny").code == 0
        results.append(frames(target))
    assert results[0] == results[1] == results[2] == results[3]


def test_segments_of_other_settings_or_another_source_do_not_count(
    lumen: Lumen, tmp_path: Path, make_model: MakeModel, short: None
) -> None:
    make_model("tiny")
    source = write_clip(tmp_path / "a.mp4", Recipe(dark_frames(90, 96, 128), sound=None))
    target = tmp_path / "b.mp4"
    for more in (["--seed", "3"], ["--strength", "0.5"]):
        with pytest.MonkeyPatch.context() as patch:
            fail_at(patch, 70, OSError(28, "No space left on device"))
            assert lumen("enhance", source, "-o", target, "-m", "tiny").code == 1
        finished = lumen("enhance", source, "-o", target, "-m", "tiny", "--json", "--overwrite", *more)
        assert finished.code == 0
        assert "continued" not in finished.out
        assert not list(tmp_path.glob(".lumen-segments-*"))
        target.unlink()


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_a_killed_run_is_continued(sign: signal.Signals, tmp_path: Path, make_model: MakeModel) -> None:
    make_model("tiny", network={"seconds": 0.3})
    source = write_clip(tmp_path / "a.mp4", Recipe(dark_frames(500, 96, 128)))
    out = tmp_path / "out"
    wanted = command(source, out / "b.mp4")
    running = subprocess.Popen(wanted, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(out.glob(".lumen-segments-b.mp4/00000.json")):
        assert running.poll() is None, running.stderr and running.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    running.send_signal(sign)
    _, err = running.communicate(timeout=60)
    assert running.returncode == (130 if sign == signal.SIGINT else -sign), err
    assert not (out / "b.mp4").exists()
    again = subprocess.run(wanted, capture_output=True, text=True, check=True)
    line = json.loads(again.stdout)
    assert any(notice.startswith("continued at frame") for notice in line["notices"])
    assert hold(out / "b.mp4").times(0) == hold(source).times(0)
    assert [path.name for path in out.iterdir()] == ["b.mp4"]
