"""Any command can be run a second time: outputs are known as lumen's, and no run disturbs another."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Finished, MakeModel, folder_bytes, read_pixels, write_dark

Lumen = Callable[..., Finished]
MANIFEST = ".lumen-manifest.jsonl"


@pytest.fixture
def enhance(make_model: MakeModel, lumen: Lumen) -> Lumen:
    make_model("tiny")
    return lambda *arguments: lumen("enhance", *arguments, "-m", "tiny")


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    return [write_dark(tmp_path / "photos" / f"{name}.jpg", seed=index) for index, name in enumerate("abc")]


def names(folder: Path) -> set[str]:
    return set(folder_bytes(folder))


def test_a_picture_named_alone_can_be_run_again(three: list[Path], enhance: Lumen) -> None:
    assert enhance(three[0]).code == 0
    written = three[0].with_name("a-enhanced.jpg").stat().st_mtime_ns
    again = enhance(three[0])
    assert again.code == 0
    assert "1 picture: 0 enhanced, 1 kept" in again.err
    assert three[0].with_name("a-enhanced.jpg").stat().st_mtime_ns == written
    changed = enhance(three[0], "--strength", "0.5")
    assert changed.code == 0
    assert "1 picture: 1 enhanced" in changed.err
    write_dark(three[0], seed=77)
    assert "1 picture: 1 enhanced" in enhance(three[0], "--strength", "0.5").err


def test_nothing_but_pictures_lies_among_photographs(three: list[Path], enhance: Lumen, tmp_path: Path) -> None:
    enhance(three[0])
    enhance(three[0], "-o", tmp_path / "bright.jpg")
    enhance(*three)
    assert names(tmp_path / "photos") == {*(f"{n}.jpg" for n in "abc"), *(f"{n}-enhanced.jpg" for n in "abc")}
    recorded = [path.read_text() for path in (tmp_path / "state-home" / "lumen" / "outputs").iterdir()]
    assert sum("a-enhanced.jpg" in text for text in recorded) == 1
    assert not list(tmp_path.rglob("*.lock"))


def test_a_glob_that_now_matches_outputs_too_can_be_run_again(three: list[Path], enhance: Lumen) -> None:
    folder = three[0].parent
    assert enhance(*sorted(folder.glob("*.jpg"))).code == 0
    again = enhance(*sorted(folder.glob("*.jpg")))
    assert again.code == 0, again.err
    assert "3 pictures that lumen wrote left out" in again.err
    assert "3 pictures: 0 enhanced, 3 kept" in again.err
    assert len(names(folder)) == 6


@pytest.mark.parametrize("options", [[], ["--no-stamp"], ["--metadata", "strip"]], ids=" ".join)
def test_a_folder_that_holds_outputs_is_searched_for_the_others(
    options: list[str], three: list[Path], enhance: Lumen, tmp_path: Path
) -> None:
    folder = three[0].parent
    enhance(*three, *options)
    assert enhance(folder).code == 0
    assert names(tmp_path / "photos-enhanced") == {"a.jpg", "b.jpg", "c.jpg", MANIFEST}
    assert enhance(tmp_path, "-o", tmp_path.with_name(tmp_path.name + "-all"), "--json").out.count('"done"') == 3


def test_outputs_are_inputs_where_that_is_asked_for(three: list[Path], enhance: Lumen) -> None:
    enhance(three[0])
    output = three[0].with_name("a-enhanced.jpg")
    refused = enhance(output)
    assert refused.code == 2
    assert "written by lumen; add --include-outputs" in refused.err
    assert enhance(output, "--include-outputs").code == 0
    assert output.with_name("a-enhanced-enhanced.jpg").exists()


def test_an_output_whose_record_is_gone_is_known_by_its_stamp(
    three: list[Path], enhance: Lumen, tmp_path: Path
) -> None:
    enhance(three[0])
    for path in (tmp_path / "state-home" / "lumen" / "outputs").iterdir():
        path.unlink()
    again = enhance(three[0])
    assert again.code == 0
    assert "1 kept" in again.err
    left = enhance(three[0], "--strength", "0.5")  # it may have been retouched: only a hash would tell
    assert left.code == 1
    assert "see --overwrite" in left.err


def test_somebody_elses_file_in_the_place_is_left(three: list[Path], enhance: Lumen) -> None:
    other = write_dark(three[0].with_name("a-enhanced.jpg"), 50, 60, seed=9)
    before = other.read_bytes()
    left = enhance(three[0])
    assert left.code == 1
    assert "was not created by lumen" in left.err
    assert other.read_bytes() == before
    assert "1 picture: 1 enhanced" in enhance(other).err, "and it is a picture like any other"


def test_maps_can_be_made_again(three: list[Path], lumen: Lumen, make_model: MakeModel) -> None:
    make_model("tiny", abilities=["enhance", "decompose"])
    folder = three[0].parent
    assert lumen("decompose", *three, "-m", "tiny").code == 0
    again = lumen("decompose", *sorted(folder.iterdir()), "-m", "tiny")
    assert again.code == 0, again.err
    assert "3 kept" in again.err


def test_a_state_folder_that_cannot_be_written_is_one_line(three: list[Path], enhance: Lumen, tmp_path: Path) -> None:
    (tmp_path / "state-home").write_text("a file is in the way")
    finished = enhance(three[0])
    assert finished.code == 0
    assert finished.err.count("later runs know these outputs by their stamp alone") == 1
    assert "1 kept" in enhance(three[0]).err


@pytest.mark.skipif(sys.platform == "win32", reason="another way to start processes there")
def test_two_runs_at_once_share_the_work_and_lose_no_line(make_model: MakeModel, tmp_path: Path) -> None:
    make_model("tiny", network={"seconds": 0.05})
    for index in range(12):
        write_dark(tmp_path / "in" / f"{index:02d}.png", seed=index)
    command = [sys.executable, "-m", "lumen_cli", "enhance", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "-m"]
    runs = [
        subprocess.Popen([*command, "tiny", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    told = [run.communicate(timeout=120) for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0], told
    statuses = [json.loads(line)["status"] for out, _ in told for line in out.splitlines()]
    assert (statuses.count("done"), statuses.count("kept")) == (12, 24)
    lines = [json.loads(line) for line in (tmp_path / "out" / MANIFEST).read_text().splitlines()]
    assert [line["output"] for line in lines] == [f"{index:02d}.png" for index in range(12)]
    assert names(tmp_path / "out") == {*(f"{index:02d}.png" for index in range(12)), MANIFEST}


def test_a_lock_that_a_killed_run_left_stops_nobody(three: list[Path], enhance: Lumen, tmp_path: Path) -> None:
    (tmp_path / "photos-enhanced").mkdir()
    (tmp_path / "photos-enhanced" / f"{MANIFEST}.lock").write_text("")
    assert enhance(three[0].parent).code == 0
    assert f"{MANIFEST}.lock" not in names(tmp_path / "photos-enhanced")
    (tmp_path / "photos-enhanced" / f"{MANIFEST}.lock").write_text("")
    assert "3 kept" in enhance(three[0].parent).err
    assert f"{MANIFEST}.lock" not in names(tmp_path / "photos-enhanced")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such modes")
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o666, 0o444, 0o755])
def test_outputs_get_their_inputs_mode_under_the_umask(
    mode: int, umask: int, three: list[Path], enhance: Lumen
) -> None:
    sidecar = three[0].with_suffix(".xmp")
    sidecar.write_text("<x/>")
    for path in (three[0], sidecar):
        path.chmod(mode)
    before = os.umask(umask)
    try:
        enhance(three[0])
    finally:
        os.umask(before)
    expected = (mode & 0o666 | 0o600) & ~umask
    for output in (three[0].with_name("a-enhanced.jpg"), three[0].with_name("a-enhanced.xmp")):
        assert stat.S_IMODE(output.stat().st_mode) == expected
    assert read_pixels(three[0].with_name("a-enhanced.jpg")).shape == (24, 32, 3)


def test_one_picture_is_two_lines_and_stats_shows_the_table(three: list[Path], enhance: Lumen) -> None:
    first = enhance(three[0])
    lines = first.err.splitlines()
    assert len(lines) == 2, first.err
    assert lines[0].startswith("1 picture: 1 enhanced → ")
    assert lines[1].startswith("tiny · 2 steps · seed 0 · cpu in ")
    assert "wall clock" in enhance(three[0], "--overwrite", "--stats").err
    assert "wall clock" in enhance(*three, "--overwrite").err
    assert "(settings changed)" in enhance(three[0], "--strength", "0.5").err
