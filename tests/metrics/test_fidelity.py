import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from lumen_cli.metrics import METRICS, fidelity, measure
from lumen_cli.metrics.fidelity import with_mean_of
from tests.metrics.pictures import as_array, noisy, scene

WANG = {"data_range": 1.0, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
GREY = np.array([0.299, 0.587, 0.114])


def one(name: str, output: Tensor, reference: Tensor) -> float:
    (value,) = measure(METRICS[name], output[None], reference[None])
    return value


def pairs() -> list[tuple[Tensor, Tensor]]:
    reference = scene()
    dark = (reference * 255 * 0.07).floor() / 255
    return [
        (noisy(reference, 12), reference),
        (((reference * 153).round() / 255), reference),
        (dark, reference),
        (scene(seed=3), reference),
    ]


@pytest.mark.parametrize(("output", "reference"), pairs())
def test_psnr_and_ssim_of_rgb_are_scikit_images(output: Tensor, reference: Tensor) -> None:
    a, b = as_array(output), as_array(reference)
    assert one("psnr", output, reference) == pytest.approx(peak_signal_noise_ratio(b, a, data_range=1.0), abs=1e-4)
    assert one("ssim", output, reference) == pytest.approx(
        structural_similarity(b, a, channel_axis=2, **WANG), abs=5e-5
    )


@pytest.mark.parametrize(("output", "reference"), pairs())
def test_luma_is_matlabs_studio_range(output: Tensor, reference: Tensor) -> None:
    a, b = (as_array(picture) @ np.array([65.481, 128.553, 24.966]) / 255 + 16 / 255 for picture in (output, reference))
    assert one("psnr_y", output, reference) == pytest.approx(peak_signal_noise_ratio(b, a, data_range=1.0), abs=1e-4)
    assert one("ssim_y", output, reference) == pytest.approx(structural_similarity(b, a, **WANG), abs=5e-5)


@pytest.mark.parametrize(("output", "reference"), pairs())
def test_gt_mean_scales_by_the_greys_means_and_clips(output: Tensor, reference: Tensor) -> None:
    a, b = as_array(output), as_array(reference)
    a = np.clip(a * ((b @ GREY).mean() / (a @ GREY).mean()), 0, 1)
    assert one("psnr_gt_mean", output, reference) == pytest.approx(-10 * np.log10(((a - b) ** 2).mean()), abs=1e-3)
    assert one("ssim_gt_mean", output, reference) == pytest.approx(
        structural_similarity(b, a, channel_axis=2, **WANG), abs=1e-4
    )


def test_gt_mean_forgives_a_wrong_exposure_and_plain_psnr_does_not() -> None:
    reference = scene()
    dark = reference * 0.4
    assert one("psnr", dark, reference) < 15
    assert one("psnr_gt_mean", dark, reference) > 60


def test_gt_mean_of_a_black_output_is_that_of_black() -> None:
    black = torch.zeros(3, 20, 20)
    assert torch.equal(with_mean_of(black, scene(20, 20)), black)
    assert one("psnr_gt_mean", black, scene(20, 20)) == one("psnr", black, scene(20, 20))


@pytest.mark.parametrize("name", ["psnr", "psnr_y", "psnr_gt_mean"])
def test_psnr_of_equal_pictures_is_infinite(name: str) -> None:
    assert one(name, scene(), scene()) == math.inf


@pytest.mark.parametrize("name", ["ssim", "ssim_y", "ssim_gt_mean"])
def test_ssim_of_equal_pictures_is_one_and_of_negatives_below_nought(name: str) -> None:
    assert one(name, scene(), scene()) == pytest.approx(1.0, abs=1e-6)
    assert one(name, 1 - scene(), scene()) < 0


@pytest.mark.parametrize("name", ["psnr", "ssim", "psnr_y", "ssim_y", "psnr_gt_mean", "ssim_gt_mean"])
def test_more_noise_is_worse(name: str) -> None:
    values = [one(name, noisy(scene(), sigma), scene()) for sigma in (2, 8, 32)]
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("size", [(1, 1), (10, 400), (400, 5)])
def test_ssim_of_a_picture_below_its_window_is_nan(size: tuple[int, int]) -> None:
    assert math.isnan(one("ssim", scene(*size), scene(*size)))
    assert not math.isnan(one("psnr", noisy(scene(*size), 30), scene(*size)))


@pytest.mark.parametrize("strip", [1, 84 * 7, 84 * 50])
def test_strips_change_nothing(strip: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = one("ssim", noisy(scene(), 9), scene())
    monkeypatch.setattr(fidelity, "_STRIP_PIXELS", strip)
    assert one("ssim", noisy(scene(), 9), scene()) == pytest.approx(whole, abs=1e-6)


def test_ssim_of_the_smallest_picture_is_one_window() -> None:
    a, b = scene(11, 11, seed=1), scene(11, 11, seed=2)
    expected = structural_similarity(as_array(b), as_array(a), channel_axis=2, **WANG)
    assert one("ssim", a, b) == pytest.approx(expected, abs=5e-5)
