"""NIQE against a second implementation, written from the paper with NumPy and SciPy, one patch after the other."""

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.linalg
import scipy.ndimage
import torch
from safetensors.numpy import load_file
from scipy.special import gamma
from torch import Tensor

import lumen_cli.metrics
from lumen_cli.errors import UsageError
from lumen_cli.metrics import METRICS, measure
from lumen_cli.metrics.niqe import fit_model, halved, patch_features
from tests.metrics.pictures import noisy, scene

SHAPES = np.arange(200, 10001) / 1000
RATIOS = gamma(2 / SHAPES) ** 2 / (gamma(1 / SHAPES) * gamma(3 / SHAPES))


def fit(values: np.ndarray) -> tuple[float, float, float]:
    left = np.sqrt(np.mean(values[values < 0] ** 2))
    right = np.sqrt(np.mean(values[values > 0] ** 2))
    g = left / right
    r = np.mean(np.abs(values)) ** 2 / np.mean(values**2) * (g**3 + 1) * (g + 1) / (g**2 + 1) ** 2
    shape = SHAPES[np.argmin((RATIOS - r) ** 2)]
    scale = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
    return shape, left * scale, right * scale


def naive_patch(patch: np.ndarray) -> list[float]:
    shape, left, right = fit(patch)
    found = [shape, (left + right) / 2]
    for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
        shape, left, right = fit(patch * np.roll(patch, shift, axis=(0, 1)))
        found += [shape, (right - left) * gamma(2 / shape) / gamma(1 / shape), left, right]
    return found


def naive_half(picture: np.ndarray, axis: int) -> np.ndarray:
    """MATLAB's imresize by a half: the cubic kernel, twice as wide, over mirrored borders."""

    def cubic(x: float) -> float:
        x = abs(x)
        if x <= 1:
            return 1.5 * x**3 - 2.5 * x**2 + 1
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x <= 2 else 0.0

    padded = np.pad(np.moveaxis(picture, axis, 0), ((4, 4), (0, 0)), mode="symmetric")
    rows = []
    for index in range(picture.shape[axis] // 2):
        middle = 2 * index + 0.5
        taps = range(2 * index - 4, 2 * index + 6)
        weights = [cubic((tap - middle) / 2) for tap in taps]
        rows.append(
            sum(w * padded[min(tap + 4, len(padded) - 1)] for w, tap in zip(weights, taps, strict=True)) / sum(weights)
        )
    return np.moveaxis(np.array(rows), 0, axis)


def naive_features(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """H×W×3 of 0 to 255 → features and sharpness, patch by patch."""
    grey = np.round(picture @ np.array([0.298936, 0.587043, 0.114021]))
    down, across = grey.shape[0] // 96, grey.shape[1] // 96
    grey = grey[: down * 96, : across * 96]
    place = np.arange(-3, 4)
    window = np.exp(-(place[:, None] ** 2 + place[None] ** 2) / (2 * (7 / 6) ** 2))
    window /= window.sum()
    scales, sharpness = [], []
    for size, level in ((96, grey), (48, naive_half(naive_half(grey, 0), 1))):
        mean = scipy.ndimage.correlate(level, window, mode="nearest")
        sigma = np.sqrt(np.abs(scipy.ndimage.correlate(level**2, window, mode="nearest") - mean**2))
        structure = (level - mean) / (sigma + 1)
        corners = [(y * size, x * size) for y in range(down) for x in range(across)]
        scales.append([naive_patch(structure[y : y + size, x : x + size]) for y, x in corners])
        if size == 96:
            sharpness = [sigma[y : y + size, x : x + size].mean() for y, x in corners]
    return np.concatenate(scales, axis=1), np.array(sharpness)


def naive_distance(features: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> float:
    apart = features.mean(axis=0) - mean
    both = (covariance + np.cov(features, rowvar=False)) / 2
    return math.sqrt(apart @ scipy.linalg.pinv(both) @ apart)


def one(picture: Tensor, name: str = "niqe") -> float:
    (value,) = measure(METRICS[name], picture[None])
    return value


@pytest.fixture(scope="module")
def large() -> Tensor:
    return scene(230, 340, seed=4)


@pytest.mark.parametrize("sigma", [0, 15])
def test_features_and_distance_are_those_of_the_second_implementation(sigma: float, large: Tensor) -> None:
    picture = noisy(large, sigma)
    features, sharpness = naive_features(np.round(picture.permute(1, 2, 0).double().numpy() * 255))
    found, found_sharpness = patch_features(picture)
    assert found.shape == (6, 36)
    assert found.numpy() == pytest.approx(features, abs=1.1e-3)  # shapes are whole thousandths
    assert found_sharpness.numpy() == pytest.approx(sharpness, abs=1e-6)
    model = load_file(Path(lumen_cli.metrics.__file__).with_name("niqe.safetensors"))
    assert one(picture) == pytest.approx(naive_distance(features, model["mean"], model["covariance"]), abs=1e-3)


def test_a_model_is_fitted_to_the_sharp_patches(large: Tensor) -> None:
    soft = large.clone()
    soft[..., :96, :192] = 0.5 + 0.3 * (soft[..., :96, :192] - 0.5)  # two patches of little contrast
    expected = []
    for picture in (soft, scene(100, 300, seed=9), scene(90, 90)):
        if min(picture.shape[1:]) >= 96:
            features, sharpness = naive_features(np.round(picture.permute(1, 2, 0).double().numpy() * 255))
            expected.append(features[sharpness > 0.75 * sharpness.max()])
    assert len(expected[0]) == 4
    mean, covariance = fit_model([soft, scene(100, 300, seed=9), scene(90, 90)])
    assert mean.numpy() == pytest.approx(np.concatenate(expected).mean(axis=0), abs=1e-3)
    assert covariance.numpy() == pytest.approx(np.cov(np.concatenate(expected), rowvar=False), abs=1e-3)


def test_the_second_scale_is_pillows_within_the_borders(large: Tensor) -> None:
    from PIL import Image

    grey = large[0, :200, :300].numpy() * 255
    expected = np.asarray(Image.fromarray(grey).resize((150, 100), Image.Resampling.BICUBIC))
    found = halved(torch.from_numpy(grey).double()).numpy()
    assert found[4:-4, 4:-4] == pytest.approx(expected[4:-4, 4:-4], abs=1e-3)


def test_harm_to_a_photograph_raises_it() -> None:
    from skimage.data import astronaut

    photo = torch.from_numpy(astronaut()[:384]).permute(2, 0, 1).float() / 255
    blurred = torch.from_numpy(cv2.GaussianBlur(astronaut()[:384], (0, 0), 2)).permute(2, 0, 1).float() / 255
    untouched = one(photo)
    assert 2 < untouched < 4.5
    assert one(blurred) > untouched + 1
    assert one(noisy(photo, 10)) > untouched + 1
    assert one(noisy(photo, 30)) > one(noisy(photo, 10))


def test_the_model_is_a_distribution() -> None:
    model = load_file(Path(lumen_cli.metrics.__file__).with_name("niqe.safetensors"))
    assert model["mean"].shape == (36,)
    assert model["covariance"] == pytest.approx(model["covariance"].T)
    assert np.linalg.eigvalsh(model["covariance"]).min() > 0


@pytest.mark.parametrize(
    "picture", [scene(95, 400), scene(97, 190), torch.full((3, 192, 192), 0.3), torch.zeros(3, 1, 1)]
)
def test_too_small_or_flat_has_none(picture: Tensor) -> None:
    assert math.isnan(one(picture))


def test_the_authors_model_is_used_where_it_is_put(
    tmp_path: Path, large: Tensor, monkeypatch: pytest.MonkeyPatch, models_root: Path
) -> None:
    monkeypatch.setenv("LUMEN_METRIC_WEIGHTS", str(tmp_path))
    file = tmp_path / "niqe_pris_params.npz"
    reason = METRICS["niqe_original"].unavailable()
    assert reason is not None
    assert f"put niqe_pris_params.npz into {tmp_path}" in reason
    with pytest.raises(UsageError, match=r"put niqe_pris_params\.npz into"):
        one(large, "niqe_original")
    mean, covariance = np.linspace(0, 1, 36)[None], np.diag(np.linspace(0.5, 2, 36))
    np.savez(file, mu_pris_param=mean, cov_pris_param=covariance)
    assert METRICS["niqe_original"].unavailable() is None
    expected = naive_distance(patch_features(large)[0].numpy(), mean[0], covariance)
    assert one(large, "niqe_original") == pytest.approx(expected, abs=1e-6)
    file.write_bytes(b"no archive")
    with pytest.raises(UsageError, match="is not the authors' model"):
        one(large, "niqe_original")
