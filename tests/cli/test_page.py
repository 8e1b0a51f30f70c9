"""`lumen enhance --page`: a page of the run, its pictures before and after."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.compare.test_page import Tags
from tests.conftest import Finished, MakeModel, write_dark

Lumen = Callable[..., Finished]


@pytest.fixture(autouse=True)
def tiny(make_model: MakeModel) -> None:
    make_model("tiny")


def facts(page: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Facts and entries of a page."""
    found, entries, *_ = Tags(page.read_text("utf-8")).blocks()
    return found, entries


def test_a_folder_gets_a_page_beside_its_outputs(photos: Path, lumen: Lumen) -> None:
    (photos / "broken.png").write_bytes(b"no picture")
    finished = lumen("enhance", photos, "-m", "tiny", "--page", "--json")
    assert finished.code == 1
    page = photos.parent / "photos-enhanced.html"
    *_, last = map(json.loads, finished.out.splitlines())
    assert (last["type"], last["page"], last["pictures"]) == ("page", str(page), 5)
    found, entries = facts(page)
    assert found["labels"] == ["Before", "After"]
    assert [entry["name"] for entry in entries] == ["a.png", "b.jpg", "c.webp", "night/d.png", "night/e.tif"]
    assert [each["name"] for each in found["failed"]] == ["broken.png"]
    assert "not a picture" in found["failed"][0]["reason"]
    assert all(entry["means"][1] != entry["means"][0] for entry in entries)
    assert entries[3]["path"] == "photos/night/d.png"
    assert len(list((photos.parent / "photos-enhanced-pictures").glob("*-0.webp"))) == 5
    again = lumen("enhance", photos, "-m", "tiny", "--page")
    assert "page → " in again.err
    assert len(facts(page)[1]) == 5, "pictures that are kept are on the page too"
    assert not [path for path in photos.parent.iterdir() if path.name.startswith(".lumen-")]


def test_the_page_is_no_input_and_one_file_if_wanted(tmp_path: Path, lumen: Lumen) -> None:
    folder = tmp_path / "shots"
    for name in ("a.png", "b.png"):
        write_dark(folder / name)
    command = ("enhance", folder / "a.png", folder / "b.png", "-m", "tiny", "--page")
    assert lumen(*command).code == 0
    assert sorted(path.name for path in folder.glob("*enhanced*")) == [
        *("a-enhanced.png", "b-enhanced.png", "enhanced-pictures", "enhanced.html")
    ]
    listed = lumen("enhance", folder, "-o", tmp_path / "out", "-m", "tiny", "--dry-run", "--json")
    assert sorted(Path(line["input"]).name for line in map(json.loads, listed.out.splitlines())) == ["a.png", "b.png"]
    single = lumen("enhance", folder / "a.png", "-o", tmp_path / "a.png", "-m", "tiny", "--page", "--single-file")
    assert single.code == 0, single.err
    assert (tmp_path / "a.html").is_file()
    assert not (tmp_path / "a-pictures").exists()


def test_nothing_starts_where_a_file_of_others_is_in_the_way(photos: Path, lumen: Lumen) -> None:
    page = photos.parent / "photos-enhanced.html"
    page.write_text("<p>my own</p>")
    finished = lumen("enhance", photos, "-m", "tiny", "--page")
    assert finished.code == 2
    assert "not a page that lumen made" in finished.err
    assert page.read_text() == "<p>my own</p>"
    assert not list((photos.parent / "photos-enhanced").glob("*.png"))


def test_a_dry_run_writes_no_page(photos: Path, lumen: Lumen) -> None:
    assert lumen("enhance", photos, "-m", "tiny", "--page", "--dry-run").code == 0
    assert not (photos.parent / "photos-enhanced.html").exists()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--page", "--watch"], "--page and --watch cannot be combined"),
        (["--page", "-o", "-"], "--page and -o - cannot be combined"),
        (["--single-file"], "--single-file needs --page"),
    ],
)
def test_what_cannot_have_a_page(arguments: list[str], reason: str, photos: Path, lumen: Lumen) -> None:
    finished = lumen("enhance", photos / "a.png", "-m", "tiny", *arguments)
    assert (finished.code, finished.out) == (2, "")
    assert reason in finished.err


def test_outputs_of_others_are_left_and_there_is_no_page_of_nothing(photos: Path, lumen: Lumen) -> None:
    for path in photos.rglob("*.*"):
        write_dark(photos.parent / "photos-enhanced" / path.relative_to(photos).with_suffix(path.suffix))
    finished = lumen("enhance", photos, "-m", "tiny", "--page")
    assert finished.code == 1
    assert not (photos.parent / "photos-enhanced.html").exists()
