"""A mean, and how far it can be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Mean:
    """The mean of n values and its bootstrap interval; None where there is none.

    value: NaN for no values, infinite where one of them is; lower, upper: None for fewer than two values, or infinite
    ones.
    """

    value: float
    lower: float | None
    upper: float | None
    count: int


def bootstrap_mean(values: Sequence[float], *, seed: int = 0) -> Mean:
    """Mean with its 95 % percentile bootstrap interval (Efron & Tibshirani, 1993, chapter 13): 10,000 resamples.

    Args:
        values: one per picture; NaN stands for a picture without a value and is left out.
        seed: of the resampling; the same values and seed give the same interval.
    """
    known = np.array([value for value in values if not math.isnan(value)], np.float64)
    if not len(known):
        return Mean(math.nan, None, None, 0)
    mean = float(known.mean())
    if len(known) < 2 or not np.isfinite(known).all():
        return Mean(mean, None, None, len(known))
    generator = np.random.default_rng(seed)
    # Bit by bit, so that a set of thousands of pictures does not take gigabytes.
    rows = max(1, (1 << 22) // len(known))
    means = np.concatenate(
        [
            known[generator.integers(len(known), size=(min(rows, RESAMPLES - start), len(known)))].mean(axis=1)
            for start in range(0, RESAMPLES, rows)
        ]
    )
    tail = 100 * (1 - CONFIDENCE) / 2
    lower, upper = np.percentile(means, [tail, 100 - tail])
    return Mean(mean, float(lower), float(upper), len(known))
