"""BRISQUE: quality as people rate pictures with the same statistics (Mittal, Moorthy and Bovik, 2012).

The features are those of OpenCV's contributed module `quality`, so that its model of the LIVE database fits: the
files brisque_model_live.yml and brisque_range_live.yml (Apache-2.0), which users download. No wheel compatible with
opencv-python contains the module itself; the PyPI package brisque (0.2.0) does not run with NumPy 2.4, and piq needs
torchvision.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from lumen_cli.errors import UsageError
from lumen_cli.metrics.niqe import shape_of_ratio
from lumen_cli.metrics.weights import weight_files

_SIGMA = 7.0 / 6.0
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
