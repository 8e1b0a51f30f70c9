"""Makes docs/json-lines.schema.json, the JSON schema of all JSON lines, from their classes.

python docs/make_schema.py
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from lumen_cli.reports.jsonlines import RECORDS, SCHEMA, Record

PAGE = Path(__file__).resolve().parent / "json-lines.schema.json"


def make_schema(records: Sequence[type[Record]] = RECORDS) -> str:
    """The JSON schema of a line."""
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


if __name__ == "__main__":
    PAGE.write_text(make_schema(), encoding="utf-8")
