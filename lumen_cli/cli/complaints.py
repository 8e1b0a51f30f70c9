"""What is wrong with a command line, in lumen's own style: one line, what and what to do."""

from __future__ import annotations

import difflib
from typing import Any

import typer

_NEAR = 0.7
_MOST_NEAR = 2


def complaint(error: BaseException) -> tuple[str, int] | None:
    """The line and the exit code for an error of the parser; None for any other error.

    The line is empty where the parser has shown the help page instead.
    """
    if not any(kind.__name__ == "ClickException" for kind in type(error).__mro__):
        return None
    code = int(getattr(error, "exit_code", 2))
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()  # type: ignore[attr-defined]
        return "", code
    command = context.command_path if context else "lumen"
    return f"{_what(error, context)} ({command} --help shows all)", code


def _what(error: Any, context: Any) -> str:
    name = getattr(error, "option_name", None)
    if type(error).__name__ == "NoSuchOption" and name:
        known = [option for each in context.command.params for option in (*each.opts, *each.secondary_opts)]
        near = near_names(name, [option for option in known if option.startswith("--")])
        return f"no such option {name}" + (f"; did you mean {' or '.join(near)}?" if near else "")
    if isinstance(error, typer.BadParameter) and error.message and error.param is not None:
        longest = max(error.param.opts, key=len)
        named = longest if longest.startswith("-") else error.param.metavar or longest
        return f"{named}: {_sentence(error.message.removeprefix('Value error, '))}"
    return _sentence(error.format_message())


def near_names(wanted: str, known: list[str]) -> list[str]:
    """The few names that `wanted` is a slip or the beginning of; options are compared without their dashes."""
    by_bare = {name.lstrip("-"): name for name in known}
    bare = wanted.lstrip("-")
    begun = [name for name in sorted(by_bare) if len(bare) > 1 and name.startswith(bare)]
    near = begun or difflib.get_close_matches(bare, list(by_bare), n=_MOST_NEAR, cutoff=_NEAR)
    return [by_bare[name] for name in near[:_MOST_NEAR]]


def _sentence(text: str) -> str:
    """The parser's text as the rest of a line: no capital, no full stop, no line break."""
    text = " ".join(text.split()).rstrip(".").replace(". Did you", "; did you")
    return text[:1].lower() + text[1:]
