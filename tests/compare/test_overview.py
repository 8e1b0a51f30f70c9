"""The overview of a shoot in a real Chromium: sort, filter, marks by keyboard, lists, a phone, 10,000 pictures."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lumen_cli.compare import Matched, Problem, Row
from lumen_cli.compare.page import Page
from lumen_cli.compare.rows import Compared, Looks, Measured, chosen_metrics, compare_row
from lumen_cli.files.find import read_list
from tests.compare.conftest import save, scene
from tests.compare.test_browser import PHONE, Open, Seen, browser, unfold, visit

__all__ = ["browser", "visit"]
NAME = "a b%1.png"
"""A name that an address has to escape."""


def make_page(root: Path, count: int, *, single: bool = False) -> Path:
    """A page of many pictures, drawn from one pair whose figures are varied: picture n changes by n % 7 steps."""
    files = save(root / "dark" / NAME, scene(1, 0.2)), save(root / "bright" / NAME, scene(1, 0.9))
    metrics, _ = chosen_metrics(["loe", "brightness"], False)
    matched = Matched(("dark", "bright"), 0, False, (Row("x", files),), ())
    one = compare_row(matched.rows[0], matched, metrics, Looks())
    page = root / "shoot.html"
    with Page(page, matched, metrics, Looks(), single=single) as whole:
        for number in range(count):
            row = Row(f"picture {number + 1}", files)
            loe = float("nan") if number == 0 else float(number * 37 % 101)
            values = (one.measured.values[0], {"loe": loe, "brightness": 0.5})
            before, after = one.drawn
            mean = min(1.0, before.histogram.mean + 0.1 * (number % 7))
            changed = type(after)(
                after.image, None, after.about, type(after.histogram)(after.histogram.curves, mean), after.error, []
            )
            measured = Measured(row, one.measured.width, one.measured.height, values)
            whole.add(Compared(measured, (before, changed)))
        whole.write([Problem("broken", "not a picture"), Problem("lost", "missing in bright; left out")])
    return page


@pytest.fixture(scope="session")
def shoot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_page(tmp_path_factory.mktemp("shoot"), 200)


@pytest.fixture
def seen(visit: Open, shoot: Path) -> Seen:
    return visit(page=shoot)


def names(seen: Seen) -> list[str]:
    found: list[str] = seen.value("[...document.querySelectorAll('#tiles .tile .name')].map((one) => one.textContent)")
    return found


def focused(seen: Seen) -> str:
    return str(seen.value("document.activeElement.title"))


def test_many_pictures_open_as_tiles_that_come_as_they_are_needed(seen: Seen) -> None:
    assert not seen.page.is_visible("#viewer")
    few = len(names(seen))
    assert 20 < few < 150
    seen.until("[...document.querySelectorAll('#tiles img')].slice(0, 12).every((one) => one.naturalWidth > 0)")
    seen.page.keyboard.press("End")
    assert focused(seen) == "picture 200"
    assert names(seen)[-2:] == ["broken", "lost"]
    assert "not a picture" in seen.page.inner_text("#tiles")


def test_a_keyboard_alone_goes_through_a_shoot(seen: Seen) -> None:
    press = seen.page.keyboard.press
    assert focused(seen) == "picture 1"
    press("k")
    press("ArrowRight")
    press("Shift+X")
    assert focused(seen) == "picture 3"
    press("ArrowDown")
    columns = len(seen.value("getComputedStyle(document.getElementById('tiles')).gridTemplateColumns").split())
    assert focused(seen) == f"picture {3 + columns}"
    press("ArrowUp")
    press("Enter")
    assert seen.page.inner_text("#picture-name") == "picture 3"
    assert seen.page.inner_text("#position") == "3 / 200"
    press("Shift+K")
    press("x")
    assert seen.page.inner_text("#picture-name") == "picture 4"
    assert seen.page.get_attribute("[data-mark=reject]", "aria-pressed") == "true"
    press("x")
    assert seen.page.get_attribute("[data-mark=reject]", "aria-pressed") == "false", "the same key takes a mark back"
    press("Escape")
    assert focused(seen) == "picture 4"
    assert seen.page.inner_text("#tally") == "2 kept · 1 rejected · 197 without a mark · 2 failed"
    marked = seen.value("[...document.querySelectorAll('#tiles [data-marked]')].map((one) => one.ariaLabel)")
    assert marked == ["picture 1, kept", "picture 2, rejected", "picture 3, kept"]
    seen.page.reload()
    assert seen.page.inner_text("#tally").startswith("2 kept · 1 rejected"), "marks are remembered"


def test_back_leads_from_a_picture_to_the_overview(seen: Seen) -> None:
    seen.page.locator("#tiles button").nth(4).click()
    assert seen.page.inner_text("#picture-name") == "picture 5"
    seen.page.keyboard.press("n")
    seen.page.go_back()
    seen.until("!document.getElementById('overview').hidden")
    assert focused(seen) == "picture 6"
    seen.page.go_forward()
    seen.until("document.getElementById('overview').hidden")


def test_sorted_by_change_and_by_the_worst_figure(seen: Seen) -> None:
    sorts = seen.value("[...document.getElementById('sort').options].map((one) => one.textContent)")
    assert sorts == ["by name", "largest change of brightness", "worst LOE"]
    seen.page.select_option("#sort", "change")
    assert names(seen)[:3] == ["picture 7", "picture 14", "picture 21"]
    seen.page.select_option("#sort", "metric-0")
    worst = sorted(range(1, 200), key=lambda number: (-(number * 37 % 101), number))
    assert names(seen)[:5] == [f"picture {number + 1}" for number in worst[:5]]
    seen.page.locator("#tiles button").first.click()
    seen.page.keyboard.press("n")
    assert seen.page.inner_text("#picture-name") == f"picture {worst[1] + 1}", "the order is kept"
    seen.page.keyboard.press("o")
    seen.page.keyboard.press("End")
    assert focused(seen) == "picture 1", "an undefined figure comes last"


def test_filters_show_marks_and_failures(seen: Seen) -> None:
    for key in ("Shift+K", "Shift+K", "Shift+X"):
        seen.page.keyboard.press(key)
    for value, expected in (
        ("keep", ["picture 1", "picture 2"]),
        ("reject", ["picture 3"]),
        ("failed", ["broken", "lost"]),
    ):
        seen.page.select_option("#show", value)
        assert names(seen) == expected
    seen.page.select_option("#show", "unmarked")
    assert names(seen)[0] == "picture 4"


def test_a_list_of_marked_pictures_is_what_from_file_takes(seen: Seen, tmp_path: Path, shoot: Path) -> None:
    for key in ("Shift+K", "Shift+X", "k"):
        seen.page.keyboard.press(key)
    seen.page.keyboard.press("e")
    assert seen.page.input_value("#list-which") == "keep"
    assert "lumen enhance --from-file kept.txt" in seen.page.inner_text("#list-use")
    with seen.page.expect_download() as download:
        seen.page.click("#list-save")
    assert download.value.suggested_filename == "kept.txt"
    download.value.save_as(tmp_path / "kept.txt")
    source = str(shoot.parent / "dark" / NAME)
    assert read_list(str(tmp_path / "kept.txt")) == [source] * 2
    assert Path(source).is_file()
    seen.page.select_option("#list-which", "left")
    assert seen.page.input_value("#list-text").count("\n") == 199
    assert "199 of 200 pictures" in seen.page.inner_text("#list-use")
    seen.page.keyboard.press("Escape")
    assert not seen.page.is_visible("#list")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_has_room_for_fingers_and_marks_by_button(visit: Open, shoot: Path, scheme: str) -> None:
    seen = visit(PHONE, scheme, page=shoot)
    small = """[...document.querySelectorAll('button, select, summary')]
        .filter((one) => one.checkVisibility()).map((one) => [one, one.getBoundingClientRect()])
        .filter(([one, box]) => box.width < 39.5 || box.height < 39.5).map(([one]) => one.outerHTML.slice(0, 80))"""
    assert seen.value(small) == []
    assert seen.value("document.documentElement.scrollWidth") <= PHONE["width"]
    assert len(set(seen.value("[...document.querySelectorAll('#tiles .tile')].map((one) => one.offsetLeft)"))) == 2
    seen.page.locator("#tiles button").nth(1).tap()
    seen.page.locator("[data-mark=reject]").tap()
    assert seen.value(small) == []
    assert seen.value("document.documentElement.scrollWidth") <= PHONE["width"]
    assert seen.page.locator("#picture-name").bounding_box()["width"] > 200, "the name has a line of its own"
    seen.page.locator("#all").tap()
    assert "1 rejected" in seen.page.inner_text("#tally")


def test_before_and_after_are_the_labels_and_figures_are_folded(seen: Seen) -> None:
    seen.page.keyboard.press("Enter")
    sides = seen.value("[...document.getElementById('left').options].map((one) => one.textContent)")
    assert sides == ["Before", "After"]
    assert not seen.page.is_visible("#cards")
    assert not seen.page.is_visible("#means")
    unfold(seen, "figures")
    assert seen.page.locator("#table tbody tr").count() == 300, "in portions"
    seen.page.click("#more-rows")
    assert seen.page.locator("#table tbody tr").count() == 400


def test_without_scripts_there_are_pictures_and_links(browser: Any, shoot: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(shoot.as_uri())
    assert page.locator("noscript figure").count() == 200
    address = page.locator("noscript figure a").nth(1).get_attribute("href")
    assert (shoot.parent / address).is_file()
    assert page.locator("noscript figure img").first.is_visible()
    assert not page.is_visible("#overview")
    context.close()


def test_a_page_without_its_folder_says_what_is_missing(browser: Any, shoot: Path, tmp_path: Path) -> None:
    (tmp_path / "alone.html").write_bytes(shoot.read_bytes())
    page = browser.new_page()
    page.goto((tmp_path / "alone.html").as_uri())
    page.wait_for_selector("#lost", state="visible")
    assert "They lie in the folder shoot-pictures: keep it beside the page." in page.inner_text("#lost")
    page.close()


def test_one_file_has_everything(visit: Open, tmp_path: Path) -> None:
    page = make_page(tmp_path, 20, single=True)
    assert not (tmp_path / "shoot-pictures").exists()
    seen = visit(page=page)
    seen.until("[...document.querySelectorAll('#tiles img')].every((one) => one.naturalWidth > 0)")
    seen.page.keyboard.press("Enter")
    seen.until("document.querySelector('#over canvas').width === 96")


def test_the_canvas_shows_the_pixels_of_the_copy(visit: Open, tmp_path: Path) -> None:
    seen = visit(page=make_page(tmp_path, 20, single=True))
    seen.page.keyboard.press("Enter")
    seen.until("document.querySelector('#over canvas')?.width === 96")
    seen.page.keyboard.press("n")
    seen.page.keyboard.press("p")
    seen.page.wait_for_timeout(300)
    box = seen.page.locator("#frame").bounding_box()
    clip = {"x": box["x"] + box["width"] * 0.75, "y": box["y"] + 20, "width": 60, "height": 40}
    shot = np.asarray(Image.open(io.BytesIO(seen.page.screenshot(clip=clip))).convert("RGB")).astype(float)
    file = np.asarray(Image.open(tmp_path / "bright" / NAME)).astype(float)
    place = file[round(20 / box["height"] * 64), round(96 * 0.75)]
    assert np.abs(shot[0, 0] - place).max() < 40
    assert shot.std() > 0


@pytest.mark.slow
def test_ten_thousand_pictures_work(visit: Open, tmp_path: Path) -> None:
    seen = visit(page=make_page(tmp_path, 10_000))
    assert len(names(seen)) < 150
    seen.page.select_option("#sort", "change")
    seen.page.keyboard.press("Tab")
    seen.page.locator("#tiles button").first.focus()
    seen.page.keyboard.press("k")
    seen.page.keyboard.press("Enter")
    assert seen.page.inner_text("#position") == "1 / 10000"
    seen.page.keyboard.press("n")
    assert seen.page.inner_text("#picture-name") == "picture 14"
    unfold(seen, "figures")
    assert seen.page.locator("#table tbody tr").count() == 300
    seen.page.keyboard.press("o")
    seen.page.keyboard.press("End")
    assert len(names(seen)) == 10_002
    assert np.isclose(seen.value("document.documentElement.scrollWidth"), 1440, atol=1)
