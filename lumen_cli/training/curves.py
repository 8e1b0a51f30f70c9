"""The curves of a stage as a PNG: loss terms on a logarithmic scale, and validation scores, over the steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

WIDTH, HEIGHT, LEFT, MARGIN = 900, 360, 76, 28
_COLORS = ((0xB4, 0x77, 0x1F), (0x0E, 0x7F, 0xFF), (0x2C, 0xA0, 0x2C), (0x28, 0x27, 0xD6), (0xBD, 0x67, 0x94))
"""BGR."""
_GREY = (0x60, 0x60, 0x60)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_curves(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """Write one panel for the losses and one for each validation score, one below the other.

    history: the loop's entries with `step` and either loss terms by name or `validation_…`.
    """
    losses = _series(entry for entry in history if not any(name.startswith("validation_") for name in entry))
    scores = _series(entry for entry in history if any(name.startswith("validation_") for name in entry))
    panels = [_panel("loss", losses, logarithmic=True)] if losses else []
    panels += [
        _panel(name.removeprefix("validation_").upper(), {name: points}, logarithmic=False)
        for name, points in scores.items()
    ]
    if panels:
        cv2.imwrite(str(path), np.concatenate(panels))


def _series(entries: object) -> dict[str, list[tuple[float, float]]]:
    series: dict[str, list[tuple[float, float]]] = {}
    for entry in entries:  # type: ignore[attr-defined]
        for name, value in entry.items():
            if name != "step" and math.isfinite(value):
                series.setdefault(name, []).append((entry["step"], value))
    return series


def _panel(title: str, series: Mapping[str, Sequence[tuple[float, float]]], *, logarithmic: bool) -> np.ndarray:
    panel = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)

    def height_of(value: float) -> float:
        return math.log10(max(value, 1e-8)) if logarithmic else value

    points = [point for line in series.values() for point in line]
    first, last = min(x for x, _ in points), max(x for x, _ in points)
    low, high = min(height_of(y) for _, y in points), max(height_of(y) for _, y in points)
    span, rise = max(last - first, 1.0), max(high - low, 1e-6)

    def place(x: float, y: float) -> tuple[int, int]:
        across = LEFT + (x - first) / span * (WIDTH - LEFT - MARGIN)
        return round(across), round(HEIGHT - MARGIN - (height_of(y) - low) / rise * (HEIGHT - 2 * MARGIN))

    cv2.rectangle(panel, (LEFT, MARGIN), (WIDTH - MARGIN, HEIGHT - MARGIN), (0xC0, 0xC0, 0xC0))
    for share in (0.0, 0.5, 1.0):
        value = low + share * rise
        shown = f"{10**value if logarithmic else value:.3g}"
        across = round(HEIGHT - MARGIN - share * (HEIGHT - 2 * MARGIN))
        cv2.putText(panel, shown, (6, across + 4), _FONT, 0.42, _GREY, 1, cv2.LINE_AA)
    for step in (first, last):
        cv2.putText(panel, f"{step:.0f}", (place(step, 1.0)[0] - 14, HEIGHT - 8), _FONT, 0.42, _GREY, 1, cv2.LINE_AA)
    cv2.putText(panel, title, (LEFT, 18), _FONT, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    for number, (name, line) in enumerate(series.items()):
        color = _COLORS[number % len(_COLORS)]
        path = np.array([place(x, y) for x, y in line], np.int32)
        cv2.polylines(panel, [path], False, color, 2, cv2.LINE_AA)
        if len(line) == 1:
            cv2.circle(panel, path[0].tolist(), 3, color, -1, cv2.LINE_AA)
        if len(series) > 1:
            cv2.putText(panel, name, (LEFT + 90 + 150 * number, 18), _FONT, 0.45, color, 1, cv2.LINE_AA)
    return panel
