"""Figures of models on pictures: those of the very pixels `lumen enhance` writes, with nothing left out in silence."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lumen_cli.api import enhance
from lumen_cli.benchmark.entrants import (
    WELL_EXPOSED,
    Entrant,
    baseline_entrant,
    fit_gain,
    fit_gamma,
    input_entrant,
    model_entrant,
)
from lumen_cli.benchmark.quality import Row, run_quality
from lumen_cli.benchmark.samples import Sample, Samples, Scene, samples_of
from lumen_cli.datasets.layouts import find_dataset
from lumen_cli.errors import LumenError, PictureError, UsageError
from lumen_cli.imaging.colour.convert import luma
from lumen_cli.imaging.picture import Picture, read_picture
from lumen_cli.metrics import Metric, find_metrics
from lumen_cli.registry import find_model
from tests.conftest import MakeModel, dark_pixels

PSNR, SSIM, BRIGHTNESS = find_metrics(["psnr", "ssim", "brightness"])


def write_png(path: Path, pixels: np.ndarray) -> Path:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Four pairs in two sizes."""
    root = tmp_path / "set"
    for index in range(4):
        dark = dark_pixels(16 + 8 * (index % 2), 24, seed=index)
        write_png(root / "low" / f"{index}.png", dark)
        write_png(root / "high" / f"{index}.png", np.clip(dark.astype(int) * 3, 0, 255).astype(np.uint8))
    return root


def pair_samples(root: Path) -> Samples:
    return samples_of(find_dataset("folder", root))


def rows_of(samples: Samples, *entrants: Entrant, **options: object) -> list[Row]:
    return list(run_quality(samples, entrants, [PSNR, BRIGHTNESS], **options))  # type: ignore[arg-type]


def psnr_by_hand(first: np.ndarray, second: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.square(first.astype(np.float64) - second.astype(np.float64)).mean()))


def test_a_models_figures_are_those_of_the_pixels_enhance_gives(make_model: MakeModel, pairs: Path) -> None:
    card = find_model(make_model())
    (row,) = rows_of(pair_samples(pairs), model_entrant(card, steps=3, seed=5, device="cpu", precision="fp32"))
    assert [score.name for score in row.scores] == ["0", "1", "2", "3"]
    for score in row.scores:
        low, high = pairs / "low" / f"{score.name}.png", pairs / "high" / f"{score.name}.png"
        result = enhance(low, card.folder, steps=3, seed=5, device="cpu", precision="fp32")
        reference = np.rint(read_picture(high).pixels * 255)
        assert score.values["psnr"] == pytest.approx(psnr_by_hand(result, reference), abs=1e-3)
        assert (score.height, score.width) == result.shape[:2]
    by_hand = np.mean([score.values["psnr"] for score in row.scores])
    assert row.means["psnr"].value == pytest.approx(by_hand)
    assert row.entrant.settings["steps"] == 3


def test_the_input_row_measures_the_dark_picture(pairs: Path) -> None:
    (row,) = rows_of(pair_samples(pairs), input_entrant())
    dark, bright = (np.rint(read_picture(pairs / side / "2.png").pixels * 255) for side in ("low", "high"))
    assert row.scores[2].values["psnr"] == pytest.approx(psnr_by_hand(dark, bright), abs=1e-3)


@pytest.mark.parametrize("fit", [fit_gain, fit_gamma])
@pytest.mark.parametrize("brightest", [0.06, 0.5, 1.0])
def test_baselines_reach_a_well_exposed_mean_by_one_growing_curve(
    fit: Callable[[np.ndarray], np.ndarray], brightest: float
) -> None:
    pixels = np.random.default_rng(0).uniform(brightest / 2, brightest, (20, 30, 3)).astype(np.float32)
    curved = fit(pixels)
    assert curved.dtype == np.float32
    assert curved.min() >= 0.0
    assert curved.max() <= 1.0
    order = np.argsort(pixels, axis=None)
    assert (np.diff(curved.ravel()[order]) >= 0).all()
    if brightest == 1.0:
        assert np.abs(curved - pixels).max() < 0.02, "a bright picture is not darkened"
    elif fit is fit_gain:
        assert float(luma(curved).mean()) == pytest.approx(WELL_EXPOSED, abs=2e-3)


def test_gamma_reaches_its_mean_where_lamps_are_bright() -> None:
    pixels = np.random.default_rng(0).uniform(0.0, 0.1, (20, 30, 3)).astype(np.float32)
    pixels[:2] = 0.9
    assert float(luma(fit_gamma(pixels)).mean()) == pytest.approx(WELL_EXPOSED, abs=2e-3)


def test_a_baseline_sees_no_reference(pairs: Path) -> None:
    (with_reference,), (without,) = (
        list(run_quality(samples_of(find_dataset("folder", root)), [baseline_entrant("gamma")], [BRIGHTNESS]))
        for root in (pairs, pairs / "low")
    )
    assert [score.values for score in with_reference.scores] == [score.values for score in without.scores]


def test_an_unknown_baseline_is_an_error() -> None:
    with pytest.raises(UsageError, match="gamma, gain"):
        baseline_entrant("retinex")


def test_a_picture_that_fails_is_one_score_with_a_reason(make_model: MakeModel, pairs: Path) -> None:
    (pairs / "low" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    card = find_model(make_model())
    row, other = rows_of(pair_samples(pairs), model_entrant(card, device="cpu"), input_entrant())
    assert row.count == other.count == 3
    assert row.scores[1].reason
    assert math.isnan(row.scores[1].values["psnr"])
    assert row.means["psnr"].count == 3
    assert not math.isnan(row.means["psnr"].value)


def test_a_network_that_returns_no_numbers_fails_that_picture_alone(make_model: MakeModel, pairs: Path) -> None:
    samples = pair_samples(pairs)
    brightest = max(samples.items, key=lambda sample: sample.load().low.pixels.mean())
    means = sorted(sample.load().low.pixels.mean() for sample in samples.items)
    card = find_model(make_model(network={"fails_above": float(np.mean(means[-2:]))}))
    (row,) = rows_of(samples, model_entrant(card, device="cpu"))
    assert [score.name for score in row.scores if score.reason] == [brightest.name]


def test_a_damaged_model_costs_its_own_row_only(make_model: MakeModel, pairs: Path) -> None:
    folder = make_model("damaged")
    make_model("sound")
    (folder / "network.safetensors").write_bytes(b"\0" * 100)
    cards = [find_model(name) for name in ("damaged", "sound")]
    damaged, sound = rows_of(pair_samples(pairs), *(model_entrant(card, device="cpu") for card in cards))
    assert damaged.count == 0
    assert all("SHA-256" in (score.reason or "") or score.reason for score in damaged.scores)
    assert sound.count == 4


def test_a_metric_that_raises_costs_the_picture_and_is_named(pairs: Path) -> None:
    broken = Metric("odd", "Odd", "", "higher", 2, frozenset(), "tests.benchmark.test_quality:raising", "tests")
    (row,) = list(run_quality(pair_samples(pairs), [input_entrant()], [broken]))
    assert row.count == 0
    assert all("odd" in (score.reason or "") for score in row.scores)


def raising(output: object) -> float:
    raise ZeroDivisionError("no light at all")


def test_equal_pictures_have_an_infinite_psnr(tmp_path: Path) -> None:
    picture = dark_pixels(16, 16)
    for side in ("low", "high"):
        write_png(tmp_path / side / "a.png", picture)
    (row,) = rows_of(pair_samples(tmp_path), input_entrant())
    assert row.means["psnr"].value == math.inf


def test_once_told_to_stop_the_unfinished_row_is_left_out(make_model: MakeModel, pairs: Path) -> None:
    stop = threading.Event()
    entrants = [input_entrant(), model_entrant(find_model(make_model()), device="cpu")]
    counted = []

    def advance(name: str, score: object) -> None:
        counted.append(name)
        if len(counted) == 6:
            stop.set()

    rows = list(run_quality(pair_samples(pairs), entrants, [PSNR], stop=stop, advance=advance))
    assert [row.entrant.name for row in rows] == ["input"]
    assert len(counted) == 6


def test_results_are_handed_over_as_they_are_measured(make_model: MakeModel, pairs: Path) -> None:
    kept: dict[tuple[str, str], Picture] = {}
    card = find_model(make_model())
    list(
        run_quality(
            pair_samples(pairs),
            [model_entrant(card, device="cpu")],
            [BRIGHTNESS],
            save=lambda row, name, picture: kept.__setitem__((row, name), picture),
        )
    )
    assert set(kept) == {("tiny", str(index)) for index in range(4)}
    values = kept["tiny", "0"].pixels * 255
    assert np.abs(values - np.rint(values)).max() < 1e-4


def test_partners_whose_sizes_only_decoding_tells_are_refused(tmp_path: Path) -> None:
    low = write_png(tmp_path / "a.png", dark_pixels(16, 16))
    sample = Sample("a", low, lambda: _raise(PictureError(low, "is 16×16 pixels, its partner b.png 8×8")))
    samples = Samples("odd", "odd", "", (sample,), True)
    (row,) = list(run_quality(samples, [input_entrant()], [PSNR]))
    assert row.scores[0].reason == "is 16×16 pixels, its partner b.png 8×8"


def _raise(error: LumenError) -> Scene:
    raise error
