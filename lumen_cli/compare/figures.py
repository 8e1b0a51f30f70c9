"""The figures of a whole comparison: means over its pictures, the best of each, and how a figure is written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lumen_cli.compare.matching import Matched
from lumen_cli.compare.rows import Measured
from lumen_cli.metrics.registry import Metric


@dataclass(frozen=True)
class Mean:
    """A metric's mean over the pictures where it is defined, and how many these are."""

    value: float
    count: int


def means(measured: Sequence[Measured], metrics: Sequence[Metric], versions: int) -> list[dict[str, Mean]]:
    """A version's means by metric, in the versions' order."""
    return [
        {metric.name: _mean([one.values[version][metric.name] for one in measured]) for metric in metrics}
        for version in range(versions)
    ]


def best(values: Sequence[float], metric: Metric, matched: Matched) -> set[int]:
    """The versions with the best value, those that read the same included.

    The reference takes no part: it is what the others are to come near to. None is best where only one can be compared,
    and none by its nearness to a reference that nobody called the ground truth: it is as a rule the dark input.
    """
    if not metric.better or ("reference" in metric.needs and not matched.truth):
        return set()
    left_out = matched.reference if matched.truth else matched.input
    usable = {index: value for index, value in enumerate(values) if index != left_out and not math.isnan(value)}
    if len(usable) < 2:
        return set()
    top = (max if metric.better == "higher" else min)(usable.values())
    return {index for index, value in usable.items() if written(value, metric) == written(top, metric)}


def written(value: float, metric: Metric) -> str:
    """A value with the metric's digits; "–" where there is none, "∞" for equal pictures."""
    if math.isnan(value):
        return "–"
    return ("∞" if value > 0 else "−∞") if math.isinf(value) else f"{value:.{metric.digits}f}".replace("-", "−")


def heading(metric: Metric) -> str:
    """The metric's title with its unit and an arrow that says which way is better."""
    arrow = {"higher": " ↑", "lower": " ↓"}.get(metric.better, "")
    return f"{metric.title}{arrow}{f' ({metric.unit})' if metric.unit else ''}"


def _mean(values: Sequence[float]) -> Mean:
    defined = [value for value in values if not math.isnan(value)]
    return Mean(sum(defined) / len(defined) if defined else math.nan, len(defined))
