"""Options from files and from the environment: where they lie, which one wins, and what is wrong with them.

The command line wins over the environment, that over the nearest lumen.toml, `[tool.lumen]` of the nearest
pyproject.toml, and the user's config.toml.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import typer

from lumen_cli.errors import UsageError
from lumen_cli.files.contents import user_folder
from lumen_cli.text import did_you_mean, nearest, printable

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

VARIABLE = "LUMEN_CONFIG"
"""One file instead of those that are searched; empty or "none": no file."""
SHARED = ("device", "precision", "seed", "quiet")
"""Options that a file may set for all commands that have them, at its top, and the environment as LUMEN_DEVICE.

`model` is not among them: not every model can decompose, and `benchmark` takes several.
"""
_HEADER = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]")
_KEY = re.compile(r"""\s*([\w."'-]+)\s*=""")


@dataclass(frozen=True)
class File:
    """A configuration file. table: its content below `prefix`, keys with "-" as in options; text: as it is written."""

    path: Path
    table: Mapping[str, Any]
    text: str
    prefix: tuple[str, ...] = ()

    def place(self, *keys: str) -> str:
        """The file and the line of a key, which TOML's parser does not give: "lumen.toml:3"."""
        wanted = (*self.prefix, *keys)
        section: tuple[str, ...] = ()
        for number, line in enumerate(self.text.splitlines(), start=1):
            header, key = _HEADER.match(line), _KEY.match(line)
            if header:
                section = _parts(header[1])
            if wanted == (section if header else (*section, *_parts(key[1])) if key else None):
                return f"{_shown(self.path)}:{number}"
        return _shown(self.path)


@dataclass(frozen=True)
class Candidate:
    """A value of an option and its source: the name of a variable, or file and line."""

    value: Any
    source: str
    file: File | None = None

    def beats(self, other: Candidate) -> str:
        """What makes this one win over another one."""
        if self.file is None:
            return "the command's own variable" if other.file is None else "the environment"
        if other.file is None or self.file.path == other.file.path:
            return "the command's section"
        return self.file.path.name


@dataclass(frozen=True)
class Settings:
    """The configuration files; the first one wins over the others."""

    files: tuple[File, ...] = ()

    def candidates(self, option: Any, words: Sequence[str]) -> Iterator[Candidate]:
        """The values of a command's option outside the command line; the first one wins.

        Raises:
            UsageError: a file has a value of the wrong type.
        """
        for name in variables(option, words):
            if os.environ.get(name):
                yield Candidate(os.environ[name], name)
        yield from self._in_files(option, words)

    def _in_files(self, option: Any, words: Sequence[str]) -> Iterator[Candidate]:
        key = key_of(option)
        for file in self.files:
            for place in ((*words, key), (key,)):
                table = _descend(file.table, place[:-1])
                if key in table and (place[:-1] == tuple(words) or key in SHARED) and not _is_section(table[key]):
                    yield Candidate(_as_typed(option, table[key], file, place), file.place(*place), file)
                if place == (key,):
                    break

    def defaults(self, command: Any, words: Sequence[str]) -> dict[str, Any]:
        """What the files set for a command, by the names of its parameters.

        Raises:
            UsageError: a file has a key that is no option of this command, or a value of the wrong type.
        """
        options = options_of(command)
        known = {key_of(option) for option in options} | set(getattr(command, "commands", ()))
        for file in self.files:
            for key in _descend(file.table, words) if words else ():
                if key not in known:
                    raise _unknown(file, (*words, key), known)
        firsts = ((option.name, next(self._in_files(option, words), None)) for option in options)
        return {name: first.value for name, first in firsts if first is not None}

    def source(self, option: Any, words: Sequence[str], kind: str) -> str:
        """Where a value comes from, for the beginning of a message; kind: the name of click's ParameterSource."""
        if kind == "ENVIRONMENT":
            return next(name for name in variables(option, words) if os.environ.get(name))
        found = next(self._in_files(option, words), None) if kind == "DEFAULT_MAP" else None
        return f"{found.source}: {key_of(option)}" if found else ""


def options_of(command: Any) -> list[Any]:
    """The options of a command that files and the environment can set."""
    options = [each for each in command.params if each.param_type_name == "option" and not each.is_eager]
    return [option for option in options if "completion" not in option.name]


def key_of(option: Any) -> str:
    """An option's name in files: the long one without dashes."""
    return str(max(option.opts, key=len).lstrip("-"))


def variables(option: Any, words: Sequence[str]) -> list[str]:
    """The variables that set an option; the first one that is set wins."""
    key = key_of(option)
    general = [(key,)] if words and key in SHARED else []
    return ["_".join(("lumen", *each)).replace("-", "_").upper() for each in ((*words, key), *general)]


def find_settings(commands: Sequence[str], everywhere: Sequence[str]) -> Settings:
    """Read the files. commands: the names of sections; everywhere: further keys that stand at the top.

    Raises:
        UsageError: a file cannot be read, is no TOML, or has an unknown key or section at its top.
    """
    places = search_places()
    for place in places:
        if place.ignored:
            typer.echo(f"lumen: {_shown(place.path)} is not used: {place.why_not}", err=True)
    files = tuple(filter(None, (_read(place.path) for place in places if not place.why_not)))
    for file in files:
        for key, value in file.table.items():
            if key in commands and not _is_section(value):
                raise UsageError(f"{file.place(key)}: {key} is a command; its options belong under [{key}]")
            if key not in (*commands, *SHARED, *everywhere):
                raise _unknown(file, (key,), {*commands, *SHARED, *everywhere})
    return Settings(files)


class Place(NamedTuple):
    """Where a file is looked for; why_not: why it does not count; ignored: it is there and does not count."""

    path: Path
    why_not: str = ""
    ignored: bool = False


def search_places() -> list[Place]:
    """Where files are looked for; the first one that counts wins over the others."""
    named = os.environ.get(VARIABLE)
    if named is not None:
        return [Place(Path(os.path.expanduser(named)))] if named not in ("", "none") else []  # noqa: PTH111
    folders = [Path.cwd(), *Path.cwd().parents]
    found = []
    for name in ("lumen.toml", "pyproject.toml"):
        paths = (folder / name for folder in folders)
        path = next((path for path in paths if path.is_file() and _concerns_lumen(path)), None)
        found.append(_judge(path) if path else Place(folders[0] / name, "there is none here or above"))
    user = user_folder("config") / "config.toml"
    return [*found, _judge(user) if user.is_file() else Place(user, "there is none")]


def _concerns_lumen(path: Path) -> bool:
    if path.name != "pyproject.toml":
        return True
    try:
        return "tool.lumen" in path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def _judge(path: Path) -> Place:
    """Another user's file, above a folder that all may write to for example, must not decide what lumen does."""
    if not hasattr(os, "getuid") or path.stat().st_uid in (os.getuid(), 0):
        return Place(path)
    return Place(path, f"it belongs to another user; {VARIABLE}={path} takes it", ignored=True)


def _read(path: Path) -> File | None:
    """The file's part for lumen; None for a pyproject.toml without one."""
    shown = _shown(path)
    try:
        text = path.read_text(encoding="utf-8")
        table: Any = tomllib.loads(text)
    except OSError as error:
        raise UsageError(f"{shown} cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError:
        raise UsageError(f"{shown} is not a text in UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{shown} is no TOML: {error}") from None
    if path.name != "pyproject.toml":
        return File(path, _dash(table), text)
    table = table.get("tool", {}).get("lumen")
    return File(path, _dash(table), text, ("tool", "lumen")) if isinstance(table, dict) else None


def _dash(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key.replace("_", "-"): _dash(value) if isinstance(value, dict) else value for key, value in table.items()}


def _descend(table: Mapping[str, Any], words: Sequence[str]) -> Mapping[str, Any]:
    for word in words:
        below = table.get(word)
        table = below if isinstance(below, dict) else {}
    return table


def _is_section(value: Any) -> bool:
    return isinstance(value, dict)


def _as_typed(option: Any, value: Any, file: File, place: tuple[str, ...]) -> Any:
    """A value as the command line has it: texts, lists of texts, and true or false for flags."""
    if option.is_flag:
        right = isinstance(value, bool)
        expected = "true or false"
    elif option.multiple:
        value = value if isinstance(value, list) else [value]
        right = all(isinstance(each, str | int | float) and not isinstance(each, bool) for each in value)
        value, expected = [str(each) for each in value], "a text or a list of texts"
    else:
        right = isinstance(value, str | int | float) and not isinstance(value, bool)
        value, expected = str(value), "a text or a number"
    if not right:
        raise UsageError(f"{file.place(*place)}: {place[-1]}: expected {expected}")
    return value


def _unknown(file: File, place: tuple[str, ...], known: set[str]) -> UsageError:
    where = f" of [{'.'.join(place[:-1])}]" if place[:-1] else ""
    hint = did_you_mean(nearest(place[-1], known))
    return UsageError(f"{file.place(*place)}: unknown key {place[-1]}{where}.{hint}".removesuffix("."))


def _shown(path: Path) -> str:
    """The shorter form of the path: relative to the working folder, or absolute."""
    with suppress(ValueError, OSError):
        relative = os.path.relpath(path)
        return printable(min(relative, str(path), key=len))
    return printable(path)


def _parts(name: str) -> tuple[str, ...]:
    return tuple(part.strip(" \"'").replace("_", "-") for part in name.split("."))
