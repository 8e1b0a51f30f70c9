"""A run's figures with all that is needed to believe them, ready to be shown or written."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lumen_cli import __version__
from lumen_cli.benchmark.quality import CONFIDENCE, RESAMPLES, Row, Score
from lumen_cli.benchmark.samples import Samples
from lumen_cli.metrics.registry import Metric


@dataclass(frozen=True)
class Published:
    """One figure of a paper.

    stated: as it stands there, its digits being its precision; source: where, and under what conditions; about: known
    roughly only.
    """

    architecture: str
    dataset: str
    split: str
    metric: str
    stated: str
    source: str
    about: bool = False

    @property
    def value(self) -> float:
        """The figure as a number."""
        return float(self.stated)


_KIND = "KinD (Zhang et al., ACM MM 2019), quoted second-hand; its brightness ratio was taken from the ground truth"
_DIFFLL = "DiffLL (Jiang et al., SIGGRAPH Asia 2023), quoted second-hand"
_LIGHTEN = "LightenDiffusion (Jiang et al., ECCV 2024), quoted second-hand and roughly"
_LLDIFFUSION = "LLDiffusion (Wang et al., Pattern Recognition 2025), table in the authors' repository"
_CORRECTED = f"{_LLDIFFUSION}; whether its GT-mean correction was on is not said"
_VELOL = f"{_CORRECTED}, nor which part of VE-LOL it is"

FIGURES: tuple[Published, ...] = (
    Published("kind", "LOL-v1", "test", "psnr", "20.87", _KIND),
    Published("kind", "LOL-v1", "test", "ssim", "0.80", _KIND),
    Published("lightendiffusion", "LOL-v1", "test", "psnr", "20.3", _LIGHTEN, about=True),
    Published("lightendiffusion", "LOL-v1", "test", "ssim", "0.80", _LIGHTEN, about=True),
    Published("diffll", "LOL-v1", "test", "psnr", "26.34", _DIFFLL),
    Published("diffll", "LOL-v1", "test", "ssim", "0.845", _DIFFLL),
    Published("lldiffusion", "LOL-v1", "test", "psnr", "24.65", _CORRECTED),
    Published("lldiffusion", "LOL-v1", "test", "ssim", "0.843", _CORRECTED),
    Published("lldiffusion", "LOL-v1", "test", "lpips_alex", "0.075", _CORRECTED),
    Published("lldiffusion", "LOL-v2-synthetic", "test", "psnr", "25.99", _CORRECTED),
    Published("lldiffusion", "LOL-v2-synthetic", "test", "ssim", "0.948", _CORRECTED),
    Published("lldiffusion", "LOL-v2-real", "test", "psnr", "23.16", _CORRECTED),
    Published("lldiffusion", "LOL-v2-real", "test", "ssim", "0.842", _CORRECTED),
    Published("lldiffusion", "VE-LOL", "test", "psnr", "31.77", _VELOL),
    Published("lldiffusion", "VE-LOL", "test", "ssim", "0.902", _VELOL),
    Published("lldiffusion", "VE-LOL", "test", "lpips_alex", "0.040", _VELOL),
)
NOT_SEEN = {"anlightendiff": "AnlightenDiff's figures are published as pictures only and were not seen"}


def published(architecture: str, dataset: str, metric: str) -> Published | None:
    """What the paper of an architecture states for a data set's test split, None where nothing was seen."""
    wanted = (architecture, dataset, metric)
    return next((each for each in FIGURES if (each.architecture, each.dataset, each.metric) == wanted), None)


@dataclass(frozen=True)
class QualityReport:
    """What `lumen benchmark` found.

    metrics: those of the columns, `unavailable` ones included, which have empty cells; machine: versions, threads and
    the like, by name; notes: what a reader has to know, a line each.
    """

    samples: Samples
    metrics: tuple[Metric, ...]
    unavailable: dict[str, str]
    rows: tuple[Row, ...]
    machine: dict[str, str]
    notes: tuple[str, ...] = ()

    def best(self, metric: Metric) -> set[str]:
        """The rows that lead a column: of those with figures for every picture, by the mean.

        The input is no competitor: compared with itself it is perfect (LOE).
        """
        if not metric.better or metric.name in self.unavailable:
            return set()
        means = {row.entrant.name: row.means[metric.name] for row in self.rows if row.entrant.kind != "input"}
        most = max((mean.count for mean in means.values()), default=0)
        values = {name: mean.value for name, mean in means.items() if mean.count == most and not math.isnan(mean.value)}
        if len(values) < 2:
            return set()
        leading = max(values.values()) if metric.better == "higher" else min(values.values())
        return {name for name, value in values.items() if value == leading}

    def published(self, row: Row, metric: Metric) -> Published | None:
        """What the paper of a row's model states for this data set."""
        return published(row.entrant.architecture, self.samples.dataset, metric.name)

    @property
    def sources(self) -> tuple[str, ...]:
        """Where the published figures in the table come from, each once, in the order of their numbers."""
        found = (self.published(row, metric) for row in self.rows for metric in self.metrics)
        return tuple(dict.fromkeys(each.source for each in found if each is not None))

    @property
    def failures(self) -> tuple[tuple[str, Score], ...]:
        """Pictures without figures, by row's name.

        What befell a picture under every row is said once, for no row; what befell all pictures of a row, once too.
        """
        found: list[tuple[str, Score]] = []
        for row in self.rows:
            reasons = {score.reason for score in row.scores}
            if len(reasons) == 1 and len(row.scores) > 1 and row.scores[0].reason is not None:
                found.append((row.entrant.name, dataclasses.replace(row.scores[0], name="all pictures")))
                continue
            for score in row.scores:
                if score.reason is None:
                    continue
                everywhere = all(_reason(other, score.name) == score.reason for other in self.rows)
                entry = ("" if everywhere and len(self.rows) > 1 else row.entrant.name, score)
                if not any((name, other.name) == (entry[0], score.name) for name, other in found):
                    found.append(entry)
        return tuple(found)


def standard_notes(samples: Samples, metrics: Sequence[Metric], rows: Sequence[Row]) -> tuple[str, ...]:
    """What a reader of the table has to know."""
    notes = [f"in brackets: {CONFIDENCE:.0%} bootstrap interval of the mean ({RESAMPLES:,} resamples, seeded)"]
    if samples.synthetic:
        notes.append(
            "synthetic: these dark pictures were computed from bright ones, not taken; --data-root for real ones"
        )
    if any(metric.name.endswith("_gt_mean") for metric in metrics):
        notes.append("GT-mean: the result is first given the reference's mean brightness; not comparable with the rest")
    figures = [
        row for row in rows if any(published(row.entrant.architecture, samples.dataset, m.name) for m in metrics)
    ]
    if figures and samples.split.lower() not in ("test", "eval15"):
        notes.append(f"published figures are for the test split of {samples.dataset}, not for these pictures")
    if figures:
        notes.append("published figures are the authors' weights at full width; measured are the models named here")
    notes += (NOT_SEEN[row.entrant.architecture] for row in rows if row.entrant.architecture in NOT_SEEN)
    return tuple(dict.fromkeys(notes))


def make_report(
    samples: Samples, metrics: Sequence[Metric], rows: Sequence[Row], notes: Sequence[str] = ()
) -> QualityReport:
    """The report of finished rows, with the standard notes before `notes` and the versions of lumen and torch."""
    reasons = {metric.name: reason for metric in metrics if (reason := metric.unavailable()) is not None}
    computed = [metric for metric in metrics if metric.name not in reasons]
    machine = {"lumen": __version__, "torch": torch.__version__, "threads": str(torch.get_num_threads())}
    notes = (*standard_notes(samples, computed, rows), *notes)
    return QualityReport(samples, tuple(metrics), reasons, tuple(rows), machine, notes)


def _reason(row: Row, name: str) -> str | None:
    return next((score.reason for score in row.scores if score.name == name), None)
