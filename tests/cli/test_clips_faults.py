"""A video that cannot be finished: a full disk, Ctrl-C in the middle; nothing stays but what was finished before."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.cli.test_full_disk import NAMESPACE, _allowed
from tests.clips import Recipe, hold, write_clip
from tests.conftest import MakeModel, dark_pixels


def noisy(count: int, height: int = 240, width: int = 320) -> list[np.ndarray]:
    """Frames that hardly compress."""
    generator = np.random.default_rng(0)
    base = dark_pixels(height, width)
    return [np.clip(base + generator.normal(0, 12, base.shape), 0, 255).astype(np.uint8) for _ in range(count)]


def command(source: Path, output: Path) -> list[str]:
    start = [sys.executable, "-m", "lumen_cli", "enhance", str(source), "-o", str(output)]
    return [*start, "-m", "tiny", "--device", "cpu", "--json"]


@pytest.mark.skipif(not _allowed(), reason="no mount namespaces here to fill a disk in")
def test_a_full_disk_is_one_line_and_leaves_no_file(tmp_path: Path, make_model: MakeModel) -> None:
    make_model("tiny")
    source = write_clip(tmp_path / "a.mp4", Recipe(noisy(12)))
    place = tmp_path / "small"
    place.mkdir()
    script = f'mount -t tmpfs -o size=100k tmpfs "{place}" || exit 99; "$@"; code=$?; ls -A "{place}" >&2; exit $code'
    wanted = [*NAMESPACE, "sh", "-c", script, "sh", *command(source, place / "b.mp4")]
    finished = subprocess.run(wanted, capture_output=True, text=True, check=False)
    assert finished.returncode == 1, finished.stderr
    (line,) = map(json.loads, finished.stdout.splitlines())
    assert line["status"] == "failed"
    assert "No space left on device" in line["reason"]
    assert "Traceback" not in finished.stderr
    assert "b.mp4" not in finished.stderr.splitlines()[-1]


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_an_interrupted_video_leaves_no_file_and_the_next_run_makes_it(tmp_path: Path, make_model: MakeModel) -> None:
    make_model("tiny", network={"seconds": 0.5})
    source = write_clip(tmp_path / "a.mp4", Recipe(noisy(8 * 24)))
    wanted = command(source, tmp_path / "out" / "b.mp4")
    running = subprocess.Popen(wanted, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size for path in (tmp_path / "out").glob(".lumen-*b.mp4")):
        assert running.poll() is None, running.stderr and running.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert "Traceback" not in err
    assert out == ""
    assert list((tmp_path / "out").iterdir()) == []
    again = subprocess.run(wanted, capture_output=True, text=True, check=True)
    assert json.loads(again.stdout)["status"] == "done"
    assert hold(tmp_path / "out" / "b.mp4").times(0) == hold(source).times(0)
