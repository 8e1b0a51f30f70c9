"""Reads one row of a comparison, measures it against the reference and draws it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lumen_cli.compare import Matched, Problem, Row, drawing
from lumen_cli.errors import PictureError, UsageError
from lumen_cli.imaging.formats import load_format
from lumen_cli.imaging.picture import Picture, read_picture
from lumen_cli.metrics import DEFAULT_METRICS, Metric, find_metrics, measure

if TYPE_CHECKING:
    from PIL import Image

_MAKE, _MODEL, _DATE, _EXIF = 0x010F, 0x0110, 0x0132, 0x8769
_EXPOSURE, _F_NUMBER, _ISO, _TAKEN, _BIAS, _FOCAL, _LENS = 0x829A, 0x829D, 0x8827, 0x9003, 0x9204, 0x920A, 0xA434
_LONGEST = 120


def essentials(block: bytes | None) -> list[tuple[str, str]]:
    """Camera, lens, exposure, ISO and date in a raw EXIF block, as names and values.

    A damaged block gives its readable tags.
    """
    if not block:
        return []
    from PIL import Image

    exif = Image.Exif()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exif.load(block)
            inner = exif.get_ifd(_EXIF)
    except Exception:  # Pillow raises many exceptions for damaged blocks; missing tags are acceptable here
        return []
    return [(name, value[:_LONGEST]) for name, value in _rows(exif, inner) if value]


def _rows(exif: Any, inner: Any) -> Iterator[tuple[str, str]]:
    make, model = _text(exif.get(_MAKE)), _text(exif.get(_MODEL))
    yield "Camera", model if model.lower().startswith(make.lower()) else f"{make} {model}".strip()
    yield "Lens", _text(inner.get(_LENS))
    exposure, aperture, focal = (_number(inner.get(tag)) for tag in (_EXPOSURE, _F_NUMBER, _FOCAL))
    yield "Exposure", "" if exposure is None else shutter(exposure)
    yield "Aperture", "" if not aperture else f"f/{aperture:.2g}" if aperture < 10 else f"f/{aperture:.0f}"
    iso = inner.get(_ISO)
    iso = _number(iso[0] if isinstance(iso, tuple) and iso else iso)
    yield "ISO", "" if not iso else f"{iso:.0f}"
    bias = _number(inner.get(_BIAS), negative=True)
    yield "Compensation", f"{bias:+.2g} EV" if bias else ""
    yield "Focal length", f"{focal:.3g} mm" if focal else ""
    date = _text(inner.get(_TAKEN)) or _text(exif.get(_DATE))
    yield "Taken", date.replace(":", "-", 2)


def shutter(seconds: float) -> str:
    """0.004 → "1/250 s", 2 → "2 s"."""
    if seconds <= 0:
        return ""
    return f"1/{1 / seconds:.0f} s" if seconds < 0.3 else f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"


def _text(value: object) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        return ""
    return " ".join("".join(c if c.isprintable() else " " for c in value).split())


def _number(value: object, negative: bool = False) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type]  # Pillow's rationals convert; the rest is refused below
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    usable = abs(number) < 1e9 and (number >= 0 or negative)  # no NaN passes this
    return number if usable else None


Values = Mapping[str, float]
"""A version's figures by metric; NaN where undefined."""


AGAINST_TRUTH = (*DEFAULT_METRICS, "brightness")
ALONE = ("loe", "brightness")
"""The default metrics with and without ground truth. Full-reference figures need one; NIQE takes a minute for a
photograph of 24 megapixels."""


@dataclass(frozen=True)
class Looks:
    """Copies on the page. max_side: pixels of the longer side; quality: of WebP, 1 to 100 (lossless)."""

    max_side: int = 1600
    quality: int = 90


@dataclass(frozen=True, eq=False)
class Drawn:
    """One version of a picture on the page."""

    image: Image.Image
    icc: bytes | None
    about: str
    """Format and depth of the file."""
    histogram: drawing.Histogram
    error: NDArray[np.float32] | None
    """Difference from the reference, None for the reference itself."""
    tags: list[tuple[str, str]]


@dataclass(frozen=True)
class Measured:
    """A row's size in pixels, and the figures of its versions, in order."""

    row: Row
    width: int
    height: int
    values: tuple[Values, ...]


@dataclass(frozen=True, eq=False)
class Compared:
    """A row's figures and, where requested, its versions as drawn."""

    measured: Measured
    drawn: tuple[Drawn, ...]


def chosen_metrics(names: Sequence[str] | None, truth: bool) -> tuple[list[Metric], list[str]]:
    """The named metrics, or the defaults for a comparison with or without ground truth.

    Returns:
        The metrics, and a line for each default metric that is not available here.

    Raises:
        UsageError: a named metric is unknown or not available here.
    """
    found = find_metrics((AGAINST_TRUTH if truth else ALONE) if names is None else names)
    reasons = {metric.name: metric.unavailable() for metric in found}
    missing = [reason for reason in reasons.values() if reason is not None]
    if names is not None and missing:
        raise UsageError(missing[0])
    return [metric for metric in found if reasons[metric.name] is None], missing


def compare_rows(matched: Matched, metrics: Sequence[Metric], looks: Looks | None) -> Iterator[Compared | Problem]:
    """`compare_row` for every row, in order; a Problem for a row that cannot be compared."""
    for row in matched.rows:
        try:
            yield compare_row(row, matched, metrics, looks)
        except PictureError as error:
            yield Problem(row.name, f"{error.path.name} in {_label(row, error.path, matched)}: {error.reason}")


def compare_row(row: Row, matched: Matched, metrics: Sequence[Metric], looks: Looks | None) -> Compared:
    """Measure a row's versions, and draw them where `looks` is given. Holds three full pictures at a time.

    Raises:
        PictureError: a version cannot be read or has another size than the reference.
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
    """Whether a metric is meaningful for a version: no version is compared with itself."""
    itself = {"reference": version == matched.reference, "input": version == matched.input}
    return not any(itself[need] for need in metric.needs)


def _value(metric: Metric, picture: Picture, truth: Picture, given: Picture) -> float:
    from lumen_cli.networks.base import as_tensor

    tensors = {
        name: as_tensor(other.pixels)
        for name, other in (("output", picture), ("reference", truth), ("input", given))
        if name == "output" or name in metric.needs
    }
    return measure(metric, tensors["output"], tensors.get("reference"), tensors.get("input"))[0]


def _draw(picture: Picture, truth: Picture | None, looks: Looks) -> Drawn:
    image = drawing.reduce(picture, looks.max_side)
    title, bits = load_format(picture.format).title, picture.storage.bits or picture.bit_depth
    kind = f"{title}, {bits} bit{', grey' if picture.grey else ''}"
    error = None if truth is None else drawing.difference(picture, truth, image.size)
    return Drawn(image, picture.icc, kind, drawing.histogram(picture), error, essentials(picture.exif))


@dataclass(frozen=True)
class Mean:
    """A metric's mean over the pictures where it is defined, and their number."""

    value: float
    count: int


def means(measured: Sequence[Measured], metrics: Sequence[Metric], versions: int) -> list[dict[str, Mean]]:
    """A version's means by metric, in the versions' order."""
    return [
        {metric.name: _mean([one.values[version][metric.name] for one in measured]) for metric in metrics}
        for version in range(versions)
    ]


def best(values: Sequence[float], metric: Metric, matched: Matched) -> set[int]:
    """The versions with the best value, including those whose text is the same.

    The reference takes no part. There is no best version with fewer than two candidates, and none for a full-reference
    metric without ground truth, because the reference is then usually the dark input.
    """
    if not metric.better or ("reference" in metric.needs and not matched.truth):
        return set()
    left_out = matched.reference if matched.truth else matched.input
    usable = {index: value for index, value in enumerate(values) if index != left_out and not math.isnan(value)}
    if len(usable) < 2:
        return set()
    top = (max if metric.better == "higher" else min)(usable.values())
    return {index for index, value in usable.items() if format_value(value, metric) == format_value(top, metric)}


def format_value(value: float, metric: Metric) -> str:
    """A value with the metric's digits; "–" where there is none, "∞" for equal pictures."""
    if math.isnan(value):
        return "–"
    return ("∞" if value > 0 else "−∞") if math.isinf(value) else f"{value:.{metric.digits}f}".replace("-", "−")


def heading(metric: Metric) -> str:
    """The metric's title with its unit and an arrow for the better direction."""
    arrow = {"higher": " ↑", "lower": " ↓"}.get(metric.better, "")
    return f"{metric.title}{arrow}{f' ({metric.unit})' if metric.unit else ''}"


def _mean(values: Sequence[float]) -> Mean:
    defined = [value for value in values if not math.isnan(value)]
    return Mean(sum(defined) / len(defined) if defined else math.nan, len(defined))
