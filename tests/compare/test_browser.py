"""The page in a real Chromium: what a person does with mouse, fingers and keyboard, and what comes of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.compare.browser import chromium
from tests.compare.conftest import NAMES, SCRIPT, Site, run_compare

NAMED = [name.removesuffix(".png") for name in NAMES]
WIDE, PHONE = {"width": 1440, "height": 900}, {"width": 375, "height": 812}


@dataclass
class Seen:
    """A page, and everything it should never do."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    session: Any = None

    def value(self, script: str) -> Any:
        return self.page.evaluate(script)

    def until(self, script: str) -> None:
        """Wait; Playwright's own way needs eval, which the page forbids."""
        for _ in range(600):
            if self.value(script):
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"never came true: {script}")

    def transforms(self) -> set[str]:
        return set(self.value("[...document.querySelectorAll('.panes .layer')].map((layer) => layer.style.transform)"))

    def touch(self, kind: str, *points: tuple[float, float]) -> None:
        self.session = self.session or self.page.context.new_cdp_session(self.page)
        touches = [{"x": x, "y": y, "id": index} for index, (x, y) in enumerate(points)]
        self.session.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": touches})


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


Open = Callable[..., Seen]


@pytest.fixture
def visit(browser: Any, site: Site) -> Iterator[Open]:
    """Open the page; at the end nothing may have been asked of a network, complained about or popped up."""
    opened: list[tuple[Any, Seen]] = []

    def visit(viewport: dict[str, int] = WIDE, scheme: str = "light", page: Path | None = None) -> Seen:
        context = browser.new_context(viewport=viewport, color_scheme=scheme, has_touch=viewport is PHONE)
        seen = Seen(context.new_page())
        opened.append((context, seen))
        allowed = (page or site.page).parent.as_uri()

        def decide(route: Any) -> None:
            if route.request.url.startswith(allowed):
                route.continue_()
            else:
                seen.requests.append(route.request.url)
                route.abort()

        context.route(re.compile("^(?!data:)"), decide)
        seen.page.on("console", lambda said: seen.complaints.append(said.text))
        seen.page.on("pageerror", lambda error: seen.complaints.append(str(error)))
        seen.page.on("dialog", lambda dialog: (seen.complaints.append(dialog.message), dialog.dismiss()))
        seen.page.set_default_timeout(60_000)
        seen.page.goto((page or site.page).as_uri())
        return seen

    yield visit
    for context, seen in opened:
        context.close()
        assert seen.complaints == []
        assert seen.requests == []


def unfold(seen: Seen, id: str) -> None:
    """Open a part of the page that is folded."""
    seen.page.click(f"#{id} > summary")
    seen.until(f"document.querySelectorAll('#{id} .card, #{id} #table tbody td').length > 0")


def test_the_first_picture_is_shown_with_its_name_as_text(visit: Open) -> None:
    seen = visit()
    shown = seen.page.inner_text("#picture-name")
    assert shown in NAMED
    seen.until("[...document.images].filter((one) => one.checkVisibility()).every((one) => one.naturalWidth > 0)")
    assert seen.value("document.querySelectorAll('#cards *').length") == 0
    unfold(seen, "details")
    assert seen.value("document.querySelectorAll('#cards .histogram path').length") == 12
    unfold(seen, "figures")
    buttons = seen.value("[...document.querySelectorAll('#table .open')].map((button) => button.textContent)")
    assert set(buttons) == set(NAMED)
    assert SCRIPT in set(buttons)
    assert seen.page.input_value("#left") == "0"
    assert seen.page.input_value("#right") == "1"


def test_the_slider_follows_the_mouse(visit: Open) -> None:
    seen = visit()
    box = seen.page.locator("#frame").bounding_box()
    middle = box["y"] + box["height"] / 2
    assert seen.value("getComputedStyle(document.getElementById('over')).clipPath") == "inset(0px 0px 0px 50%)"
    seen.page.mouse.move(box["x"] + box["width"] / 2, middle)
    seen.page.mouse.down()
    seen.page.mouse.move(box["x"] + box["width"] / 3, middle)
    seen.page.mouse.move(box["x"] + box["width"] / 4, middle)
    seen.page.mouse.up()
    assert seen.value("getComputedStyle(document.getElementById('over')).clipPath") == "inset(0px 0px 0px 25%)"
    divider = seen.page.locator("#divider")
    assert divider.get_attribute("aria-valuenow") == "25"
    assert divider.get_attribute("aria-valuetext") == "25 % low, 75 % enhanced & <i>"
    seen.page.mouse.move(box["x"] + box["width"] * 0.9, middle)
    assert divider.get_attribute("aria-valuenow") == "25", "nothing moves without a button held"


def test_the_slider_follows_the_keyboard(visit: Open) -> None:
    seen = visit()
    divider = seen.page.locator("#divider")
    divider.focus()
    name = seen.page.inner_text("#picture-name")
    steps = (("ArrowRight", "51"), ("Shift+ArrowLeft", "41"), ("PageUp", "51"), ("End", "100"), ("ArrowRight", "100"))
    for key, value in (*steps, ("Home", "0")):
        divider.press(key)
        assert divider.get_attribute("aria-valuenow") == value
    assert seen.page.inner_text("#picture-name") == name, "arrows on the divider turn no pages"
    seen.page.keyboard.press("Tab")
    seen.page.keyboard.press("Shift+Tab")
    ring = seen.value("getComputedStyle(document.querySelector('.knob'))['outline-style']")
    assert ring == "solid", "the focus has to be seen"


def test_the_slider_follows_a_finger(visit: Open) -> None:
    seen = visit(PHONE)
    seen.page.locator("#frame").scroll_into_view_if_needed()
    box = seen.page.locator("#frame").bounding_box()
    y = box["y"] + box["height"] / 2
    seen.touch("Start", (box["x"] + box["width"] * 0.5, y))
    for share in (0.6, 0.7, 0.8):
        seen.touch("Move", (box["x"] + box["width"] * share, y))
    seen.touch("End")
    assert int(seen.page.locator("#divider").get_attribute("aria-valuenow")) == pytest.approx(80, abs=1)


def test_one_zoom_moves_all_pictures(visit: Open) -> None:
    seen = visit()
    seen.page.click("[data-mode=grid]")
    panes = seen.page.locator(".panes .pane")
    assert panes.count() == 3
    assert seen.transforms() == {"translate(0%, 0%) scale(1)"}
    box = panes.nth(1).bounding_box()
    seen.page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + box["height"] * 0.75)
    seen.page.mouse.wheel(0, -400)
    seen.until("document.body.classList.contains('zoomed')")
    (zoomed,) = seen.transforms()
    x, y, scale = map(float, re.findall(r"-?[\d.]+", zoomed))
    assert scale > 1.5
    assert x == pytest.approx(25 * (1 - scale), abs=0.5), "the point under the pointer stays"
    assert y == pytest.approx(75 * (1 - scale), abs=0.5)
    seen.page.mouse.down()
    seen.page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.7)
    seen.page.mouse.up()
    (moved,) = seen.transforms()
    assert float(re.findall(r"-?[\d.]+", moved)[0]) == pytest.approx(x + 5, abs=0.5)
    panes.nth(2).press("ArrowRight")
    (pushed,) = seen.transforms()
    assert pushed != moved
    seen.page.click("[data-mode=difference]")
    assert seen.transforms() == {pushed}, "the heat maps show the same place"
    panes.nth(0).dblclick()
    assert seen.transforms() == {"translate(0%, 0%) scale(1)"}


def test_two_fingers_zoom_all_pictures(visit: Open) -> None:
    seen = visit(PHONE)
    seen.page.click("[data-mode=grid]")
    pane = seen.page.locator(".panes .pane").nth(0)
    pane.scroll_into_view_if_needed()
    box = pane.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    seen.touch("Start", (x - 20, y), (x + 20, y))
    for spread in (30, 45, 60):
        seen.touch("Move", (x - spread, y), (x + spread, y))
    seen.touch("End")
    (zoomed,) = seen.transforms()
    assert float(re.findall(r"-?[\d.]+", zoomed)[2]) == pytest.approx(3.0, abs=0.3)


def test_heat_maps_stand_beside_the_reference(visit: Open) -> None:
    seen = visit()
    seen.page.click("[data-mode=difference]")
    alternatives = seen.value("[...document.querySelectorAll('.panes .layer')].map((layer) => layer.ariaLabel)")
    assert [("difference of" in said) for said in alternatives] == [True, True, False]
    assert seen.page.inner_text("#scale-top").startswith("≥ 0.")
    seen.page.click("[data-mode=grid]")
    assert not seen.page.is_visible("#scale")


def column(seen: Seen, index: int) -> list[str]:
    return seen.value(f"[...document.querySelectorAll('#table tbody tr')].map((row) => row.cells[{index}].textContent)")


def test_columns_sort_by_click_and_key(visit: Open) -> None:
    seen = visit()
    unfold(seen, "figures")
    heading = seen.page.locator("#table thead th").nth(2)
    assert heading.get_attribute("aria-sort") == "none"
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "descending", "the best first"
    values = column(seen, 2)
    figures = [float(value) for value in values if value != "–"]
    assert len(figures) == 10
    assert figures == sorted(figures, reverse=True)
    assert values[10:] == ["–"] * 5, "what is not defined comes last"
    heading.locator("button").press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending"
    values = column(seen, 2)
    assert [float(value) for value in values[:10]] == sorted(figures)
    assert values[10:] == ["–"] * 5
    sorted_by = seen.value("[...document.querySelectorAll('#table [aria-sort]')].map((cell) => cell.ariaSort)")
    assert sorted_by.count("none") == len(sorted_by) - 1
    seen.page.locator("#table thead button").first.click()
    assert column(seen, 0)[::3][-2:] == ["z9", "z10"], "names in natural order"


def test_the_table_narrows_to_a_version_and_leads_to_a_picture(visit: Open) -> None:
    seen = visit()
    unfold(seen, "figures")
    seen.page.select_option("#filter", "1")
    assert seen.page.locator("#table tbody tr:visible").count() == 5
    seen.page.locator("#table tbody tr:visible .open").last.click()
    assert seen.page.inner_text("#picture-name") == "z10"
    assert seen.page.locator("#table tr[aria-current]").count() == 1


def test_the_keyboard_goes_through_pictures_and_views(visit: Open) -> None:
    seen = visit()
    press = seen.page.keyboard.press
    order = [seen.page.inner_text("#picture-name")]
    for key in ("n", "ArrowRight", "n", "n", "n"):
        press(key)
        order.append(seen.page.inner_text("#picture-name"))
    assert sorted(order[:5]) == sorted(NAMED)
    assert order[5] == order[4], "it ends with the last"
    press("p")
    press("ArrowLeft")
    assert seen.page.inner_text("#picture-name") == order[2]
    assert seen.page.inner_text("#position") == "3 / 5"
    press("2")
    assert seen.page.get_attribute("[data-mode=grid]", "aria-pressed") == "true"
    press("+")
    assert seen.transforms() != {"translate(0%, 0%) scale(1)"}
    press("0")
    assert seen.transforms() == {"translate(0%, 0%) scale(1)"}
    press("?")
    assert seen.page.is_visible("#help-text")
    press("n")
    press("Escape")
    assert not seen.page.is_visible("#help-text")
    assert seen.page.inner_text("#picture-name") == order[2]


def test_tags_are_shown_as_text(visit: Open) -> None:
    seen = visit()
    seen.page.locator("#strip button", has=seen.page.locator("img")).first.wait_for()
    seen.page.get_by_role("button", name=SCRIPT, exact=True).first.click()
    unfold(seen, "details")
    assert "</script><b>Camera</b>" in seen.page.inner_text("#tags")
    assert "1/250 s" in seen.page.inner_text("#tags")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_themes_follow_the_system_until_one_is_chosen_and_stay_neutral(visit: Open, scheme: str) -> None:
    seen = visit(scheme=scheme)

    def grey(where: str) -> int:
        colour = seen.value(f"getComputedStyle(document.querySelector('{where}')).backgroundColor")
        red, green, blue = map(int, re.findall(r"\d+", colour)[:3])
        assert red == green == blue, "colour beside a picture changes how it looks"
        return red

    before = grey("body")
    assert (before > 128) == (scheme == "light")
    grey(".stage")
    seen.page.click("#theme")
    assert (grey("body") > 128) != (scheme == "light")
    grey(".stage")
    seen.page.reload()
    assert (grey("body") > 128) != (scheme == "light"), "the choice is kept"


def test_a_phone_gets_one_column_and_room_for_fingers(visit: Open) -> None:
    seen = visit(PHONE)
    small = """[...document.querySelectorAll('button, select, [role=slider]')]
        .filter((one) => one.checkVisibility()).map((one) => [one, one.getBoundingClientRect()])
        .filter(([one, box]) => box.width < 39.5 || box.height < 39.5).map(([one]) => one.outerHTML.slice(0, 80))"""
    for mode in ("slider", "grid", "difference"):
        seen.page.click(f"[data-mode={mode}]")
        assert seen.value("document.documentElement.scrollWidth") <= PHONE["width"]
        assert seen.value(small) == []
    left = seen.value("[...document.querySelectorAll('.panes .pane')].map((one) => one.getBoundingClientRect().left)")
    assert len(set(left)) == 1


def test_linked_pictures_are_found_beside_the_page(visit: Open, site: Site) -> None:
    page = site.page.parent / "linked.html"
    assert run_compare(site.low, site.high, "-o", page, "--linked", "--metrics", "brightness") == 0
    assert page.stat().st_size < site.page.stat().st_size
    seen = visit(page=page)
    for _ in NAMED:
        seen.until("[...document.querySelectorAll('#frame .layer')].every((layer) => layer.naturalWidth === 96)")
        assert seen.page.get_attribute("#under .layer", "src").startswith("low/")
        seen.page.keyboard.press("n")
