from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Finished, MakeModel, folder_bytes, read_pixels, write_dark

Lumen = Callable[..., Finished]


@pytest.fixture
def tiny(make_model: MakeModel) -> Path:
    return make_model("tiny")


def test_a_folder_becomes_its_bright_twin_beside_it(tiny: Path, photos: Path, lumen: Lumen) -> None:
    finished = lumen("enhance", photos, "-m", "tiny")
    assert finished.code == 0, finished.err
    twin = photos.with_name("photos-enhanced")
    sources = {path.relative_to(photos).as_posix() for path in photos.rglob("*") if path.is_file()}
    assert set(folder_bytes(twin)) == sources | {".lumen-manifest.jsonl"}
    for name in sources:
        assert read_pixels(twin / name).mean() > 1.3 * read_pixels(photos / name).mean()


def test_one_picture_goes_beside_itself_or_where_it_is_told(tiny: Path, photos: Path, lumen: Lumen) -> None:
    assert lumen("enhance", photos / "a.png", "-m", "tiny").code == 0
    assert lumen("enhance", photos / "a.png", "-m", "tiny", "-o", photos.parent / "bright.jpg").code == 0
    assert (photos / "a-enhanced.png").is_file()
    assert (photos.parent / "bright.jpg").read_bytes()[:2] == b"\xff\xd8"
    assert not [path for path in photos.iterdir() if path.name.startswith(".")]


def test_people_read_stderr_and_stdout_stays_empty(tiny: Path, photos: Path, lumen: Lumen) -> None:
    finished = lumen("enhance", photos, "-m", "tiny")
    assert finished.out == ""
    for said in ("5 pictures: 5 enhanced", "photos-enhanced/", "wall clock", "MP/s", "cpu", "peak memory", "tiny"):
        assert said in finished.err
    tables = [line for line in finished.err.splitlines() if str(photos.parent) not in line]
    assert all(len(line) <= 80 for line in tables)
    assert "\x1b" not in finished.err


def test_json_is_one_object_a_picture(tiny: Path, photos: Path, lumen: Lumen) -> None:
    (photos / "bad.png").write_text("no picture")
    finished = lumen("enhance", photos, "-m", "tiny", "--json")
    assert finished.code == 1
    lines = [json.loads(line) for line in finished.out.splitlines()]
    assert {Path(line["input"]).name for line in lines} == {"a.png", "b.jpg", "c.webp", "d.png", "e.tif", "bad.png"}
    for line in lines:
        if line["status"] == "done":
            assert Path(line["output"]).stat().st_size == line["bytes"]
            assert line["reason"] is None
    (failed,) = (line for line in lines if line["status"] == "failed")
    assert Path(failed["input"]).name == "bad.png"
    assert "not a picture" in failed["reason"]


def test_quiet_says_only_what_failed(tiny: Path, photos: Path, lumen: Lumen) -> None:
    finished = lumen("enhance", photos, "-m", "tiny", "--quiet")
    assert (finished.code, finished.out, finished.err) == (0, "", "")
    (photos / "bad.png").write_text("no picture")
    finished = lumen("enhance", photos, "-m", "tiny", "-q", "--resume")
    assert finished.code == 1
    (line,) = finished.err.splitlines()
    assert line.startswith(f"lumen: {photos / 'bad.png'}: not a picture")


def test_names_that_look_like_markup_or_steer_terminals_are_printed_literally(
    tiny: Path, tmp_path: Path, lumen: Lumen
) -> None:
    folder = tmp_path / "odd"
    write_dark(folder / "good.png")
    names = ["[red].jpg", "[bold]x.png", "a\x1b[31mb.png", "new\nline.png", "-o.png"]
    for name in names:
        (folder / name).write_text("no picture")
    finished = lumen("enhance", folder, "-m", "tiny")
    assert finished.code == 1
    joined = "".join(line.strip() for line in finished.err.splitlines())
    for shown in ("[red].jpg", "[bold]x.png", "a\\x1b[31mb.png", "new\\nline.png", "-o.png"):
        assert shown in joined
    assert "\x1b" not in finished.err


def test_a_dry_run_says_what_it_would_do_and_touches_nothing(tiny: Path, photos: Path, lumen: Lumen) -> None:
    before = folder_bytes(photos.parent)
    finished = lumen("enhance", photos, "-m", "tiny", "--dry-run", "--format", "png")
    assert finished.code == 0
    assert len(finished.out.splitlines()) == 5
    assert f"{photos / 'b.jpg'} → {photos.parent / 'photos-enhanced' / 'b.png'}" in finished.out
    assert "nothing done" in finished.err
    assert folder_bytes(photos.parent) == before
    assert not photos.with_name("photos-enhanced").exists()
    lines = [
        json.loads(line) for line in lumen("enhance", photos, "-m", "tiny", "--dry-run", "--json").out.splitlines()
    ]
    assert [line["status"] for line in lines] == ["planned"] * 5


def test_the_same_command_again_keeps_what_is_finished(tiny: Path, photos: Path, lumen: Lumen) -> None:
    lumen("enhance", photos, "-m", "tiny")
    twin = photos.with_name("photos-enhanced")
    first = folder_bytes(twin)
    for again in ([], ["--resume"]):
        finished = lumen("enhance", photos, "-m", "tiny", *again)
        assert finished.code == 0
        assert "5 pictures: 0 enhanced, 5 kept" in finished.err
    assert "5 enhanced" in lumen("enhance", photos, "-m", "tiny", "--overwrite").err
    assert folder_bytes(twin) == first


@pytest.mark.parametrize("both", [("--overwrite", "--resume"), ("--overwrite", "--skip-existing")], ids=" ".join)
def test_two_ways_with_existing_outputs_exclude_each_other(
    both: tuple[str, str], tiny: Path, photos: Path, lumen: Lumen
) -> None:
    finished = lumen("enhance", photos, "-m", "tiny", *both)
    assert finished.code == 2
    assert "cannot be combined" in finished.err
    assert not photos.with_name("photos-enhanced").exists()


def test_only_what_is_missing_or_stale_is_made_and_why_is_said(tiny: Path, photos: Path, lumen: Lumen) -> None:
    lumen("enhance", photos, "-m", "tiny")
    (photos.with_name("photos-enhanced") / "a.png").unlink()
    write_dark(photos / "b.jpg", seed=99)
    os.utime(photos / "c.webp", ns=(1, 1))
    write_dark(photos / "new.png")
    lines = [json.loads(line) for line in lumen("enhance", photos, "-m", "tiny", "--json").out.splitlines()]
    assert {Path(line["input"]).name: (line["status"], line["why"]) for line in lines} == {
        "a.png": ("done", "missing"),
        "b.jpg": ("done", "source changed"),
        "c.webp": ("kept", "finished"),
        "d.png": ("kept", "finished"),
        "e.tif": ("kept", "finished"),
        "new.png": ("done", "new"),
    }
    other = lumen("enhance", photos, "-m", "tiny", "--seed", "5", "--json")
    assert {json.loads(line)["why"] for line in other.out.splitlines()} == {"settings changed"}


def test_temporary_files_of_dead_runs_are_swept(tiny: Path, photos: Path, lumen: Lumen) -> None:
    from lumen_cli.atomic import temporary_beside

    twin = photos.with_name("photos-enhanced")
    twin.mkdir()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    name = temporary_beside(twin / "a.png").name.replace(f"-{os.getpid()}-", f"-{dead.pid}-")
    (twin / name).write_bytes(b"half a picture")
    assert lumen("enhance", photos, "-m", "tiny").code == 0
    assert name not in folder_bytes(twin)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--strength", "1.01"),
        ("--strength", "-0.1"),
        ("--strength", "nan"),
        ("--steps", "0"),
        ("--steps", "11"),
        ("--quality", "0"),
        ("--quality", "101"),
        ("--batch-size", "0"),
        ("--jobs", "0"),
        ("--seed", "x"),
        ("--device", "gpu"),
        ("--device", "cuda:99"),
        ("--precision", "fp16"),
        ("--precision", "fp8"),
        ("--format", "gif"),
    ],
)
def test_values_out_of_range_are_refused_before_any_work(
    option: str, value: str, tiny: Path, photos: Path, lumen: Lumen
) -> None:
    finished = lumen("enhance", photos, "-m", "tiny", option, value)
    assert finished.code == 2
    assert finished.err
    assert "Traceback" not in finished.err
    assert not photos.with_name("photos-enhanced").exists()


def test_the_format_and_its_quality_are_obeyed(tiny: Path, photos: Path, lumen: Lumen) -> None:
    for quality in ("30", "95"):
        lumen("enhance", photos, "-m", "tiny", "-o", photos.parent / quality, "--format", "jpg", "--quality", quality)
    small, large = (folder_bytes(photos.parent / quality) for quality in ("30", "95"))
    assert set(small) == {"a.jpg", "b.jpg", "c.jpg", "night/d.jpg", "night/e.jpg", ".lumen-manifest.jsonl"}
    for name in small:
        assert name.startswith(".") or len(small[name]) < len(large[name])


def test_strength_0_gives_the_picture_back(tiny: Path, photos: Path, lumen: Lumen) -> None:
    assert lumen("enhance", photos / "a.png", "-m", "tiny", "--strength", "0").code == 0
    assert np.array_equal(read_pixels(photos / "a-enhanced.png"), read_pixels(photos / "a.png"))


def test_the_same_picture_gets_the_same_pixels_alone_or_in_a_folder(tiny: Path, photos: Path, lumen: Lumen) -> None:
    lumen("enhance", photos, "-m", "tiny", "--jobs", "3")
    (photos / "night" / "d.png").rename(photos.parent / "other name.png")
    lumen("enhance", photos.parent / "other name.png", "-m", "tiny", "-o", photos.parent / "alone.png")
    together = photos.with_name("photos-enhanced") / "night" / "d.png"
    assert np.array_equal(read_pixels(together), read_pixels(photos.parent / "alone.png"))


def test_an_unknown_model_gets_the_list_and_the_nearest_name(tiny: Path, photos: Path, lumen: Lumen) -> None:
    finished = lumen("enhance", photos, "--model", "tinny")
    assert finished.code == 2
    assert "unknown model 'tinny'. Did you mean tiny? Known models:" in finished.err
    assert len(finished.err.splitlines()) == 1


def test_damaged_weights_are_one_line_with_both_checksums(tiny: Path, photos: Path, lumen: Lumen) -> None:
    (tiny / "network.safetensors").write_bytes(b"rubbish")
    finished = lumen("enhance", photos, "-m", "tiny")
    assert finished.code == 2
    assert "model tiny" in finished.err
    assert "network.safetensors is damaged: expected SHA-256" in finished.err
    assert ", found " in finished.err
    assert len(finished.err.splitlines()) == 1


def test_nothing_found_and_missing_inputs_end_with_2(tiny: Path, tmp_path: Path, lumen: Lumen) -> None:
    (tmp_path / "empty").mkdir()
    finished = lumen("enhance", tmp_path / "empty", "-m", "tiny")
    assert finished.code == 2
    assert "no pictures found" in finished.err
    assert lumen("enhance", tmp_path / "nowhere", "-m", "tiny").code == 2


def test_an_output_inside_the_input_is_refused(tiny: Path, photos: Path, lumen: Lumen) -> None:
    before = folder_bytes(photos)
    for output in (photos, photos / "night", photos / "new"):
        finished = lumen("enhance", photos, "-m", "tiny", "-o", output)
        assert finished.code == 2
        assert "input" in finished.err
    assert folder_bytes(photos) == before


def test_an_output_that_cannot_be_written_is_one_line_before_the_model_is_loaded(
    tiny: Path, photos: Path, lumen: Lumen
) -> None:
    (tiny / "network.safetensors").write_bytes(b"would be found damaged when loaded")
    blocked = photos.parent / "file"
    blocked.write_text("in the way")
    finished = lumen("enhance", photos, "-m", "tiny", "-o", blocked / "out")
    assert finished.code == 2
    assert len(finished.err.splitlines()) == 1
    assert str(blocked) in finished.err
    assert "damaged" not in finished.err


def test_a_reader_that_goes_away_ends_the_command_quietly(tiny: Path, photos: Path) -> None:
    command = [sys.executable, "-m", "lumen_cli", "enhance", str(photos), "-m", "tiny", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read().decode()
    process.wait(60)
    assert process.returncode == 141
    assert "Traceback" not in err
    assert "Exception" not in err
