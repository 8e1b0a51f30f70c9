"""`lumen benchmark`: a table for people, figures for programs, a line for whatever is wrong."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.cli.test_help import HEAVY, loaded
from tests.conftest import Finished, MakeModel, dark_pixels, folder_bytes, read_pixels

Lumen = Callable[..., Finished]
FEW = ("--metric", "psnr,ssim,brightness")


@pytest.fixture
def tiny(make_model: MakeModel) -> Path:
    return make_model("tiny")


@pytest.fixture
def lol(tmp_path: Path) -> Path:
    """LOL's layout with three small pairs."""
    for index in range(3):
        dark = dark_pixels(24, 32, seed=index)
        for side, pixels in (("low", dark), ("high", np.clip(dark.astype(int) * 3, 0, 255).astype(np.uint8))):
            path = tmp_path / "data/LOLdataset/eval15" / side / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return tmp_path / "data"


def rows(finished: Finished) -> dict[str, dict[str, Any]]:
    """Each row of --json by its model; strict JSON."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    found = [json.loads(line, parse_constant=refuse) for line in finished.out.splitlines()]
    return {row["model"]: row for row in found}


def test_a_set_becomes_a_table_on_stderr_and_rows_on_stdout(tiny: Path, lol: Path, lumen: Lumen) -> None:
    finished = lumen("benchmark", "-d", "LOL", "--data-root", lol, "-m", "tiny", "--baseline", "gamma", *FEW, "--json")
    assert finished.code == 0, finished.err
    found = rows(finished)
    assert list(found) == ["input", "gamma", "tiny"]
    for row in found.values():
        assert row["n"] == 3
        assert [picture["name"] for picture in row["pictures"]] == ["0", "1", "2"]
        figure = row["figures"]["psnr"]
        assert figure["mean"] == pytest.approx(np.mean([picture["psnr"] for picture in row["pictures"]]))
        assert figure["lower"] <= figure["mean"] <= figure["upper"]
        assert row["dataset"] == {
            "name": "LOL-v1", "split": "test", "pictures": 3, "paired": True, "synthetic": False, "refused": 0
        }  # fmt: skip
    assert sum(row["figures"]["psnr"]["best"] for row in found.values()) == 1
    assert found["tiny"]["settings"]["seed"] == 0
    assert found["tiny"]["settings"]["device"] in finished.err
    for said in ("LOL-v1 · test (3 pairs)", "PSNR", "SSIM", "★", "bootstrap", "seed 0"):
        assert said in finished.err, said


def test_without_standard_output_asked_for_there_is_none(tiny: Path, lol: Path, lumen: Lumen) -> None:
    finished = lumen("benchmark", "--data-root", lol / "LOLdataset/eval15", "-m", "tiny", *FEW)
    assert finished.code == 0, finished.err
    assert finished.out == ""
    assert lumen("benchmark", "-d", "LOL", "--data-root", lol, "-m", "tiny", *FEW, "-q").err == ""


@pytest.mark.parametrize("width", ["80", "200"])
def test_the_table_fits_and_keeps_its_names_whole(
    width: str, make_model: MakeModel, lol: Path, lumen: Lumen, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model("a-model-with-a-long-name")
    monkeypatch.setenv("COLUMNS", width)
    finished = lumen(
        "benchmark", "-d", "LOL", "--data-root", lol, "-m", "a-model-with-a-long-name",
        "--metric", "psnr,ssim,psnr_y,ssim_y,psnr_gt_mean,ssim_gt_mean,brightness",
    )  # fmt: skip
    assert finished.code == 0, finished.err
    assert max(map(len, finished.err.splitlines())) <= int(width)
    assert "a-model-with-a-long-name" in finished.err
    assert "GT-mean" in finished.err
    assert "…" not in finished.err


def test_a_fresh_machine_measures_the_built_in_set_and_says_that_it_is_synthetic(tiny: Path, lumen: Lumen) -> None:
    finished = lumen("benchmark", "-m", "tiny", "--metric", "psnr", "--json")
    assert finished.code == 0, finished.err
    assert "synthetic" in finished.err.splitlines()[0]
    assert all(row["dataset"]["synthetic"] for row in rows(finished).values())
    assert rows(finished)["tiny"]["n"] >= 5


def test_ones_own_photographs_are_darkened_by_as_many_stops_as_asked(tiny: Path, tmp_path: Path, lumen: Lumen) -> None:
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for name in ("a.png", "more/b.png"):
        Image.fromarray(dark_pixels(40, 48, seed=len(name)) // 2 + 96).save(folder / name)

    def measured(ev: str) -> dict[str, dict[str, Any]]:
        return rows(
            lumen("benchmark", "--data-root", str(folder), "--darken", ev, "-m", "tiny", *FEW, "--json", "--quiet")
        )

    as_they_are, dark, darker = (measured(ev)["input"]["figures"] for ev in ("0", "1", "3"))
    assert as_they_are["psnr"]["mean"] is None, "nothing was changed, so there is no difference to measure"
    assert as_they_are["brightness"]["mean"] > dark["brightness"]["mean"] > 1.5 * darker["brightness"]["mean"] > 0
    assert darker == measured("3")["input"]["figures"], "the same noise each time"


def test_the_same_run_gives_the_same_figures(tiny: Path, lol: Path, lumen: Lumen) -> None:
    command = ("benchmark", "--data-root", lol / "LOLdataset/eval15", *FEW, "-m", "tiny", "--json")
    first, second = rows(lumen(*command)), rows(lumen(*command))
    assert all(first[name]["figures"] == second[name]["figures"] for name in first)


def test_reports_in_four_formats_hold_the_same_table(
    make_model: MakeModel, lol: Path, tmp_path: Path, lumen: Lumen
) -> None:
    make_model("odd_name")
    outputs = {suffix: tmp_path / f"out/report.{suffix}" for suffix in ("json", "csv", "md", "tex")}
    finished = lumen(
        "benchmark", "-d", "LOL", "--data-root", lol, "-m", "odd_name", *FEW, "--json",
        *(word for path in outputs.values() for word in ("-o", path)),
    )  # fmt: skip
    assert finished.code == 0, finished.err
    row = rows(finished)["odd_name"]
    mean = row["figures"]["psnr"]["mean"]
    whole = json.loads(outputs["json"].read_text(encoding="utf-8"))
    assert [each["model"] for each in whole["rows"]] == ["input", "odd_name"]
    assert whole["rows"][1]["figures"] == row["figures"]
    lines = list(csv.DictReader(outputs["csv"].read_text(encoding="utf-8").splitlines()))
    assert [line["picture"] for line in lines if line["model"] == "odd_name"] == ["", "0", "1", "2"]
    assert float(next(line["psnr"] for line in lines if line["model"] == "odd_name")) == pytest.approx(mean, abs=1e-6)
    single = [float(line["psnr"]) for line in lines if line["scope"] == "picture" and line["model"] == "odd_name"]
    assert np.mean(single) == pytest.approx(mean, abs=1e-5)
    table = [line for line in outputs["md"].read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1
    assert f"{mean:.2f}" in table[-1]
    tex = outputs["tex"].read_text(encoding="utf-8")
    assert r"odd\_name" in tex
    assert tex.count(r"\\") >= 3
    assert f"{mean:.2f}" in tex
    body = tex[tex.index(r"\toprule") : tex.index(r"\bottomrule")].splitlines()
    assert len({line.count("&") for line in body if "&" in line}) == 1


def test_published_figures_stand_beside_the_measured_with_their_source(lol: Path, tmp_path: Path, lumen: Lumen) -> None:
    finished = lumen(
        "benchmark", "-d", "LOL", "--data-root", lol, "-m", "kind", *FEW, "--json", "-o", tmp_path / "r.md"
    )
    assert finished.code == 0, finished.err
    figure = rows(finished)["kind"]["figures"]["psnr"]
    assert figure["published"] == 20.87
    assert "ground truth" in figure["source"]
    text = (tmp_path / "r.md").read_text(encoding="utf-8")
    for said in (finished.err, text):
        assert "20.87" in said
        assert "KinD (Zhang et al." in said


def test_what_exists_is_kept_unless_asked_otherwise(tiny: Path, lol: Path, tmp_path: Path, lumen: Lumen) -> None:
    report = tmp_path / "report.md"
    report.write_text("mine", encoding="utf-8")
    command = ("benchmark", "-d", "LOL", "--data-root", lol, "-m", "tiny", "--metric", "psnr", "-o", report)
    finished = lumen(*command)
    assert finished.code == 2
    assert "--overwrite" in finished.err
    assert report.read_text(encoding="utf-8") == "mine"
    assert lumen(*command, "--overwrite").code == 0
    assert "PSNR" in report.read_text(encoding="utf-8")


def test_saved_pictures_are_those_enhance_writes(tiny: Path, lol: Path, tmp_path: Path, lumen: Lumen) -> None:
    before = folder_bytes(lol)
    images = tmp_path / "images"
    finished = lumen(
        "benchmark", "-d", "LOL", "--data-root", lol, "-m", "tiny", *FEW, "--save-images", images, "--seed", "3"
    )
    assert finished.code == 0, finished.err
    assert set(folder_bytes(images)) == {f"{row}/{name}.png" for row in ("input", "tiny") for name in range(3)}
    low = lol / "LOLdataset/eval15/low"
    lumen("enhance", low, "-o", tmp_path / "enhanced", "-m", "tiny", "--seed", "3")
    for name in range(3):
        assert np.array_equal(read_pixels(images / f"tiny/{name}.png"), read_pixels(tmp_path / f"enhanced/{name}.png"))
        assert np.array_equal(read_pixels(images / f"input/{name}.png"), read_pixels(low / f"{name}.png"))
    assert folder_bytes(lol) == before


def test_pictures_measured_on_are_never_written_over(tiny: Path, tmp_path: Path, lumen: Lumen) -> None:
    path = tmp_path / "set/input/a.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(dark_pixels(16, 16)).save(path)
    finished = lumen(
        "benchmark", "--data-root", path.parent, "-m", "tiny", "--metric", "brightness",
        "--save-images", tmp_path / "set", "--overwrite",
    )  # fmt: skip
    assert finished.code == 2
    assert "measured on" in finished.err


def test_refused_pairs_are_listed_the_rest_is_measured_and_the_exit_code_is_1(
    tiny: Path, lol: Path, lumen: Lumen
) -> None:
    side = lol / "LOLdataset/eval15/low"
    (side / "2.png").rename(side / "7.png")
    Image.fromarray(dark_pixels(8, 8)).save(side / "1.png")
    finished = lumen("benchmark", "-d", "LOL", "--data-root", lol, "-m", "tiny", *FEW, "--json")
    assert finished.code == 1
    assert rows(finished)["tiny"]["n"] == 1
    assert rows(finished)["tiny"]["dataset"]["refused"] == 3
    refused = [line for line in finished.err.splitlines() if "refused" in line]
    assert len(refused) == 3
    assert sum("no partner" in line for line in refused) == 2
    assert sum("8×8" in line for line in refused) == 1
    quiet = lumen("benchmark", "-d", "LOL", "--data-root", lol, "-m", "tiny", *FEW, "--quiet")
    assert len(quiet.err.splitlines()) == 3


def test_a_broken_picture_is_one_line_and_the_rest_goes_on(tiny: Path, lol: Path, lumen: Lumen) -> None:
    (lol / "LOLdataset/eval15/low/1.png").write_bytes(b"nothing of the kind")
    finished = lumen("benchmark", "-d", "LOL", "--data-root", lol, "-m", "tiny", *FEW, "--json")
    assert finished.code == 1
    row = rows(finished)["tiny"]
    assert row["n"] == 2
    assert row["pictures"][1]["psnr"] is None
    assert row["pictures"][1]["reason"]
    assert len([line for line in finished.err.splitlines() if "✗" in line]) == 1, "once, not once a model"


def test_pictures_without_references_have_metrics_that_need_none(tiny: Path, lol: Path, lumen: Lumen) -> None:
    low = lol / "LOLdataset/eval15/low"
    finished = lumen("benchmark", "--data-root", low, "-m", "tiny", "--metric", "brightness", "--json")
    assert finished.code == 0, finished.err
    assert set(rows(finished)["tiny"]["figures"]) == {"brightness"}
    asked = lumen("benchmark", "--data-root", low, "-m", "tiny", "--metric", "psnr,brightness")
    assert asked.code == 2
    assert asked.err.count("\n") == 1
    assert "psnr" in asked.err


def test_an_infinite_figure_is_null(make_model: MakeModel, tmp_path: Path, lumen: Lumen) -> None:
    make_model("tiny")
    for side in ("low", "high"):
        (tmp_path / side).mkdir()
        Image.fromarray(dark_pixels(16, 16)).save(tmp_path / side / "a.png")
    finished = lumen("benchmark", "--low", tmp_path / "low", "--high", tmp_path / "high", "-m", "tiny", *FEW, "--json")
    assert finished.code == 0, finished.err
    assert rows(finished)["input"]["figures"]["psnr"]["mean"] is None
    assert "∞" in finished.err


def test_two_folders_of_one_model_are_two_rows(make_model: MakeModel, lol: Path, tmp_path: Path, lumen: Lumen) -> None:
    runs = [tmp_path / run for run in ("first", "second")]
    folders = [make_model("tiny", root=run, network={"gain": gain}) for run, gain in zip(runs, (2.0, 3.0), strict=True)]
    finished = lumen("benchmark", "-d", "LOL", "--data-root", lol, "-m", folders[0], "-m", folders[1], *FEW, "--json")
    assert finished.code == 0, finished.err
    found = rows(finished)
    assert list(found) == ["input", "tiny-1", "tiny-2"]
    assert found["tiny-1"]["figures"]["psnr"]["mean"] != found["tiny-2"]["figures"]["psnr"]["mean"]


def test_leaks_are_found_without_running_a_model(tiny: Path, lol: Path, tmp_path: Path, lumen: Lumen) -> None:
    """The known answer: picture 1 stands in the training pictures, brighter."""
    high = read_pixels(lol / "LOLdataset/eval15/high/1.png") / 255
    (tmp_path / "train").mkdir()
    Image.fromarray((255 * high**0.5).astype(np.uint8)).save(tmp_path / "train/x.png")
    noise = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "train/y.png")
    finished = lumen("benchmark", "-d", "LOL", "--data-root", lol, "--check-leak", tmp_path / "train", "--json")
    assert finished.code == 0, finished.err
    found = {line["test"]: line for line in map(json.loads, finished.out.splitlines())}
    assert set(found) == {"0", "1", "2"}
    assert found["1"]["verdict"] == "near-duplicate"
    assert found["1"]["train"].endswith("x.png")
    assert "near-duplicate" in finished.err


WRONG = {
    "unknown set": (("-d", "LOLL"), "Did you mean LOL"),
    "set without a root": (("-d", "LOL"), "daooshee"),
    "no such folder": (("--data-root", "no-such-folder"), "no such folder"),
    "one of two sides": (("--low", "x"), "--high"),
    "split of nothing": (("--split", "val20"), "--data-root"),
    "unknown model": (("-m", "tinny"), "Did you mean tiny"),
    "unknown metric": (("--metric", "psnrr"), "Did you mean psnr"),
    "unknown baseline": (("--baseline", "sharpen"), "gamma"),
    "another report": (("-o", "report.docx"), ".tex"),
    "speed without --speed": (("--plain",), "--speed"),
    "pictures with --speed": (("--speed", "-d", "LOL"), "--dataset"),
    "steps out of range": (("-m", "tiny", "--steps", "99"), "10"),
    "a precision it lacks": (("-m", "tiny", "--precision", "fp16"), "fp16"),
    "several batches": (("-m", "tiny", "--batch", "1,2"), "--batch"),
    "a size that is none": (("--speed", "--size", "big"), "WIDTHxHEIGHT"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_command_line_is_one_line_and_2(
    case: str, tiny: Path, lumen: Lumen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, said = WRONG[case]
    finished = lumen("benchmark", *arguments)
    assert finished.code == 2
    assert finished.out == ""
    assert finished.err.count("\n") == 1
    assert said in finished.err


@pytest.mark.parametrize("arguments", [["--help"], ["--plain"], ["--speed", "-d", "LOL"]], ids=" ".join)
def test_nothing_heavy_is_loaded_before_the_command_runs(arguments: list[str]) -> None:
    assert not [module for module in loaded("benchmark", *arguments) if module.split(".")[0] in HEAVY]


def test_speed_is_timed_in_rows(tiny: Path, lumen: Lumen) -> None:
    finished = lumen(
        "benchmark", "--speed", "-m", "tiny", "--size", "32x24", "--precision", "fp32", "--repeat", "2",
        "--threads", "1", "--device", "cpu", "--json",
    )  # fmt: skip
    assert finished.code == 0, finished.err
    lines = [json.loads(line) for line in finished.out.splitlines()]
    assert [(line["width"], line["height"]) for line in lines] == [(32, 24)]
    assert all(line["seconds"]["median"] > 0 for line in lines)
    assert "tiny" in finished.err


def test_ctrl_c_ends_after_the_picture_in_hand(make_model: MakeModel, lol: Path, tmp_path: Path) -> None:
    make_model("slow", network={"seconds": 1.0})
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "lumen_cli", "benchmark", "-d", "LOL", "--data-root", str(lol), "-m", "slow"]
    images = tmp_path / "images"
    process = subprocess.Popen(
        [*command, "--metric", "psnr", "-o", str(report), "--save-images", str(images)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + 120
    while not (images / "slow/0.png").exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "interrupted" in said
    assert "Traceback" not in said
    rows_left = json.loads(report.read_text(encoding="utf-8"))["rows"]
    assert [row["model"] for row in rows_left] == ["input"]
    assert not list(tmp_path.rglob(".lumen-*"))


def test_photographs_are_reduced_before_they_are_darkened(tmp_path: Path, tiny: Path, lumen: Lumen) -> None:
    Image.fromarray(np.random.default_rng(0).integers(60, 250, (900, 1200, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    finished = lumen(
        "benchmark",
        "--data-root",
        tmp_path,
        "--darken",
        "2",
        "--size",
        "0.5mp",
        "-m",
        "tiny",
        "--metric",
        "psnr",
        "--json",
    )
    assert finished.code == 0, finished.err
    assert "at most 0.5 megapixels" in finished.err
    assert lumen("benchmark", "--data-root", tmp_path, "--darken", "2", "--size", "600x400", "-m", "tiny").code == 2
    assert lumen("benchmark", "--size", "2mp", "-m", "tiny").code == 2


def test_a_large_size_is_timed_the_way_large_pictures_run(tiny: Path, lumen: Lumen) -> None:
    common = ("benchmark", "--speed", "-m", "tiny", "--size", "0.6mp", "--repeat", "1", "--json")
    ways = {}
    for detail in ("auto", "whole"):
        finished = lumen(*common, "--detail", detail)
        assert finished.code == 0, finished.err
        ways[detail] = json.loads(finished.out)["detail"]
    assert ways == {"auto": "auto", "whole": "whole"}
