"""`lumen compare`: versions in, a table, a page, a sheet, JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.compare.conftest import make_versions, save, scene
from tests.conftest import Finished, MakeModel, folder_bytes, read_pixels

Lumen = Callable[..., Finished]
FEW = ("--metrics", "psnr,brightness")


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")


@pytest.fixture
def versions(tmp_path: Path) -> tuple[Path, Path, Path]:
    return make_versions(tmp_path)


def lines(finished: Finished) -> list[dict[str, Any]]:
    return [json.loads(line) for line in finished.out.splitlines()]


def test_two_folders_become_a_table_and_a_page_beside_them(versions: tuple[Path, Path, Path], lumen: Lumen) -> None:
    low, enhanced, high = versions
    finished = lumen("compare", low, enhanced, "--reference", high, *FEW)
    assert finished.code == 0, finished.err
    assert finished.out == ""
    assert "means of 5 pictures, measured against high" in finished.err
    assert "20.68*" in finished.err, "the best is marked"
    assert "5 pictures compared → " in finished.err
    assert (low.parent / "compare.html").stat().st_size > 10_000
    assert not [name for name in folder_bytes(low.parent) if ".lumen-" in name]


def test_json_gives_every_figure_and_nothing_else(versions: tuple[Path, Path, Path], lumen: Lumen) -> None:
    low, enhanced, high = versions
    finished = lumen("compare", low, enhanced, high, "--reference", high, *FEW, "--json", "--no-page")
    assert finished.code == 0, finished.err
    *pictures, mean = lines(finished)
    assert [picture["status"] for picture in pictures] == ["compared"] * 5
    (first,) = (picture for picture in pictures if picture["picture"] == "night/b")
    assert [version["version"] for version in first["versions"]] == ["low", "enhanced & <i>", "high"]
    assert first["versions"][0]["file"] == str(low / "night/b.png")
    error = (read_pixels(enhanced / "night/b.png").astype(float) - read_pixels(high / "night/b.png")) / 255
    assert first["versions"][1]["metrics"]["psnr"] == pytest.approx(-10 * math.log10((error**2).mean()), abs=1e-3)
    assert first["versions"][2]["metrics"]["psnr"] is None
    values = [picture["versions"][1]["metrics"]["psnr"] for picture in pictures]
    assert mean["versions"][1]["metrics"]["psnr"] == pytest.approx(sum(values) / 5)
    assert (mean["status"], mean["pictures"], mean["reference"], mean["page"]) == ("means", 5, "high", None)
    assert not (low.parent / "compare.html").exists()


def test_equal_pictures_are_infinitely_near(tmp_path: Path, lumen: Lumen) -> None:
    one, other = save(tmp_path / "a.png", scene(1)), save(tmp_path / "b.webp", scene(1))
    save(other.with_suffix(".png"), scene(1))
    finished = lumen("compare", one, other.with_suffix(".png"), *FEW, "--json", "--no-page")
    assert lines(finished)[0]["versions"][1]["metrics"]["psnr"] == "inf"
    assert "∞" in finished.err


def test_what_cannot_be_compared_is_a_line_each_and_ends_with_1(
    versions: tuple[Path, Path, Path], lumen: Lumen
) -> None:
    low, enhanced, _ = versions
    (enhanced / "z9.png").unlink()
    save(enhanced / "z10.png", scene(0)[:20])
    finished = lumen("compare", low, enhanced, *FEW)
    assert finished.code == 1
    assert "✗ z9: missing in enhanced & <i>; left out" in finished.err
    assert "✗ z10: z10.png in enhanced & <i>: 96×20 pixels, but 96×64 in low; left out" in finished.err
    assert "3 pictures compared, 2 left out" in finished.err
    quiet = lumen("compare", low, enhanced, *FEW, "--no-page", "--quiet", "--json")
    assert quiet.code == 1
    assert len(quiet.err.splitlines()) == 2
    assert sorted(line["status"] for line in lines(quiet)) == ["compared"] * 3 + ["failed"] * 2 + ["means"]


def test_models_are_run_and_compared_with_their_input(
    make_model: MakeModel, photos: Path, lumen: Lumen, tmp_path: Path
) -> None:
    make_model("tiny")
    make_model("brighter", network={"gain": 3.0})
    kept = tmp_path / "kept"
    finished = lumen("compare", "--models", "tiny,brighter", photos, *FEW, "--json", "--save-images", kept)
    assert finished.code == 0, finished.err
    *pictures, mean = lines(finished)
    assert [version["version"] for version in mean["versions"]] == ["input", "tiny", "brighter"]
    assert [picture["picture"] for picture in pictures] == ["a", "b", "c", "night/d", "night/e"]
    brightness = [version["metrics"]["brightness"] for version in mean["versions"]]
    assert brightness == sorted(brightness)
    alone = tmp_path / "alone.png"
    lumen("enhance", photos / "a.png", "-m", "tiny", "-o", alone)
    assert np.array_equal(read_pixels(alone), read_pixels(kept / "tiny/a.png")), "the pixels `lumen enhance` gives"
    assert (photos.parent / "compare.html").is_file()


def test_a_picture_a_model_fails_on_is_left_out(make_model: MakeModel, photos: Path, lumen: Lumen) -> None:
    make_model("tiny")
    (photos / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnot really")
    finished = lumen("compare", "--models", "tiny", photos, *FEW)
    assert finished.code == 1
    assert finished.err.count("broken: ") == 1
    assert "5 pictures compared, 1 left out" in finished.err


def test_models_can_be_held_against_ground_truth(make_model: MakeModel, photos: Path, lumen: Lumen) -> None:
    make_model("tiny")
    truth = photos.parent / "truth"
    for path in photos.rglob("*.*"):
        pixels = read_pixels(path)
        save((truth / path.relative_to(photos)).with_suffix(".png"), np.minimum(2 * pixels, 255).astype(np.uint8))
    finished = lumen("compare", "--models", "tiny", photos, "--reference", truth, *FEW, "--json", "--no-page")
    assert finished.code == 0, finished.err
    mean = lines(finished)[-1]
    assert [version["version"] for version in mean["versions"]] == ["input", "tiny", "truth"]
    assert mean["reference"] == "truth"
    assert mean["versions"][1]["metrics"]["psnr"] > mean["versions"][0]["metrics"]["psnr"]


def test_a_contact_sheet_is_a_picture(versions: tuple[Path, Path, Path], lumen: Lumen, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    finished = lumen("compare", *versions, *FEW, "--no-page", "--sheet", sheet)
    assert finished.code == 0, finished.err
    assert read_pixels(sheet).shape[1] > 3 * 96
    again = lumen("compare", *versions, *FEW, "--no-page", "--sheet", sheet)
    assert (again.code, again.out) == (2, "")
    assert "--overwrite" in again.err


def test_names_that_are_no_text_are_compared_too(tmp_path: Path, lumen: Lumen) -> None:
    for folder in ("x", "y"):
        for name in ("\udcff.png", "new\nline.png"):
            save(tmp_path / folder / name, scene(1))
    finished = lumen("compare", tmp_path / "x", tmp_path / "y", *FEW, "--json", "--linked")
    assert finished.code == 0, finished.err
    assert {line["picture"] for line in lines(finished)[:2]} == {"\udcff", "new\nline"}
    text = (tmp_path / "compare.html").read_text("utf-8")
    assert "x/%FF.png" in text
    assert "new\\nline" in text


def test_existing_pages_are_replaced_only_when_asked(versions: tuple[Path, Path, Path], lumen: Lumen) -> None:
    page = versions[0].parent / "compare.html"
    page.write_text("mine")
    refused = lumen("compare", *versions, *FEW)
    assert (refused.code, page.read_text()) == (2, "mine")
    assert "already exists (see --overwrite)" in refused.err
    assert lumen("compare", *versions, *FEW, "--overwrite").code == 0
    assert page.stat().st_size > 10_000


def test_an_input_is_never_replaced_by_a_sheet(versions: tuple[Path, Path, Path], lumen: Lumen) -> None:
    before = folder_bytes(versions[0].parent)
    finished = lumen("compare", *versions, *FEW, "--sheet", versions[0] / "z9.png", "--overwrite", "--no-page")
    assert finished.code == 2
    assert "would replace a compared picture" in finished.err
    assert folder_bytes(versions[0].parent) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["low"], "at least two versions"),
        (["low", "nowhere"], "no such file or folder"),
        (["low", "other"], "no picture has the same name"),
        (["low", "high", "--metrics", "psnrr"], "Did you mean psnr?"),
        (["low", "high", "-o", "x.png"], "has to end in .html"),
        (["low", "high", "--sheet", "x.gif"], "not a format lumen writes"),
        (["low", "high", "--save-images", "x"], "--save-images needs --models"),
        (["low", "high", "--no-page", "--linked"], "cannot be combined"),
        (["low", "--models", "tiny", "--linked"], "--save-images"),
        (["low", "--models", "no-such-model"], "unknown model 'no-such-model'"),
        (["low", "--models", "tiny,tiny"], "twice"),
        (["low", "--models", "tiny", "--reference", "nowhere"], "no such file or folder"),
    ],
)
def test_wrong_usage_is_one_line_and_leaves_nothing(
    make_model: MakeModel,
    versions: tuple[Path, Path, Path],
    lumen: Lumen,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    said: str,
) -> None:
    root = versions[0].parent
    make_model("tiny")
    save(root / "other" / "elsewhere.png", scene(0))
    monkeypatch.chdir(root)
    before = folder_bytes(root)
    finished = lumen("compare", *arguments)
    assert (finished.code, finished.out) == (2, "")
    assert said in finished.err
    assert len(finished.err.splitlines()) == 1
    assert folder_bytes(root) == before
