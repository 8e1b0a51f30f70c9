"""Against OpenCV 4.14's module quality: features, and scores by a model of its machine learning module."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lumen_cli.errors import UsageError
from lumen_cli.metrics import METRICS, measure
from lumen_cli.metrics import niqe as brisque
from tests.metrics.pictures import scene

FILES = Path(__file__).parent / "brisque"
FIGURES = json.loads((FILES / "figures.json").read_text())
PICTURES = ((1, 64, 80), (3, 97, 71), (6, 120, 60))


def picture(seed: int, height: int, width: int) -> Tensor:
    """What the figures were made of: waves, a chequered pattern and noise."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    base = 110 + 60 * np.sin(x / 9 + seed) * np.cos(y / 13) + 30 * ((x // 17 + y // 11) % 2)
    noise = generator.normal(0, 4 + 4 * seed, (height, width, 3))
    values = np.clip(base[..., None] * np.array([1, 0.9, 0.8]) + noise, 0, 255).round()
    return torch.from_numpy(values).permute(2, 0, 1).float() / 255


@pytest.fixture
def model_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUMEN_METRIC_WEIGHTS", str(FILES))
    brisque._model.cache_clear()


@pytest.mark.parametrize("index", range(3))
def test_features_are_opencvs(index: int) -> None:
    assert brisque.features(picture(*PICTURES[index])) == pytest.approx(FIGURES["features"][index], abs=1e-5)


@pytest.mark.parametrize("index", range(3))
def test_scores_are_opencvs(index: int, model_at_hand: None) -> None:
    assert METRICS["brisque"].unavailable() is None
    (score,) = measure(METRICS["brisque"], picture(*PICTURES[index])[None])
    assert score == pytest.approx(FIGURES["scores"][index], abs=1e-3)


@pytest.mark.parametrize("flat", [torch.full((3, 40, 40), 0.4), scene(15, 40)])
def test_what_has_no_structure_or_is_too_small_has_no_score(flat: Tensor, model_at_hand: None) -> None:
    assert math.isnan(measure(METRICS["brisque"], flat[None])[0])


def test_files_that_are_no_model_are_one_clear_line(tmp_path: Path) -> None:
    for content in ("", "%YAML:1.0\n---\nopencv_ml_svm:\n   format: 3\n", "no yaml"):
        (tmp_path / "m.yml").write_text(content)
        with pytest.raises(UsageError, match=r"m\.yml and .* are not OpenCV's model of BRISQUE") as caught:
            brisque.read_model(tmp_path / "m.yml", FILES / "brisque_range_live.yml")
        assert "\n" not in str(caught.value)
