"""README and documentation: their commands exist, and those of README and the tutorials run as they stand."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
RUN = [
    "README.md",
    "docs/tutorials/photographer.md",
    "docs/tutorials/engineer.md",
    "docs/tutorials/researcher.md",
    "docs/how-to/tar-shards.md",
]
NOT_RUN = {
    "pipx install": "asks the network for packages",
    "make demo": "the same",
    "make test": "the same, and runs this test",
    "make docs": "the same; test_site.py builds the site",
    "lumen train": "takes two hours and pictures that are not here; tests/training runs it",
    "lumen enhance inbox/ -o out/ --watch": "does not end; tests/cli/test_watch.py stops it",
    "lumen enhance s3://.* --engine ray": "needs a store and a Ray cluster; tests/cluster has both",
    "lumen benchmark$": "takes minutes; the tutorial for researchers runs it for two models",
    "lumen benchmark -d ": "needs data sets that are not here",
}
"""Commands by how they begin (a regular expression), and why they do not run here."""
_BLOCK = re.compile(r"^( *)```(sh|python)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`(lumen [^`]+)`")
_SMALL = ("launch.webp", "palace.jpg", "camera-grey.png")


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and text of the fenced blocks of a page."""
    found = _BLOCK.findall(page.read_text(encoding="utf-8"))
    return [(language, re.sub(rf"^{indent}", "", text, flags=re.MULTILINE)) for indent, language, text in found]


def commands_of(text: str) -> list[str]:
    """The lines of a shell block, without comments."""
    return list(filter(None, (re.split(r"\s+#\s", line)[0].strip() for line in text.splitlines())))


def commands(page: Path) -> Iterator[str]:
    """The shell lines of a page's blocks, without comments."""
    for language, text in blocks(page):
        if language == "sh":
            yield from commands_of(text)


def calls(line: str) -> Iterator[list[str]]:
    """The words behind each `lumen` of a shell line, up to the next pipe or redirection."""
    words, end = shlex.split(line), 0
    for index, word in enumerate(words):
        if word == "lumen" and index >= end and not (index and words[index - 1].startswith("-")):  # not a model's name
            stops = (place for place in range(index, len(words)) if words[place] in ("|", ">", "<", "&&"))
            end = next(stops, len(words))
            yield words[index + 1 : end]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_and_option_exists(page: Path) -> None:
    import typer

    from lumen_cli.cli.app import app, walk

    root: Any = typer.main.get_command(app)
    assert list(walk(root))  # gives each command the options of all commands
    lines = [*commands(page), *_INLINE.findall(page.read_text(encoding="utf-8"))]
    for words in (words for line in lines for words in calls(line)):
        command, given = root, list(words)
        while given and hasattr(command, "commands") and not given[0].startswith("-"):
            if given[0].isupper() or given[0] == "…":  # `lumen COMMAND`: any
                break
            command = command.get_command(None, given.pop(0))
            assert command is not None, f"no such command: lumen {' '.join(words)}"
        known = {option for each in command.params for option in (*each.opts, *each.secondary_opts)} | {"--help", "-h"}
        options = [word.partition("=")[0] for word in given if re.match(r"--?[a-zA-Z0]", word)]
        assert not set(options) - known, f"lumen {' '.join(words)}"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A fresh copy of the repository, with what a reader has: a folder of dark photographs, one of them alone."""
    root = tmp_path / "lumen"
    shutil.copytree(ROOT / "sample_images", root / "sample_images")
    for name in ("lumen_cli", "models"):  # only read: links do
        (root / name).symlink_to(ROOT / name)
    binaries = tmp_path / "bin"
    binaries.mkdir()
    (binaries / "lumen").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m lumen_cli "$@"\n')
    (binaries / "lumen").chmod(0o755)
    return root


def prepare(root: Path, page: str) -> None:
    if page == "README.md":
        (root / "photos").mkdir()
        for name in _SMALL:
            shutil.copy(root / "sample_images" / name, root / "photos" / name)
        shutil.copy(root / "sample_images" / "palace.jpg", root / "night.jpg")
    else:  # tutorials make their folders from sample_images; fewer pictures are enough
        for path in (root / "sample_images").iterdir():
            if path.name not in (*_SMALL, "astronaut.jpg", "README.md"):
                path.unlink()


def reason_not_to_run(line: str) -> str | None:
    for begin, reason in NOT_RUN.items():
        if re.match(begin, line):
            return reason
    return "jq is not installed" if "| jq" in line and shutil.which("jq") is None else None


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN)
def test_every_block_runs_in_a_fresh_copy(page: str, copy: Path, tmp_path: Path) -> None:
    prepare(copy, page)
    environment = os.environ | {
        "PATH": os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]]),
        "PYTHONPATH": str(ROOT),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "XDG_DATA_HOME": str(tmp_path / "data"),
    }
    ran = 0
    for language, text in blocks(ROOT / page):
        if language == "python":
            lines = [shlex.join([sys.executable, "-c", text])]
        else:
            lines = [line for line in commands_of(text) if reason_not_to_run(line) is None]
        for line in lines:
            done = subprocess.run(["sh", "-c", line], cwd=copy, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, f"{line}\n{done.stderr}"
            ran += 1
    assert ran >= 4
    assert {path.name for path in (copy / "sample_images").glob("*-enhanced*")} == set()
    if page == "README.md":
        assert (copy / "compare.html").is_file()
        assert sorted(path.name for path in (copy / "photos-enhanced").glob("[!.]*")) == sorted(_SMALL)
        for name in ("bright.png", "soft.jpg", "triple.jpg", "piped.jpg", "out/palace-lumen.jpg", "night-sheet.png"):
            assert (copy / name).stat().st_size > 10_000


def test_what_does_not_run_is_still_on_a_page() -> None:
    lines = [line for page in RUN for line in commands(ROOT / page)]
    assert not [begin for begin in NOT_RUN if not any(re.match(begin, line) for line in lines)]


def test_the_readme_stays_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 120


def test_the_badges_state_what_the_package_states() -> None:
    from lumen_cli import __version__

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    expected = {
        "version": __version__,
        "python": project["requires-python"].replace(">=", "≥ "),
        "licence": project["license"],
    }
    named = re.findall(r"docs/assets/badge-(\w+)\.svg", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert sorted(named) == sorted(expected)
    for name, value in expected.items():
        text = (ROOT / "docs" / "assets" / f"badge-{name}.svg").read_text(encoding="utf-8")
        assert f"<title>{name}: {value}</title>" in text
        assert f">{value}</text>" in text


def test_the_citation_has_lumen_and_the_five_papers() -> None:
    yaml = pytest.importorskip("yaml")
    from lumen_cli import __version__
    from lumen_cli.registry.architectures import ARCHITECTURES

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["cff-version"], citation["version"], citation["license"]) == ("1.2.0", __version__, "MIT")
    cited = {entry.get("url") or f"https://doi.org/{entry['doi']}" for entry in citation["references"]}
    papers = {each.release.paper_url for each in ARCHITECTURES.values() if each.recipes and each.release}
    assert cited == papers
    assert all(entry["authors"] and entry["title"] and entry["year"] for entry in citation["references"])
