"""The page: one HTML file with pictures and figures, which works offline."""

from __future__ import annotations

import base64
import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from lumen_cli import __version__
from lumen_cli.atomic import atomic_file
from lumen_cli.compare import drawing
from lumen_cli.compare.drawing import colours
from lumen_cli.compare.matching import Matched, Problem, link
from lumen_cli.compare.rows import Compared, Drawn, Looks, Measured, best, format_value, heading, means
from lumen_cli.errors import LumenError
from lumen_cli.metrics.registry import Metric

_PACKAGE, _FOLDER, _TEMPLATE = "lumen_cli.compare", "assets", "page.html"
_STYLES = ("base.css", "viewer.css", "figures.css")
_SCRIPTS = ("data.js", "zoom.js", "slider.js", "grid.js", "details.js", "table.js", "main.js")
_STOPS = 9


def render(content: Mapping[str, Any], *, linked: bool) -> Iterator[str]:
    """The page's text, piece by piece. `content` is escaped, except what is already `Markup`.

    Args:
        content: variables of the template.
        linked: whether pictures may come from files; otherwise only from the page itself.
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
    style, script = _read_assets(_STYLES), f'"use strict";\n(() => {{\n{_read_assets(_SCRIPTS)}}})();\n'
    yield from environment.get_template(_TEMPLATE).generate(
        content,
        style=Markup(style),
        script=Markup(script),
        policy=policy(style, script, linked=linked),
        stops=_stops(),
    )


def policy(style: str, script: str, *, linked: bool) -> str:
    """Content-Security-Policy: only this style and this script, and nothing from the network."""

    def hash_of(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    images = "data: 'self' file:" if linked else "data:"
    return (
        f"default-src 'none'; img-src {images}; style-src {hash_of(style)}; script-src {hash_of(script)}; "
        "base-uri 'none'; form-action 'none'"
    )


def _stops() -> list[tuple[str, str]]:
    """The colour map as stops of a gradient: offset and colour."""
    every = colours()
    places = [round(255 * index / (_STOPS - 1)) for index in range(_STOPS)]
    return [(f"{place / 255:.3f}", f"#{every[place].tobytes().hex()}") for place in places]


def _read_assets(names: Sequence[str]) -> str:
    from importlib.resources import files

    folder = files(_PACKAGE) / _FOLDER
    return "".join((folder / name).read_text("utf-8") for name in names)


_IN_BROWSERS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


@dataclass(frozen=True)
class _Entry:
    """One picture in the tables and the strip of thumbnails."""

    measured: Measured
    name: str
    thumbnail: drawing.Shown


class Page:
    """Collects pictures on disk and writes the page at the end. A context manager."""

    def __init__(self, target: Path, matched: Matched, metrics: Sequence[Metric], looks: Looks, linked: bool) -> None:
        """linked: refer to pictures that browsers can show, relative to the page, instead of copying them into it."""
        self.target, self.matched, self.metrics, self.looks, self.linked = target, matched, metrics, looks, linked
        self._entries: list[_Entry] = []
        self._blocks: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8", newline="\n")  # noqa: SIM115

    def __enter__(self) -> Page:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._blocks.close()

    def add(self, compared: Compared) -> None:
        """Add one picture. Its heat maps share a scale; each histogram has its own."""
        from jinja2.utils import htmlsafe_json_dumps

        from lumen_cli.text import printable

        measured, drawn = compared.measured, compared.drawn
        # The input differs most from a ground truth: with its own scale, every other map would look black.
        maps = {index: one.error for index, one in enumerate(drawn) if one.error is not None}
        decisive = {index: error for index, error in maps.items() if index != self.matched.input} or maps
        scale = drawing.heat_scale(list(decisive.values()))
        name = printable(measured.row.name)
        block = {
            "name": name,
            "width": measured.width,
            "height": measured.height,
            "scale": scale,
            "versions": [self._version(measured, index, one, scale) for index, one in enumerate(drawn)],
            "tags": self._tags(drawn),
        }
        self._blocks.write(f"{htmlsafe_json_dumps(block)}\n")
        thumbnail = drawing.thumbnail(drawn[self.matched.input].image, drawn[self._latest()].image)
        self._entries.append(_Entry(measured, name, thumbnail))

    def write(self, problems: Sequence[Problem]) -> int:
        """Write the page atomically; returns its size in bytes.

        Raises:
            LumenError: the file cannot be written.
        """
        try:
            with atomic_file(self.target) as temporary:
                with temporary.open("w", encoding="utf-8", newline="\n") as file:
                    for piece in render(self._content(problems), linked=self.linked):
                        file.write(piece)
                    file.flush()
                    os.fsync(file.fileno())
                size = temporary.stat().st_size
        except OSError as error:
            raise LumenError(f"{self.target}: cannot be written ({error.strerror or error})") from None
        return size

    def _latest(self) -> int:
        """The version to show first: the last generated one, otherwise the reference."""
        made = {*range(len(self.matched.labels))} - {self.matched.input, self.matched.reference}
        return max(made, default=self.matched.reference)

    def _version(self, measured: Measured, index: int, drawn: Drawn, scale: float) -> dict[str, Any]:
        file = measured.row.files[index]
        if self.linked and file.suffix.lower() in _IN_BROWSERS:
            width, height, source = measured.width, measured.height, link(file, self.target.parent)
        else:
            copy = drawing.encode(drawn.image, self.looks.quality, drawn.icc)
            width, height, source = copy.width, copy.height, copy.data
        curves = drawn.histogram.curves
        top = max(float(curve.max()) for curve in curves.values())
        cells = [cell[index] for cell in self._cells([dict(values) for values in measured.values])]
        return {
            "source": source,
            "width": width,
            "height": height,
            "about": drawn.about,
            "heat": None if drawn.error is None else drawing.heat_map(drawn.error, scale).data,
            "curves": {name: drawing.curve_path(curve, top, name == "luminance") for name, curve in curves.items()},
            "mean": drawn.histogram.mean,
            "figures": [{"text": cell["text"], "best": cell["best"]} for cell in cells],
        }

    def _tags(self, drawn: Sequence[Drawn]) -> dict[str, Any] | None:
        for label, one in zip(self.matched.labels, drawn, strict=True):
            if one.tags:
                return {"version": label, "rows": one.tags}
        return None

    def _content(self, problems: Sequence[Problem]) -> dict[str, Any]:
        from jinja2.utils import htmlsafe_json_dumps

        from lumen_cli.text import count, printable

        labels = [printable(label) for label in self.matched.labels]
        headings = [heading(metric) for metric in self.metrics]
        facts = {
            "labels": labels,
            "reference": self.matched.reference,
            "input": self.matched.input,
            "latest": self._latest(),
            "pictures": len(self._entries),
            "headings": headings,
        }
        sides = [max(entry.measured.width, entry.measured.height) for entry in self._entries]
        return {
            "labels": labels,
            "reference": labels[self.matched.reference],
            "truth": self.matched.truth,
            "pictures": count(len(self._entries), "picture"),
            "entries": self._entries,
            "metrics": self.metrics,
            "headings": headings,
            "means": self._means(),
            "rows": self._rows(labels),
            "problems": [(printable(problem.name), printable(problem.reason)) for problem in problems],
            "facts": htmlsafe_json_dumps(facts),
            "blocks": self._kept(),
            "looks": self.looks,
            "linked": self.linked,
            "reduced": max(sides) > self.looks.max_side,
            "version": __version__,
        }

    def _cells(self, columns: Sequence[dict[str, float]]) -> list[list[dict[str, Any]]]:
        """For each metric and version: value, text, and whether it is the best."""
        cells = []
        for metric in self.metrics:
            values = [column[metric.name] for column in columns]
            first = best(values, metric, self.matched)
            cells.append(
                [
                    {"value": value, "text": format_value(value, metric), "best": index in first}
                    for index, value in enumerate(values)
                ]
            )
        return cells

    def _means(self) -> list[dict[str, Any]]:
        """The table of means: cells of each version, with `of` where a mean does not include all pictures."""
        columns = means([entry.measured for entry in self._entries], self.metrics, len(self.matched.labels))
        cells = self._cells([{name: mean.value for name, mean in column.items()} for column in columns])
        rows = []
        for index, column in enumerate(columns):
            counts = [column[metric.name].count for metric in self.metrics]
            of = [number if 0 < number < len(self._entries) else None for number in counts]
            row = [{**cell[index], "of": number} for cell, number in zip(cells, of, strict=True)]
            rows.append({"cells": row, "reference": index == self.matched.reference})
        return rows

    def _rows(self, labels: Sequence[str]) -> Iterator[dict[str, Any]]:
        """The table of pictures: a row for each picture and version."""
        for number, entry in enumerate(self._entries):
            cells = self._cells([dict(values) for values in entry.measured.values])
            for index, label in enumerate(labels):
                row = [cell[index] for cell in cells]
                yield {"number": number, "name": entry.name, "index": index, "label": label, "cells": row}

    def _kept(self) -> Iterator[Any]:
        from markupsafe import Markup

        self._blocks.seek(0)
        for line in self._blocks:
            yield Markup(line.rstrip("\n"))
