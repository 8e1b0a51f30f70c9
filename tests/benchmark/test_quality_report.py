"""What stands around the figures: intervals, leaders, published figures with their sources, the built-in set."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from lumen_cli.benchmark.entrants import Entrant, Runner
from lumen_cli.benchmark.plan import QualityReport, standard_notes
from lumen_cli.benchmark.quality import Row, Score, bootstrap_mean
from lumen_cli.benchmark.samples import FOLDER, PICTURES, Samples, builtin_samples
from lumen_cli.metrics import find_metrics
from lumen_cli.registry.architectures import ARCHITECTURES
from lumen_cli.reports.benchmark_files import as_json, as_latex, as_markdown

PSNR, BRIGHTNESS = find_metrics(["psnr", "brightness"])


def test_the_bootstrap_interval_is_that_of_normal_theory_where_that_holds() -> None:
    values = np.random.default_rng(1).normal(20.0, 3.0, 400)
    mean = bootstrap_mean(values.tolist())
    half = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
    assert mean.value == pytest.approx(values.mean())
    assert mean.count == 400
    assert mean.lower == pytest.approx(values.mean() - half, abs=0.02)
    assert mean.upper == pytest.approx(values.mean() + half, abs=0.02)


def test_the_interval_covers_the_true_mean_about_19_times_in_20() -> None:
    generator = np.random.default_rng(2)
    covered = 0
    for _ in range(60):
        mean = bootstrap_mean(generator.exponential(1.0, 40).tolist())
        assert mean.lower is not None
        assert mean.upper is not None
        covered += mean.lower <= 1.0 <= mean.upper
    assert 50 <= covered <= 60


def test_the_same_values_give_the_same_interval() -> None:
    values = np.random.default_rng(3).normal(20, 3, 30).tolist()
    assert bootstrap_mean(values) == bootstrap_mean(values)
    assert bootstrap_mean(values, seed=1) != bootstrap_mean(values)


def test_values_that_are_not_there_are_left_out_and_infinite_ones_have_no_interval() -> None:
    assert bootstrap_mean([1.0, math.nan, 3.0]).value == 2.0
    assert bootstrap_mean([1.0, math.nan, 3.0]).count == 2
    infinite = bootstrap_mean([math.inf, 20.0])
    assert (infinite.value, infinite.lower, infinite.upper) == (math.inf, None, None)
    assert math.isnan(bootstrap_mean([math.nan]).value)
    assert bootstrap_mean([7.0]).lower is None


def row(name: str, values: list[float], architecture: str = "", kind: str = "model") -> Row:
    scores = tuple(
        Score(str(index), {"psnr": value, "brightness": 0.5}, reason="broken" if math.isnan(value) else None)
        for index, value in enumerate(values)
    )
    means = {"psnr": bootstrap_mean(values), "brightness": bootstrap_mean([0.5] * len(values))}
    return Row(Entrant(name, kind, _never, architecture), scores, means)


def _never() -> Runner:
    raise AssertionError("nothing is run here")


def report(*rows: Row, dataset: str = "LOL-v1", split: str = "test") -> QualityReport:
    samples = Samples(f"{dataset} · {split}", dataset, split, (), True)
    return QualityReport(samples, (PSNR, BRIGHTNESS), {}, rows, {}, standard_notes(samples, [PSNR, BRIGHTNESS], rows))


def test_the_leader_has_figures_for_every_picture() -> None:
    made = report(row("a", [20.0, 22.0]), row("b", [21.5, 21.5]), row("c", [30.0, math.nan]))
    assert made.best(PSNR) == {"b"}
    assert made.best(BRIGHTNESS) == set(), "neither way is better"
    assert report(row("a", [20.0])).best(PSNR) == set(), "one row leads nobody"
    made = report(row("input", [40.0, 40.0], kind="input"), row("a", [20.0, 22.0]), row("b", [21.5, 21.5]))
    assert made.best(PSNR) == {"b"}, "the input is no competitor"


def test_a_failure_under_every_row_is_said_once() -> None:
    made = report(row("a", [20.0, math.nan]), row("b", [21.0, math.nan]))
    assert [(name, score.name) for name, score in made.failures] == [("", "1")]
    made = report(row("a", [20.0, 3.0]), row("b", [21.0, math.nan]))
    assert [(name, score.name) for name, score in made.failures] == [("b", "1")]
    made = report(row("a", [20.0, 3.0]), row("b", [math.nan, math.nan]))
    assert [(name, score.name) for name, score in made.failures] == [("b", "all pictures")]


def test_published_figures_stand_beside_their_own_set_only() -> None:
    figure = ARCHITECTURES["diffll"].figure("LOL-v1", "psnr")
    assert figure is not None
    assert figure.value == 26.34
    kind = ARCHITECTURES["kind"].figure("LOL-v1", "ssim")
    assert kind is not None
    assert kind.stated == "0.80", "two digits were stated, not one and not three"
    assert ARCHITECTURES["diffll"].figure("built-in", "psnr") is None
    assert ARCHITECTURES["anlightendiff"].figure("LOL-v1", "psnr") is None
    assert report(row("mine", [20.0], "diffll")).sources == (figure.source,)
    assert report(row("mine", [20.0], "diffll"), dataset="SICE").sources == ()


def test_every_published_figure_names_a_metric_and_its_source() -> None:
    figures = [figure for architecture in ARCHITECTURES.values() for figure in architecture.figures]
    metrics = {figure.metric for figure in figures}
    assert {metric.name for metric in find_metrics(metrics)} == metrics
    assert len(figures) > 10
    for figure in figures:
        assert figure.source
        assert figure.value > 0


def test_another_split_than_the_papers_is_said_so() -> None:
    said = [" ".join(report(row("a", [20.0], "diffll"), split=split).notes) for split in ("test", "val20")]
    assert "not for these pictures" not in said[0]
    assert "not for these pictures" in said[1]


def test_a_metric_that_cannot_be_computed_leaves_empty_cells_and_a_line() -> None:
    (lpips,) = find_metrics(["lpips_alex"])
    made = report(row("a", [20.0, 21.0]), row("b", [22.0, 23.0]))
    made = dataclasses.replace(
        made, metrics=(PSNR, lpips), unavailable={"lpips_alex": "lpips_alex cannot be computed: no weights here"}
    )
    line = next(line for line in as_markdown(made).splitlines() if line.startswith("| b |"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[2].startswith("**22.50**")
    assert cells[3] == ""
    assert "no weights here" in as_markdown(made)
    assert json.loads(as_json(made))["rows"][0]["figures"]["lpips_alex"]["mean"] is None
    assert made.best(lpips) == set()


def test_names_cannot_break_a_table() -> None:
    made = report(row("a|b_c&d", [20.0]))
    table = [line for line in as_markdown(made).splitlines() if line.startswith("|")]
    assert len({line.replace(r"\|", "").count("|") for line in table}) == 1
    assert r"b\_c\&d" in as_latex(made)


def test_what_was_not_seen_is_said() -> None:
    assert any("not seen" in note for note in report(row("a", [20.0], "anlightendiff")).notes)


def test_the_built_in_set_is_dark_synthetic_and_the_same_each_time() -> None:
    samples = builtin_samples()
    assert samples.synthetic
    assert "synthetic" in samples.title
    assert len(samples.items) == len(PICTURES) >= 5
    for first, second in zip(samples.items, builtin_samples().items, strict=True):
        scene, again = first.load(), second.load()
        assert scene.high is not None
        assert np.array_equal(scene.low.pixels, again.low.pixels)
        assert scene.low.pixels.shape == scene.high.shape
        values = scene.low.pixels * 255
        assert np.abs(values - np.rint(values)).max() < 1e-4, "8 bits, as a file would hold them"
        assert scene.low.pixels.mean() < 0.6 * scene.high.mean()


def test_the_built_in_pictures_are_all_there_with_their_licences() -> None:
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert {path.name for path in FOLDER.glob("*.webp")} == {f"{picture.name}.webp" for picture in PICTURES}
    for picture in PICTURES:
        assert f"`{picture.name}.webp`" in readme
