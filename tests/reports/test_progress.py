"""What `lumen train` shows: lines in a pipe, one table on a terminal, curves as a picture."""

from __future__ import annotations

import io

import cv2
from rich.console import Console

from lumen_cli.reports import TrainingWatch
from lumen_cli.training.checkpoint import draw_curves
from lumen_cli.training.loop import Report

REPORTS = [
    Report("joint", 20, 0.25, 60.0, 8.0, {"noise": 0.5, "picture": 0.25}),
    Report("joint", 30, 0.3, 70.0, 0.0, {}, {"psnr": 20.0, "ssim": 0.7}),
    Report("joint", 40, 0.5, 120.0, 8.5, {"noise": 0.4, "picture": 0.2}),
    Report("joint", 50, 0.6, 130.0, 0.0, {}, {"psnr": 19.0, "ssim": 0.6}),
]


def shown(terminal: bool) -> str:
    out = io.StringIO()
    with TrainingWatch(Console(file=out, force_terminal=terminal, width=100, highlight=False)) as watch:
        for report in REPORTS:
            watch(report)
    return out.getvalue()


def test_a_pipe_gets_a_line_for_every_report():
    lines = shown(terminal=False).splitlines()
    assert len(lines) == 4
    assert "3.0 min left" in lines[0]
    assert "noise 0.5000" in lines[0]
    assert lines[3].startswith("validation  PSNR 19.000, SSIM 0.600")


def test_a_terminal_gets_a_table_with_the_best_validation():
    text = shown(terminal=True)
    assert "pictures/s" in text
    assert "best so far: PSNR 20.000, SSIM 0.700 (joint 30)" in text


def test_curves_are_drawn_in_their_colours(tmp_path):
    history = [{"step": float(step), "noise": 1.0 / step, "picture": 2.0 / step} for step in range(1, 50)]
    draw_curves([*history, {"step": 49.0, "validation_psnr": 20.0}], tmp_path / "a.png")
    both = cv2.imread(str(tmp_path / "a.png"))
    draw_curves([{"step": each["step"], "noise": each["noise"]} for each in history], tmp_path / "b.png")
    one = cv2.imread(str(tmp_path / "b.png"))
    assert both.shape[0] == 2 * one.shape[0], "losses and validation have a panel each"

    def orange(picture) -> int:
        return int((abs(picture.astype(int) - (0x0E, 0x7F, 0xFF)).sum(axis=2) < 20).sum())

    assert orange(both) > 300
    assert orange(one) == 0, "the second term has the second colour"
    draw_curves([], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
