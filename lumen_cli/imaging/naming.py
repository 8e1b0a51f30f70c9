"""Names for outputs after a template: "{stem}-{model}{suffix}"."""

from __future__ import annotations

import os
import re
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from lumen_cli.errors import UsageError
from lumen_cli.imaging.temporaries import TEMPORARY_PREFIX

FIELDS: Mapping[str, str] = MappingProxyType(
    {
        "stem": "the picture's name without its ending",
        "suffix": "the output's ending, with its dot",
        "parent": "the name of the folder the picture is in",
        "model": "the model's name",
        "seed": "the run's seed",
        "part": "what the file holds, where a picture becomes several",
    }
)
"""What may stand in braces."""

_NOT_IN_NAMES = re.compile(r"[/\\\x00-\x1f]")


@dataclass(frozen=True)
class NameTemplate:
    """A checked template. values: what is the same for every picture (model, seed)."""

    text: str
    values: Mapping[str, str] = field(default_factory=dict)

    def name(self, **fields: str) -> str:
        """One output's name. fields: what is this picture's own (stem, suffix, parent, part).

        Raises:
            UsageError: the result is no file name: it has a separator in it, or is one that means a folder.
        """
        name = self.text.format_map({**self.values, **fields})
        if not _is_file_name(name, fields["suffix"]):
            raise UsageError(f"--name-template {self.text}: {name!r} is no file name")
        return name

    def uses(self, name: str) -> bool:
        """Whether a field stands in it."""
        return any(part[1] == name for part in string.Formatter().parse(self.text))


def name_template(text: str, **values: str) -> NameTemplate:
    """Check a template.

    Nothing but the plain fields is allowed in braces: no attributes, no indices, no conversions, no formats. `{{` and
    `}}` stand for braces.

    Raises:
        UsageError: the template is empty, has an unknown field or a path separator, or does not end with {suffix}.
    """

    def refused(why: str) -> UsageError:
        return UsageError(f"--name-template {text or '(empty)'}: {why}")

    known = "{" + "} {".join(name for name in FIELDS if name in values or name in ("stem", "suffix", "parent")) + "}"
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError as error:
        raise refused(f"the braces do not fit ({error}); fields: {known}") from None
    for literal, name, form, conversion in parts:
        if not _is_piece(literal):
            raise refused("names files, and cannot hold a path separator or a control character")
        if name is not None and (name not in FIELDS or f"{{{name}}}" not in known or form or conversion):
            asked = name + (f"!{conversion}" if conversion else "") + (f":{form}" if form else "")
            raise refused(f"there is no field {{{asked}}}; fields: {known}")
    if not parts or parts[-1][1] != "suffix":
        raise refused("has to end with {suffix}, the ending that says the format (--format chooses it)")
    return NameTemplate(text, {name: _NOT_IN_NAMES.sub("_", value) for name, value in values.items()})


def _is_piece(text: str) -> bool:
    return _NOT_IN_NAMES.search(text) is None


def _is_file_name(name: str, suffix: str) -> bool:
    """Whether it is a name, on this system, with that ending, and none of lumen's temporary files'."""
    path = Path(name)
    return (
        "\0" not in name
        and path.parts == (name,)
        and name not in (os.curdir, os.pardir)
        and path.suffix == suffix
        and not name.startswith(TEMPORARY_PREFIX)
    )
