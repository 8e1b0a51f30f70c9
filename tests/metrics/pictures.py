"""Pictures to measure: something like a scene, and what can be wrong with a copy of it."""

import numpy as np
import torch
from torch import Tensor


def scene(height: int = 60, width: int = 84, seed: int = 0) -> Tensor:
    """3×H×W of k/255: soft shapes, edges, colours and grain of every scale."""
    generator = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3))
    for step in (1, 2, 4, 8, 16, 32):
        coarse = generator.normal(size=(height // step + 1, width // step + 1, 3)) * step**0.7
        picture += coarse.repeat(step, 0).repeat(step, 1)[:height, :width]
    picture = 0.5 + 0.2 * picture / picture.std() * np.array([1.0, 0.8, 0.6])
    return torch.from_numpy(picture.clip(0, 1)).permute(2, 0, 1).float().mul(255).round() / 255


def noisy(picture: Tensor, sigma: float, seed: int = 0) -> Tensor:
    """Gaussian noise of `sigma` / 255, rounded to 8 bits."""
    generator = torch.Generator().manual_seed(seed)
    return ((picture * 255 + sigma * torch.randn(picture.shape, generator=generator)).round() / 255).clamp(0, 1)


def as_array(picture: Tensor) -> np.ndarray:
    """3×H×W → H×W×3 float64."""
    return picture.permute(1, 2, 0).double().numpy()
