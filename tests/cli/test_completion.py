"""What shells complete, by the protocol that their scripts speak with lumen."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.test_help import HEAVY
from tests.conftest import MakeModel

ROOT = Path(__file__).parents[2]


def ask(code: str = "", **variables: str) -> str:
    """What lumen answers a shell; code: Python that runs when it ends."""
    start = f"import atexit, sys\natexit.register(lambda: {code or None})\n"
    command = [sys.executable, "-c", start + "from lumen_cli.__main__ import main; main()"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, env=environment | variables, capture_output=True, text=True)
    assert done.stderr == ""
    return done.stdout


def complete(line: str) -> list[str]:
    """The completions of a line's last word, as bash asks for them."""
    words = line.split(" ")
    answer = ask(_LUMEN_COMPLETE="complete_bash", COMP_WORDS=" ".join(words), COMP_CWORD=str(len(words) - 1))
    return answer.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("lumen do", ["doctor"]),
        ("lumen enhance --model li", ["lightendiffusion"]),
        ("lumen enhance photos/ -m au", ["auto"]),
        ("lumen decompose --model ki", ["kind"]),
        ("lumen benchmark --model kind,ll", ["kind,lldiffusion"]),
        ("lumen compare --models kind,diffll,ki", []),
        ("lumen benchmark --metric ssim", ["ssim", "ssim_y", "ssim_gt_mean"]),
        ("lumen compare --metrics psnr,psnr_", ["psnr,psnr_y", "psnr,psnr_gt_mean"]),
        ("lumen benchmark --dataset LSRW-", ["LSRW-Huawei", "LSRW-Nikon"]),
        ("lumen enhance --device c", ["cpu", "cuda"]),
        ("lumen enhance --grading ", ["photo", "lol"]),
        ("lumen enhance --metadata pri", ["private"]),
        ("lumen train refi", ["refiner"]),
        ("lumen train grading --init lu", ["lumen"]),
        ("lumen models info any", []),
        ("lumen models path an", ["anlightendiff"]),
        ("lumen models import kind", ["kind", "kind-plus"]),
        ("lumen enhance pho", []),
    ],
)
def test_values_are_completed(line: str, expected: list[str]) -> None:
    found = complete(line)
    assert [each for each in found if not each.startswith("cuda:")] == expected


def test_own_models_are_among_the_names(make_model: MakeModel, models_root: Path, tmp_path: Path) -> None:
    make_model("night-1")
    make_model("night-2", root=tmp_path / "data-home" / "lumen" / "models")
    away = {"network": {"file": "n.safetensors", "sha256": "0" * 64, "url": "https://a.example/n"}}
    make_model("night-3", weights=away)
    assert complete("lumen enhance -m nigh") == ["night-1", "night-2", "night-3"]
    assert complete("lumen models pull nigh") == ["night-3"]
    if sys.platform == "linux":
        assert complete("lumen models remove ") == ["night-2"]


def test_a_broken_configuration_does_not_disturb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUMEN_CONFIG", str(tmp_path / "lumen.toml"))
    (tmp_path / "lumen.toml").write_text("no = [toml")
    assert complete("lumen enhance --model light") == ["lightendiffusion"]


@pytest.mark.parametrize("line", ["lumen enhance --model ", "lumen benchmark --metric ", "lumen benchmark --dataset "])
def test_completing_loads_nothing_heavy(line: str) -> None:
    variables = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    answer = ask("print('modules:', *sys.modules)", _LUMEN_COMPLETE="complete_bash", **variables)
    loaded = {name.split(".")[0] for name in answer.partition("modules:")[2].split()}
    assert len(loaded) > 50
    assert not loaded & {*HEAVY, "torchmetrics"}


def test_zsh_and_fish_show_what_a_value_is() -> None:
    line = {"_TYPER_COMPLETE_ARGS": "lumen benchmark --metric delta"}
    assert '"delta_e":"ΔE2000"' in ask(_LUMEN_COMPLETE="complete_zsh", **line)
    fish = ask(_LUMEN_COMPLETE="complete_fish", _TYPER_COMPLETE_FISH_ACTION="get-args", **line)
    assert fish.strip() == "delta_e\tΔE2000"
    assert ask(_LUMEN_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS="lumen enhance photo").strip() == "_files"


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_itself_completes(tmp_path: Path) -> None:
    (tmp_path / "lumen").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m lumen_cli "$@"\n')
    (tmp_path / "lumen").chmod(0o755)
    script = (
        'eval "$(_LUMEN_COMPLETE=source_bash lumen)"; COMP_WORDS=(lumen enhance --model light); COMP_CWORD=3; '
        'complete -p lumen; _lumen_completion lumen; echo "${COMPREPLY[@]}"'
    )
    environment = os.environ | {"PATH": os.pathsep.join([str(tmp_path), os.environ["PATH"]]), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "--norc", "-c", script], env=environment, capture_output=True, text=True)
    assert done.stdout.split("\n")[:2] == ["complete -o default -F _lumen_completion lumen", "lightendiffusion"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_has_a_script(shell: str) -> None:
    assert f"complete_{shell}" in ask(_LUMEN_COMPLETE=f"source_{shell}")
