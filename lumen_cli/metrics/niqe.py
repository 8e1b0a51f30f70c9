"""NIQE: distance of a picture's statistics from those of good photographs (Mittal, Soundararajan and Bovik, 2013).

The method is the paper's, details as in the authors' MATLAB code: 8-bit grey (BT.601, rounded), a Gaussian window of
7×7 with σ 7/6 and repeated borders, patches of 96×96 without overlap, a second scale by bicubic halving, all patches of
the picture. No library that lumen could depend on has it with the authors' model of good photographs: torchmetrics
lacks it, pyiqa's licence forbids commercial use, scikit-video (1.1.11, of 2018) no longer runs and departs from the
paper. So there are two metrics:

niqe: with lumen's own model, `niqe.safetensors` beside this file: mean and covariance of the 1499 sharp patches (mean σ
above 0.75 of the sharpest of their photograph's, as in the paper) of 271 photographs: 24 of Kodak's suite
(unrestricted), 41 of CLIC 2025 (Unsplash licence), 206 of CID22 (CC BY-SA 4.0), all as WebP of quality 93. On nine
photographs it has not seen, means are 3.0 (untouched), 4.1 (JPEG 20), 4.4 (a tenth of the light), 5.4 and 6.2 (Gaussian
blur, σ 1.5 and 3), 6.7 and 9.8 (noise, σ 10 and 25). A model of the 65 photographs that are not from CID22 ranks those
alike (Spearman 0.98). Its agreement with the authors' model has not been measured. Its figures rank the pictures of one
table; they cannot be compared with published ones.

niqe_original: with the authors' model, which users download: the file niqe_pris_params.npz of BasicSR (Apache-2.0). Its
figures can be compared with published ones that were computed from rounded grey at full size.

BRISQUE: quality as people rate pictures with the same statistics (Mittal, Moorthy and Bovik, 2012).

The features are those of OpenCV's contributed module `quality`, so that its model of the LIVE database fits: the
files brisque_model_live.yml and brisque_range_live.yml (Apache-2.0), which users download. No wheel compatible with
opencv-python contains the module itself; the PyPI package brisque (0.2.0) does not run with NumPy 2.4, and piq needs
torchvision.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lumen_cli.errors import UsageError
from lumen_cli.metrics import weight_files

CREST = 3
"""Pixels around a place that its normalisation sees: a window of 7×7."""

_SIGMA = 7.0 / 6.0


def rounded_grey(picture: Tensor) -> Tensor:
    """3×H×W in [0, 1] → H×W whole numbers 0 to 255, as MATLAB's rgb2gray for 8 bits (BT.601)."""
    red, green, blue = (picture * 255.0).round()
    return (0.298936 * red + 0.587043 * green + 0.114021 * blue).round()


def normalised(luminance: Tensor) -> tuple[Tensor, Tensor]:
    """(H+6)×(W+6) luminance, 0 to 255 → H×W (I - μ)/(σ + 1) and σ (Mittal et al., 2013, eq. 1 to 3)."""
    weights = torch.exp(-(torch.arange(-CREST, CREST + 1, dtype=torch.float64) ** 2) / (2 * _SIGMA**2))
    weights = (weights / weights.sum()).to(luminance)
    both = torch.stack([luminance, luminance * luminance])[:, None]
    mean, square = F.conv2d(F.conv2d(both, weights[None, None, :, None]), weights[None, None, None])[:, 0]
    deviation = (square - mean * mean).abs().sqrt()
    return (luminance[CREST:-CREST, CREST:-CREST] - mean) / (deviation + 1.0), deviation


def halved(luminance: Tensor) -> Tensor:
    """H×W with even sides → half the size: bicubic with anti-aliasing, mirrored borders, as MATLAB's imresize."""
    for _ in range(2):
        luminance = _half_height(luminance).T
    return luminance


def _half_height(luminance: Tensor) -> Tensor:
    distance = (torch.arange(8, dtype=torch.float64) - 3.5).abs() / 2
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    weights = torch.where(distance <= 1, near, far)
    weights = (weights / weights.sum()).to(luminance)
    height = luminance.shape[0]
    half = torch.zeros_like(luminance[::2])
    places = 2 * torch.arange(len(half), device=luminance.device)
    for tap in range(8):
        row = torch.remainder(places + tap - 3, 2 * height)
        half += weights[tap] * luminance[torch.minimum(row, 2 * height - 1 - row)]
    return half


def scene_features(patches: Tensor) -> Tensor:
    """N×h×w normalised luminance → N×18: shape and scale; then shape, mean and two scales of four neighbours' products.

    Mittal et al. (2013), eq. 4 to 11. Neighbours wrap around within a patch, as in the authors' code. NaN where a patch
    is flat.
    """
    shape, left, right = asymmetric_gaussian(patches)
    features = [shape, (left + right) / 2]
    for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
        shape, left, right = asymmetric_gaussian(patches * patches.roll(shift, dims=(1, 2)))
        mean = (right - left) * torch.exp(torch.lgamma(2 / shape) - torch.lgamma(1 / shape))
        features += [shape, mean, left, right]
    return torch.stack(features, dim=1)


def asymmetric_gaussian(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """N×h×w → shape α and the scales β left and right of N asymmetric generalised Gaussians, by matching moments.

    Lasmar et al. (2009); α from 0.2 to 10 in steps of 0.001, as in the authors' code.
    """
    values = values.flatten(1)
    square = values * values
    left = ((square * (values < 0)).sum(1) / (values < 0).sum(1)).sqrt()
    right = ((square * (values > 0)).sum(1) / (values > 0).sum(1)).sqrt()
    balance = left / right
    ratio = values.abs().mean(1) ** 2 / square.mean(1)
    ratio = ratio * (balance**3 + 1) * (balance + 1) / (balance**2 + 1) ** 2
    shape = shape_of_ratio(ratio)
    to_scale = torch.exp((torch.lgamma(1 / shape) - torch.lgamma(3 / shape)) / 2)
    return shape, left * to_scale, right * to_scale


def shape_of_ratio(ratio: Tensor) -> Tensor:
    """N times Γ(2/α)² / (Γ(1/α) Γ(3/α)) → the nearest α, from 0.2 to 10 in steps of 0.001; NaN for NaN."""
    shapes, ratios = (part.to(ratio) for part in _table())
    above = torch.searchsorted(ratios, ratio.contiguous()).clamp(1, len(ratios) - 1)
    nearest = torch.where((ratio - ratios[above - 1]) <= (ratios[above] - ratio), above - 1, above)
    return torch.where(ratio.isfinite(), shapes[nearest], torch.nan)


@lru_cache(maxsize=1)
def _table() -> tuple[Tensor, Tensor]:
    """Shapes α and Γ(2/α)² / (Γ(1/α) Γ(3/α)), which grows with α."""
    shapes = torch.arange(200, 10001, dtype=torch.float64) / 1000
    return shapes, torch.exp(2 * torch.lgamma(2 / shapes) - torch.lgamma(1 / shapes) - torch.lgamma(3 / shapes))


_PATCH = 96
_SHARP = 0.75
_OWN_MODEL = Path(__file__).with_name("niqe.safetensors")


def niqe(output: Tensor) -> float:
    """Distance of a 3×H×W picture in [0, 1] from lumen's model of good photographs; lower is more natural.

    From 192×96 pixels up; NaN below, and where fewer than two patches have structure. Computed in float64, one row of
    patches at a time: about 27 bytes per pixel beside the picture.
    """
    return distance(patch_features(output)[0], *_own_model())


def niqe_original(output: Tensor) -> float:
    """As `niqe`, from the authors' model."""
    return distance(patch_features(output)[0], *_original_model())


def patch_features(picture: Tensor) -> tuple[Tensor, Tensor]:
    """3×H×W in [0, 1] → N×36 features of the N whole patches, and N sharpnesses (mean σ at full size)."""
    picture = picture.cpu() if picture.device.type == "mps" else picture  # MPS has no float64
    rows, columns = (side // _PATCH for side in picture.shape[-2:])
    if rows * columns == 0:
        nothing = torch.zeros(0, dtype=torch.float64)
        return nothing.reshape(0, 36), nothing
    grey = rounded_grey(picture[:, : rows * _PATCH, : columns * _PATCH])
    full = list(_rows_of_patches(grey, _PATCH))
    half = list(_rows_of_patches(halved(grey.double()), _PATCH // 2))
    features = torch.cat([torch.cat([one[0], other[0]], dim=1) for one, other in zip(full, half, strict=True)])
    return features, torch.cat([part[1] for part in full])


def fit_model(pictures: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean (36) and covariance (36×36) of the sharp patches of good photographs, each 3×H×W in [0, 1].

    Sharp: a mean σ above 0.75 of that of its photograph's sharpest patch (Mittal et al., section II-C). Made
    `niqe.safetensors`.
    """
    sharp = []
    for picture in pictures:
        features, sharpness = patch_features(picture)
        if len(features):
            sharp.append(features[(sharpness > _SHARP * sharpness.max()) & features.isfinite().all(dim=1)].cpu())
    found = torch.cat(sharp)
    return found.mean(dim=0), found.T.cov()


def distance(features: Tensor, mean: Tensor, covariance: Tensor) -> float:
    """Between the Gaussians of N×36 features and of a model (Mittal et al., eq. 12)."""
    features = features[features.isfinite().all(dim=1)].cpu().double()
    if len(features) < 2:
        return math.nan
    apart = features.mean(dim=0) - mean
    inverse = torch.linalg.pinv((covariance + features.T.cov()) / 2)
    return math.sqrt(max(float(apart @ inverse @ apart), 0.0))


def _rows_of_patches(luminance: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Features N×18 and sharpness N of the patches, row by row."""
    height, width = luminance.shape
    columns = torch.arange(-CREST, width + CREST, device=luminance.device).clamp(0, width - 1)
    for top in range(0, height, size):
        rows = torch.arange(top - CREST, top + size + CREST, device=luminance.device).clamp(0, height - 1)
        structure, deviation = normalised(luminance[rows][:, columns].double())
        yield scene_features(_cut(structure, size)), _cut(deviation, size).mean(dim=(1, 2))


def _cut(row: Tensor, size: int) -> Tensor:
    return row.reshape(size, -1, size).transpose(0, 1)


@lru_cache(maxsize=1)
def _own_model() -> tuple[Tensor, Tensor]:
    from safetensors.torch import load_file

    model = load_file(_OWN_MODEL)
    return model["mean"], model["covariance"]


def _original_model() -> tuple[Tensor, Tensor]:
    (path,) = weight_files("niqe_original")
    try:
        with np.load(path, allow_pickle=False) as model:
            mean, covariance = (torch.from_numpy(model[f"{name}_pris_param"]).double() for name in ("mu", "cov"))
        return mean.reshape(36), covariance.reshape(36, 36)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{path} is not the authors' model of NIQE: {reason}") from None


_SMALLEST_SIDE = 16


@dataclass(frozen=True, eq=False)
class Model:
    """A support vector regression with a radial kernel.

    vectors: N×36; weights: N; offset, gamma: of the kernel's sum; low, high: 36 each, the features' range.
    """

    vectors: np.ndarray
    weights: np.ndarray
    offset: float
    gamma: float
    low: np.ndarray
    high: np.ndarray

    def score(self, features: np.ndarray) -> float:
        """36 features → 0 to 100."""
        scaled = -1.0 + 2.0 * (features - self.low) / (self.high - self.low)
        kernel = np.exp(-self.gamma * np.square(self.vectors - scaled).sum(axis=1))
        return float(np.clip(kernel @ self.weights - self.offset, 0.0, 100.0))


def brisque(output: Tensor) -> float:
    """Predicted distortion of a 3×H×W picture in [0, 1], 0 (best) to 100.

    NaN below 16 pixels a side and where a picture has no structure. On the CPU; about 40 bytes per
    pixel beside the picture.
    """
    values = features(output)
    return _model().score(values) if np.isfinite(values).all() else math.nan


def features(picture: Tensor) -> np.ndarray:
    """3×H×W in [0, 1] → 36 features, 18 at full and 18 at half the size (Mittal et al., 2012, table I)."""
    if min(picture.shape[-2:]) < _SMALLEST_SIDE:
        return np.full(36, np.nan)
    rgb = (picture * 255.0).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255.0
    half = cv2.resize(grey, (grey.shape[1] // 2, grey.shape[0] // 2), interpolation=cv2.INTER_CUBIC)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.array([*_scale_features(grey), *_scale_features(half)])


def _scale_features(grey: np.ndarray) -> list[float]:
    mean, square = (cv2.GaussianBlur(v, (7, 7), _SIGMA, borderType=cv2.BORDER_REPLICATE) for v in (grey, grey * grey))
    deviation = np.sqrt(np.maximum(square - mean * mean, 0.0))
    structure = (grey - mean) / (deviation + 1.0 / 255.0)
    shape, left, right = _asymmetric_gaussian(structure)
    found = [shape, (left**2 + right**2) / 2]
    height, width = structure.shape
    for down, across in ((0, 1), (1, 0), (1, 1), (-1, 1)):
        product = np.zeros_like(structure)  # zero beyond the border
        here = slice(max(-down, 0), height - max(down, 0)), slice(0, width - across)
        there = slice(max(down, 0), height + min(down, 0)), slice(across, width)
        product[here] = structure[here] * structure[there]
        shape, left, right = _asymmetric_gaussian(product)
        to_scale = math.exp((math.lgamma(1 / shape) - math.lgamma(3 / shape)) / 2)
        mean_value = (right - left) * to_scale * math.exp(math.lgamma(2 / shape) - math.lgamma(1 / shape))
        found += [shape, mean_value, left**2, right**2]
    return found


def _asymmetric_gaussian(values: np.ndarray) -> tuple[float, float, float]:
    """Shape α and the standard deviations left and right of zero (Mittal et al., 2012, eq. 5 to 9)."""
    square = np.square(values)
    total, absolute = float(square.sum(dtype=np.float64)), float(np.abs(values).sum(dtype=np.float64))
    negative, positive = values < 0, values > 0
    left_sum = float(square.sum(dtype=np.float64, where=negative))
    left = math.sqrt(left_sum / max(int(negative.sum()), 1))
    right = math.sqrt((total - left_sum) / max(int(positive.sum()), 1))
    if not (left > 0.0 and right > 0.0):
        return math.nan, math.nan, math.nan
    balance = left / right
    ratio = (absolute / values.size) ** 2 / (total / values.size)
    ratio *= (balance**3 + 1) * (balance + 1) / (balance**2 + 1) ** 2
    return float(shape_of_ratio(torch.tensor([ratio], dtype=torch.float64))[0]), left, right


@lru_cache(maxsize=1)
def _model() -> Model:
    return read_model(*weight_files("brisque"))


def read_model(model: Path, limits: Path) -> Model:
    """OpenCV's file of a support vector machine and its file of the features' range.

    Raises:
        UsageError: the files have another content.
    """
    try:
        stored, ranges = (cv2.FileStorage(str(path), cv2.FILE_STORAGE_READ) for path in (model, limits))
        machine = stored.getNode("opencv_ml_svm")
        decision = machine.getNode("decision_functions").at(0)
        vectors = machine.getNode("support_vectors")
        rows = np.array([_numbers(vectors.at(index)) for index in range(vectors.size())])
        order = [int(index) for index in _numbers(decision.getNode("index"))] or list(range(len(rows)))
        low, high = ranges.getNode("range").mat().astype(np.float64)
        weights = np.array(_numbers(decision.getNode("alpha")))
        offset, gamma = decision.getNode("rho").real(), machine.getNode("kernel").getNode("gamma").real()
        found = Model(rows[order], weights, offset, gamma, low, high)
        if found.vectors.shape != (len(weights), 36) or found.low.shape != (36,):
            raise ValueError("expected 36 features")
        return found
    except (cv2.error, SystemError, AttributeError, ValueError, TypeError, IndexError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UsageError(f"{model} and {limits} are not OpenCV's model of BRISQUE: {reason}") from None


def _numbers(node: cv2.FileNode) -> list[float]:
    return [node.at(index).real() for index in range(node.size())]
