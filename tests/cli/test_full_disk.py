"""A disk that fills up during a run, for real: a small file system of its own, where the system lets us make one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import MakeModel, folder_bytes, write_dark

NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]
PICTURES = 12
SCRIPT = """
mount -t tmpfs -o size=$1k tmpfs "$2" || exit 99
shift
target=$1
shift
"$@" > "$OUT/first.json" 2> "$OUT/first.err"; echo $? > "$OUT/first.code"
cp -a "$target" "$OUT/left"
mount -o remount,size=64m "$target"
"$@" > "$OUT/second.json" 2> "$OUT/second.err"; echo $? > "$OUT/second.code"
cp -a "$target" "$OUT/whole"
"""


def _allowed() -> bool:
    if sys.platform != "linux" or shutil.which("unshare") is None:
        return False
    probe = "mount -t tmpfs tmpfs /mnt"
    return subprocess.run([*NAMESPACE, "sh", "-c", probe], capture_output=True, check=False).returncode == 0


@dataclass(frozen=True)
class Ran:
    code: int
    results: list[dict[str, object]]
    err: str


def _ran(folder: Path, name: str) -> Ran:
    results = [json.loads(line) for line in (folder / f"{name}.json").read_text().splitlines()]
    return Ran(int((folder / f"{name}.code").read_text()), results, (folder / f"{name}.err").read_text())


@pytest.mark.skipif(not _allowed(), reason="no mount namespaces here to fill a disk in")
def test_a_disk_that_fills_up_loses_nothing_and_the_run_goes_on_when_there_is_room(
    tmp_path: Path, make_model: MakeModel
) -> None:
    make_model("tiny")
    for index in range(PICTURES):
        write_dark(tmp_path / "in" / f"{index:02}.png", 220, 300, seed=index)
    command = [sys.executable, "-m", "lumen_cli", "enhance", str(tmp_path / "in"), "--model", "tiny", "--device", "cpu"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OUT": str(tmp_path)}
    subprocess.run([*command, "-o", str(tmp_path / "unbroken"), "--quiet"], env=environment, check=True)
    expected = folder_bytes(tmp_path / "unbroken")
    one = max(len(data) for data in expected.values())

    disk = tmp_path / "disk"
    disk.mkdir()
    room = str(one * 9 // 2 // 1024)
    inside = [*command, "-o", str(disk), "--json", "--jobs", "1", "--resume"]
    script = [*NAMESPACE, "sh", "-c", SCRIPT, "sh", room, str(disk), *inside]
    subprocess.run(script, env=environment, check=True, timeout=240)

    first, left = _ran(tmp_path, "first"), folder_bytes(tmp_path / "left")
    assert first.code == 1, first.err
    assert "Traceback" not in first.err
    assert "the disk is full; the run was stopped; run the same command to resume" in first.err
    done = [Path(str(result["output"])).name for result in first.results if result["status"] == "done"]
    failed = [result for result in first.results if result["status"] == "failed"]
    assert 1 <= len(done) <= 4
    assert 3 <= len(failed) < PICTURES - len(done)  # it stopped: not every picture was tried
    assert all("No space left on device" in str(result["reason"]) for result in failed)
    assert set(left) == {*done, ".lumen-manifest.jsonl"}  # no temporary file, no half a picture
    assert all(left[name] == expected[name] for name in done)

    second = _ran(tmp_path, "second")
    assert second.code == 0, second.err
    assert [result["status"] for result in second.results].count("kept") == len(done)
    assert folder_bytes(tmp_path / "whole") == expected


@pytest.mark.skipif(not _allowed(), reason="no mount namespaces here to fill a disk in")
@pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool is not installed")
def test_a_picture_is_finished_with_all_its_tags_or_not_at_all(tmp_path: Path, make_model: MakeModel) -> None:
    """There is room for the picture, and not for exiftool to write it anew."""
    make_model("tiny")
    source = write_dark(tmp_path / "in" / "a.jpg", 200, 300)
    subject = "-XMP-dc:Subject=" + ", ".join(f"word {index}" for index in range(2000))
    subprocess.run(["exiftool", "-q", "-overwrite_original", "-sep", ", ", subject, str(source)], check=True)
    command = [sys.executable, "-m", "lumen_cli", "enhance", str(tmp_path / "in"), "--model", "tiny", "--device", "cpu"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OUT": str(tmp_path)}
    disk = tmp_path / "disk"
    disk.mkdir()
    room = str(source.stat().st_size // 1024)
    script = [*NAMESPACE, "sh", "-c", SCRIPT, "sh", room, str(disk), *command, "-o", str(disk), "--json"]
    subprocess.run(script, env=environment, check=True, timeout=240)
    first, second = _ran(tmp_path, "first"), _ran(tmp_path, "second")
    assert first.code == 1, first.results
    assert "No space left on device" in str(first.results[0]["reason"])
    assert set(folder_bytes(tmp_path / "left")) <= {".lumen-manifest.jsonl"}
    assert second.code == 0, second.err
    assert not second.results[0]["warnings"]
