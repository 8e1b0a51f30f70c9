"""Perceptual distances from the features of classification networks: LPIPS and DISTS, in tiles of bounded memory."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumen_cli.errors import UsageError
from lumen_cli.metrics import NEEDED, torchmetrics_file, weight_files

SMALLEST_SIDE = 32
"""Smaller pictures have no features in the last layers."""

_CORE = 768
_HALO = 128  # a multiple of every stride, and more than half of the widest receptive field (DISTS: 105 pixels)


def trained_weights(metric: str) -> dict[str, Tensor]:
    """The trained weights of LPIPS and DISTS themselves, from torchmetrics."""
    path = torchmetrics_file(NEEDED[metric].trained)
    weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return weights


@lru_cache(maxsize=2)
def load_backbone(network: str, device: torch.device) -> nn.Sequential:
    """The convolutional part of "alexnet" or "vgg16", numbered as torchvision numbers it, so that its weights fit.

    Raises:
        UsageError: the weights are missing or damaged.
    """
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
    """A part of a picture with its surroundings.

    rows, columns: of the picture, with the surroundings; core_rows, core_columns: of the part itself, None at the end
    where it reaches the picture's border.
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


_AFTER_RELU = {"alexnet": (2, 5, 8, 10, 12), "vgg16": (4, 9, 16, 23, 30)}
_STRIDES = {"alexnet": (4, 8, 16, 16, 16), "vgg16": (1, 2, 4, 8, 16)}
_TINY = 1e-6


def lpips_alex(output: Tensor, reference: Tensor) -> float:
    """Learned perceptual distance (Zhang et al., 2018, version 0.1) of 3×H×W in [0, 1], AlexNet; 0 where equal.

    About 0.4 GB beside the pictures and weights, whatever their size. NaN below 32 pixels a side.
    """
    return _lpips(output, reference, "alexnet", "lpips_alex")


def lpips_vgg(output: Tensor, reference: Tensor) -> float:
    """As `lpips_alex`, with VGG16; about 1 GB beside pictures and weights."""
    return _lpips(output, reference, "vgg16", "lpips_vgg")


def dists(output: Tensor, reference: Tensor) -> float:
    """Deep image structure and texture similarity (Ding et al., 2020) of 3×H×W in [0, 1], at full size; 0 where equal.

    The authors' demonstration scales the shorter side to 256 pixels first; neither torchmetrics nor lumen does. About
    1.2 GB beside pictures and weights. NaN below 32 pixels a side.
    """
    if min(output.shape[-2:]) < SMALLEST_SIDE:
        return math.nan
    weights = trained_weights("dists")
    alpha, beta = (weights[name].flatten().double() for name in ("alpha", "beta"))
    whole = float(alpha.sum() + beta.sum())
    similarity, first = 0.0, 0
    for moments in _moments(output, reference):
        part = slice(first, first + len(moments.mean_x))
        first = part.stop
        luminance = (2 * moments.mean_x * moments.mean_y + _TINY) / (moments.mean_x**2 + moments.mean_y**2 + _TINY)
        structure = (2 * moments.covariance + _TINY) / (moments.variance_x + moments.variance_y + _TINY)
        similarity += float((alpha[part] * luminance + beta[part] * structure).sum())
    return 1.0 - similarity / whole


def _lpips(output: Tensor, reference: Tensor, network: str, metric: str) -> float:
    """Zhang et al., eq. 1: squared differences of unit-length features, weighted per channel, mean over the places."""
    if min(output.shape[-2:]) < SMALLEST_SIDE:
        return math.nan
    backbone = load_backbone(network, output.device)
    weights = trained_weights(metric)
    heads = [weights[f"lin{layer}.model.1.weight"].to(output.device) for layer in range(5)]
    totals, places = [0.0] * 5, [0] * 5
    ends, strides = _AFTER_RELU[network], _STRIDES[network]
    for tile in tiles(*output.shape[-2:]):
        x, y = (_scaled(picture[None, :, tile.rows, tile.columns]) for picture in (output, reference))
        begin = 0
        for layer, (end, stride, head) in enumerate(zip(ends, strides, heads, strict=True)):
            x, y = backbone[begin:end](x), backbone[begin:end](y)
            begin = end
            core_x, core_y = tile.core(x, stride), tile.core(y, stride)
            distance = F.conv2d((_unit(core_x) - _unit(core_y)).square_(), head)
            totals[layer] += float(distance.sum())
            places[layer] += distance.numel()
    return sum(total / place for total, place in zip(totals, places, strict=True))


def _scaled(picture: Tensor) -> Tensor:
    shift, scale = picture.new_tensor([-0.030, -0.088, -0.188]), picture.new_tensor([0.458, 0.448, 0.450])
    return (2.0 * picture - 1.0 - shift[:, None, None]) / scale[:, None, None]


def _unit(features: Tensor) -> Tensor:
    return features / (features.square().sum(dim=1, keepdim=True) + 1e-8).sqrt()


class _Moments:
    """Means, variances and covariance of two features per channel, accumulated over tiles."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        # Differences from a value near the mean: sums of squares then lose nothing to cancellation.
        self.pivot_x, self.pivot_y = (part.mean(dim=(0, 2, 3), keepdim=True) for part in (x, y))
        self.sums = torch.zeros(5, x.shape[1], dtype=torch.float64)
        self.places = 0

    def add(self, x: Tensor, y: Tensor) -> None:
        x, y = x - self.pivot_x, y - self.pivot_y
        sums = [part.sum(dim=(0, 2, 3)) for part in (x, y, x * x, y * y, x * y)]
        self.sums += torch.stack(sums).cpu().double()
        self.places += x.shape[-1] * x.shape[-2]

    @property
    def mean_x(self) -> Tensor:
        return self.pivot_x.flatten().cpu().double() + self.sums[0] / self.places

    @property
    def mean_y(self) -> Tensor:
        return self.pivot_y.flatten().cpu().double() + self.sums[1] / self.places

    @property
    def variance_x(self) -> Tensor:
        return self.sums[2] / self.places - (self.sums[0] / self.places) ** 2

    @property
    def variance_y(self) -> Tensor:
        return self.sums[3] / self.places - (self.sums[1] / self.places) ** 2

    @property
    def covariance(self) -> Tensor:
        return self.sums[4] / self.places - self.sums[0] * self.sums[1] / self.places**2


def _moments(output: Tensor, reference: Tensor) -> list[_Moments]:
    """Of the picture itself and of VGG16's five stages, Ding et al., section 3.1."""
    backbone = load_backbone("vgg16", output.device)
    found: list[_Moments] = []
    for tile in tiles(*output.shape[-2:]):
        pictures = (picture[None, :, tile.rows, tile.columns] for picture in (output, reference))
        for layer, (x, y, stride) in enumerate(_stages(backbone, *pictures)):
            core_x, core_y = tile.core(x, stride), tile.core(y, stride)
            if layer == len(found):
                found.append(_Moments(core_x, core_y))
            found[layer].add(core_x, core_y)
    return found


def _stages(backbone: nn.Sequential, x: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Features of both with their stride in pixels; VGG16's max pooling is replaced by L2 pooling."""
    yield x, y, 1
    mean, deviation = x.new_tensor([0.485, 0.456, 0.406]), x.new_tensor([0.229, 0.224, 0.225])
    x, y = ((picture - mean[:, None, None]) / deviation[:, None, None] for picture in (x, y))
    begin = 0
    for end, stride in zip(_AFTER_RELU["vgg16"], _STRIDES["vgg16"], strict=True):
        if begin:
            x, y = _l2_pooled(x), _l2_pooled(y)
            begin += 1
        x, y = backbone[begin:end](x), backbone[begin:end](y)
        begin = end
        yield x, y, stride


def _l2_pooled(features: Tensor) -> Tensor:
    """√(g ∗ x²), g a Hanning window of 3×3, at every second place (Ding et al., eq. 1)."""
    hanning = features.new_tensor([0.25, 0.5, 0.25])
    channels = features.shape[1]
    kernel = (hanning[:, None] * hanning)[None, None].expand(channels, 1, 3, 3)
    return (F.conv2d(features.square(), kernel, stride=2, padding=1, groups=channels) + 1e-12).sqrt()
