"""The files of a model folder by name, and its config.json, read within bounds: it may be a stranger's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lumen_cli.errors import ModelError

CONFIG_FILE = "config.json"
CARD_FILE = "README.md"
"""The model card for people: origin, training, figures, licence."""
NETWORK_FILE, GRADING_FILE = "network.safetensors", "grading.safetensors"
"""The weights files of folders that lumen writes; a config.json may name others."""
HUGGING_FACE = "hf://"
LARGEST_TEXT = 1 << 20
"""Bytes that a config.json or a README.md may have."""
_LONGEST_TEXT, _DEEPEST, _MOST_VALUES = 4000, 16, 10_000
_LARGEST_COUNT = 1 << 50
"""Bytes or parameters; no other whole number of a config.json is as large."""


def read_config(folder: Path) -> dict[str, Any]:
    """Read `folder/config.json`; ModelError if it is missing, no object, or beyond all bounds."""
    path = folder / CONFIG_FILE
    try:
        if not path.is_file() and path.exists():
            raise ModelError(f"{path} is no ordinary file")
        with path.open("rb") as file:
            content = file.read(LARGEST_TEXT + 1)
        if len(content) > LARGEST_TEXT:
            raise ModelError(f"{path} is larger than a {CONFIG_FILE} can be ({LARGEST_TEXT >> 20} MiB)")
        config = json.loads(content.decode("utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{folder} is no model folder: it has no {CONFIG_FILE}") from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not valid JSON: {error}") from None
    if excess := _find_excess(config):
        raise ModelError(f"{path}: it holds {excess}, which no {CONFIG_FILE} needs")
    if not isinstance(config, dict):
        raise ModelError(f"{path}: expected an object with fields, found {show(config)}")
    return config


def _find_excess(config: Any) -> str:
    """What is deeper, longer or larger than any model needs, or is no text; empty if nothing is.

    After this check all other code may recurse, print and compare.
    """
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
                    return f"a text of {len(value):,} characters (at most {_LONGEST_TEXT:,})"
                if any("\ud800" <= character <= "\udfff" for character in value):
                    return "a text with half a character (a lone surrogate)"
            elif isinstance(value, int) and abs(value) > _LARGEST_COUNT:
                return "a whole number of more than 15 digits"
        values += len(level)
        if values + len(deeper) > _MOST_VALUES:
            return f"more than {_MOST_VALUES:,} values"
        if not deeper:
            return ""
        level = deeper
    return f"lists or objects more than {_DEEPEST} deep"


def show(value: Any) -> str:
    """A value as an error shows it, cut off if it is long."""
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "…"
