"""`lumen models list`, `path` and `remove`: only the user's own models can go."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Finished, MakeModel

Lumen = Callable[..., Finished]
linux = pytest.mark.skipif(sys.platform != "linux", reason="XDG_DATA_HOME moves the user's folder on Linux only")


@pytest.fixture
def own(make_model: MakeModel, tmp_path: Path) -> Path:
    """A model in the user's data folder."""
    return make_model("night", root=tmp_path / "data-home" / "lumen" / "models")


def test_list_is_what_models_shows(make_model: MakeModel, lumen: Lumen) -> None:
    make_model("tiny")
    assert lumen("models", "list", "--json").out == lumen("models", "--json").out
    assert lumen("models", "list").out == lumen("models").out


def test_path_prints_the_folder_alone(make_model: MakeModel, lumen: Lumen) -> None:
    folder = make_model("tiny")
    assert lumen("models", "path", "tiny").out == f"{folder}\n"
    assert json.loads(lumen("models", "path", "tiny", "--json").out)["folder"] == str(folder)
    assert lumen("models", "path", "tny").code == 2


@linux
def test_own_models_are_removed(own: Path, lumen: Lumen) -> None:
    finished = lumen("models", "remove", "night", "--yes", "--json")
    assert json.loads(finished.out)["status"] == "removed"
    assert not list(own.parent.iterdir()), "nothing is left of it"
    assert "night" not in lumen("models", "--json").out


@linux
def test_a_model_that_cannot_be_read_is_removed_too(own: Path, lumen: Lumen) -> None:
    (own / "config.json").write_text("{")
    assert lumen("models", "remove", "night", "-y").code == 0
    assert not own.exists()


@linux
def test_nothing_is_removed_without_an_answer(own: Path) -> None:
    command = [sys.executable, "-m", "lumen_cli", "models", "remove", "night"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert own.exists()


@linux
@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a terminal")
@pytest.mark.parametrize("answer", ["y", "n"])
def test_it_asks_in_a_terminal(answer: str, own: Path) -> None:
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "lumen_cli", "models", "remove", "night"]
    with subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        os.write(ours, f"{answer}\n".encode())
        out, asked = run.communicate(timeout=120)
    assert "Remove " in asked
    assert out == ""
    assert (run.returncode, own.exists()) == ((0, False) if answer == "y" else (1, True))


@linux
@pytest.mark.parametrize("name", ["kind", "tiny", "../models/night", "linked", "nigth"])
def test_shipped_foreign_and_linked_models_stay(
    name: str, own: Path, make_model: MakeModel, lumen: Lumen, models_root: Path
) -> None:
    tiny = make_model("tiny")
    (own.parent / "linked").symlink_to(tiny)
    finished = lumen("models", "remove", name, "--yes")
    assert (finished.code, finished.err.count("\n")) == (2, 1)
    assert own.exists()
    assert (tiny / "network.safetensors").exists()
