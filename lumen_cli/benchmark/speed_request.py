"""Requests and results of a speed benchmark, as plain values. Imports nothing heavy."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

from lumen_cli.engine import Detail
from lumen_cli.errors import UsageError
from lumen_cli.registry.card import PRECISIONS

PUBLISHED = "published:"
"""Prefix of an architecture's id: the network at the paper's size with random weights, for its speed alone."""

NAMED_SIZES = {
    "vga": (640, 480),
    "720p": (1280, 720),
    "1080p": (1920, 1080),
    "1440p": (2560, 1440),
    "4k": (3840, 2160),
    "8k": (7680, 4320),
}
DEFAULT_SIZES = ((600, 400),)
"""The size of LOL's pictures, for which the papers state their times."""
LARGEST_SIDE = 65_535
_SIZE = re.compile(r"(\d{1,6})\s*[x×]\s*(\d{1,6})")
_MEGAPIXELS = re.compile(r"(\d{1,4}(?:\.\d{1,3})?)\s*mp")


@dataclass(frozen=True)
class SpeedRequest:
    """What to time: every model at every size, precision and batch, each in its own process.

    Attributes:
        models: names, model folders, `published:` with an architecture's id, or "all".
        sizes: (width, height) in pixels.
        precisions: auto, fp32, bf16, fp16.
        batches: pictures per batch.
        device: as in `choose_device`.
        repeat: timed calls.
        warmup: calls before them.
        threads: of a CPU, None for torch's own choice.
        steps: None for each model's own; models that do not sample ignore it.
        published: time the architectures at their papers' sizes, with random weights, instead of the models.
        plain: also time the reference implementation, alternating with ours.
        pipeline: also time a folder of `pictures` from disk to disk.
        pictures: of that folder.
        detail: how large pictures reach their size.
        timeout: seconds a row may take, None for no bound.
    """

    models: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...] = DEFAULT_SIZES
    precisions: tuple[str, ...] = ("auto",)
    batches: tuple[int, ...] = (1,)
    device: str = "auto"
    repeat: int = 5
    warmup: int = 1
    threads: int | None = None
    steps: int | None = None
    published: bool = False
    plain: bool = False
    pipeline: bool = False
    pictures: int = 20
    detail: Detail = "auto"
    timeout: float | None = None

    def __post_init__(self) -> None:
        for name, values in (("model", self.models), ("size", self.sizes), ("precision", self.precisions)):
            if not values:
                raise UsageError(f"no {name} to time")
        for precision in self.precisions:
            if precision not in ("auto", *PRECISIONS):
                raise UsageError(f"unknown precision {precision}: expected auto, {', '.join(PRECISIONS)}")
        counts = {"batch": min(self.batches, default=0), "repeat": self.repeat, "warmup": self.warmup}
        counts |= {"threads": 1 if self.threads is None else self.threads, "pictures": self.pictures}
        for name, value in counts.items():
            if value < 1:
                raise UsageError(f"{name}: expected a whole number from 1 up, found {value}")


@dataclass(frozen=True)
class SpeedCase:
    """One row of the table, timed in one process. folder: None for the published network; request: how to time it."""

    model: str
    architecture: str
    folder: str | None
    width: int
    height: int
    precision: str
    batch: int
    request: SpeedRequest

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> SpeedCase:
        """From `dataclasses.asdict`, after JSON."""
        return cls(**{**fields, "request": SpeedRequest(**fields["request"])})

    def failed(self, error: str) -> SpeedResult:
        """The row with the reason why it has no figures."""
        facts = (self.model, self.architecture, self.folder is None, self.width, self.height, self.precision)
        return SpeedResult(*facts, self.batch, self.request.steps, self.request.device, error=error)


@dataclass(frozen=True)
class Spread:
    """Seconds of several calls: median, quartiles and extremes."""

    median: float
    lower: float
    upper: float
    least: float
    most: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Spread:
        """Quartiles are of the sample, linear between its values; a single value is all five."""
        lower, _, upper = quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else [seconds[0]] * 3
        return cls(median(seconds), lower, upper, min(seconds), max(seconds))


@dataclass(frozen=True)
class Plain:
    """The reference implementation: fp32, one picture at a time.

    seconds, gflops: per picture; difference: the greatest |reference - ours| in [0, 1], None where it is not finite;
    redundant: what it computes needlessly, as short phrases.
    """

    seconds: Spread
    gflops: float | None
    difference: float | None
    redundant: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pipeline:
    """A folder from disk to disk.

    seconds: wall clock, with the model already loaded; busy: share of it in which the network computed, on CUDA by the
    device's events; against_alone: pictures per second relative to the model alone.
    """

    pictures: int
    seconds: float
    busy: float
    against_alone: float

    @property
    def images_per_second(self) -> float:
        """Pictures per second, with reading and writing."""
        return self.pictures / self.seconds


@dataclass(frozen=True)
class SpeedResult:
    """One row: a model at a size, precision and batch.

    `error` is the reason of a row that failed, which has no figures; `plain_error` that of the reference
    implementation alone. A row that fails in "auto" precision may keep that word.

    seconds: per picture (a batch's time over its pictures); device_memory: the most bytes that torch held on a CUDA
    device, None elsewhere; host_memory: the most bytes resident in the new process; gflops: 10⁹ operations per picture,
    a multiplication and an addition are two; detail: "whole", or how the network's result of the reduced picture
    reached full size, which is timed too.
    """

    model: str
    architecture: str
    published: bool
    width: int
    height: int
    precision: str
    batch: int
    steps: int | None = None
    device: str = ""
    device_name: str = ""
    threads: int | None = None
    torch: str = ""
    repeat: int = 0
    warmup: int = 0
    seconds: Spread | None = None
    device_memory: int | None = None
    host_memory: int | None = None
    parameters: int | None = None
    gflops: float | None = None
    plain: Plain | None = None
    plain_error: str | None = None
    pipeline: Pipeline | None = None
    error: str | None = None
    detail: str = "whole"

    @property
    def images_per_second(self) -> float | None:
        """By the median."""
        return None if self.seconds is None else 1.0 / self.seconds.median

    @property
    def megapixels_per_second(self) -> float | None:
        """By the median."""
        return None if self.seconds is None else self.width * self.height / 1e6 / self.seconds.median

    @property
    def ratio(self) -> float | None:
        """Time of the reference implementation over ours: medians of alternating calls."""
        if self.seconds is None or self.plain is None:
            return None
        return self.plain.seconds.median / self.seconds.median

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> SpeedResult:
        """From `dataclasses.asdict`, after JSON."""
        plain, pipeline = fields["plain"], fields["pipeline"]
        if plain is not None:
            redundant = tuple(plain["redundant"])
            plain = Plain(**{**plain, "seconds": Spread(**plain["seconds"]), "redundant": redundant})
        values = {
            "seconds": None if fields["seconds"] is None else Spread(**fields["seconds"]),
            "plain": plain,
            "pipeline": None if pipeline is None else Pipeline(**pipeline),
        }
        return cls(**{**fields, **values})


def parse_sizes(text: str) -> tuple[tuple[int, int], ...]:
    """Widths and heights, each once: "600x400,1080p" → ((600, 400), (1920, 1080)); "12mp" has sides of 4 : 3.

    Raises:
        UsageError: anything else.
    """
    sizes = [_size(part.strip().lower()) for part in text.split(",")]
    return tuple(dict.fromkeys(sizes))


def parse_megapixels(text: str) -> int | None:
    """Pixels: "12mp" → 12,000,000, "0.5mp" → 500,000; None for anything else."""
    match = _MEGAPIXELS.fullmatch(text.strip().lower())
    pixels = 0 if match is None else round(float(match[1]) * 1e6)
    return pixels if 0 < pixels <= LARGEST_SIDE**2 else None


def _size(text: str) -> tuple[int, int]:
    if text in NAMED_SIZES:
        return NAMED_SIZES[text]
    megapixels = parse_megapixels(text)
    if megapixels is not None:
        width = round(math.sqrt(megapixels * 4 / 3))
        return width, round(megapixels / width)
    match = _SIZE.fullmatch(text)
    if match is None:
        raise UsageError(
            f"unknown size {text!r}: expected WIDTHxHEIGHT, megapixels such as 12mp or one of {', '.join(NAMED_SIZES)}"
        )
    width, height = int(match[1]), int(match[2])
    if not (1 <= width <= LARGEST_SIDE and 1 <= height <= LARGEST_SIDE):
        raise UsageError(f"size {text}: sides go from 1 to {LARGEST_SIDE} pixels")
    return width, height
