"""What is in the page's file; what it does is tested in a browser."""

from __future__ import annotations

import json
import re
import urllib.parse
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from lumen_cli.compare.matching import link, page_target
from lumen_cli.errors import UsageError
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

    def blocks(self) -> list[dict[str, Any]]:
        """What the page holds as data."""
        return [json.loads(text) for text in self.texts if text.strip()]

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1] == ("script", {**self.elements[-1][1], "type": "application/json"}):
            self.texts.append(data)


@pytest.fixture(scope="module")
def text(site: Site) -> str:
    return site.page.read_text("utf-8")


def test_names_and_tags_are_text_and_nothing_else(text: str) -> None:
    tags = Tags(text)
    assert not {tag for tag, _ in tags.elements} & {"i", "iframe", "object", "embed", "base"}
    assert [attributes.get("type") for tag, attributes in tags.elements if tag == "script"] == [
        *["application/json"] * (1 + len(NAMES)),
        None,
    ]
    assert not [name for _, attributes in tags.elements for name in attributes if name.startswith("on")]
    assert SCRIPT not in text
    assert MODEL not in text
    blocks = [block for block in tags.blocks() if "tags" in block]
    assert {block["name"] for block in blocks} == NAMED
    (tagged,) = (block["tags"] for block in blocks if block["tags"])
    assert dict(tagged["rows"])["Camera"] == f"Maker {MODEL}"
    labels = {attributes.get("aria-label") for tag, attributes in tags.elements if tag == "button"}
    assert labels >= NAMED


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
    (block,) = (block for block in Tags(text).blocks() if "tags" in block)
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
