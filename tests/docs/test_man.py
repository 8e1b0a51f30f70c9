"""The manual page: up to date, understood by groff, complete, and in the wheel."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from lumen_cli.errors import EXIT_CODES

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "lumen.1"
READERS = {
    "man": ["man", "-l", "-E", "UTF-8", str(PAGE)],
    "groff": ["groff", "-man", "-Tutf8", "-K", "utf8", str(PAGE)],
}


def render(reader: str) -> str:
    """The page as a reader shows it, without bold and underlining."""
    if shutil.which(reader) is None:
        pytest.skip(f"{reader} is not installed")
    environment = {"PATH": "/usr/bin:/bin", "MANWIDTH": "200", "LC_ALL": "C.UTF-8", "MAN_KEEP_FORMATTING": ""}
    done = subprocess.run(READERS[reader], env=environment, capture_output=True, check=True)
    assert done.stderr == b""
    return re.sub(r"\x1b\[[0-9;]*m|.\x08", "", done.stdout.decode())


def test_the_page_is_the_one_of_the_commands() -> None:
    made = subprocess.run(
        [sys.executable, "-c", "import make_man; print(make_man.make_page(), end='')"],
        cwd=ROOT / "docs",
        env={"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert PAGE.read_text(encoding="utf-8") == made.stdout, "write it again: python docs/make_man.py"


@pytest.mark.parametrize("reader", READERS)
def test_every_command_option_and_exit_code_is_shown(reader: str) -> None:
    import typer

    from lumen_cli.cli.app import app, walk

    text = render(reader)
    sections = dict.fromkeys(["NAME", "SYNOPSIS", "OPTIONS", "COMMANDS", "EXIT STATUS", "ENVIRONMENT"])
    assert [line for line in text.splitlines() if line in sections] == list(sections)
    words = set(re.findall(r"[^\s,]+", text))
    for names, command in walk(typer.main.get_command(app)):
        assert f"   {' '.join(['lumen', *names])}\n" in text or not names
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert set(parameter.opts) <= words, parameter.opts
            else:
                assert re.search(rf"^       {re.escape(parameter.metavar)}( |$)", text, re.M), parameter.metavar
    status = text.partition("EXIT STATUS")[2]
    assert all(re.search(rf"^\s+{code}\s+{re.escape(meaning)}$", status, re.M) for code, meaning in EXIT_CODES.items())
    assert "LUMEN_METRIC_WEIGHTS" in status


def test_groff_has_nothing_to_complain_about() -> None:
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed")
    done = subprocess.run(["groff", "-man", "-ww", "-z", "-K", "utf8", str(PAGE)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_the_wheel_installs_the_page(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(".data/data/share/man/man1/lumen.1"))
        assert archive.read(name) == PAGE.read_bytes()
