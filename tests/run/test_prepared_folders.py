"""Output folders that a stranger prepared: links, second names, pipes and lines that claim a file for lumen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lumen_cli.errors import LumenError
from lumen_cli.run import manifest as manifests
from lumen_cli.run.manifest import MANIFEST_NAME, Manifest, Record
from tests.conftest import Finished, MakeModel, write_dark

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs links and pipes in the file system")
Lumen = Callable[..., Finished]


@pytest.fixture
def enhance(tmp_path: Path, make_model: MakeModel, lumen: Lumen) -> Lumen:
    """`lumen enhance in -o out` with the fastest model; `in` holds a.png and sub/b.png."""
    make_model("tiny")
    write_dark(tmp_path / "in" / "a.png")
    write_dark(tmp_path / "in" / "sub" / "b.png")
    return lambda *more: lumen("enhance", tmp_path / "in", "-o", tmp_path / "out", "-m", "tiny", *more)


@pytest.mark.parametrize("how", [[], ["--overwrite"], ["--skip-existing"]])
def test_a_link_in_place_of_a_sub_folder_leads_nowhere(tmp_path: Path, enhance: Lumen, how: list[str]) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "b.png").write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub").symlink_to(tmp_path / "outside")
    finished = enhance(*how)
    assert finished.code == 1
    assert "leads out of" in " ".join(finished.err.split())
    assert [path.name for path in (tmp_path / "outside").iterdir()] == ["b.png"]
    assert (tmp_path / "outside" / "b.png").read_text() == "mine"
    assert (tmp_path / "out" / "a.png").is_file()


def test_an_output_folder_that_is_itself_a_link_is_the_users_choice(tmp_path: Path, enhance: Lumen) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    assert enhance().code == 0
    assert (tmp_path / "disk" / "sub" / "b.png").is_file()


@pytest.mark.parametrize(
    "claim",
    [
        {},
        {"output_size": 4},
        {"output_size": 4, "settings": "x", "content": "c"},
        {"output_size": 4, "output_hash": "0" * 32},
        {"output_size": 4, "output_hash": "\u00e9"},
        {"output_size": 0},
        {"output_size": -1},
        {"output_size": True},
    ],
)
def test_a_line_alone_makes_no_file_lumens(tmp_path: Path, enhance: Lumen, claim: dict[str, object]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.png").write_text("mine")
    line = json.dumps({"output": "a.png", "source": "a.png", **claim})
    (tmp_path / "out" / MANIFEST_NAME).write_text(line + "\n")
    enhance()
    assert (tmp_path / "out" / "a.png").read_text() == "mine"
    assert (tmp_path / "out" / "sub" / "b.png").is_file()


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe", "device", "folder", "large"])
def test_a_manifest_that_is_no_file_of_its_own_is_one_line(
    tmp_path: Path, enhance: Lumen, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine\n")
    path = tmp_path / "out" / MANIFEST_NAME
    path.parent.mkdir()
    if kind == "link":
        path.symlink_to(precious)
    elif kind == "hard link":
        path.hardlink_to(precious)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        monkeypatch.setattr(manifests, "LARGEST_MANIFEST", 1 << 20)
        with path.open("wb") as file:
            file.truncate(1 << 21)
    started = time.monotonic()
    finished = enhance()
    assert time.monotonic() - started < 30
    assert finished.code in (1, 2)
    assert MANIFEST_NAME in finished.err
    assert "Traceback" not in finished.err
    assert precious.read_text() == "mine\n"
    with pytest.raises(LumenError, match="manifest"):
        Manifest(path.parent).begin()


def test_a_pipe_that_takes_the_manifests_place_during_a_run_does_not_hang_it(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    manifest.begin()
    manifest.path.unlink()
    os.mkfifo(manifest.path)
    with pytest.raises(LumenError, match="no regular file"):
        manifest.add(Record("a", "a"))


def test_many_lines_of_one_output_are_read_in_linear_time(tmp_path: Path) -> None:
    lines = [json.dumps({"output": "a", "source": str(number), "output_size": number}) for number in range(60_000)]
    (tmp_path / MANIFEST_NAME).write_text("\n".join([*lines, *lines]) + "\n")
    code = "import pathlib, sys; from lumen_cli.run.manifest import Manifest; "
    code += "print(len(Manifest(pathlib.Path(sys.argv[1])).history('a')))"
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.stdout.strip() == "60000", done.stderr


def test_a_sidecars_place_that_is_a_pipe_does_not_hang_a_run(tmp_path: Path, enhance: Lumen) -> None:
    (tmp_path / "in" / "a.xmp").write_text("<x/>")
    (tmp_path / "out").mkdir()
    os.mkfifo(tmp_path / "out" / "a.xmp")
    finished = enhance()
    assert "its sidecar could not be copied" in " ".join(finished.err.split())
    assert (tmp_path / "out" / "a.png").is_file()
