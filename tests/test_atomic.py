"""Temporary files: found again and removed when their process is dead, left alone while it lives."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumen_cli.atomic import TEMPORARY_PREFIX, sweep_temporaries, temporary_beside

CODE = """
import sys, time
from pathlib import Path
from lumen_cli.atomic import temporary_beside
path = temporary_beside(Path(sys.argv[1]))
path.write_bytes(b"half")
path.with_name(path.name + "_exiftool_tmp").write_bytes(b"half")
print("written", flush=True)
time.sleep(60)
"""


def test_a_temporary_lies_beside_its_target_with_its_ending(tmp_path: Path) -> None:
    target = tmp_path / "night.tif"
    first, second = temporary_beside(target), temporary_beside(target)
    assert first != second
    assert first.parent == tmp_path
    assert first.name.startswith(f"{TEMPORARY_PREFIX}{os.getpid()}-")
    assert first.suffix == ".tif"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["x" * 250 + ".jpg", "ü" * 125 + ".jpg", "夜" * 83 + ".tif"])
def test_long_names_stay_within_what_file_systems_take(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    temporary = temporary_beside(tmp_path / name)
    temporary.with_name(temporary.name + "_exiftool_tmp").touch()
    temporary.touch()
    assert temporary.suffix == Path(name).suffix


@settings(max_examples=150, deadline=None)
@given(st.binary(min_size=1, max_size=255).filter(lambda name: not {0, 47} & {*name} and name not in (b".", b"..")))
@pytest.mark.skipif(sys.platform != "linux", reason="only here are names any bytes")
def test_a_temporary_name_is_short_and_hidden_whatever_the_target_is_called(name: bytes) -> None:
    target = Path("/folder") / os.fsdecode(name)
    temporary = temporary_beside(target)
    assert temporary.parent == target.parent
    assert temporary.name.startswith(TEMPORARY_PREFIX)
    assert len(os.fsencode(temporary.name + "_exiftool_tmp")) <= 255


def test_leftovers_go_when_their_process_is_killed_and_not_before(tmp_path: Path) -> None:
    (tmp_path / "night.jpg").write_bytes(b"whole")
    (tmp_path / ".lumen-manifest.jsonl").write_bytes(b"{}")
    (tmp_path / ".lumen-notes-a.jpg").write_bytes(b"somebody's own")
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, str(tmp_path / "night.jpg")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        assert sweep_temporaries([tmp_path]) == 0
        process.kill()
        process.wait()
        assert sweep_temporaries([tmp_path]) == 2
    finally:
        process.kill()
        process.wait()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".lumen-manifest.jsonl",
        ".lumen-notes-a.jpg",
        "night.jpg",
    ]


@pytest.mark.skipif(os.name == "nt", reason="there a process that ended has no number")
def test_leftovers_go_though_nobody_asked_for_the_exit_code_of_their_process(tmp_path: Path) -> None:
    """As in containers, whose first process often asks for none."""
    process = subprocess.Popen([sys.executable, "-c", CODE, str(tmp_path / "a.jpg")], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        process.kill()
        for _ in range(500):
            if psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE:
                break
            time.sleep(0.01)
        assert sweep_temporaries([tmp_path]) == 2
    finally:
        process.kill()
        process.wait()


def test_my_own_temporaries_are_never_swept(tmp_path: Path) -> None:
    mine = temporary_beside(tmp_path / "a.jpg")
    mine.touch()
    os.utime(mine, (1, 1))  # the original's time, set before the rename
    assert sweep_temporaries([tmp_path]) == 0
    assert mine.exists()


def test_another_machines_temporaries_are_left_for_a_day(tmp_path: Path) -> None:
    foreign = tmp_path / f"{TEMPORARY_PREFIX}4194300-{'0' * 6}{'1' * 14}-a.jpg"
    foreign.touch()
    assert sweep_temporaries([tmp_path]) == 0
    assert foreign.exists()


def test_a_number_that_another_process_inherited_protects_nothing(tmp_path: Path) -> None:
    """In a container the resumed run often has the very number of the one that was killed."""
    left = temporary_beside(tmp_path / "a.jpg")
    time.sleep(0.05)
    younger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        left.with_name(left.name.replace(f"-{os.getpid()}-", f"-{younger.pid}-")).touch()
        left.touch()
        assert sweep_temporaries([tmp_path]) == 1
        assert left.exists()
    finally:
        younger.kill()
        younger.wait()


def test_missing_folders_are_no_trouble(tmp_path: Path) -> None:
    assert sweep_temporaries([tmp_path / "nowhere"]) == 0
