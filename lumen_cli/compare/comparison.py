"""A comparison: versions measured row by row, drawn into the page and the contact sheet (one picture of all)."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lumen_cli.atomic import atomic_file
from lumen_cli.compare.matching import Matched, Problem, protect_inputs
from lumen_cli.compare.page import Page
from lumen_cli.compare.rows import Looks, Mean, Measured, compare_rows, means
from lumen_cli.errors import PictureError
from lumen_cli.imaging.colour.convert import to_unit
from lumen_cli.imaging.picture import Picture, write_picture
from lumen_cli.text import printable

if TYPE_CHECKING:
    from PIL import Image

    from lumen_cli.metrics import Metric

LARGEST = 24_000_000
"""Pixels of a sheet; many panels become smaller."""
_PANELS = (480, 400, 320, 240, 192, 160, 128, 96, 64)
"""Widths; the narrowest is used for any larger number of pictures."""
_GAP, _PADDING = 8, 16
_BACKGROUND, _INK, _FAINT = (38, 38, 38), (236, 236, 236), (160, 160, 160)


class ContactSheet:
    """Collects reduced pictures row by row, then lays them out; a line of the sheet may have several rows."""

    def __init__(self, labels: Sequence[str], rows: int) -> None:
        """labels: one per version; rows: the greatest number of pictures."""
        self.labels = [_one_line(label) for label in labels]
        fitting = (width for width in _PANELS if rows * self._area(width) <= LARGEST)
        self.width = next(fitting, _PANELS[-1])
        self._rows: list[tuple[str, list[Image.Image]]] = []

    def _area(self, width: int) -> int:
        """Pixels of a row of this width with pictures of the usual shape."""
        across = len(self.labels) * (width + _GAP) + 2 * _PADDING
        return across * (width * 3 // 4 + 2 * _font_size(width) + _PADDING)

    def add(self, name: str, images: Sequence[Image.Image]) -> None:
        """One picture, in its versions."""
        from PIL import Image

        panels = []
        for image in images:
            scale = min(self.width / image.width, self.width / image.height)
            size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
            panels.append(image.convert("RGB").resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0))
        self._rows.append((_one_line(name), panels))

    def picture(self) -> Picture:
        """The sheet, 8 bits, without a profile."""
        from PIL import Image, ImageDraw, ImageFont

        size = _font_size(self.width)
        line = 2 * size
        block_width = len(self.labels) * (self.width + _GAP) - _GAP
        heights = [line + max(panel.height for panel in panels) + _PADDING for _, panels in self._rows]
        total = sum(heights)
        lines_across = max(1, min(len(self._rows), round(math.sqrt(total / (1.4 * block_width)))))
        columns = _split(heights, lines_across)
        font = ImageFont.load_default(size)
        tallest = max(sum(heights[start:end]) for start, end in columns)
        whole = len(columns) * (block_width + 2 * _PADDING), line + tallest + 2 * _PADDING
        canvas = Image.new("RGB", whole, _BACKGROUND)
        draw = ImageDraw.Draw(canvas)
        for column, (start, end) in enumerate(columns):
            left, top = _PADDING + column * (block_width + 2 * _PADDING), _PADDING
            for index, label in enumerate(self.labels):
                x = left + index * (self.width + _GAP)
                draw.text((x, top), _cut(label, draw, font, self.width), _INK, font)
            top += line
            for (name, panels), height in zip(self._rows[start:end], heights[start:end], strict=True):
                draw.text((left, top), _cut(name, draw, font, block_width), _FAINT, font)
                for index, panel in enumerate(panels):
                    shift = (self.width - panel.width) // 2
                    canvas.paste(panel, (left + index * (self.width + _GAP) + shift, top + line))
                top += height
        return Picture(to_unit(np.asarray(canvas)), None, 8, False, "png", None, None)


def _font_size(width: int) -> int:
    return max(10, width // 28)


def _split(heights: Sequence[int], columns: int) -> list[tuple[int, int]]:
    """Ranges of rows for each column, in order, about equally high."""
    goal = sum(heights) / columns
    ranges: list[tuple[int, int]] = []
    start = filled = 0
    for index, height in enumerate(heights):
        filled += height
        if filled >= goal * (len(ranges) + 1) - height / 2 and len(ranges) < columns - 1:
            ranges.append((start, index + 1))
            start = index + 1
    return [*ranges, (start, len(heights))] if start < len(heights) else ranges


def _cut(text: str, draw: object, font: object, width: int) -> str:
    """The text, shortened in the middle where it is wider than `width`."""
    length = draw.textlength  # type: ignore[attr-defined]
    if length(text, font=font) <= width:
        return text
    for kept in range(len(text) - 1, 0, -1):
        shorter = text[: kept // 2] + "…" + text[len(text) - (kept - kept // 2) :]
        if length(shorter, font=font) <= width:
            return shorter
    return "…"


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else "�" for c in text)


def write_sheet(sheet: ContactSheet, target: Path) -> None:
    """Write beside the target and rename.

    Raises:
        PictureError: it cannot be encoded or written.
    """
    try:
        with atomic_file(target) as temporary:
            write_picture(sheet.picture(), temporary, format=target.suffix)
    except OSError as error:
        raise PictureError(target, f"cannot be written ({error.strerror or error})") from None


@dataclass(frozen=True)
class Wanted:
    """The requested results: metrics, and a page and a contact sheet where they are named."""

    metrics: Sequence[Metric]
    page: Path | None
    sheet: Path | None
    looks: Looks
    linked: bool = False
    single: bool = False


@dataclass
class Comparison:
    """One comparison. problems: pictures that were left out; size: bytes of the page, None where none was written;
    complete: whether every row was measured.
    """

    matched: Matched
    wanted: Wanted
    problems: list[Problem] = field(default_factory=list)
    measured: list[Measured] = field(default_factory=list)
    size: int | None = None
    complete: bool = False

    def rows(self, stop: threading.Event) -> Iterator[Measured | Problem]:
        """Measure every row; the page and the sheet are written after the last one. Ends early once `stop` is set.

        Raises:
            UsageError: the contact sheet would replace an input.
            LumenError: the page or the sheet cannot be written.
        """
        matched, wanted = self.matched, self.wanted
        self.problems += matched.problems
        if wanted.sheet is not None:
            protect_inputs(wanted.sheet, matched)
        with ExitStack() as stack:
            page = wanted.page and stack.enter_context(
                Page(wanted.page, matched, wanted.metrics, wanted.looks, linked=wanted.linked, single=wanted.single)
            )
            sheet = ContactSheet(matched.labels, len(matched.rows)) if wanted.sheet else None
            for outcome in compare_rows(matched, wanted.metrics, wanted.looks if page or sheet else None):
                if stop.is_set():
                    return
                if isinstance(outcome, Problem):
                    self.problems.append(outcome)
                    yield outcome
                    continue
                self.measured.append(outcome.measured)
                if page:
                    page.add(outcome)
                if sheet:
                    sheet.add(printable(outcome.measured.row.name), [drawn.image for drawn in outcome.drawn])
                yield outcome.measured
            if stop.is_set():
                return
            self.complete = True
            if page and self.measured:
                self.size = page.write(self.problems)
        if sheet and wanted.sheet and self.measured:
            write_sheet(sheet, wanted.sheet)

    @property
    def written(self) -> tuple[Path | None, Path | None]:
        """The page and the sheet, each None where it was not written."""
        return (self.wanted.page, self.wanted.sheet) if self.measured else (None, None)

    def means(self) -> list[dict[str, Mean]]:
        """See `means`."""
        return means(self.measured, self.wanted.metrics, len(self.matched.labels))
