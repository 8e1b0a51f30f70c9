"""What every command prints with --json fits the published schema."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from lumen_cli.reports.jsonlines import RECORDS, SCHEMA
from lumen_cli.run.manifest import Manifest, Record
from tests.conftest import Finished, MakeModel, write_dark
from tests.schema import PUBLISHED, strict_schema

Lines = Callable[..., list[dict[str, Any]]]
EXAMPLES: dict[str, tuple[list[str], list[str]]] = {
    "enhance": (["photos", "-m", "tiny"], ["picture"]),
    "decompose": (["photos", "-m", "maps"], ["picture"]),
    "compare": (["one.png", "other.png", "--metrics", "psnr"], ["comparison", "means"]),
    "benchmark": (["--low", "photos", "--high", "photos", "-m", "tiny", "--metric", "psnr"], ["quality"]),
    "models": ([], ["model"]),
    "models list": ([], ["model"]),
    "models info": (["tiny"], ["model"]),
    "models path": (["tiny"], ["model-path"]),
    "models remove": (["mine", "--yes"], ["model-path"]),
    "models import": (["diffll", "official.pth"], ["import"]),
    "models pull": (["tiny"], ["pull"]),
    "models export": (["tiny", "-o", "exported", "--format", "onnx"], ["export"]),
    "status": (["bright"], ["status"]),
    "config": ([], ["setting"]),
    "config path": ([], ["config-file"]),
    "doctor": (["--no-self-test"], ["check"]),
}
"""A command line for every command with --json, and the types of its lines."""


@pytest.fixture
def lines(lumen: Callable[..., Finished]) -> Lines:
    """Run a command with --json; its lines, which the fixture `lumen` checks."""

    def run(*arguments: str | Path, code: int = 0) -> list[dict[str, Any]]:
        finished = lumen(*arguments, "--json")
        assert finished.code == code, finished.err
        found = [json.loads(line) for line in finished.out.splitlines()]
        assert found
        return found

    return run


@pytest.fixture
def shop(tmp_path: Path, make_model: MakeModel, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder with what the examples need."""
    import torch

    from lumen_cli.networks.diffll import DiffLL
    from lumen_cli.registry.checkpoints import importing
    from lumen_cli.registry.checkpoints.reading_process import read_source

    make_model("tiny")
    make_model("maps", abilities=["enhance", "decompose"])
    make_model("mine", root=tmp_path / "data-home" / "lumen" / "models")
    write_dark(tmp_path / "one.png")
    write_dark(tmp_path / "other.png", seed=1)
    size = write_dark(tmp_path / "bright" / "one.png").stat().st_size
    Manifest(tmp_path / "bright").add(Record("one.png", "one.png", output_size=size))
    small = DiffLL(unet_channels=32, unet_multipliers=(1, 1, 1), detail_channels=16)
    torch.save({"state_dict": small.state_dict()}, tmp_path / "official.pth")
    monkeypatch.setattr(importing, "read_apart", read_source)  # in this process, which saves seconds
    monkeypatch.setenv("LUMEN_ENHANCE_STRENGTH", "0.5")
    monkeypatch.delenv("LUMEN_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config-home"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("command", EXAMPLES)
def test_every_command_prints_lines_of_the_schema(command: str, shop: None, lines: Lines) -> None:
    if command == "models remove" and sys.platform != "linux":
        pytest.skip("the user's data folder is set by XDG_DATA_HOME on Linux only")
    arguments, types = EXAMPLES[command]
    assert list(dict.fromkeys(line["type"] for line in lines(*command.split(), *arguments))) == types


def test_no_command_and_no_type_is_forgotten() -> None:
    import typer

    from lumen_cli.cli.app import app, walk

    able = [
        " ".join(words)
        for words, command in walk(typer.main.get_command(app))
        if any("--json" in option.opts for option in command.params)
    ]
    assert sorted(able) == sorted(EXAMPLES)
    shown = {type for _, types in EXAMPLES.values() for type in types}
    of_other_options = {"leak", "page", "speed", "release", "output"}  # below, in test_page.py and test_shards.py
    assert shown | of_other_options == {record.type for record in RECORDS}


def test_the_published_schema_is_the_one_in_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(PUBLISHED.parent)
    schema = importlib.import_module("make_schema").make_schema()
    assert PUBLISHED.read_text(encoding="utf-8") == schema, "write it again: python docs/make_schema.py"
    Draft202012Validator.check_schema(json.loads(schema))


def test_a_line_that_lacks_a_field_does_not_fit() -> None:
    assert not Draft202012Validator(strict_schema()).is_valid({"schema": SCHEMA, "type": "picture"})


def test_pictures_done_failed_kept_left_and_planned(lines: Lines, make_model: MakeModel, tmp_path: Path) -> None:
    make_model("tiny")
    folder, out = tmp_path / "in", tmp_path / "out"
    for name in ("a.png", "b.png", "c.jpg"):
        write_dark(folder / name)
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "gone.png").symlink_to("nowhere.png")
    write_dark(out / "b.png")
    enhance = ["enhance", folder, "-o", out, "-m", "tiny", "--strength", "0.5"]
    planned = lines(*enhance, "--dry-run", code=0)
    assert [line["status"] for line in planned].count("planned") == 4
    done = {Path(line["input"]).name: line for line in lines(*enhance, "--seed", "3", code=1)}
    assert {name: line["status"] for name, line in done.items()} == {
        "a.png": "done",
        "b.png": "left",
        "c.jpg": "done",
        "broken.png": "failed",
        "gone.png": "failed",
    }
    card = lines("models", "info", "tiny")[0]
    for line in (*planned, *done.values()):
        assert (line["model"], line["device"]) == ("tiny", "cpu")
        assert card["weights_sha256"].startswith(line["weights"])
        assert len(line["weights"]) == 12
        assert line["settings"]["strength"] == 0.5
    assert {line["seed"] for line in done.values()} == {3}
    assert done["a.png"]["precision"] in ("fp32", "bf16")
    assert done["broken.png"]["precision"] is None
    again = lines(*enhance, "--seed", "3", code=1)
    assert [line["status"] for line in again].count("kept") == 2


def test_the_precision_is_that_of_the_picture(lines: Lines, make_model: MakeModel, tmp_path: Path) -> None:
    from tests.imaging import make

    make_model("tiny")
    make.png16(tmp_path / "deep.png", make.deep())
    (line,) = lines("enhance", tmp_path / "deep.png", "-m", "tiny")
    assert line["precision"] == "fp32", "16-bit pictures are not computed in bfloat16"


def test_decomposed_pictures(lines: Lines, make_model: MakeModel, photos: Path) -> None:
    make_model("tiny", abilities=["enhance", "decompose"])
    found = lines("decompose", photos, "-m", "tiny", "--reconstruct")
    assert all(line["outputs"]["reflectance"] and line["seed"] is None for line in found)
    lines("decompose", photos, "-m", "tiny", "--dry-run")


def test_comparisons(lines: Lines, photos: Path, tmp_path: Path) -> None:
    write_dark(tmp_path / "other" / "a.png", 24, 32, seed=9)
    write_dark(tmp_path / "other" / "b.png", 7, 9)
    found = lines("compare", photos, tmp_path / "other", "--no-page", code=1)
    assert {(line["type"], line["status"]) for line in found} == {
        ("comparison", "compared"),
        ("comparison", "failed"),
        ("means", "means"),
    }


def test_benchmarks(lines: Lines, make_model: MakeModel, photos: Path, tmp_path: Path) -> None:
    make_model("tiny")
    for name in ("a.png", "b.png"):
        write_dark(tmp_path / "low" / name)
        write_dark(tmp_path / "high" / name)
    pairs = ["benchmark", "--low", tmp_path / "low", "--high", tmp_path / "high"]
    assert lines(*pairs, "-m", "tiny", "--baseline", "gamma", "--metric", "psnr")[0]["type"] == "quality"
    assert lines(*pairs, "--check-leak", tmp_path / "low")[0]["type"] == "leak"


@pytest.mark.slow
def test_speed(lines: Lines, make_model: MakeModel) -> None:
    make_model("tiny")
    found = lines("benchmark", "--speed", "-m", "tiny", "--size", "64x48", "--repeat", "1", "--pipeline", "--quiet")
    assert [line["type"] for line in found] == ["speed"]


def test_models(lines: Lines, make_model: MakeModel) -> None:
    make_model("tiny")
    assert "tiny" in [line["name"] for line in lines("models")]
    assert lines("models", "info", "kind-plus")[0]["type"] == "release"
