from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from lumen_cli.compare import Matched, Problem, Row, match_paths
from lumen_cli.compare.rows import Looks, Measured, best, chosen_metrics, compare_row, compare_rows, format_value, means
from lumen_cli.errors import UsageError
from lumen_cli.metrics import METRICS
from tests.compare.conftest import save, scene

PSNR, BRIGHTNESS, LOE = METRICS["psnr"], METRICS["brightness"], METRICS["loe"]


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str, str]:
    low = save(tmp_path / "low.png", scene(0, 0.1))
    out = save(tmp_path / "out.png", scene(0, 0.9))
    high = save(tmp_path / "high.png", scene(0))
    return str(low), str(out), str(high)


def test_every_version_is_measured_against_the_reference_and_none_against_itself(files: tuple[str, str, str]) -> None:
    matched = match_paths(list(files), files[2])
    values = compare_row(matched.rows[0], matched, [PSNR, BRIGHTNESS, LOE], None).measured.values
    for index, gain in ((0, 0.1), (1, 0.9)):
        error = ((scene(0, gain).astype(float) - scene(0)) / 255) ** 2
        assert values[index]["psnr"] == pytest.approx(-10 * math.log10(error.mean()), abs=1e-3)
    assert math.isnan(values[2]["psnr"])
    assert math.isnan(values[0]["loe"]), "the input is not compared with itself"
    assert not math.isnan(values[1]["loe"])
    assert values[2]["brightness"] == pytest.approx(float(scene(0).mean()) / 255, abs=0.02)


def test_without_ground_truth_the_first_is_the_reference(files: tuple[str, str, str]) -> None:
    matched = match_paths(list(files))
    values = compare_row(matched.rows[0], matched, [PSNR], None).measured.values
    assert math.isnan(values[0]["psnr"])
    assert values[1]["psnr"] > values[2]["psnr"]


def test_other_sizes_and_unreadable_files_are_problems_and_the_rest_goes_on(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        save(tmp_path / "x" / f"{name}.png", scene(1))
        save(tmp_path / "y" / f"{name}.png", scene(1) if name != "a" else scene(1)[:60, :50])
    (tmp_path / "y" / "b.png").write_bytes(b"no picture")
    matched = match_paths([str(tmp_path / "x"), str(tmp_path / "y")])
    first, second, third = compare_rows(matched, [PSNR], Looks())
    assert first == Problem("a", "a.png in y: 50×60 pixels, but 96×64 in x; left out")
    assert isinstance(second, Problem)
    assert "b.png in y: not a picture" in second.reason
    assert not isinstance(third, Problem)
    assert math.isinf(third.measured.values[1]["psnr"])


def test_means_leave_out_what_is_not_defined() -> None:
    row = Row("a", (Path("a"), Path("b")))
    measured = [Measured(row, 1, 1, ({"psnr": math.nan}, {"psnr": value})) for value in (20.0, math.nan, 30.0)]
    columns = means(measured, [PSNR], 2)
    assert (columns[1]["psnr"].value, columns[1]["psnr"].count) == (25.0, 2)
    assert math.isnan(columns[0]["psnr"].value)


def matched_with(truth: bool, reference: int) -> Matched:
    return Matched(("input", "one", "other", "truth"), reference, truth, (), ())


def test_the_best_is_told_by_the_metrics_direction_and_by_what_is_read() -> None:
    matched = matched_with(True, 3)
    lower = dataclasses.replace(PSNR, better="lower")
    assert best([7.0, 21.0, 20.0, math.nan], PSNR, matched) == {1}
    assert best([7.0, 21.001, 21.002, math.nan], PSNR, matched) == {1, 2}
    assert best([7.0, 21.0, 20.0, math.nan], lower, matched) == {0}
    assert best([0.1, 0.5, 0.4, 0.5], BRIGHTNESS, matched) == set(), "neither way is better"


def test_nearness_to_a_dark_input_is_not_called_good() -> None:
    assert best([math.nan, 21.0, 20.0, 8.0], PSNR, matched_with(False, 0)) == set()


def test_values_are_written_with_the_metrics_digits() -> None:
    assert [format_value(value, PSNR) for value in (20.004, math.inf, math.nan, -1.0)] == ["20.00", "∞", "–", "−1.00"]


def test_metrics_that_cannot_be_had_are_refused_when_asked_for_and_said_otherwise() -> None:
    found, missing = chosen_metrics(None, truth=True)
    assert {"psnr", "ssim", "psnr_gt_mean", "brightness"} <= {metric.name for metric in found}
    assert all(isinstance(line, str) for line in missing)
    assert "psnr_gt_mean" not in {metric.name for metric in chosen_metrics(None, truth=False)[0]}
    with pytest.raises(UsageError, match="Did you mean psnr"):
        chosen_metrics(["psnrr"], truth=True)


def test_a_drawn_version_knows_its_file(files: tuple[str, str, str]) -> None:
    matched = match_paths(list(files))
    drawn = compare_row(matched.rows[0], matched, [], Looks(max_side=64)).drawn
    assert [one.about for one in drawn] == ["PNG, 8 bit"] * 3
    assert drawn[0].error is None
    assert drawn[1].error is not None
    assert drawn[1].error.shape == drawn[1].image.size[::-1] == (43, 64)
    assert np.isclose(drawn[1].error.mean(), np.abs(scene(0, 0.9) / 255 - scene(0, 0.1) / 255).mean(), atol=1e-3)
