"""What is in the page's file; what it does is tested in a browser."""

from __future__ import annotations

import json
import re
import urllib.parse
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from lumen_cli.compare import link, page_target
from lumen_cli.errors import UsageError
from lumen_cli.files.find import find_pictures
from tests.compare.conftest import MODEL, NAMES, SCRIPT, Site, run_compare, save, scene

NAMED = {name.removesuffix(".png") for name in NAMES}


class Tags(HTMLParser):
    """Every element with its attributes, and the text of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def blocks(self) -> list[Any]:
        """What the page holds as data: facts, entries, then a block for each picture."""
        return [json.loads(text) for text in self.texts if text.strip()]

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1] == ("script", {**self.elements[-1][1], "type": "application/json"}):
            self.texts.append(data)


@pytest.fixture(scope="module")
def text(site: Site) -> str:
    return site.single.read_text("utf-8")


def test_names_and_tags_are_text_and_nothing_else(text: str) -> None:
    tags = Tags(text)
    assert not {tag for tag, _ in tags.elements} & {"i", "iframe", "object", "embed", "base"}
    assert [attributes.get("type") for tag, attributes in tags.elements if tag == "script"] == [
        *["application/json"] * (2 + len(NAMES)),
        None,
    ]
    assert not [name for _, attributes in tags.elements for name in attributes if name.startswith("on")]
    assert SCRIPT not in text
    assert MODEL not in text
    _, entries, *blocks = tags.blocks()
    assert {entry["name"] for entry in entries} == NAMED
    (tagged,) = (block["tags"] for block in blocks if block["tags"])
    assert dict(tagged["rows"])["Camera"] == f"Maker {MODEL}"


def test_everything_is_in_the_file(text: str) -> None:
    tags = Tags(text)
    sources = [attributes[name] for _, attributes in tags.elements for name in ("src", "href") if attributes.get(name)]
    assert all(source.startswith(("data:", "#")) for source in sources if source)
    visible = re.sub(r"data:image/webp;base64,[A-Za-z0-9+/=]+", "", text)
    assert re.findall(r"https?://[^\s\"'<]+", visible) == ["http://www.w3.org/2000/svg"], "a name space, not an address"
    assert not re.search(r"@import|url\((?!#)|\bfetch\(|XMLHttpRequest|sendBeacon|WebSocket", visible)


def test_no_script_but_the_pages_own_may_run(text: str) -> None:
    (policy,) = (
        attributes["content"]
        for tag, attributes in Tags(text).elements
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    assert re.fullmatch(r"'sha256-[A-Za-z0-9+/]{43}='", rules["script-src"])


def test_pictures_lie_in_a_folder_beside_the_page(site: Site) -> None:
    tags = Tags(site.page.read_text("utf-8"))
    folder = site.page.parent / "page-pictures"
    _, entries, *blocks = tags.blocks()
    named = {entry["thumbnail"] for entry in entries}
    for version in (version for block in blocks for version in block["versions"]):
        named |= {version["source"], version["heat"]} - {None}
    assert {urllib.parse.unquote(each) for each in named} == {
        f"page-pictures/{path.name}" for path in folder.iterdir() if path.suffix == ".webp"
    }
    assert len(named) == len(NAMES) * (1 + 3 + 2)
    assert site.page.stat().st_size < 100_000
    links = [attributes["href"] for tag, attributes in tags.elements if tag == "a"]
    assert {link for link in links if link != "#main"} == {v["source"] for block in blocks for v in block["versions"]}


def test_the_folder_of_a_page_is_no_input_and_nothing_else_is_replaced(tmp_path: Path) -> None:
    save(tmp_path / "all" / "x.png", scene(2))
    save(tmp_path / "all" / "y.png", scene(3))
    page = tmp_path / "all" / "a page.html"
    arguments = (tmp_path / "all/x.png", tmp_path / "all/y.png", "-o", page, "--metrics", "brightness")
    assert run_compare(*arguments) == 0
    folder = tmp_path / "all" / "a page-pictures"
    before = sorted(path.name for path in folder.iterdir())
    assert "lumen-page.txt" in before
    assert [source.path.name for source in find_pictures([str(tmp_path / "all")])] == ["x.png", "y.png"]
    (folder / "stale.webp").touch()
    assert run_compare(*arguments) == 2
    assert run_compare(*arguments, "--overwrite") == 0
    assert sorted(path.name for path in folder.iterdir()) == before
    assert sorted(path.name for path in folder.parent.iterdir()) == ["a page-pictures", "a page.html", "x.png", "y.png"]
    page.unlink()
    (folder / "lumen-page.txt").unlink()
    assert run_compare(*arguments) == 2
    assert not page.exists()


def test_without_a_reference_no_full_reference_figures_are_shown(tmp_path: Path) -> None:
    for name in ("dark/x.png", "bright/x.png"):
        save(tmp_path / name, scene(2))
    assert run_compare(tmp_path / "dark", tmp_path / "bright") == 0
    text = (tmp_path / "compare.html").read_text("utf-8")
    facts, entries, _ = Tags(text).blocks()
    assert facts["labels"] == ["Before", "After"]
    assert facts["reference"] is None
    assert facts["headings"] == ["LOE ↓", "Brightness"]
    assert "measured against" not in text
    assert urllib.parse.unquote(entries[0]["path"]) == "dark/x.png"


def test_the_page_says_what_its_pictures_are(text: str) -> None:
    assert "WebP of quality 90" in text
    assert "at full size" in text
    assert "measured against <b>high</b>" in text


def test_large_pictures_are_reduced_and_the_page_says_so(tmp_path: Path) -> None:
    for name in ("x", "y"):
        save(tmp_path / f"{name}.png", scene(2).repeat(4, axis=0).repeat(4, axis=1))
    page = tmp_path / "compare.html"
    assert run_compare(tmp_path / "x.png", tmp_path / "y.png", "--max-side", 200, "--metrics", "brightness") == 0
    text = page.read_text("utf-8")
    assert "reduced to at most 200 pixels a side" in text
    _, _, block = Tags(text).blocks()
    assert (block["width"], block["versions"][0]["width"], block["versions"][0]["height"]) == (384, 200, 133)


def test_links_lead_from_the_page_to_the_files(tmp_path: Path) -> None:
    file = tmp_path / "a b" / "100% #1?.png"
    reference = link(file, tmp_path / "pages")
    assert reference == "../a%20b/100%25%20%231%3F.png"
    assert (tmp_path / "pages" / urllib.parse.unquote(reference)).resolve() == file


@pytest.mark.parametrize(
    ("output", "said"), [("out.png", "argument sheet"), ("", "is empty"), ("there.html", "argument overwrite")]
)
def test_a_page_has_to_be_named_like_one_and_replaces_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.html").touch()
    with pytest.raises(UsageError, match=said):
        page_target(output, tmp_path / "before", overwrite=False)


def test_the_page_lies_beside_the_first_version_or_where_it_is_asked_to(tmp_path: Path) -> None:
    assert page_target(None, tmp_path / "before", False) == tmp_path / "compare.html"
    assert page_target(f"{tmp_path}/", tmp_path / "before", False) == tmp_path / "compare.html"
    assert page_target(f"{tmp_path}/x.htm", tmp_path / "before", False) == tmp_path / "x.htm"
