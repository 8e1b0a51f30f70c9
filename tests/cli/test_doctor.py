"""`lumen doctor` on this machine, and where things are missing, read-only or broken."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lumen_cli.engine.device import processor_flags, processor_name, usable_cores
from tests.conftest import Finished, MakeModel

Lumen = Callable[..., Finished]
ROOT = Path(__file__).parents[2]
linux = pytest.mark.skipif(sys.platform != "linux", reason="the user's folders follow XDG variables on Linux")


def checks(finished: Finished) -> dict[str, dict[str, Any]]:
    """The checks by area and name."""
    lines = [json.loads(line) for line in finished.out.splitlines()]
    return {f"{line['area']} {line['name']}": line for line in lines}


def bare(tmp_path: Path, *arguments: str, path: str = "", before: tuple[str, ...] = (), **variables: str) -> Finished:
    """Run `lumen doctor --json` in a process that inherits no variable. path: for Python's packages, before lumen's."""
    places = os.pathsep.join(filter(None, [path, str(ROOT)]))
    environment = {"PATH": str(tmp_path / "no-programs"), "PYTHONPATH": places, "PYTHONWARNINGS": "ignore"} | variables
    command = [*before, sys.executable, "-m", "lumen_cli", "doctor", "--json", *arguments]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    return Finished(done.returncode, done.stdout, done.stderr)


def test_everything_works_here(lumen: Lumen) -> None:
    finished = lumen("doctor", "--json")
    assert finished.code == 0, finished.out
    found = checks(finished)
    assert {line["area"] for line in found.values()} == {
        *("python", "processor", "torch", "memory", "device", "package", "format", "exiftool", "model", "folder"),
        "self-test",
    }
    assert found["self-test enhance"]["facts"]["gain"] > 1.5
    assert found["self-test enhance"]["facts"]["model"] == "lumen"
    assert found["processor processor"]["facts"]["usable_cores"] == usable_cores()
    assert processor_name() in found["processor processor"]["found"]
    assert [line["found"] for line in found.values() if line["name"] in ("JPEG", "PNG")] == ["read and written"] * 2
    assert not found["format GIF"]["facts"]["written"]
    assert found["package s3fs"]["facts"]["extra"] == "s3"


def test_the_table_says_the_same_in_words(lumen: Lumen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    for missing in ("pillow_heif", "av", "gcsfs"):
        monkeypatch.setitem(sys.modules, missing, None)
    out = lumen("doctor", "--no-self-test").out
    assert "self-test" not in out
    assert "! " in out
    assert "HEIC: not read: it needs pillow-heif" in out
    assert "pip install 'lumen-cli[heif]'" in out
    assert "pip install 'lumen-cli[video]'" in out
    assert "gcsfs: not installed; for pictures in Google Cloud" in " ".join(out.split())
    assert "JPEG, PNG, WebP" in out
    assert "limited of" in out.splitlines()[-1]
    assert all(len(line) <= 100 for line in out.splitlines())


def test_a_damaged_model_is_broken(lumen: Lumen, make_model: MakeModel) -> None:
    weights = make_model("tiny") / "network.safetensors"
    make_model("other", architecture=7)
    make_model("away", weights={"network": {"file": "n.safetensors", "sha256": "0" * 64, "url": "https://a.example/n"}})
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    finished = lumen("doctor", "--json", "--no-self-test")
    assert finished.code == 1
    found = checks(finished)
    assert found["model tiny"]["status"] == "broken"
    assert f"{weights} is damaged: expected SHA-256" in found["model tiny"]["found"]
    assert '"architecture": expected' in found["model other"]["found"]
    assert (found["model away"]["status"], found["model away"]["advice"]) == ("limited", "lumen models pull away")
    assert found["model kind"]["status"] == "ok"


def test_the_self_test_finds_a_model_that_does_not_brighten(lumen: Lumen, make_model: MakeModel) -> None:
    make_model("lumen", network={"gain": 0.5})  # goes before the model of that name that ships
    finished = lumen("doctor", "--json")
    assert finished.code == 1
    assert "times as bright as the picture, expected at least 1.5" in checks(finished)["self-test enhance"]["found"]


def test_without_home_and_without_exiftool(tmp_path: Path) -> None:
    finished = bare(tmp_path)
    assert (finished.code, finished.err) == (0, "")
    found = checks(finished)
    assert found["exiftool exiftool"]["status"] == "limited"
    assert "libimage-exiftool-perl" in found["exiftool exiftool"]["advice"]
    assert found["self-test enhance"]["status"] == "ok"


@linux
def test_a_read_only_home(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o555)
    before: tuple[str, ...] = ()
    if os.getuid() == 0:  # root may write everywhere, unless it gives up that right
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            pytest.skip("root needs setpriv to respect permissions")
        before = (setpriv, "--bounding-set=-dac_override,-dac_read_search")
    finished = bare(tmp_path, "--no-self-test", before=before, HOME=str(home))
    assert (finished.code, finished.err) == (0, "")
    found = checks(finished)
    for kind in ("data", "config", "cache", "state"):
        line = found[f"folder {kind}"]
        assert line["status"] == "limited"
        assert f"{home}/" in line["found"]
        assert "Permission denied" in line["found"]
        assert f"XDG_{kind.upper()}_HOME" in line["advice"]
    assert found["folder temporary"]["facts"]["free_bytes"] > 0


def test_a_broken_pytorch_is_named_and_the_rest_is_still_checked(tmp_path: Path) -> None:
    (tmp_path / "broken" / "torch").mkdir(parents=True)
    (tmp_path / "broken" / "torch" / "__init__.py").write_text("raise OSError('libgomp.so.1: cannot open')\n")
    finished = bare(tmp_path, path=str(tmp_path / "broken"))
    assert (finished.code, finished.err) == (1, "")
    found = checks(finished)
    assert [name for name, line in found.items() if line["status"] == "broken"] == ["torch torch"]
    assert "libgomp.so.1" in found["torch torch"]["found"]
    assert found["format JPEG"]["status"] == "ok"


@pytest.mark.skipif(usable_cores() < 2, reason="this machine has one core")
def test_idle_cores_are_named(tmp_path: Path) -> None:
    line = checks(bare(tmp_path, "--no-self-test", OMP_NUM_THREADS="1"))["torch torch"]
    assert (line["status"], line["advice"]) == ("limited", "unset OMP_NUM_THREADS")
    assert "(OMP_NUM_THREADS=1): cores stay idle" in line["found"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists a processor's abilities")
def test_abilities_of_the_processor_are_the_systems() -> None:
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    assert processor_flags()
    assert all(f" {flag}" in text for flag in processor_flags())
