"""Runs ended by SIGKILL and resumed leave exactly what an unbroken run leaves."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import MakeModel, folder_bytes, write_dark

PICTURES = 30


def start(photos: Path, output: Path, *more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "lumen_cli", "enhance", str(photos), "-o", str(output), "--model", "tiny", *more]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)


def end(process: subprocess.Popen[bytes]) -> list[dict[str, object]]:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err.decode()
    return [json.loads(line) for line in out.splitlines()]


@pytest.fixture
def many(tmp_path: Path, make_model: MakeModel) -> Path:
    make_model("tiny", network={"seconds": 0.02})
    for index in range(PICTURES):
        folder = "in/night" if index % 3 == 0 else "in"
        write_dark(tmp_path / folder / f"{index}.{('png', 'jpg', 'tif')[index % 3]}", 40 + index, 50, seed=index)
    return tmp_path / "in"


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_run_killed_three_times_and_resumed_leaves_the_bytes_of_an_unbroken_one(many: Path, tmp_path: Path) -> None:
    end(start(many, tmp_path / "unbroken", "--json"))
    expected = folder_bytes(tmp_path / "unbroken")
    assert len(expected) == PICTURES + 1

    output = tmp_path / "broken"
    moments = random.Random()
    seed = moments.randrange(10**6)
    print(f"kill test, seed {seed}")
    moments.seed(seed)
    for kill in range(3):
        process = start(many, output, "--json", *(["--resume"] if kill else []))
        assert process.stdout is not None
        for _ in range(moments.randrange(1, 5)):  # so many pictures are reported, then at any moment of the next
            line = process.stdout.readline()
            assert line or process.poll() is not None
        time.sleep(moments.uniform(0.0, 0.08))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
    results = end(start(many, output, "--json", "--resume"))

    assert folder_bytes(output) == expected
    states = [result["status"] for result in results]
    assert states.count("kept") >= 3
    assert states.count("kept") + states.count("done") == PICTURES


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_ends_cleanly_and_can_be_resumed(
    number: signal.Signals, code: int, many: Path, tmp_path: Path
) -> None:
    process = start(many, tmp_path / "out", "--json")
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err.decode()
    assert b"interrupted; --resume goes on from here" in err
    assert b"Traceback" not in err
    left = set(folder_bytes(tmp_path / "out"))
    reported = 1 + len(out.splitlines())
    assert 1 <= reported < PICTURES
    assert len(left) == reported + 1
    assert not [name for name in left if Path(name).name.startswith(".lumen-") and not name.endswith(".jsonl")]
    results = end(start(many, tmp_path / "out", "--json", "--resume"))
    assert [result["status"] for result in results].count("kept") == reported


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_a_second_interrupt_ends_at_once_and_leaves_no_temporary_files(tmp_path: Path, make_model: MakeModel) -> None:
    make_model("tiny", network={"seconds": 30.0})
    write_dark(tmp_path / "in" / "a.png")
    process = start(tmp_path / "in", tmp_path / "out")
    deadline = time.monotonic() + 60
    while not (tmp_path / "out" / ".lumen-manifest.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=15)  # the picture in hand would take 30 seconds
    assert process.returncode == 130
    assert set(folder_bytes(tmp_path / "out")) == {".lumen-manifest.jsonl"}
