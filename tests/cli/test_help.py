"""Help: there for every command, with examples, at once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import Finished

HEAVY = (
    "torch",
    "numpy",
    "cv2",
    "PIL",
    "exiftool",
    "huggingface_hub",
    "safetensors",
    "tifffile",
    "imageio",
    "jinja2",
    "httpx2",
)


def loaded(*arguments: str) -> list[str]:
    """The modules a command line has loaded when it ends."""
    code = (
        "import sys, json\n"
        "from lumen_cli.__main__ import main\n"
        f"try: main({list(arguments)!r})\n"
        "except SystemExit: pass\n"
        "print('\\n' + json.dumps(sorted(sys.modules)))\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    modules: list[str] = json.loads(out.splitlines()[-1])
    return modules


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["enhance", "--help"],
        ["decompose", "--help"],
        ["models", "--help"],
        ["models", "import", "--help"],
        ["models", "pull", "--help"],
        ["benchmark", "--help"],
        ["compare", "--help"],
        ["train", "--help"],
        ["enhance", "x", "--strength", "7"],
        ["enhance", "x", "--brightness", "70"],
        ["decompose", "x", "--depth", "12"],
        ["mdels"],
    ],
    ids=" ".join,
)
def test_nothing_heavy_is_loaded_before_a_command_runs(arguments: list[str]) -> None:
    assert not [module for module in loaded(*arguments) if module.split(".")[0] in HEAVY]


def test_help_reads_no_model_cards() -> None:
    assert "pydantic" not in loaded("--help")
    # Typer itself loads pydantic for the parameters of a command.
    assert "lumen_cli.registry.card" not in loaded("enhance", "--help")


def test_listing_models_loads_no_network_library() -> None:
    assert not {"torch", "cv2"} & set(loaded("models"))


def test_a_command_loads_no_other_command() -> None:
    from lumen_cli.cli.app import COMMANDS

    modules = loaded("enhance", "--help")
    names = {place.partition(":")[0] for place in COMMANDS.values()}
    assert [name for name in names if f"lumen_cli.cli.{name}" in modules] == ["enhance"]


def test_the_python_api_is_there_without_loading_anything() -> None:
    code = "import sys, lumen_cli; print(*dir(lumen_cli), *sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert {"decompose", "enhance", "load_model", "list_models"} <= set(out.split())
    assert not {"torch", "numpy", "typer"} & set(out.split())


def commands() -> Iterator[list[str]]:
    """Every command, found in the application itself."""
    import typer

    from lumen_cli.cli.app import app

    def walk(command: object, words: list[str]) -> Iterator[list[str]]:
        yield words
        for name in getattr(command, "commands", ()):
            yield from walk(command.get_command(None, name), [*words, name])  # type: ignore[attr-defined]

    yield from walk(typer.main.get_command(app), [])


@pytest.mark.parametrize("words", commands(), ids=lambda words: " ".join(["lumen", *words]))
def test_every_command_has_help_with_examples(
    words: list[str], lumen: Callable[..., Finished], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    finished = lumen(*words, "--help")
    assert finished.code == 0
    assert "Examples:" in finished.out
    assert " ".join(["  lumen", *words[:1]]) in finished.out
    assert all(len(line) <= 80 for line in finished.out.splitlines())


def test_help_names_every_command(lumen: Callable[..., Finished]) -> None:
    from lumen_cli.cli.app import COMMANDS

    rows = lumen("--help").out.partition("Commands")[2].splitlines()
    assert [row.split()[1] for row in rows if row.startswith("│ ") and row[2] != " "] == list(COMMANDS)


@pytest.mark.parametrize("words", commands(), ids=lambda words: " ".join(["lumen", *words]))
def test_every_option_is_explained(words: list[str]) -> None:
    import typer

    from lumen_cli.cli.app import app

    command = typer.main.get_command(app)
    for word in words:
        command = command.get_command(None, word)  # type: ignore[attr-defined]
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{parameter.name} has no help"


def test_the_version_is_the_packages(lumen: Callable[..., Finished]) -> None:
    from importlib.metadata import version

    assert lumen("--version").out == f"lumen {version('lumen-cli')}\n"


@pytest.mark.parametrize("arguments", [["mdels"], ["enhance", "--no-such-option"], ["models", "nfo"]], ids=" ".join)
def test_a_wrong_command_line_ends_with_2(arguments: list[str], lumen: Callable[..., Finished]) -> None:
    finished = lumen(*arguments)
    assert finished.code == 2
    assert finished.out == ""
    assert finished.err
