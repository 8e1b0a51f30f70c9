"""What every network of lumen offers to the rest of the house."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Retinex:
    """A picture taken apart: reflectance B×3×H×W and illumination B×1×H×W, both in [0, 1]."""

    reflectance: Tensor
    illumination: Tensor


class LowLightModel(nn.Module):
    """A network that brightens pictures. Sub-classes name their parameters as the official checkpoint does."""

    size_multiple: int = 1

    def noise_shape(self, height: int, width: int) -> tuple[int, int, int] | None:
        """Shape C×h×w of the noise that a picture of `height` × `width` needs; None for a deterministic network."""
        return None

    @abstractmethod
    def enhance(self, low: Tensor, *, noise: Tensor | None = None, steps: int | None = None) -> Tensor:
        """Brighten a batch.

        Args:
            low: B×3×H×W in [0, 1], any H and W from 1 up.
            noise: B×C×h×w float32 standard normal, of the shape `noise_shape(H, W)` gives; None where it gives None.
            steps: sampling steps, or None for the network's own default.

        Returns:
            B×3×H×W in [0, 1], in the dtype the network computes in.
        """

    def decompose(self, low: Tensor) -> Retinex:
        """Take a batch apart into reflectance and illumination; NotImplementedError where the model has none."""
        raise NotImplementedError(f"{type(self).__name__} does not decompose pictures")

    def losses(self, batch: dict[str, Tensor], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The paper's training terms by name, each a scalar that is already weighted, plus their sum as `total`."""
        raise NotImplementedError(f"{type(self).__name__} has no training losses")
