from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.test_help import HEAVY, loaded
from tests.conftest import Finished, MakeModel

Lumen = Callable[..., Finished]


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize("columns", [100, 80, 60])
def test_the_table_has_a_row_a_model(
    columns: int, make_model: MakeModel, lumen: Lumen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    make_model("tiny", best_for="tests of all kinds, and a long text on top of that", seconds=0.5)
    make_model("onepass", defaults={}, steps_range=None, weights=None)
    finished = lumen("models")
    assert finished.code == 0
    rows = {line.split()[1 if "*" in line else 0]: line for line in finished.out.splitlines() if line.strip()}
    for name in ("anlightendiff", "diffll", "kind", "lightendiffusion", "lldiffusion", "lumen", "tiny"):
        assert rows[name].rstrip().endswith(("KiB", "MiB"))
    assert rows["lumen"].split()[0] == "*"
    assert "tests of all" in rows["tiny"]
    assert "0.50" in rows["tiny"]
    assert sum("*" in row for row in rows.values()) == 2, "the default and the note about it"
    assert all(len(line.rstrip()) <= columns for line in finished.out.splitlines())
    assert "left out: " in finished.err  # onepass names no weights
    assert '"weights.network" is missing' in finished.err


def test_info_has_the_details(lumen: Lumen) -> None:
    told = lumen("models", "info", "kind").out
    for said in ("lit scenes", "0.25 for 600×400 pixels", "LOL-v1", "decompose", "MIT"):
        assert said in told


def test_info_says_all_the_card_says(make_model: MakeModel, lumen: Lumen) -> None:
    folder = make_model(
        "tiny", paper={"title": "A [bold] paper", "url": "https://example.org/paper"}, official_checkpoint="a release"
    )
    config = json.loads((folder / "config.json").read_text())
    finished = lumen("models", "info", "tiny")
    assert finished.code == 0
    for said in ("one convolution", "2 (from 1 to 10)", "fp32, bf16", "A [bold] paper", "example.org", "a release"):
        assert said in finished.out
    assert config["weights"]["network"]["sha256"] in "".join(finished.out.split())


def test_json_gives_the_cards_fields(make_model: MakeModel, lumen: Lumen) -> None:
    folder = make_model("tiny")
    listed = [json.loads(line) for line in lumen("models", "--json").out.splitlines()]
    (shown,) = (json.loads(line) for line in lumen("models", "info", "tiny", "--json").out.splitlines())
    assert shown in listed
    assert (shown["name"], shown["folder"], shown["defaults"]["steps"]) == ("tiny", str(folder), 2)


def test_info_takes_a_folder(make_model: MakeModel, lumen: Lumen, tmp_path: Path) -> None:
    folder = make_model("elsewhere", root=tmp_path / "runs")
    assert "one convolution" in lumen("models", "info", folder).out


def test_an_unknown_name_ends_with_2_and_the_list(make_model: MakeModel, lumen: Lumen) -> None:
    make_model("tiny")
    finished = lumen("models", "info", "tyni")
    assert (finished.code, finished.out) == (2, "")
    assert "Did you mean tiny?" in finished.err


def test_info_says_where_the_authors_keep_weights_that_are_not_here(lumen: Lumen) -> None:
    finished = lumen("models", "info", "kind-plus")
    assert finished.code == 0
    for said in ("none here yet", "github.com/zhangyhuaee/KinD_plus", "no licence", "lumen models import kind-plus"):
        assert said in finished.out
    assert all(len(line) <= 80 for line in finished.out.splitlines())
    told = json.loads(lumen("models", "info", "kind-plus", "--json").out)
    assert (told["installed"], told["architecture"]) == (False, "kind-plus")


@pytest.mark.parametrize("name", ["anlightendiff", "diffll", "kind", "kind-plus", "lightendiffusion", "lldiffusion"])
def test_info_says_how_to_use_the_authors_weights_of_every_architecture(name: str, lumen: Lumen) -> None:
    said = lumen("models", "info", name).out
    assert "authors' weights" in said
    assert "authors' terms" in said
    assert f"lumen models import {name} " in said


def test_a_model_of_an_architectures_name_goes_before_its_source(make_model: MakeModel, lumen: Lumen) -> None:
    make_model("diffll")
    assert "one convolution" in lumen("models", "info", "diffll").out


def test_enhance_sends_who_wants_weights_that_are_not_here_to_their_source(photos: Path, lumen: Lumen) -> None:
    finished = lumen("enhance", photos, "--model", "kind-plus")
    assert finished.code == 2
    assert "lumen models info kind-plus" in finished.err


def test_a_card_says_what_its_weights_were_imported_from(make_model: MakeModel, lumen: Lumen) -> None:
    files = [{"file": "a.pth", "sha256": "0" * 64}, {"file": "b/model.ckpt", "sha256": "1" * 64}]
    make_model("tiny", imported_from=files)
    assert json.loads(lumen("models", "info", "tiny", "--json").out)["imported_from"] == files
    assert "a.pth (SHA-256" in lumen("models", "info", "tiny").out


@pytest.mark.parametrize("wrong", [{}, "a.pth", [{"file": "a.pth"}], [{"file": "", "sha256": "0" * 64}], [["a.pth"]]])
def test_a_wrong_origin_is_named(wrong: object, make_model: MakeModel, lumen: Lumen) -> None:
    make_model("tiny", imported_from=wrong)
    finished = lumen("models", "info", "tiny")
    assert finished.code == 2
    assert '"imported_from": expected a list' in finished.err


@pytest.mark.parametrize("arguments", [["import", "--help"], ["info", "diffll"], ["import", "diffll"]], ids=" ".join)
def test_nothing_heavy_is_loaded_for_what_needs_no_tensors(arguments: list[str]) -> None:
    assert not [module for module in loaded("models", *arguments) if module.split(".")[0] in HEAVY]
