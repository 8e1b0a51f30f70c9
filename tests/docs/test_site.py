"""The documentation site: it builds without a network, and every link and picture in it leads somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.compare.browser import chromium

ROOT = Path(__file__).parents[2]
LOADED = {("script", "src"), ("img", "src"), ("source", "src"), ("iframe", "src"), ("video", "src")}
"""What a browser loads by itself; also <link rel=stylesheet|icon>."""


@dataclass
class Found(HTMLParser):
    """Ids, links and loaded files of a page, and its text without code."""

    path: Path
    ids: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.ids |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag == "link" and {"stylesheet", "icon"} & set(values.get("rel", "").split()):
            self.loaded.append(values["href"])
        self.loaded += [value for name, value in values.items() if (tag, name) in LOADED]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("material", reason="mkdocs-material is not installed (pip install '.[docs]')")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    # An address that nothing answers: a build that asks the network fails.
    environment = os.environ | dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    environment |= {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return out


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Found]:
    return {path: Found(path) for path in sorted(site.rglob("*.html"))}


def test_every_internal_link_leads_to_a_page_and_an_anchor(site: Path, pages: dict[Path, Found]) -> None:
    broken = []
    for path, page in pages.items():
        if path.name == "404.html":  # its links are absolute, for whatever address was not found
            continue
        for link in [*page.links, *page.loaded]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            anchor = unquote(parts.fragment)
            if not target.is_file() or (anchor and target in pages and anchor not in pages[target].ids):
                broken.append(f"{path.relative_to(site)}: {link}")
    assert not broken


def test_external_links_have_a_secure_address(pages: dict[Path, Found]) -> None:
    links = {link for page in pages.values() for link in page.links if urlsplit(link).scheme}
    assert links
    plain = {"http://mcl.korea.ac.kr/projects/LDR/"}
    wrong = [link for link in links - plain if not re.fullmatch(r"https://[\w.-]+\.[a-z]{2,}(/\S*)?", link)]
    assert not wrong


def test_a_page_loads_nothing_from_other_servers(site: Path, pages: dict[Path, Found]) -> None:
    assert not [link for page in pages.values() for link in page.loaded if urlsplit(link).netloc]
    sheets = [path.read_text(encoding="utf-8") for path in site.rglob("*.css")]
    assert not [found for sheet in sheets for found in re.findall(r"url\([\"']?(?:https?:)?//[^)]*", sheet)]


def test_its_search_works_from_a_folder(site: Path) -> None:
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1300, "height": 900})
        page.goto((site / "how-to" / "compare.html").as_uri())
        page.wait_for_function("document.querySelector('iframe')")  # the search is there
        page.locator(".md-search__input").click()
        page.keyboard.type("illumination")
        first = page.locator(".md-search-result__link").first
        first.wait_for()
        assert (site / unquote(urlsplit(first.get_attribute("href")).path).removeprefix(f"{site}/")).is_file()


def test_every_equation_is_mathml(site: Path, pages: dict[Path, Found]) -> None:
    count = 0
    for path in pages:
        text = path.read_text(encoding="utf-8")
        assert "arithmatex" not in text, path
        for equation in re.findall(r"<math .*?</math>", text, re.DOTALL):
            count += 1
            assert not re.search(r"\\|&amp;", equation), f"{path.name}: LaTeX that was not understood: {equation}"
    assert count > 60


def test_every_command_and_every_option_is_in_the_reference(site: Path) -> None:
    import typer

    from lumen_cli.cli.app import app, walk

    text = (site / "reference" / "command-line.html").read_text(encoding="utf-8")
    for words, command in walk(typer.main.get_command(app)):
        assert f'id="{"-".join(["lumen", *words])}"' in text
        for parameter in command.params:
            spelled = max(parameter.opts, key=len)
            assert not spelled.startswith("--") or "completion" in spelled or spelled in text


@pytest.mark.parametrize("model", sorted(path.parent.name for path in (ROOT / "models").glob("*/config.json")))
def test_every_model_has_a_page_with_its_card_and_pictures(model: str, site: Path) -> None:
    text = (site / "models" / f"{model}.html").read_text(encoding="utf-8")
    for expected in (f"{model}-good.jpg", f"{model}-failing.jpg", 'id="known-failures"', 'id="licence"', "Parameters"):
        assert expected in text
