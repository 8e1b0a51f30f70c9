import numpy as np
import pytest
import torch
from skimage.color import deltaE_ciede2000, rgb2lab
from torch import Tensor

from lumen_cli.metrics import METRICS, measure
from lumen_cli.metrics import fidelity as color
from lumen_cli.metrics.fidelity import ciede2000
from tests.metrics.pictures import as_array, noisy, scene

SHARMA = [  # CIE L*a*b* twice and ΔE00: rows of table 1 in Sharma, Wu and Dalal (2005)
    (50.0, 2.6772, -79.7751, 50.0, 0.0, -82.7485, 2.0425),
    (50.0, 0.0, 0.0, 50.0, -1.0, 2.0, 2.3669),
    (50.0, 2.49, -0.001, 50.0, -2.49, 0.0011, 7.2195),
    (50.0, 2.5, 0.0, 73.0, 25.0, -18.0, 27.1492),
    (60.2574, -34.0099, 36.2677, 60.4626, -34.1751, 39.4387, 1.2644),
    (22.7233, 20.0904, -46.694, 23.0331, 14.973, -42.5619, 2.0373),
    (90.8027, -2.0831, 1.441, 91.1528, -1.6435, 0.0447, 1.4441),
    (2.0776, 0.0795, -1.135, 0.9033, -0.0636, -0.5514, 0.9082),
]


def one(output: Tensor, reference: Tensor) -> float:
    (value,) = measure(METRICS["delta_e"], output[None], reference[None])
    return value


@pytest.mark.parametrize("row", SHARMA)
def test_the_differences_that_the_paper_prints(row: tuple[float, ...]) -> None:
    a, b = (torch.tensor(part, dtype=torch.float64)[:, None, None] for part in (row[:3], row[3:6]))
    assert float(ciede2000(a, b)) == pytest.approx(row[6], abs=1e-4)


@pytest.mark.parametrize(
    ("output", "reference"),
    [
        (noisy(scene(), 10), scene()),
        (scene() * 0.1, scene()),
        (scene(seed=5).flip(0), scene()),
        (torch.rand(3, 50, 50, generator=torch.Generator().manual_seed(0)), scene(50, 50)),
    ],
)
def test_the_mean_is_scikit_images(output: Tensor, reference: Tensor) -> None:
    expected = deltaE_ciede2000(rgb2lab(as_array(reference)), rgb2lab(as_array(output))).mean()
    assert one(output, reference) == pytest.approx(expected, abs=1e-3)


def test_equal_is_nought_and_black_against_white_a_hundred() -> None:
    assert one(scene(), scene()) == 0.0
    assert one(torch.zeros(3, 4, 5), torch.ones(3, 4, 5)) == pytest.approx(100.0, abs=0.01)


def test_strips_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = one(noisy(scene(), 10), scene())
    monkeypatch.setattr(color, "_STRIP_PIXELS", 84 * 7)
    assert one(noisy(scene(), 10), scene()) == pytest.approx(whole, rel=1e-5)
    assert np.isfinite(whole)
