"""Standard streams that end or fill, Ctrl-C several times in a row, and wrong command lines: one line each."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Finished, MakeModel, write_dark

LUMEN = [sys.executable, "-m", "lumen_cli"]
posix = pytest.mark.skipif(sys.platform == "win32", reason="needs /dev/full and pipes as in POSIX")
COMMANDS = (["--help"], ["--version"], ["models"], ["models", "--json"], ["models", "info", "tiny"], ["enhance", "-h"])


def end(*arguments: str | Path, stdout: int | None) -> tuple[int, str]:
    """Run a command with this standard output (None: closed); exit code and standard error."""
    command = [*LUMEN, *map(str, arguments)]
    if stdout is None:
        command = ["sh", "-c", 'exec "$@" >&-', "sh", *command]
    done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)
    return done.returncode, done.stderr


def closed_pipe() -> int:
    """The end to write to of a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


@posix
@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_standard_output_that_fills_or_ends_is_one_line(arguments: list[str], make_model: MakeModel) -> None:
    make_model("tiny")
    full = os.open("/dev/full", os.O_WRONLY)
    for stdout, code, reason in (
        (full, 1, "No space left"),
        (closed_pipe(), 141, "closed by its reader"),
        (None, 1, "closed"),
    ):
        ended, said = end(*arguments, stdout=stdout)
        assert ended == code
        assert said.count("\n") == 1
        assert said.startswith("lumen: standard output")
        assert reason in said


@posix
@pytest.mark.parametrize("arguments", [["--json"], ["--json", "--quiet"], ["-o", "-"], ["--dry-run"]], ids=" ".join)
def test_a_run_whose_reader_has_gone_ends_with_one_line_and_whole_pictures(
    arguments: list[str], tmp_path: Path, make_model: MakeModel
) -> None:
    make_model("tiny")
    picture = write_dark(tmp_path / "in" / "a.png")
    where = [picture] if "-" in arguments else [picture.parent, "-o", tmp_path / "out"]
    ended, said = end("enhance", *where, "-m", "tiny", *arguments, stdout=closed_pipe())
    assert ended == 141
    assert said.count("closed by its reader") == 1
    assert "Traceback" not in said
    assert not [path for path in tmp_path.rglob(".lumen-*") if path.name != ".lumen-manifest.jsonl"]


@posix
def test_messages_that_cannot_be_shown_stop_nothing(tmp_path: Path, make_model: MakeModel) -> None:
    make_model("tiny")
    write_dark(tmp_path / "in" / "a.png")
    command = [*LUMEN, "enhance", str(tmp_path / "in"), "-m", "tiny"]
    for stderr in (os.open("/dev/full", os.O_WRONLY), closed_pipe()):
        assert (
            subprocess.run([*command, "--overwrite"], stdout=subprocess.PIPE, stderr=stderr, check=False).returncode
            == 0
        )
    assert (tmp_path / "in-enhanced" / "a.png").exists()


@posix
@pytest.mark.parametrize("delay", [0.4, 1.0, 1.6, 2.4])
def test_ctrl_c_three_times_shows_no_traceback(delay: float, tmp_path: Path, make_model: MakeModel) -> None:
    make_model("tiny")
    for index in range(60):
        write_dark(tmp_path / "in" / f"{index}.png", 200, 300, seed=index)
    command = [*LUMEN, "enhance", str(tmp_path / "in"), "-m", "tiny"]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    time.sleep(delay)
    for _ in range(3):
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGINT)
        time.sleep(0.03)
    _, said = run.communicate(timeout=60)
    assert run.returncode in (0, 130, -signal.SIGINT)
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["enhance", "x", "--modle", "y"], "no such option --modle; did you mean --model?"),
        (["enhance", "x", "--bright", "3"], "no such option --bright; did you mean --brightness?"),
        (["enhance", "x", "--zzz"], "no such option --zzz (lumen enhance --help shows all)"),
        (["enhance", "x", "--strength", "7"], "--strength: "),
        (["enhance", "x", "--brightness", "much"], "--brightness: 'much' is neither auto nor a number"),
        (["enhance", "x", "--format", "pg"], "--format: 'pg' is not one of"),
        (["mdels"], "did you mean 'models'?"),
        (["models", "info"], "missing argument 'MODEL'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_command_line_is_one_line_in_lumens_style(
    arguments: list[str], line: str, lumen: Callable[..., Finished]
) -> None:
    finished = lumen(*arguments)
    assert (finished.code, finished.out) == (2, "")
    assert finished.err.startswith("lumen: ")
    assert finished.err.count("\n") == 1
    assert line in finished.err
    assert "Value error" not in finished.err


def test_what_is_printed_for_programs_is_complete(make_model: MakeModel) -> None:
    make_model("tiny")
    done = subprocess.run([*LUMEN, "models", "--json"], capture_output=True, text=True, check=True)
    assert "tiny" in [json.loads(line)["name"] for line in done.stdout.splitlines()]
