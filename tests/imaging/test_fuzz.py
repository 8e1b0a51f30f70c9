"""Damaged pictures: each ends in a picture or in one line, never in another exception, a crash or a hang.

LUMEN_FUZZ_CASES says how many (default: what fits a minute), LUMEN_FUZZ_FIRST with which number to begin; cases that
fail lie in the test's folder under their number.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import MakeModel
from tests.imaging import fuzzing

CASES = int(os.environ.get("LUMEN_FUZZ_CASES", "400"))
FIRST = int(os.environ.get("LUMEN_FUZZ_FIRST", "0"))
SECONDS = 60.0
"""A damaged picture of a few kilobytes that takes longer hangs."""
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz") / "seeds"
    folder.mkdir()
    fuzzing.write_seeds(folder)
    return folder


def faults(command: Callable[[int], list[str]], first: int, last: int, seconds: float) -> list[str]:
    """Run the cases in a process; one that dies or hangs is a fault, and another goes on behind that case."""
    found: list[str] = []
    while first < last:
        lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        process = subprocess.Popen(
            command(first), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", cwd=ROOT
        )
        readers = [threading.Thread(target=_pass_on, args=(process.stdout, lines.put), daemon=True)]
        said: list[str] = []
        readers.append(threading.Thread(target=_pass_on, args=(process.stderr, said.append), daemon=True))
        for reader in readers:
            reader.start()
        hand, finished = f"{first} before it", False
        try:
            while (line := lines.get(timeout=seconds)) is not None:
                word, _, rest = line.strip().partition(" ")
                if word == "begun":
                    hand, first = rest, int(rest.split()[0]) + 1
                elif word == "fault":
                    found.append(rest)
                finished = word == "done"
        except queue.Empty:
            found.append(f"{hand}: hangs")
            finished = True
        process.kill()
        status = process.wait()
        if not finished or (status not in (0, -9) and first >= last):
            found.append(f"{hand}: ends the process ({status}) {' '.join(filter(None, said[-3:]))[:300]}")
            first += hand.endswith("before it")
        if len(found) > 30:
            break
    return found


def _pass_on(stream: object, put: Callable[[str | None], object]) -> None:
    for line in stream:  # type: ignore[attr-defined]
        put(line)
    put(None)


def test_every_seed_is_read(seeds: Path) -> None:
    assert {fuzzing.fault_of(path) for path in seeds.iterdir()} == {None}
    assert len({path.suffix for path in seeds.iterdir()}) >= 6


def test_the_search_finds_faults_crashes_and_hangs(tmp_path: Path) -> None:
    """With a program that has one of each."""
    code = (
        "import sys, os, time\n"
        "for case in range(int(sys.argv[1]), 6):\n"
        "    print('begun', case, 'x.png', flush=True)\n"
        "    if case == 1: print('fault', case, 'x.png: KeyError', flush=True)\n"
        "    if case == 2: os.abort()\n"
        "    if case == 4: time.sleep(60)\n"
        "    print('done', case, flush=True)\n"
    )
    found = faults(lambda first: [sys.executable, "-c", code, str(first)], 0, 6, 3)
    assert [fault.split()[0] for fault in found] == ["1", "2", "4"]
    assert ["KeyError" in found[0], "ends the process" in found[1], "hangs" in found[2]] == [True, True, True]


def test_every_damaged_picture_is_a_picture_or_one_line(seeds: Path) -> None:
    def command(first: int) -> list[str]:
        return [sys.executable, "-m", "tests.imaging.fuzzing", str(seeds), str(first), str(FIRST + CASES)]

    assert faults(command, FIRST, FIRST + CASES, SECONDS) == []


def test_a_folder_of_damaged_pictures_ends_with_a_line_for_each(
    seeds: Path, tmp_path: Path, make_model: MakeModel
) -> None:
    """The command itself, tags and all: exit code 1, the good picture made, nothing that is lumen's fault."""
    make_model("tiny")
    folder, every = tmp_path / "in", sorted(seeds.iterdir())
    folder.mkdir()
    shutil.copy(seeds / "colour.jpg", folder / "good.jpg")
    (folder / "bad.jpg").write_bytes(b"\xff\xd8\xff")
    for case in range(FIRST, FIRST + CASES // 5):
        name, data = fuzzing.damaged(every, case)
        (folder / f"{case}{Path(name).suffix}").write_bytes(data)
    command = [sys.executable, "-m", "lumen_cli", "enhance", str(folder), "-m", "tiny", "--json", "-j", "2"]
    done = subprocess.run(command, capture_output=True, timeout=60 + CASES, cwd=ROOT)
    said = done.stderr.decode("utf-8", "replace")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1, said[-2000:]
    assert "Traceback" not in said
    assert len(lines) == CASES // 5 + 2
    assert not [line for line in lines if "fault of lumen" in (line["reason"] or "")]
    by_name = {Path(line["input"]).name: line for line in lines}
    assert (by_name["good.jpg"]["status"], by_name["bad.jpg"]["status"]) == ("done", "failed")
    for line in lines:
        assert (line["status"] == "done") == Path(line["output"]).is_file()
        assert all("\n" not in text for text in (line["reason"] or "", *line["warnings"]))
