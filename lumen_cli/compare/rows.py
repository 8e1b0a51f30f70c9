"""One row of a comparison: read, measured against the reference, and drawn."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lumen_cli.compare import drawing
from lumen_cli.compare.matching import Matched, Problem, Row
from lumen_cli.compare.tags import essentials
from lumen_cli.errors import PictureError, UsageError
from lumen_cli.imaging.picture import Picture
from lumen_cli.imaging.read import read_picture
from lumen_cli.metrics.registry import DEFAULT_METRICS, Metric, find_metrics, measure

if TYPE_CHECKING:
    from PIL import Image

Values = Mapping[str, float]
"""A version's figures by metric; NaN where there is none to be had."""


AGAINST_TRUTH = (*DEFAULT_METRICS, "brightness")
ALONE = ("psnr", "ssim", "niqe", "loe", "brightness")
"""What is measured with and without ground truth; brightness taken from the truth says nothing without one."""


@dataclass(frozen=True)
class Looks:
    """How pictures are put on a page. max_side: pixels of the longer side; quality: of WebP, 1 to 100 (lossless)."""

    max_side: int = 1600
    quality: int = 90


@dataclass(frozen=True, eq=False)
class Drawn:
    """One version of a picture on the page. heat: None for the reference; `about`: depth and format of the file."""

    image: Image.Image
    icc: bytes | None
    about: str
    histogram: drawing.Histogram
    error: NDArray[np.float32] | None
    tags: list[tuple[str, str]]


@dataclass(frozen=True)
class Measured:
    """A row's figures: width and height in pixels, values a version in the versions' order."""

    row: Row
    width: int
    height: int
    values: tuple[Values, ...]


@dataclass(frozen=True, eq=False)
class Compared:
    """A row's figures and, where they are wanted, what is shown of its versions."""

    measured: Measured
    drawn: tuple[Drawn, ...]


def chosen_metrics(names: Sequence[str] | None, truth: bool) -> tuple[list[Metric], list[str]]:
    """The metrics asked for, or those that suit a comparison with or without ground truth.

    Returns:
        The metrics, and a line for each default that cannot be computed here.

    Raises:
        UsageError: one that was asked for is not known or cannot be computed here.
    """
    found = find_metrics((AGAINST_TRUTH if truth else ALONE) if names is None else names)
    reasons = {metric.name: metric.unavailable() for metric in found}
    missing = [reason for reason in reasons.values() if reason is not None]
    if names is not None and missing:
        raise UsageError(missing[0])
    return [metric for metric in found if reasons[metric.name] is None], missing


def compare_rows(matched: Matched, metrics: Sequence[Metric], looks: Looks | None) -> Iterator[Compared | Problem]:
    """`compare_row` for every row, in order; a problem for a row whose pictures cannot be compared."""
    for row in matched.rows:
        try:
            yield compare_row(row, matched, metrics, looks)
        except PictureError as error:
            yield Problem(row.name, f"{error.path.name} in {_label(row, error.path, matched)}: {error.reason}")


def compare_row(row: Row, matched: Matched, metrics: Sequence[Metric], looks: Looks | None) -> Compared:
    """Measure a row's versions, and draw them where `looks` is given. Holds three full pictures at a time.

    Raises:
        PictureError: a version cannot be read, or is not of the reference's size.
    """
    truth = read_picture(row.files[matched.reference])
    given = truth if matched.reference == matched.input else _read(row.files[matched.input], truth, matched)
    values: list[Values] = []
    drawn: list[Drawn] = []
    for index, file in enumerate(row.files):
        itself = index == matched.reference
        picture = truth if itself else given if index == matched.input else _read(file, truth, matched)
        values.append(
            {
                metric.name: _value(metric, picture, truth, given) if comparable(metric, index, matched) else math.nan
                for metric in metrics
            }
        )
        if looks is not None:
            drawn.append(_draw(picture, None if itself else truth, looks))
    return Compared(Measured(row, truth.width, truth.height, tuple(values)), tuple(drawn))


def _label(row: Row, path: Path, matched: Matched) -> str:
    return matched.labels[row.files.index(path)]


def _read(file: Path, truth: Picture, matched: Matched) -> Picture:
    picture = read_picture(file)
    if (picture.width, picture.height) != (truth.width, truth.height):
        size, wanted = f"{picture.width}×{picture.height}", f"{truth.width}×{truth.height}"
        raise PictureError(file, f"{size} pixels, but {wanted} in {matched.labels[matched.reference]}; left out")
    return picture


def comparable(metric: Metric, version: int, matched: Matched) -> bool:
    """Whether a metric says something about a version: none is compared with itself."""
    itself = {"reference": version == matched.reference, "input": version == matched.input}
    return not any(itself[need] for need in metric.needs)


def _value(metric: Metric, picture: Picture, truth: Picture, given: Picture) -> float:
    import torch

    tensors = {
        name: torch.from_numpy(other.pixels).permute(2, 0, 1)[None]
        for name, other in (("output", picture), ("reference", truth), ("input", given))
        if name == "output" or name in metric.needs
    }
    return measure(metric, tensors["output"], tensors.get("reference"), tensors.get("input"))[0]


def _draw(picture: Picture, truth: Picture | None, looks: Looks) -> Drawn:
    image = drawing.reduced(picture, looks.max_side)
    kind = f"{picture.format.upper()}, {picture.stored.bits or picture.bit_depth} bit{', grey' if picture.grey else ''}"
    error = None if truth is None else drawing.difference(picture, truth, image.size)
    return Drawn(image, picture.icc, kind, drawing.histogram(picture), error, essentials(picture.exif))
