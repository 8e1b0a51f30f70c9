"""What the site takes from elsewhere in the repository when mkdocs builds it.

* The page of the command line comes from the commands themselves.
* README-like files outside docs/ become pages; links to them lead there. So every link also works where the
  repository is read as files.
* A model's page includes its card where a line links to it, and a table of facts from its config.json.
* Equations become MathML, which browsers draw without a script.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
COMMAND_LINE = "reference/command-line.md"
PAGES = {
    "ARCHITECTURE.md": "about/architecture.md",
    "CHANGELOG.md": "about/changelog.md",
    "CONTRIBUTING.md": "about/contributing.md",
    "SECURITY.md": "about/security.md",
    "contrib/darktable/README.md": "how-to/darktable-script.md",
    "sample_images/README.md": "about/samples.md",
    "README.md": "index.md",
}
"""Files of the repository that have a page, and its path in docs/. All but README.md are made into pages here."""
_ABOUT = """# Command line

This page is made from the commands themselves; `lumen COMMAND --help` prints the same. Options can also come from files
and variables ([configuration](../configuration.md)). The options under *Output and logging* of `lumen` itself, such as
`--verbose`, may stand behind any command. All commands have the same [exit codes](../exit-codes.md).
"""
_LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)\s]+)(?=\))")
_CARD = re.compile(r"^\[[^\]]+\]\(\.\./\.\./(models/\w+/README\.md)\)$", re.MULTILINE)
_FACTS = re.compile(r"^<!-- facts: (\w+) -->$", re.MULTILINE)
_CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)
_DOCTEST = re.compile(r"(?:^>>> .*\n(?:^(?!>>> ).+\n?)*)+", re.MULTILINE)
_EQUATION = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List pages of docs/ itself that no line of `nav` names under "How to"."""
    named = json.dumps(config.nav)
    how_to = next(section["How to"] for section in config.nav or [] if "How to" in section)
    how_to += sorted(path.name for path in (ROOT / "docs").glob("*.md") if f'"{path.name}"' not in named)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not files of docs/."""
    for source, uri in PAGES.items():
        if uri != "index.md":
            files.append(File.generated(config, uri, content=(ROOT / source).read_text(encoding="utf-8")))
    files.append(File.generated(config, COMMAND_LINE, content=command_line()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Include what lies outside docs/ and turn links of the repository into links of the site."""
    uri = page.file.src_uri
    homes = {made: posixpath.dirname(source) for source, made in PAGES.items() if made != "index.md"}
    markdown = _CARD.sub(lambda found: _card(found[1], uri), _FACTS.sub(lambda found: _facts(found[1]), markdown))
    return _relink(markdown, homes.get(uri, posixpath.join("docs", posixpath.dirname(uri))), uri)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replace LaTeX by MathML."""

    def drawn(found: re.Match[str]) -> str:
        latex = found[2].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
        block = found[1] == "div"
        mathml = convert(latex, display="block" if block else "inline")
        return f'<div class="equation">{mathml}</div>' if block else mathml

    return _EQUATION.sub(drawn, html)


class Doctests(griffe.Extension):
    """Examples in docstrings become code: without a heading of their own they would be read as text."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Fence the examples of a docstring."""
        if obj.docstring and not obj.is_alias:
            obj.docstring.value = _DOCTEST.sub(
                lambda found: f"```pycon\n{found[0].rstrip()}\n```\n", obj.docstring.value + "\n"
            )


def _relink(markdown: str, home: str, uri: str) -> str:
    """Links of a text that lies in the repository's folder `home`, for the page `uri`; code stays as it is."""

    def site_link(found: re.Match[str]) -> str:
        path, anchor = (*found[1].split("#", 1), "")[:2]
        target = posixpath.normpath(posixpath.join(home, path))
        target = PAGES.get(target) or PAGES.get(posixpath.join(target, "README.md")) or target.removeprefix("docs/")
        if target.startswith("models/") and target.endswith("/README.md"):
            target = target.removesuffix("/README.md") + ".md"
        return posixpath.relpath(target, posixpath.dirname(uri) or ".") + (f"#{anchor}" if anchor else "")

    pieces, position = [], 0
    for code in _CODE.finditer(markdown):
        pieces += [_LINK.sub(site_link, markdown[position : code.start()]), code[0]]
        position = code.end()
    return "".join([*pieces, _LINK.sub(site_link, markdown[position:])])


def _card(path: str, uri: str) -> str:
    """A model card without its front matter and title, one heading level lower."""
    text = (ROOT / path).read_text(encoding="utf-8")
    body = text.split("---\n", 2)[2].split("\n", 2)[2] if text.startswith("---") else text
    body = body[body.index("\n") :] if body.startswith("# ") else body
    name = path.split("/")[1]
    return f"{body}\n\n*This is the model card, `models/{name}/README.md`.*"


def _facts(name: str) -> str:
    """A table from a model's config.json."""
    card = json.loads((ROOT / "models" / name / "config.json").read_text(encoding="utf-8"))
    steps = card["defaults"]["steps"]
    bytes_ = sum(file["bytes"] for file in card["weights"].values() if isinstance(file, dict))
    rows = {
        "Best for": card["best_for"],
        "Parameters": f"{card['weights']['parameters']:,}",
        "Weights": f"{bytes_ / 2**20:.0f} MiB, float16" if bytes_ else "those of its members",
        "Sampling steps": f"{steps} ({card['steps_range'][0]} to {card['steps_range'][1]} with `--steps`)"
        if steps
        else "none to choose: `--steps` does not apply",
        "Time": f"{card['seconds']} s for 600×400 pixels on two CPU cores",
        "Commands": ", ".join(f"`lumen {each}`" for each in card["abilities"] if each in ("enhance", "decompose")),
        "Licence": card["licence"],
    }
    if "paper" in card:
        rows["Paper"] = f"[{card['paper']['title']}]({card['paper']['url']})"
    lines = [f"| **{heading}** | {value} |" for heading, value in rows.items()]
    return "\n".join(["| | |", "| --- | --- |", *lines])


def command_line() -> str:
    """The reference of all commands, as `--help` has it; what all commands have stands once, under `lumen`."""
    import typer

    from lumen_cli.cli.app import app, shared_options, walk

    shared = {option.name for option in shared_options()}
    pieces = [_ABOUT]
    for words, command in walk(typer.main.get_command(app)):
        pieces += _command(command, ("lumen", *words), shared if words else set())
    return "\n".join(pieces)


def _command(command: Any, words: tuple[str, ...], left_out: set[str]) -> Iterator[str]:
    context = command.context_class(command, info_name=words[-1])
    yield f"{'#' * (1 + min(len(words), 2))} `{' '.join(words)}` {{ #{'-'.join(words)} }}\n"
    yield from _paragraphs(command.help or "")
    yield f"```\n{' '.join([*words, *command.collect_usage_pieces(context)])}\n```\n"
    panels: dict[str, list[str]] = {}
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is None or parameter.name in left_out or "completion" in record[0]:
            continue
        argument = parameter.param_type_name == "argument"
        panel = getattr(parameter, "rich_help_panel", None) or ("Arguments" if argument else "Options")
        spelling, meaning = (" ".join(part.split()) for part in record)
        panels.setdefault(panel, []).append(f"`{spelling}`\n:   {_plain(meaning)}\n")
    for panel, entries in panels.items():
        yield f"**{panel}**\n"
        yield from entries


def _paragraphs(text: str) -> Iterator[str]:
    """Help text; indented lines become code."""
    for paragraph in re.split(r"\n\s*\n", text):
        lines = paragraph.replace("\b", "").strip("\n").splitlines()
        indented = [line[2:] for line in lines if line.startswith("  ")]
        heading = " ".join(line.strip() for line in lines if not line.startswith("  "))
        if heading:
            yield f"{_plain(heading)}\n"
        if indented:
            yield "```sh\n" + "\n".join(indented) + "\n```\n"


def _plain(text: str) -> str:
    """Text without what Markdown would read as markup."""
    kept = re.split(r"(`[^`]*`)", text)
    return "".join(
        part if part.startswith("`") else re.sub(r"([*_<>\[\]$|{}])", r"\\\1", part) for part in kept
    ).replace("\\[default", "[default")
