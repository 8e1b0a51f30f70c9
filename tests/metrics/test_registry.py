import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lumen_cli.errors import UsageError
from lumen_cli.metrics import DEFAULT_METRICS, METRICS, all_metrics, find_metrics, measure, psnr, ssim
from tests.metrics.pictures import noisy, scene

HERE = [name for name, metric in METRICS.items() if not metric.check]  # needs nothing that may be missing


def batch(seed: int = 0) -> torch.Tensor:
    return torch.stack([scene(seed=seed), scene(seed=seed + 1)])


def test_every_metric_says_what_a_table_needs() -> None:
    for name, metric in METRICS.items():
        assert metric.name == name
        assert metric.title
        assert metric.library
        assert metric.better in ("higher", "lower", "")
        assert metric.bounds[0] < metric.bounds[1]
        assert metric.needs <= {"reference", "input"}
    assert len({metric.title for metric in METRICS.values()}) == len(METRICS)
    assert set(DEFAULT_METRICS) <= set(HERE)


@pytest.mark.parametrize("name", HERE)
def test_one_value_a_picture_within_the_bounds_and_alone_as_in_a_batch(name: str) -> None:
    metric = METRICS[name]
    output = torch.stack([noisy(picture, 10) for picture in torch.stack([scene(200, 200), scene(200, 200, 1)])])
    reference = torch.stack([scene(200, 200), scene(200, 200, 1)])
    values = measure(metric, output, reference, reference * 0.3)
    low, high = metric.bounds
    assert len(values) == 2
    assert all(low <= value <= high for value in values)
    assert values[0] != values[1]
    assert measure(metric, output[1:], reference[1:], reference[1:] * 0.3) == [values[1]]


@pytest.mark.parametrize("name", HERE)
def test_values_that_are_not_finite_have_no_figure(name: str) -> None:
    broken = batch()
    broken[1, 0, 3, 3] = math.nan
    values = measure(METRICS[name], broken, batch(3), batch(3))
    assert math.isnan(values[1])
    assert name == "niqe" or not math.isnan(values[0])


@pytest.mark.parametrize("name", HERE)
def test_a_single_pixel_breaks_nothing(name: str) -> None:
    pixel = torch.full((1, 3, 1, 1), 0.5)
    assert len(measure(METRICS[name], pixel, pixel, pixel)) == 1


def test_what_a_metric_compares_with_must_be_there() -> None:
    with pytest.raises(UsageError, match="psnr needs a reference picture"):
        measure(METRICS["psnr"], batch(), input=batch())
    with pytest.raises(UsageError, match="loe needs an input picture"):
        measure(METRICS["loe"], batch(), batch())
    assert METRICS["loe"].lacks(reference=True, input=False) == ["input"]
    assert METRICS["niqe"].lacks(reference=False, input=False) == []


def test_other_sizes_are_refused_with_both() -> None:
    with pytest.raises(UsageError, match=r"psnr: the output is 84×60, the reference 60×84 pixels"):
        measure(METRICS["psnr"], batch(), batch().transpose(2, 3))
    assert (
        len(measure(METRICS["brightness"], batch(), batch()[:, :, :9])) == 2
    )  # what it does not need, it does not see
    with pytest.raises(ValueError, match="expected B×3×H×W, found 3×60×84"):
        measure(METRICS["psnr"], scene(), scene())


def test_names_are_found_in_any_case_each_once_in_the_order_asked_for() -> None:
    assert [metric.name for metric in find_metrics(["SSIM", "psnr", " psnr-y ", "ssim"])] == ["ssim", "psnr", "psnr_y"]


def test_an_unknown_name_gets_the_nearest_one_and_the_list() -> None:
    with pytest.raises(
        UsageError, match=r"unknown metric 'lpips_alexnet'\. Did you mean lpips_alex\? Known metrics: psnr, .*loe"
    ):
        find_metrics(["psnr", "lpips_alexnet"])
    with pytest.raises(UsageError, match=r"unknown metric 'zzz'\. Known"):
        find_metrics(["zzz"])


def test_the_two_short_forms_are_means_over_the_batch() -> None:
    output, reference = batch(), batch(5)
    assert psnr(output, reference) == pytest.approx(sum(measure(METRICS["psnr"], output, reference)) / 2)
    assert ssim(output, reference) == pytest.approx(sum(measure(METRICS["ssim"], output, reference)) / 2)


def test_the_callers_settings_come_back() -> None:
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = True
    try:
        with pytest.raises(AttributeError):
            measure(METRICS["psnr"], batch(), "no tensor")  # type: ignore[arg-type]
        measure(METRICS["psnr"], batch(), batch(1))
        assert torch.backends.cudnn.allow_tf32
    finally:
        torch.backends.cudnn.allow_tf32 = before


@pytest.fixture
def plugged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package that brings one good metric, one of a wrong kind, one that cannot be imported, and psnr."""
    (tmp_path / "contrast_metric.py").write_text(
        "from lumen_cli.metrics import Metric\n"
        "def contrast(output):\n    return float(output.std())\n"
        "CONTRAST = Metric(\n"
        "    'contrast', 'Contrast', '', 'higher', 3, frozenset(), 'contrast_metric:contrast', 'me', (0, 1))\n"
        "NUMBER = 3\n"
    )
    info = tmp_path / "contrast_metric-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: contrast-metric\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[lumen.metrics]\ncontrast = contrast_metric:CONTRAST\nnumber = contrast_metric:NUMBER\n"
        "gone = contrast_metric_gone:IT\npsnr = contrast_metric:CONTRAST\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


def test_an_installed_package_adds_metrics_and_takes_none_away(plugged: None) -> None:
    found = all_metrics()
    assert list(found)[: len(METRICS)] == list(METRICS)
    assert found["psnr"] == METRICS["psnr"]
    (contrast,) = find_metrics(["contrast"])
    assert contrast.unavailable() is None
    assert measure(contrast, batch()) == pytest.approx([float(picture.std()) for picture in batch()])


def test_a_package_with_something_wrong_is_one_line_when_its_metric_is_used(plugged: None) -> None:
    for name, reason in (("gone", "contrast_metric_gone"), ("number", "is not a Metric of that name")):
        (metric,) = find_metrics([name])
        assert reason in str(metric.unavailable())
        assert "\n" not in str(metric.unavailable())
        with pytest.raises(UsageError, match=f"{name} cannot be computed"):
            measure(metric, batch())


def test_naming_metrics_imports_nothing_heavy() -> None:
    check = (
        "import sys; from lumen_cli.metrics import find_metrics, METRICS\n"
        "for metric in find_metrics(METRICS): metric.unavailable()\n"
        "print({'torch', 'numpy', 'cv2', 'torchmetrics'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
