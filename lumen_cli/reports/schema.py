"""The JSON schema of all JSON lines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from lumen_cli.reports.jsonlines import RECORDS, SCHEMA, Record


def write_schema(records: Sequence[type[Record]] = RECORDS) -> str:
    """The JSON schema of a line, the content of docs/json-lines.schema.json."""
    from pydantic import TypeAdapter  # the command line does without it

    definitions: dict[str, Any] = {}
    for record in records:
        parts = [record]
        if record.extends:
            module, _, name = record.extends.partition(":")
            parts.insert(0, getattr(import_module(module), name))
        head = {
            "schema": {"const": SCHEMA},
            "type": {"const": record.type},
            "lumen": {"type": "string", "description": "The version of lumen."},
        }
        properties: dict[str, Any] = dict(head)
        for part in parts:
            schema = TypeAdapter(part).json_schema(mode="serialization")
            definitions |= schema.pop("$defs", {})
            properties |= schema["properties"]
        definitions[record.type] = {
            "description": " ".join((record.__doc__ or "").split()),
            "type": "object",
            "properties": properties,
            "required": list(properties),
        }
    for each in definitions.values():
        for described in each.get("properties", {}).values():
            described.pop("title", None)
        each.pop("title", None)
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A JSON line of lumen",
        "description": "What commands print with --json, one object per line. Fields and types may be added.",
        "oneOf": [{"$ref": f"#/$defs/{record.type}"} for record in records],
        "$defs": dict(sorted(definitions.items())),
    }
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"
