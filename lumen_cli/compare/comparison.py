"""A comparison: versions measured row by row, drawn into the page and the contact sheet (one picture of all).

Versions may also be made first: the inputs through one model after the other, into files.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lumen_cli.atomic import atomic_file
from lumen_cli.compare import Matched, Problem, Version, by_name, distinct_labels, match, protect_inputs
from lumen_cli.compare.page import Page
from lumen_cli.compare.rows import Looks, Mean, Measured, compare_rows, means
from lumen_cli.engine.device import choose_device
from lumen_cli.errors import PictureError, UsageError
from lumen_cli.files import Job, Source
from lumen_cli.files.find import find_pictures
from lumen_cli.imaging.colour.convert import to_unit
from lumen_cli.imaging.picture import Picture, write_picture
from lumen_cli.registry import find_model
from lumen_cli.run.existing import IfExists
from lumen_cli.run.operation import Enhance, Settings
from lumen_cli.run.plan import Plan
from lumen_cli.run.run import Run, RunOptions
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


INPUT = "input"
SUFFIX = ".png"
"""A lossless format that holds 16 bits."""


@dataclass(frozen=True)
class ModelRun:
    """One model, its run and its plan; nothing has run yet."""

    label: str
    run: Run
    plan: Plan

    @property
    def jobs(self) -> list[Job]:
        """A job for each input."""
        return [task.job for task in self.plan.tasks]


def plan_models(
    names: Sequence[str],
    sources: Sequence[Source],
    folder: Path,
    *,
    device: str = "auto",
    seed: int = 0,
    if_exists: IfExists = IfExists.REFUSE,
    reference: str | None = None,
) -> list[ModelRun]:
    """A run for each model, with its defaults; its pictures go to `folder`/model/, in the inputs' tree.

    `reference` is only searched, so that a wrong name is reported before anything runs.

    Raises:
        ModelError: there is no such model.
        UsageError: a model is named twice, there is no such device, or outputs exist and `if_exists` is REFUSE.
    """
    if reference is not None:
        find_pictures([reference])
    cards = [find_model(name) for name in names]
    if len({card.folder for card in cards}) < len(cards):
        raise UsageError("a model is named twice; name each one once", remedy="models")
    alike = len({card.name for card in cards}) < len(cards)
    labels = distinct_labels([card.folder for card in cards]) if alike else tuple(card.name for card in cards)
    runs = []
    for card, label in zip(cards, labels, strict=True):
        if label == INPUT:
            raise UsageError(f"a model cannot be called {INPUT} here: the first column has this name")
        policy = choose_device(
            device, card.defaults.precision, precisions=card.precisions, model=card.name, several=True
        )
        settings = Settings.with_model(card, policy, steps=card.steps_for(None), seed=seed, format=SUFFIX)
        output = f"{folder / label.replace('/', '_')}{os.sep}"
        run = Run(card, policy, Enhance(settings), RunOptions(output, if_exists=if_exists))
        plan = run.plan(sources)
        if plan.left:
            raise UsageError(plan.left[0].why, remedy=plan.left[0].remedy)
        runs.append(ModelRun(label, run, plan))
    return runs


def match_models(runs: Sequence[ModelRun], failed: dict[Path, str], reference: str | None = None) -> Matched:
    """The inputs, the models' pictures and, where it is named, the ground truth as the last version.

    Args:
        runs: finished.
        failed: the reason for each output that could not be made.
        reference: a folder whose names match the inputs', or one picture for one input; None: the input.

    Raises:
        UsageError: nothing is left to compare.
    """
    inputs = _names(runs[0].jobs)
    versions = [Version(INPUT, {name: job.source.path for name, job in inputs.items()})]
    for run in runs:
        versions.append(Version(run.label, {name: job.target for name, job in _names(run.jobs).items()}))
    problems = dict(_failures(runs, failed))
    kept = [
        Version(version.label, {name: path for name, path in version.pictures.items() if name not in problems})
        for version in versions
    ]
    missing = [Problem(name, reason) for name, reason in problems.items()]
    if not kept[0].pictures:
        raise UsageError(f"no model made a picture of any input; the first: {missing[0].name}: {missing[0].reason}")
    if reference is None:
        return replace(match(kept, 0, False), problems=tuple(missing))
    truth = _truth(reference, kept[0], runs)
    matched = match([*kept, truth], len(kept), True)
    unused = {name for name in truth.pictures if name in problems}
    others = tuple(problem for problem in matched.problems if problem.name not in unused)
    return replace(matched, problems=(*missing, *others))


def _truth(reference: str, inputs: Version, runs: Sequence[ModelRun]) -> Version:
    sources = find_pictures([reference])
    labels = (INPUT, *(run.label for run in runs))
    label = Path(reference).resolve().name or reference
    label = f"{label} (reference)" if label in labels else label
    if not Path(reference).is_dir():
        if len(sources) != 1 or len(inputs.pictures) != 1:
            raise UsageError(
                "there is one reference picture for several inputs; name a folder with the same names",
                remedy="reference",
            )
        return Version(label, {next(iter(inputs.pictures)): sources[0].path})
    stand_ins = [Source(path, None, Path(f"{name}{SUFFIX}")) for name, path in inputs.pictures.items()]
    return by_name((INPUT, label), (stand_ins, sources))[1]


def _names(jobs: Sequence[Job]) -> dict[str, Job]:
    """Jobs by the output's name below the folder that is common to all of them, without ending."""
    folders = [len(job.source.relative.parts) for job in jobs]
    roots = {job.target.parents[depth - 1] for job, depth in zip(jobs, folders, strict=True)}
    root = Path(os.path.commonpath(sorted(roots)))
    return {job.target.relative_to(root).with_suffix("").as_posix(): job for job in jobs}


def _failures(runs: Sequence[ModelRun], failed: dict[Path, str]) -> Iterator[tuple[str, str]]:
    for run in reversed(runs):  # the first model's reason is the one that stays
        for name, job in _names(run.jobs).items():
            if job.target in failed:
                yield name, f"{failed[job.target]} ({run.label}); left out"
