"""`lumen models pull`, and how the other commands speak of models whose weights are not here yet."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lumen_cli.registry import fetch as fetching
from tests.conftest import Finished, MakeModel
from tests.web import Site, serving

Lumen = Callable[..., Finished]


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(fetching, "PAUSES", ())
    monkeypatch.setenv("COLUMNS", "80")
    with serving() as site:
        yield site


@pytest.fixture
def listed(site: Site, make_model: MakeModel) -> Path:
    """The folder of a model in the list whose weights are on the server."""
    folder = make_model("night")
    config = json.loads((folder / "config.json").read_text())
    site.files["/night.safetensors"] = (folder / "network.safetensors").read_bytes()
    (folder / "network.safetensors").unlink()
    config["weights"]["network"] |= {
        "url": f"{site.address}/night.safetensors",
        "bytes": len(site.files["/night.safetensors"]),
    }  # type: ignore[arg-type]
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_the_list_and_the_details_say_that_the_weights_are_not_here(listed: Path, site: Site, lumen: Lumen) -> None:
    said = lumen("models").out
    assert next(line for line in said.splitlines() if " night " in line).rstrip().endswith("to pull")
    assert "to pull: fetch the weights with lumen models pull MODEL" in said
    assert all(len(line) <= 80 for line in said.splitlines())
    assert [
        card["name"] for card in map(json.loads, lumen("models", "--json").out.splitlines()) if card["to_pull"]
    ] == ["night"]
    info = " ".join(lumen("models", "info", "night").out.split())
    assert "not here yet: lumen models pull night" in info
    assert f"{site.address}/night.safetensors" in info
    assert lumen("models", "pull", "night").code == 0
    assert "to pull" not in lumen("models").out
    assert "not here" not in lumen("models", "info", "night").out
    assert not json.loads(lumen("models", "info", "night", "--json").out)["to_pull"]


def test_enhance_says_how_to_get_the_weights(listed: Path, photos: Path, lumen: Lumen) -> None:
    finished = lumen("enhance", photos, "--model", "night")
    assert (finished.code, finished.out) == (2, "")
    where = listed / "network.safetensors"
    expected = f"lumen: model night: its weights are not here yet ({where}): run `lumen models pull night`"
    assert finished.err.splitlines()[-1] == expected
    assert lumen("models", "pull", "night").code == 0
    assert lumen("enhance", photos / "a.png", "--model", "night").code == 0


def test_one_line_for_programs_and_the_rest_on_standard_error(listed: Path, site: Site, lumen: Lumen) -> None:
    finished = lumen("models", "pull", "night", "--json")
    assert finished.code == 0
    told = json.loads(finished.out)
    assert (told["status"], told["name"], told["weights_from"]) == (
        "pulled",
        "night",
        [f"{site.address}/night.safetensors"],
    )
    assert Path(told["folder"], "network.safetensors").stat().st_size == told["bytes"]
    assert ["README.md" in note for note in told["notes"]] == [True]
    for said in ("lumen enhance PICTURE --model night", "note: it has no README.md", "MIT", told["weights_sha256"]):
        assert said in finished.err
    again = lumen("models", "pull", "night")
    assert (again.code, again.out) == (0, "")
    assert "night already exists" in again.err
    assert json.loads(lumen("models", "pull", "night", "--json").out)["status"] == "kept"


def test_an_error_is_one_line_and_standard_output_stays_clean(listed: Path, site: Site, lumen: Lumen) -> None:
    del site.files["/night.safetensors"]
    for source in ("night", site.address, "http://example.org/night", "nigth"):
        finished = lumen("models", "pull", source, "--json")
        assert (finished.code, finished.out) == (2, "")
        assert finished.err.startswith("lumen: ")
        assert finished.err.count("\n") == 1


def test_progress_shows_bytes_on_a_terminal_alone() -> None:
    from rich.console import Console

    from lumen_cli.reports import download_line

    for terminal in (True, False):
        console = Console(force_terminal=terminal, width=80, record=True)
        with console.capture() as capture, download_line(console) as progress:
            progress("[b]night\x1b.safetensors", 3 << 20, 8 << 20)
        assert ("3.1/8.4 MB" in capture.get()) == terminal
        assert ("[b]night\\x1b.safetensors" in capture.get()) == terminal
