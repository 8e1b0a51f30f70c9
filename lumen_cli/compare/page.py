"""The page: an HTML file with pictures, marks and figures, which works offline."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from lumen_cli import __version__
from lumen_cli.atomic import atomic_file
from lumen_cli.compare import Matched, Problem, drawing, link
from lumen_cli.compare.drawing import Beside, InPage, colours, pictures_folder
from lumen_cli.compare.rows import Compared, Drawn, Looks, Measured, best, format_value, heading, means
from lumen_cli.errors import LumenError, UsageError
from lumen_cli.metrics import Metric

_PACKAGE, _FOLDER, _TEMPLATE = "lumen_cli.compare", "assets", "page.html"
_STYLES = ("base.css", "overview.css", "viewer.css", "figures.css")
_SCRIPTS = (
    *("data.js", "zoom.js", "slider.js", "grid.js", "marks.js"),
    *("overview.js", "details.js", "table.js", "main.js"),
)
_STOPS = 9


def render(content: Mapping[str, Any], *, files: bool) -> Iterator[str]:
    """The page's text, piece by piece. `content` is escaped, except what is already `Markup`.

    Args:
        content: variables of the template.
        files: whether pictures may come from files; otherwise only from the page itself.
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
        policy=policy(style, script, files=files),
        stops=_stops(),
    )


def policy(style: str, script: str, *, files: bool) -> str:
    """Content-Security-Policy: only this style and this script, and nothing from the network."""

    def hash_of(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    images = "data: 'self' file:" if files else "data:"
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
BEFORE_AFTER = ("Before", "After")


class Page:
    """Collects pictures on disk and writes the page at the end. A context manager."""

    def __init__(
        self,
        target: Path,
        matched: Matched,
        metrics: Sequence[Metric],
        looks: Looks,
        *,
        linked: bool = False,
        single: bool = False,
    ) -> None:
        """Start nothing yet.

        Args:
            target: the page's path; its pictures lie in `pictures_folder(target)`.
            matched: the versions.
            metrics: figures of the page.
            looks: size and quality of copies.
            linked: refer to pictures that browsers can show, relative to the page, instead of copying them.
            single: keep all copies in the page itself.
        """
        from lumen_cli.text import printable

        self.target, self.matched, self.metrics, self.looks, self.linked = target, matched, metrics, looks, linked
        self.single = single
        self.names = [printable(label) for label in matched.labels]
        plain = len(self.names) == 2 and not matched.truth
        self.labels = list(BEFORE_AFTER) if plain else self.names
        self._store = InPage() if single else Beside(target)
        self._measured: list[Measured] = []
        self._entries: list[dict[str, Any]] = []
        self._blocks: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8", newline="\n")  # noqa: SIM115

    def __enter__(self) -> Page:
        self._store.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._blocks.close()
        self._store.close()

    def add(self, compared: Compared) -> None:
        """Add one picture. Its heat maps share a scale; each histogram has its own."""
        from jinja2.utils import htmlsafe_json_dumps

        from lumen_cli.text import printable

        measured, drawn = compared.measured, compared.drawn
        number = f"{len(self._entries) + 1:05d}"
        # The input differs most from a ground truth: with its own scale, every other map would look black.
        maps = {index: one.error for index, one in enumerate(drawn) if one.error is not None}
        decisive = {index: error for index, error in maps.items() if index != self.matched.input} or maps
        scale = drawing.heat_scale(list(decisive.values()))
        versions = [self._version(measured, index, one, scale, number) for index, one in enumerate(drawn)]
        block = {
            "width": measured.width,
            "height": measured.height,
            "scale": scale,
            "versions": versions,
            "tags": self._tags(drawn),
        }
        self._blocks.write(f"{htmlsafe_json_dumps(block)}\n")
        thumbnail = drawing.thumbnail(drawn[self.matched.input].image, drawn[self._latest()].image)
        self._measured.append(measured)
        self._entries.append(
            {
                "name": printable(measured.row.name),
                "path": self._address(measured.row.files[self.matched.input]),
                "thumbnail": self._store.keep(f"{number}-thumbnail", thumbnail),
                "size": [thumbnail.width, thumbnail.height],
                "means": [round(255 * one.histogram.mean) for one in drawn],
                "cells": self._transpose(self._cells([dict(values) for values in measured.values])),
                # Without scripts, links to the copies stand beside the thumbnail.
                "sources": [version["source"] for version in versions] if not self.single else [],
            }
        )

    def write(self, problems: Sequence[Problem]) -> int:
        """Write the page, its pictures first; returns the size of all in bytes.

        Raises:
            LumenError: a file cannot be written.
        """
        try:
            with atomic_file(self.target) as temporary:
                with temporary.open("w", encoding="utf-8", newline="\n") as file:
                    for piece in render(self._content(problems), files=not self.single or self.linked):
                        file.write(piece)
                    file.flush()
                    os.fsync(file.fileno())
                size = temporary.stat().st_size + self._store.commit()
        except OSError as error:
            raise LumenError(f"{self.target}: cannot be written ({error.strerror or error})") from None
        return size

    def _latest(self) -> int:
        """The version to show first: the last generated one, otherwise the reference."""
        made = {*range(len(self.matched.labels))} - {self.matched.input, self.matched.reference}
        return max(made, default=self.matched.reference)

    def _address(self, file: Path) -> str:
        """Where a file lies, seen from the page."""
        try:
            return link(file, self.target.parent)
        except UsageError:  # on another drive
            return file.as_uri()

    def _version(self, measured: Measured, index: int, drawn: Drawn, scale: float, number: str) -> dict[str, Any]:
        file = measured.row.files[index]
        linked = self.linked and file.suffix.lower() in _IN_BROWSERS
        if linked:
            width, height, source = measured.width, measured.height, link(file, self.target.parent)
        else:
            copy = drawing.encode(drawn.image, self.looks.quality, drawn.icc)
            width, height, source = copy.width, copy.height, self._store.keep(f"{number}-{index}", copy)
        error = drawn.error
        return {
            "source": source,
            "linked": linked,
            "width": width,
            "height": height,
            "about": drawn.about,
            "heat": None
            if error is None
            else self._store.keep(f"{number}-{index}-difference", drawing.heat_map(error, scale)),
            "curves": drawing.encode_curves(drawn.histogram),
            "mean": round(drawn.histogram.mean, 4),
        }

    def _tags(self, drawn: Sequence[Drawn]) -> dict[str, Any] | None:
        for label, one in zip(self.labels, drawn, strict=True):
            if one.tags:
                return {"version": label, "rows": one.tags}
        return None

    def _content(self, problems: Sequence[Problem]) -> dict[str, Any]:
        from jinja2.utils import htmlsafe_json_dumps

        from lumen_cli.text import count, printable

        headings = [heading(metric) for metric in self.metrics]
        left_out = [{"name": printable(problem.name), "reason": printable(problem.reason)} for problem in problems]
        facts = {
            "id": self._identity(),
            "labels": self.labels,
            "reference": self.matched.reference if self.matched.truth else None,
            "against": self.matched.reference,
            "input": self.matched.input,
            "latest": self._latest(),
            "pictures": len(self._entries),
            "headings": headings,
            "metrics": [{"title": metric.title, "better": metric.better} for metric in self.metrics],
            "failed": left_out,
        }
        sides = [max(measured.width, measured.height) for measured in self._measured]
        keys = "name", "path", "thumbnail", "size", "means", "cells"
        entries = [{key: entry[key] for key in keys} for entry in self._entries]
        return {
            "labels": self.labels,
            "names": self.names,
            "reference": self.labels[self.matched.reference],
            "truth": self.matched.truth,
            "measured": any("reference" in metric.needs for metric in self.metrics),
            "pictures": count(len(self._entries), "picture"),
            "entries": self._entries,
            "metrics": self.metrics,
            "headings": headings,
            "means": self._means(),
            "problems": left_out,
            "facts": htmlsafe_json_dumps(facts),
            "listed": htmlsafe_json_dumps(entries, separators=(",", ":")),
            "blocks": self._kept(),
            "looks": self.looks,
            "linked": self.linked,
            "single": self.single,
            "folder": printable(pictures_folder(self.target).name),
            "reduced": max(sides) > self.looks.max_side,
            "version": __version__,
        }

    def _identity(self) -> str:
        """Stands for the page in the browser's memory: the same for the same names in the same place."""
        about = json.dumps([str(self.target), self.names])
        return hashlib.blake2b(about.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()

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

    def _transpose(self, cells: list[list[dict[str, Any]]]) -> list[list[list[Any]]]:
        """For each version and metric: value (a number, "inf", "-inf" or null), text, and 1 where it is the best."""

        def plain(value: float) -> float | str | None:
            return None if math.isnan(value) else value if math.isfinite(value) else str(value)

        rows = zip(*cells, strict=True) if cells else [()] * len(self.labels)
        return [[[plain(cell["value"]), cell["text"], int(cell["best"])] for cell in row] for row in rows]

    def _means(self) -> list[dict[str, Any]]:
        """The table of means: cells of each version, with `of` where a mean does not include all pictures."""
        columns = means(self._measured, self.metrics, len(self.labels))
        cells = self._cells([{name: mean.value for name, mean in column.items()} for column in columns])
        rows = []
        for index, column in enumerate(columns):
            counts = [column[metric.name].count for metric in self.metrics]
            of = [number if 0 < number < len(self._entries) else None for number in counts]
            row = [{**cell[index], "of": number} for cell, number in zip(cells, of, strict=True)]
            rows.append({"cells": row, "reference": self.matched.truth and index == self.matched.reference})
        return rows

    def _kept(self) -> Iterator[Any]:
        from markupsafe import Markup

        self._blocks.seek(0)
        for line in self._blocks:
            yield Markup(line.rstrip("\n"))
