"""The page's fixed parts: template, style and script, put together so that a browser needs nothing else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lumen_cli.compare.drawing import colours

_PACKAGE, _FOLDER, _TEMPLATE = "lumen_cli.compare", "assets", "page.html"
_STYLES = ("base.css", "viewer.css", "figures.css")
_SCRIPTS = ("data.js", "zoom.js", "slider.js", "grid.js", "details.js", "table.js", "main.js")
_STOPS = 9


def rendered(content: Mapping[str, Any], *, linked: bool) -> Iterator[str]:
    """The page's text, piece by piece. All of `content` is escaped but what is `Markup` already.

    Args:
        content: what the template asks for beside the fixed parts.
        linked: whether pictures may come from files; else only from the page itself.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader(_PACKAGE, _FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = _joined(_STYLES), f'"use strict";\n(() => {{\n{_joined(_SCRIPTS)}}})();\n'
    yield from environment.get_template(_TEMPLATE).generate(
        content,
        style=Markup(style),
        script=Markup(script),
        policy=policy(style, script, linked=linked),
        stops=_stops(),
    )


def policy(style: str, script: str, *, linked: bool) -> str:
    """Content-Security-Policy: nothing from anywhere, this style, this script, and no other."""

    def hashed(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    images = "data: 'self' file:" if linked else "data:"
    return (
        f"default-src 'none'; img-src {images}; style-src {hashed(style)}; script-src {hashed(script)}; "
        "base-uri 'none'; form-action 'none'"
    )


def _stops() -> list[tuple[str, str]]:
    """The colour map as stops of a gradient: offset and colour."""
    every = colours()
    places = [round(255 * index / (_STOPS - 1)) for index in range(_STOPS)]
    return [(f"{place / 255:.3f}", f"#{every[place].tobytes().hex()}") for place in places]


def _joined(names: Sequence[str]) -> str:
    from importlib.resources import files

    folder = files(_PACKAGE) / _FOLDER
    return "".join((folder / name).read_text("utf-8") for name in names)
