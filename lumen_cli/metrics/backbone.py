"""AlexNet and VGG16, which LPIPS and DISTS look through: their weights where a user has them, features in tiles."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from lumen_cli.errors import UsageError
from lumen_cli.metrics.weights import NEEDED, torchmetrics_file, weight_files

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

SMALLEST_SIDE = 32
"""Pixels below which the networks have no features left."""

_CORE = 768
_HALO = 128  # a multiple of every stride, and more than half of the widest receptive field (DISTS: 105 pixels)


def trained_weights(metric: str) -> dict[str, Tensor]:
    """What LPIPS and DISTS themselves have learnt, from torchmetrics."""
    import torch

    path = torchmetrics_file(NEEDED[metric].trained)
    weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return weights


@lru_cache(maxsize=2)
def load_backbone(network: str, device: torch.device) -> nn.Sequential:
    """The convolutional part of "alexnet" or "vgg16", numbered as torchvision numbers it, so that its weights fit.

    Raises:
        UsageError: the weights are not there or damaged.
    """
    import torch

    (path,) = weight_files("lpips_alex" if network == "alexnet" else "dists")
    found = re.search(r"-([0-9a-f]{8})\.", path.name)
    if found and not hashlib.sha256(path.read_bytes()).hexdigest().startswith(found[1]):
        raise UsageError(f"{path} is damaged: its SHA-256 does not begin with {found[1]}")
    features = build(network)
    weights = torch.load(path, map_location="cpu", weights_only=True)
    features.load_state_dict(
        {name.removeprefix("features."): value for name, value in weights.items() if name.startswith("features.")}
    )
    return features.requires_grad_(False).eval().to(device)


def build(network: str) -> nn.Sequential:
    """AlexNet (Krizhevsky, 2014) or VGG16 (Simonyan and Zisserman, 2015) up to the last convolution's ReLU."""
    from torch import nn

    layers: list[nn.Module] = []
    if network == "alexnet":
        for inputs, outputs, size, stride, pooled in (
            (3, 64, 11, 4, True), (64, 192, 5, 1, True),
            (192, 384, 3, 1, False), (384, 256, 3, 1, False), (256, 256, 3, 1, False),
        ):  # fmt: skip
            layers += [nn.Conv2d(inputs, outputs, size, stride, 2 if stride > 1 else size // 2), nn.ReLU()]
            layers += [nn.MaxPool2d(3, 2)] if pooled else []
    else:
        inputs = 3
        for outputs, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
            layers += [nn.MaxPool2d(2)] if inputs > 3 else []
            for _ in range(count):
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
                inputs = outputs
    return nn.Sequential(*layers)


@dataclass(frozen=True)
class Tile:
    """A part of a picture with what surrounds it.

    rows, columns: of the picture, with the surroundings; core_rows, core_columns: what counts, on the same scale, None
    at the end where it goes on to the picture's border.
    """

    rows: slice
    columns: slice
    core_rows: tuple[int, int | None]
    core_columns: tuple[int, int | None]

    def core(self, features: Tensor, stride: int) -> Tensor:
        """The part of B×C×h×w features, `stride` pixels apart, that belongs to this tile and no other."""
        top, bottom = _inside(self.core_rows, self.rows.start, stride)
        left, right = _inside(self.core_columns, self.columns.start, stride)
        return features[..., top:bottom, left:right]


def tiles(height: int, width: int) -> Iterator[Tile]:
    """Tiles of about 1024×1024 whose cores cover the picture; features in the cores are those of the whole picture."""
    for rows, core_rows in _spans(height):
        for columns, core_columns in _spans(width):
            yield Tile(rows, columns, core_rows, core_columns)


def _spans(side: int) -> Iterator[tuple[slice, tuple[int, int | None]]]:
    starts = range(0, max(side - 2 * _HALO, 1), _CORE) if side > _CORE + 2 * _HALO else range(1)
    for start in starts:
        last = start == starts[-1]
        end = side if last else start + _CORE
        yield slice(max(start - _HALO, 0), min(end + _HALO, side)), (start, None if last else end)


def _inside(core: tuple[int, int | None], start: int, stride: int) -> tuple[int, int | None]:
    first, end = core
    return (first - start) // stride, None if end is None else (end - start) // stride
