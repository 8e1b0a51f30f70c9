"""The published schema of JSON lines, without the freedom to add fields."""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from lumen_cli import __version__
from lumen_cli.reports.jsonlines import SCHEMA

PUBLISHED = Path(__file__).parents[1] / "docs" / "json-lines.schema.json"


def strict_schema() -> dict[str, Any]:
    """Every object has the fields that the schema names and no other ones."""
    schema = copy.deepcopy(json.loads(PUBLISHED.read_text(encoding="utf-8")))
    for definition in schema["$defs"].values():
        if "properties" in definition:
            definition["additionalProperties"] = False
    return schema


@cache
def _validator(kind: str) -> Draft202012Validator:
    definitions = strict_schema()["$defs"]
    return Draft202012Validator(definitions[kind] | {"$defs": definitions})


def require_valid(line: str) -> dict[str, Any]:
    """The object of a JSON line; AssertionError where it does not fit the schema."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    found: dict[str, Any] = json.loads(line, parse_constant=refuse)
    errors = _validator(found["type"]).iter_errors(found)
    problems = [f"{'.'.join(map(str, error.path))}: {error.message}" for error in errors]
    assert not problems, problems
    assert (found["schema"], found["lumen"]) == (SCHEMA, __version__)
    return found
