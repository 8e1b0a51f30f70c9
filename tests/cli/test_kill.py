"""Runs ended by SIGKILL and resumed leave exactly what an unbroken run leaves."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import MakeModel, folder_bytes, write_dark

PICTURES = 30


def start(photos: Path, output: Path, *more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "lumen_cli", "enhance", str(photos), "-o", str(output), "--model", "tiny", *more]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)


@contextmanager
def told(number: int, what: signal.Handlers) -> Iterator[None]:
    """What is started inside finds a signal handled so."""
    before = signal.signal(number, what)
    try:
        yield
    finally:
        signal.signal(number, before)


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
def test_a_run_killed_at_twenty_moments_and_resumed_leaves_the_bytes_of_an_unbroken_one(
    tmp_path: Path, make_model: MakeModel
) -> None:
    """Moments are drawn anew each time; LUMEN_KILLS asks for more of them, LUMEN_KILL_SEED for the same again."""
    kills = int(os.environ.get("LUMEN_KILLS", "20"))
    seed = int(os.environ.get("LUMEN_KILL_SEED", random.randrange(10**6)))
    print(f"kill test, LUMEN_KILL_SEED={seed}")
    moments, pictures = random.Random(seed), 4 * kills
    source, output = dark_folder(tmp_path / "in", pictures), tmp_path / "broken"
    make_model("tiny", network={"seconds": 0.02})
    end(start(source, tmp_path / "unbroken", "--json"))
    expected = folder_bytes(tmp_path / "unbroken")
    assert len(expected) == pictures + 1

    for _ in range(kills):
        finished = finished_files(output)
        process = start(source, output, "--json", "--resume")
        kept, done = set[str](), 0
        wanted = moments.randrange(0, 4)  # so many pictures are reported, then at any moment of the next
        assert process.stdout is not None
        while done < wanted and (line := process.stdout.readline()):
            result = json.loads(line)
            done += result["status"] == "done"
            kept |= {result["output"]} if result["status"] == "kept" else set()
        if not wanted:
            time.sleep(moments.uniform(0.0, 2.0))  # while it starts, looks at what is there, or begins
        time.sleep(moments.uniform(0.0, 0.08))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        assert not wanted or kept == {str(path) for path in finished}  # nothing finished is made again
        for path in finished_files(output):
            assert path.read_bytes() == expected[path.relative_to(output).as_posix()]  # whole, or not there
    finished = finished_files(output)
    results = end(start(source, output, "--json", "--resume"))

    assert folder_bytes(output) == expected
    assert {result["output"] for result in results if result["status"] == "kept"} == {str(path) for path in finished}
    assert len(results) == pictures
    assert kills < 5 or len(finished) >= 3


def dark_folder(folder: Path, pictures: int) -> Path:
    for index in range(pictures):
        place = folder / "night" if index % 3 == 0 else folder
        write_dark(place / f"{index}.{('png', 'jpg', 'tif', 'webp')[index % 4]}", 40 + index % 30, 50, seed=index)
    return folder


def finished_files(output: Path) -> list[Path]:
    """The outputs under their final names."""
    return [path for path in sorted(output.rglob("*")) if path.is_file() and not path.name.startswith(".lumen-")]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_an_interrupted_run_ends_cleanly_and_can_be_resumed(name: str, code: int, many: Path, tmp_path: Path) -> None:
    number = getattr(signal, name)
    with told(number, signal.SIG_DFL):  # the tests themselves may be run by nohup
        process = start(many, tmp_path / "out", "--json")
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err.decode()
    assert b"interrupted; run the same command to resume" in err
    assert b"Traceback" not in err
    left = set(folder_bytes(tmp_path / "out"))
    reported = 1 + len(out.splitlines())
    assert 1 <= reported < PICTURES
    assert len(left) == reported + 1
    assert not [name for name in left if Path(name).name.startswith(".lumen-") and not name.endswith(".jsonl")]
    results = end(start(many, tmp_path / "out", "--json", "--resume"))
    assert [result["status"] for result in results].count("kept") == reported


def test_a_run_killed_after_its_last_picture_is_put_in_order_by_the_next(many: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    end(start(many, output, "--json"))
    expected, manifest = folder_bytes(output), output / ".lumen-manifest.jsonl"
    manifest.write_bytes(b"".join(reversed(manifest.read_bytes().splitlines(keepends=True))))
    assert {result["status"] for result in end(start(many, output, "--json", "--resume"))} == {"kept"}
    assert folder_bytes(output) == expected
    written = manifest.stat().st_mtime_ns, manifest.stat().st_ino
    end(start(many, output, "--json", "--resume"))
    assert (manifest.stat().st_mtime_ns, manifest.stat().st_ino) == written


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


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_a_run_under_nohup_outlives_its_terminal(many: Path, tmp_path: Path) -> None:
    with told(signal.SIGHUP, signal.SIG_IGN):
        process = start(many, tmp_path / "out", "--json")
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGHUP)
    assert len(end(process)) == PICTURES - 1


@pytest.mark.skipif(sys.platform == "win32", reason="pipes end otherwise there")
def test_a_reader_that_has_enough_ends_the_run_quietly_and_without_harm(many: Path, tmp_path: Path) -> None:
    process = start(many, tmp_path / "out", "--json")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    said = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait(60) == 141
    assert "Traceback" not in said
    assert "Broken" not in said
    hidden = [name for name in folder_bytes(tmp_path / "out") if Path(name).name.startswith(".lumen-")]
    assert hidden == [".lumen-manifest.jsonl"]
    end(start(many, tmp_path / "out", "--json", "--resume"))
    end(start(many, tmp_path / "unbroken", "--json"))
    assert folder_bytes(tmp_path / "out") == folder_bytes(tmp_path / "unbroken")
