"""Options from files and variables: which one wins, and what a mistake looks like."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Finished, MakeModel, write_dark

Lumen = Callable[..., Finished]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_model: MakeModel) -> Path:
    """A working folder below others, with files of configuration in force."""
    make_model("tiny")
    monkeypatch.delenv("LUMEN_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config-home"))
    folder = tmp_path / "project" / "work"
    folder.mkdir(parents=True)
    write_dark(folder / "a.png")
    monkeypatch.chdir(folder)
    return folder


def settings(lumen: Lumen, *arguments: str) -> dict[str, Any]:
    """The settings that a dry run would enhance with."""
    finished = lumen("enhance", "a.png", "-m", "tiny", "--dry-run", "--json", *arguments)
    assert finished.code == 0, finished.err
    line = json.loads(finished.out)
    found: dict[str, Any] = line["settings"] | {"seed": line["seed"]}
    return found


def user_file(tmp_path: Path, text: str) -> None:
    place = tmp_path / "config-home" / "lumen" / "config.toml"
    place.parent.mkdir(parents=True)
    place.write_text(text)


def test_the_order_of_the_sources(work: Path, lumen: Lumen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings(lumen)["strength"] == 1.0
    user_file(tmp_path, "[enhance]\nstrength = 0.1\n")
    assert settings(lumen)["strength"] == 0.1
    (work.parent / "pyproject.toml").write_text("[tool.lumen.enhance]\nstrength = 0.2\n")
    assert settings(lumen)["strength"] == 0.2
    (work.parent / "lumen.toml").write_text("[enhance]\nstrength = 0.3\n")
    assert settings(lumen)["strength"] == 0.3
    (work / "lumen.toml").write_text("[enhance]\nstrength = 0.4\n")
    assert settings(lumen)["strength"] == 0.4
    monkeypatch.setenv("LUMEN_ENHANCE_STRENGTH", "0.5")
    assert settings(lumen)["strength"] == 0.5
    assert settings(lumen, "--strength", "0.6")["strength"] == 0.6


def test_files_fill_each_others_gaps_and_shared_options_stand_at_the_top(
    work: Path, lumen: Lumen, tmp_path: Path
) -> None:
    user_file(tmp_path, "seed = 3\n[enhance]\nquality = 80\n")
    (work / "lumen.toml").write_text('[enhance]\nname_template = "{stem}-x{suffix}"\nformat = "webp"\n')
    found = settings(lumen)
    assert (found["seed"], found["quality"], found["format"]) == (3, 80, ".webp")
    (work / "lumen.toml").write_text("seed = 4\n[enhance]\nseed = 5\n")
    assert settings(lumen)["seed"] == 5, "the command's section goes before the top"


@pytest.mark.parametrize("value", ["", "none"])
def test_no_files_where_they_are_disabled(
    value: str, work: Path, lumen: Lumen, monkeypatch: pytest.MonkeyPatch
) -> None:
    (work / "lumen.toml").write_text("[enhance]\nstrength = 0.4\n")
    monkeypatch.setenv("LUMEN_CONFIG", value)
    assert settings(lumen)["strength"] == 1.0


def test_one_named_file_instead_of_those_that_are_searched(
    work: Path, lumen: Lumen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (work / "lumen.toml").write_text("[enhance]\nstrength = 0.4\nquality = 50\n")
    (tmp_path / "other.toml").write_text("[enhance]\nstrength = 0.9\n")
    monkeypatch.setenv("LUMEN_CONFIG", str(tmp_path / "other.toml"))
    found = settings(lumen)
    assert (found["strength"], found["quality"]) == (0.9, None)
    monkeypatch.setenv("LUMEN_CONFIG", str(tmp_path / "missing.toml"))
    finished = lumen("enhance", "a.png")
    assert (finished.code, finished.err.count("\n")) == (2, 1)
    assert "missing.toml cannot be read" in finished.err


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('# a\n[enhance]\nmodle = "kind"\n', "lumen.toml:3: unknown key modle of [enhance]. Did you mean model?"),
        ("[enhnace]\nseed = 3\n", "lumen.toml:1: unknown key enhnace. Did you mean enhance?"),
        ("strength = 0.5\n", "lumen.toml:1: unknown key strength"),
        ("\n\nenhance.strength = true\n", "lumen.toml:3: strength: expected a text or a number"),
        ("[enhance]\nwatch = 1\n", "lumen.toml:2: watch: expected true or false"),
        ("[enhance]\nstrength = 7\n", "lumen.toml:2: strength: input should be less than or equal to 1"),
        ('[enhance]\nprecision = "fp8"\n', "lumen.toml:2: precision: "),
        ("enhance = 3\n", "lumen.toml:1: enhance is a command"),
        ("[enhance\n", "lumen.toml is no TOML: "),
    ],
)
def test_a_mistake_is_one_line_with_file_line_and_key(text: str, line: str, work: Path, lumen: Lumen) -> None:
    (work / "lumen.toml").write_text(text)
    finished = lumen("enhance", "a.png", "-m", "tiny")
    assert (finished.code, finished.out, finished.err.count("\n")) == (2, "", 1)
    assert finished.err.startswith(f"lumen: {line}")
    assert lumen("enhance", "--help").code == 0, "help needs no file"


def test_a_wrong_variable_is_named(work: Path, lumen: Lumen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUMEN_ENHANCE_TILE", "big")
    finished = lumen("enhance", "a.png", "-m", "tiny")
    assert finished.code == 2
    assert finished.err.startswith("lumen: LUMEN_ENHANCE_TILE: 'big' is neither")


def test_a_typed_option_puts_its_rival_in_a_file_aside(work: Path, lumen: Lumen) -> None:
    (work / "lumen.toml").write_text("[enhance]\noverwrite = true\nbrightness = 3\n")
    assert settings(lumen, "--skip-existing")["brightness"] == 3.0
    (work / "lumen.toml").write_text('[enhance]\ndetail = "fast"\n')
    assert settings(lumen, "--tile", "512")["detail"] == "whole"


def test_flags_and_lists(work: Path, lumen: Lumen) -> None:
    (work / "lumen.toml").write_text('[enhance]\nno-stamp = true\n[benchmark]\nmetric = ["psnr", "ssim"]\n')
    assert settings(lumen)["stamp"] is False
    rows = [json.loads(line) for line in lumen("config", "--json").out.splitlines()]
    assert {row["option"]: row["value"] for row in rows} == {"--no-stamp": True, "--metric": ["psnr", "ssim"]}


@pytest.mark.skipif(not hasattr(os, "chown") or os.getuid() != 0, reason="only root can give a file away")
def test_another_users_file_decides_nothing(work: Path, lumen: Lumen) -> None:
    (work / "lumen.toml").write_text("[enhance]\nstrength = 0.4\n")
    os.chown(work / "lumen.toml", 12345, 12345)
    finished = lumen("enhance", "a.png", "-m", "tiny", "--dry-run", "--json")
    assert json.loads(finished.out)["settings"]["strength"] == 1.0
    assert "lumen.toml is not used: it belongs to another user" in finished.err


def test_config_shows_who_wins_and_who_loses(work: Path, lumen: Lumen, monkeypatch: pytest.MonkeyPatch) -> None:
    (work / "lumen.toml").write_text("[enhance]\nstrength = 0.4\n")
    (work.parent / "pyproject.toml").write_text("[tool.lumen.enhance]\nstrength = 0.2\n")
    monkeypatch.setenv("LUMEN_ENHANCE_STRENGTH", "0.5")
    monkeypatch.setenv("LUMEN_ENHANCE_STRENGHT", "0.5")
    finished = lumen("config", "--json")
    (row,) = map(json.loads, finished.out.splitlines())
    assert (row["command"], row["option"], row["value"]) == ("enhance", "--strength", "0.5")
    assert row["source"] == "LUMEN_ENHANCE_STRENGTH"
    lost = [(each["value"], each["source"].rpartition("/")[2], each["loses_to"]) for each in row["overrides"]]
    assert lost == [("0.4", "lumen.toml:2", "the environment"), ("0.2", "pyproject.toml:2", "the environment")]
    assert "LUMEN_ENHANCE_STRENGHT sets no option" in finished.err
    monkeypatch.setenv("COLUMNS", "100")
    table = lumen("config").out
    assert all(text in table for text in ("--strength", "LUMEN_ENHANCE_STRENGTH", "0.4", "lumen.toml:2"))


def test_config_refuses_what_a_command_would_refuse(work: Path, lumen: Lumen) -> None:
    (work / "lumen.toml").write_text("[compare]\nqualty = 3\n")
    assert "unknown key qualty of [compare]. Did you mean quality?" in lumen("config").err
    (work / "lumen.toml").write_text("[compare]\nquality = 300\n")
    finished = lumen("config")
    assert finished.code == 2
    assert finished.err.startswith("lumen: lumen.toml:2: quality: ")


def test_config_path_lists_the_files(work: Path, lumen: Lumen) -> None:
    (work.parent / "lumen.toml").write_text("")
    lines = [json.loads(line) for line in lumen("config", "path", "--json").out.splitlines()]
    assert [line["path"] for line in lines if line["used"]] == [str(work.parent / "lumen.toml")]
    assert lines[-1]["path"].endswith("config-home/lumen/config.toml")


def test_every_option_has_a_variable_of_its_own() -> None:
    import typer

    from lumen_cli.cli.app import app, walk
    from lumen_cli.cli.settings import options_of, variables

    names = [
        variables(option, words)[0]
        for words, command in walk(typer.main.get_command(app))
        for option in options_of(command)
    ]
    assert len(names) == len(set(names))
    assert {"LUMEN_ENHANCE_MODEL", "LUMEN_DECOMPOSE_FORMAT", "LUMEN_MODELS_PULL_OUTPUT", "LUMEN_VERBOSE"} <= set(names)
    assert "LUMEN_MODELS" not in names, "that is where models are"
