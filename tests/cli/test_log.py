"""--verbose, --log-file, --no-color and --offline, before and after the command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lumen_cli.errors import EXIT_CODES
from tests.conftest import Finished, MakeModel

Lumen = Callable[..., Finished]


@pytest.fixture
def tiny(make_model: MakeModel) -> Path:
    return make_model("tiny")


@pytest.mark.parametrize("first", [True, False], ids=["before the command", "after it"])
def test_verbose_reports_model_device_decisions_and_stages(first: bool, tiny: Path, photos: Path, lumen: Lumen) -> None:
    (photos / "bad.png").write_text("no picture")
    command = ["enhance", str(photos), "-m", "tiny", "-q"]
    finished = lumen(*(["-v", *command] if first else [*command, "-v"]))
    for text in ("device cpu", f"model tiny from {tiny} loaded in", "6 to make, 0 to keep", "bad.png: failed;"):
        assert text in finished.err
    assert all(f"{stage} " in finished.err for stage in ("read", "run", "write"))
    assert finished.out == ""
    again = lumen(*command, "-v")
    assert "a.png: kept; finished" in again.err
    assert "device" not in lumen(*command).err, "nothing stays switched on"


def test_the_log_file_grows_and_has_times(tiny: Path, photos: Path, lumen: Lumen, tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    assert lumen("enhance", photos, "-m", "tiny", "--log-file", log).code == 0
    assert lumen("--log-file", log, "enhance", photos, "-m", "tny").code == 2
    lines = log.read_text(encoding="utf-8").splitlines()
    assert all(line[:2] == "20" and line[10] == "T" for line in lines)
    assert sum(": done; new" in line for line in lines) == 5
    assert "ERROR unknown model 'tny'" in lines[-1]


def test_a_json_log_has_the_pictures_line(tiny: Path, photos: Path, lumen: Lumen, tmp_path: Path) -> None:
    log = tmp_path / "run.jsonl"
    (photos / "bad.png").write_text("no picture")
    lumen("enhance", photos, "-m", "tiny", "--log-format", "json", "--log-file", log)
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert all({"time", "level", "message", "process"} <= line.keys() for line in lines)
    pictures = [line["picture"] for line in lines if "picture" in line]
    assert sorted(line["status"] for line in pictures) == ["done"] * 5 + ["failed"]
    assert {line["level"] for line in lines if line.get("picture", {}).get("status") == "failed"} == {"error"}


def test_a_log_that_cannot_be_written_is_one_line(lumen: Lumen, tmp_path: Path) -> None:
    finished = lumen("models", "--log-file", tmp_path / "no" / "folder.log")
    assert (finished.code, finished.out, finished.err.count("\n")) == (2, "", 1)
    assert "the log cannot be written" in finished.err


@pytest.mark.parametrize("how", ["--no-color", "NO_COLOR", "FORCE_COLOR"])
def test_colours_are_a_choice(how: str, tiny: Path, photos: Path) -> None:
    plain = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    environment = plain | {"FORCE_COLOR": "1"} | ({"NO_COLOR": "1"} if how == "NO_COLOR" else {})
    command = [sys.executable, "-m", "lumen_cli", "enhance", str(photos), "-m", "tiny", "--overwrite"]
    command += ["--no-color"] if how == "--no-color" else []
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert ("\x1b[1;32m" in done.stderr) == (how == "FORCE_COLOR")
    assert "\x1b[?25l" not in done.stderr, "no progress line in a file"


@pytest.mark.parametrize("variable", [True, False])
def test_offline_downloads_nothing(variable: bool, lumen: Lumen, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    option = [] if variable else ["--offline"]
    if variable:
        monkeypatch.setenv("LUMEN_OFFLINE", "1")
    for command in (
        ["enhance", photos, "-m", "hf://organisation/night"],
        ["models", "pull", "https://lumen-tests.invalid/night"],
    ):
        finished = lumen(*command, *option)
        assert (finished.code, finished.err.count("\n")) == (2, 1)
        assert "offline" in finished.err


def test_exit_codes_are_on_every_help_page_and_in_the_documents(lumen: Lumen) -> None:
    for command in ([], ["enhance"], ["models", "pull"], ["config", "path"]):
        shown = " ".join(lumen(*command, "--help").out.split())
        assert all(f"{code} " in shown for code in EXIT_CODES)
        assert "take an unknown one as a failure" in shown
    page = (Path(__file__).parents[2] / "docs" / "exit-codes.md").read_text(encoding="utf-8")
    for code, meaning in EXIT_CODES.items():
        assert f"| {code} | {meaning} |" in page
