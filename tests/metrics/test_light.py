import math

import numpy as np
import pytest
import torch
from torch import Tensor

from lumen_cli.metrics import METRICS, measure
from lumen_cli.metrics import fidelity as light
from tests.metrics.pictures import noisy, scene


def one(name: str, output: Tensor, dark: Tensor) -> float:
    (value,) = measure(METRICS[name], output[None], input=dark[None])
    return value


def naive(output: np.ndarray, dark: np.ndarray) -> float:
    """Wang et al. (2013), word by word, of H×W lightness."""
    after, before = output.ravel().tolist(), dark.ravel().tolist()
    errors = 0
    for a, b in zip(after, before, strict=True):
        for other_a, other_b in zip(after, before, strict=True):
            errors += (a >= other_a) != (b >= other_b)
    return errors / len(after)


def test_loe_counts_the_pairs_whose_order_changed() -> None:
    dark = (scene(18, 25) * 255 * 0.1).floor() / 255  # few levels: many ties
    output = noisy(scene(18, 25), 20)
    expected = naive(output.amax(0).numpy(), dark.amax(0).numpy())
    assert expected > 50
    assert one("loe", output, dark) == pytest.approx(expected, abs=1e-9)


def test_loe_by_hand() -> None:
    dark = torch.tensor([[0.1, 0.2, 0.3]]).expand(3, 1, 3)
    swapped = torch.tensor([[0.5, 0.9, 0.8]]).expand(3, 1, 3)
    assert one("loe", swapped, dark) == pytest.approx(2 / 3)


def test_loe_samples_fifty_pixels_on_the_shorter_side(monkeypatch: pytest.MonkeyPatch) -> None:
    output, dark = scene(120, 183, seed=1), scene(120, 183, seed=2)
    rows = [math.floor((i + 0.5) * 120 / 50) for i in range(50)]
    columns = [math.floor((i + 0.5) * 183 / 76) for i in range(76)]  # 183 · 50 / 120 = 76.25
    picked = [picture.amax(0).numpy()[np.ix_(rows, columns)] for picture in (output, dark)]
    after, before = (values.ravel()[:, None] >= values.ravel()[None] for values in picked)
    expected = (after ^ before).sum() / after.shape[0]
    assert one("loe", output, dark) == pytest.approx(expected, abs=1e-9)
    monkeypatch.setattr(light, "_TABLE_CELLS", 0)  # as for pictures of many levels
    monkeypatch.setattr(light, "_PAIRS_AT_ONCE", 500_000)
    assert one("loe", output, dark) == pytest.approx(expected, abs=1e-9)


def test_loe_100_samples_a_grid_from_edge_to_edge() -> None:
    output, dark = scene(199, 298, seed=1), scene(199, 298, seed=2)
    picked = [(picture.amax(0).numpy()[::2, ::3] * 255).round().astype(np.uint8) for picture in (output, dark)]
    assert picked[0].shape == (100, 100)
    after, before = (values.ravel()[:, None] >= values.ravel()[None] for values in picked)
    assert one("loe_100", output, dark) == pytest.approx((after ^ before).sum() / 10_000, abs=1e-9)


@pytest.mark.parametrize("name", ["loe", "loe_100"])
def test_an_order_that_is_kept_is_no_error_and_a_worse_one_is_more(name: str) -> None:
    dark = scene() * 0.2
    assert one(name, dark, dark) == 0.0
    assert one(name, dark.sqrt(), dark) == 0.0
    values = [one(name, noisy(scene(), sigma), scene()) for sigma in (5, 40)]
    assert 0 < values[0] < values[1] < one(name, 1 - scene(), scene())


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (7, 3)])
@pytest.mark.parametrize("name", ["loe", "loe_100"])
def test_any_size_has_a_loe(name: str, size: tuple[int, int]) -> None:
    assert math.isfinite(one(name, scene(*size), scene(*size) * 0.5))


def test_brightness_is_the_mean() -> None:
    halves = torch.stack([torch.zeros(3, 4, 4), torch.full((3, 4, 4), 0.5)])
    halves[0, 0] = 1.0
    assert measure(METRICS["brightness"], halves) == pytest.approx([1 / 3, 0.5])
