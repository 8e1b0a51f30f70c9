"""Makes docs/lumen.1, the manual page, from the commands themselves and the table of variables in configuration.md.

python docs/make_man.py
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from lumen_cli import __version__
from lumen_cli.cli.app import app, shared_options, walk
from lumen_cli.errors import EXIT_CODES, MORE_CODES

DOCS = Path(__file__).resolve().parent
PAGE = DOCS / "lumen.1"
_VARIABLE = re.compile(r"^\| (`[A-Z_`, ]+`) \| (.+) \|$", re.MULTILINE)


def make_page() -> str:
    """The page in the macros of man(7)."""
    commands = list(walk(typer.main.get_command(app)))
    shared = {option.name for option in shared_options()}
    (_, whole), *others = commands
    summary = (whole.help or "").strip().partition("\n")[0]
    lines = [
        f'.TH LUMEN 1 "" "lumen {__version__}" "lumen"',
        '.\\" Made by docs/make_man.py',
        ".nh",
        ".SH NAME",
        f"lumen \\- {_escape(summary[0].lower() + summary[1:].rstrip('.'))}",
        ".SH SYNOPSIS",
        ".B lumen",
        ".I COMMAND",
        r"[\fIOPTIONS\fR] \&...",
        ".SH DESCRIPTION",
        *_text(whole.help or ""),
        ".SH OPTIONS",
        "Those of the last group may stand behind any command.",
        *_options(whole, set(), ".SS"),
        ".SH COMMANDS",
    ]
    for words, command in others:
        usage = " ".join(["lumen", *words, *command.collect_usage_pieces(_context(command, words))])
        lines += [f".SS lumen {' '.join(words)}", ".PP", f".B {_escape(usage)}", ".PP"]
        lines += [*_text(command.help or ""), *_options(command, shared, ".PP\n.I")]
    lines += [".SH EXIT STATUS", *_entries({str(code): text for code, text in EXIT_CODES.items()}), ".PP", MORE_CODES]
    table = _VARIABLE.findall((DOCS / "configuration.md").read_text(encoding="utf-8"))
    lines += [".SH ENVIRONMENT", "Every option has a variable, such as LUMEN_ENHANCE_MODEL. Further ones:"]
    lines += _entries({names.replace("`", ""): text.replace("`", "") for names, text in table})
    lines += [".SH FILES", "lumen.toml, [tool.lumen] in pyproject.toml and your own config.toml set options;"]
    lines += [".B lumen config path", "shows where they are looked for.", ".SH SEE ALSO", ".BR exiftool (1)"]
    return "\n".join(lines) + "\n"


def _context(command: Any, words: tuple[str, ...]) -> Any:
    return command.context_class(command, info_name=" ".join(words))


def _options(command: Any, left_out: set[str], heading: str) -> Iterator[str]:
    """Arguments and options in the groups of the help page."""
    context = _context(command, ())
    panels: dict[str, dict[str, str]] = {}
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is None or parameter.name in left_out:
            continue
        argument = parameter.param_type_name == "argument"
        panel = getattr(parameter, "rich_help_panel", None) or ("Arguments" if argument else "Options")
        spelling, meaning = (" ".join(part.split()) for part in record)
        spelling = re.sub(r" <.*>$", "", spelling)  # a Python type
        panels.setdefault(panel, {})[spelling] = meaning
    for panel, entries in panels.items():
        yield f"{heading} {panel}"
        yield from _entries(entries)


def _entries(entries: dict[str, str]) -> Iterator[str]:
    for name, meaning in entries.items():
        yield f".TP\n.B {_escape(name)}\n{_escape(meaning)}"


def _text(text: str) -> Iterator[str]:
    """Help text; what it sets line by line stays so."""
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        is_set = "\b" in paragraph
        lines = [line.rstrip() for line in paragraph.replace("\b", "").strip("\n").splitlines()]
        if is_set and any(line.startswith("  ") for line in lines):
            yield from [".PP", ".nf", *map(_escape, lines), ".fi"]
        else:
            yield from [".PP", _escape(" ".join(line.strip() for line in lines))]


def _escape(text: str) -> str:
    """Text as roff takes it: minus signs that can be copied, no line that begins with a control character."""
    text = text.replace("\\[", "[").replace("\\", "\\e").replace("-", "\\-").replace("`", "\\(ga")
    return "\\&" + text if text.startswith((".", "'")) else text


if __name__ == "__main__":
    PAGE.write_text(make_page(), encoding="utf-8")
