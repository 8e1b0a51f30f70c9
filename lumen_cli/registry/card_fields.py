"""The fields of config.json: looked up by dotted name, and what each may hold."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lumen_cli.errors import ModelError

LARGEST_NUMBER = 10_000
"""No network has so many channels, layers or steps; a stranger's folder must not make lumen build one for ever."""
_LONGEST_LIST = 64
_DEEPEST = 16
_MOST_VALUES = 10_000
_LONGEST_TEXT = 4000
_LARGEST_COUNT = 1 << 50
"""Bytes or parameters; no other whole number of a config.json is as large."""
_LONGEST_NAME, _LONGEST_ADDRESS = 200, 2000
_MOST_MEMBERS = 8
LARGEST_GRADING = 256
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
"""Nobody on the way to these can change what is sent: plain http will do."""
_REQUIRED = object()


class Fields:
    """Looks dotted names up in the config and complains in one way. A JSON null counts as left out."""

    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        self.path = path
        self.config = config

    def get(self, name: str, accepts: Callable[[Any], Any], expected: str, default: Any = _REQUIRED) -> Any:
        """The value under a name such as "weights.file", or the default where it is left out.

        ModelError where a field without a default is left out, or `accepts` does not accept what is there.
        """
        value: Any = self.config
        for part in name.split("."):
            if value is None:
                break
            if not isinstance(value, dict):
                raise ModelError(f'{self.path}: "{name}": expected an object around "{part}", found {shown(value)}')
            value = value.get(part)
        if value is None:
            if default is _REQUIRED:
                raise ModelError(f'{self.path}: "{name}" is missing: expected {expected}')
            return default
        if not accepts(value):
            raise ModelError(f'{self.path}: "{name}": expected {expected}, found {shown(value)}')
        return value


def require_bounded(path: Path, config: Any) -> None:
    """ModelError where a config.json is deeper, longer or larger than any model needs, or holds what no text can be.

    Everything else that looks at it may then recurse, print and compare.
    """

    def refuse(what: str) -> ModelError:
        return ModelError(f"{path}: it holds {what}, which no {path.name} needs")

    level, values = [config], 0
    for _ in range(_DEEPEST):
        deeper: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                deeper += [*value.keys(), *value.values()]
            elif isinstance(value, list):
                deeper += value
            elif isinstance(value, str):
                if len(value) > _LONGEST_TEXT:
                    raise refuse(f"a text of {len(value):,} characters (at most {_LONGEST_TEXT:,})")
                if any("\ud800" <= character <= "\udfff" for character in value):
                    raise refuse("a text with half a character (a lone surrogate)")
            elif isinstance(value, int) and abs(value) > _LARGEST_COUNT:
                raise refuse("a whole number of more than 15 digits")
        values += len(level)
        if values + len(deeper) > _MOST_VALUES:
            raise refuse(f"more than {_MOST_VALUES:,} values")
        if not deeper:
            return
        level = deeper
    raise refuse(f"lists or objects more than {_DEEPEST} deep")


def is_text(value: Any) -> bool:
    """A text, possibly empty."""
    return isinstance(value, str)


def is_filled(value: Any) -> bool:
    """A text that is more than spaces."""
    return isinstance(value, str) and bool(value.strip())


def is_positive(value: Any) -> bool:
    """A whole number from 1 up, of a size that a network's steps, channels or sides can have."""
    return is_count(value) and value <= LARGEST_NUMBER


def is_count(value: Any) -> bool:
    """A whole number from 1 up: of bytes, of parameters."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def is_duration(value: Any) -> bool:
    """Seconds above 0, up to a day."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 86400


def is_network(value: Any) -> bool:
    """Hyper-parameters by name, none of a size that no network has."""
    return isinstance(value, dict) and all(map(is_modest, value.values()))


def is_modest(value: Any) -> bool:
    """Whether a hyper-parameter is of a size that a network can have; infinity and NaN are of none."""
    if isinstance(value, dict | list):
        return len(value) <= _LONGEST_LIST and all(map(is_modest, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, int | float) or -LARGEST_NUMBER <= value <= LARGEST_NUMBER


def is_grading(value: Any) -> bool:
    """The arguments of a `Grading`."""
    return (
        isinstance(value, dict)
        and value.keys() == {"channels", "heads"}
        and all(is_positive(number) and number <= LARGEST_GRADING for number in value.values())
    )


def is_range(value: Any) -> bool:
    """Two whole numbers from 1 up, the lower one first."""
    return isinstance(value, list) and len(value) == 2 and all(map(is_positive, value)) and value[0] <= value[1]


def is_sha256(value: Any) -> bool:
    """64 hexadecimal digits in lower case."""
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def are_files(value: Any) -> bool:
    """Objects with a file's name and its checksum."""
    return isinstance(value, list) and all(
        isinstance(entry, dict) and is_filled(entry.get("file")) and is_sha256(entry.get("sha256")) for entry in value
    )


def are_members(value: Any) -> bool:
    """Names only: a model folder from a stranger must not point at folders elsewhere."""
    return (
        isinstance(value, list)
        and 2 <= len(value) <= _MOST_MEMBERS
        and all(
            isinstance(entry, dict)
            and is_text(entry.get("model"))
            and NAME.fullmatch(entry["model"])
            and is_sha256(entry.get("sha256"))
            and isinstance(entry.get("share", 1.0), int | float)
            and 0.0 < entry.get("share", 1.0) <= LARGEST_NUMBER
            for entry in value
        )
    )


def is_weights_name(value: Any) -> bool:
    """A bare name: a model folder from a stranger must not point at files elsewhere."""
    return (
        is_filled(value)
        and value.endswith(".safetensors")
        and value.isprintable()
        and len(value) <= _LONGEST_NAME
        and not set("/\\:") & set(value)
    )


def is_web_address(value: Any) -> bool:
    """An https address, or plain http to this very machine; none with a user's name and password in it."""
    if not is_filled(value) or not value.isprintable() or " " in value or len(value) > _LONGEST_ADDRESS:
        return False
    try:
        parts = urlsplit(value)
        _ = parts.port  # checked when it is read
    except ValueError:
        return False
    secure = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOCAL_HOSTS)
    return secure and bool(parts.hostname) and "@" not in parts.netloc


def each(known: tuple[str, ...] | None = None) -> Callable[[Any], bool]:
    """A list of texts, all of them `known` ones where these are given."""

    def accepts(value: Any) -> bool:
        return isinstance(value, list) and all(is_text(item) and (known is None or item in known) for item in value)

    return accepts


def shown(value: Any) -> str:
    """A value as an error shows it, cut off where it is long."""
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "…"
