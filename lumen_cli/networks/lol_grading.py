"""A grading that knows the scenes of LOL: a small U-Net corrects a network's result towards LOL's bright pictures.

The published figures of LOL come from networks trained on its 485 pairs, and 14 of its 15 test scenes have a
near-duplicate among these. This grading is fitted in the same way, so that tables of LOL compare like with like. It is
free to recognise a scene and to give it the light and colour that LOL's authors chose; `networks/grading.py` is not.

Heads read thumbnails and choose a tone curve per channel, as in `networks/grading.py`; then a U-Net adds a difference
per pixel. As in the refiner, squares of pixels become its channels, so that it costs little.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumen_cli.networks import average_to
from lumen_cli.networks.grading import Sizes, bend, limit, strided_levels, zeroed

THUMBNAIL = 32, 48
"""Rows and columns of what a head sees."""
SQUARE = 4
"""Side of the squares of pixels that become channels."""
MEAN, BRIGHTEST = 0.4, 1.5
"""Mean that the dark picture is scaled to, and the value from which it is clipped."""
GAIN, LIMIT = 8.0, 2.0
"""Of the dark picture as heads see it beside the scaled one: it tells how dark the scene is."""
_NUMBERS = 10


class LolGrading(nn.Module):
    """Corrects results of any model: curves from the whole scene, the mean of several heads', then a U-Net.

    Args:
        heads: number of heads, which differ in their initial values and in the order of their examples.
        channels: width of the first of a head's four levels, a multiple of 4.
        widths: of the U-Net's levels. The first has a quarter of the picture's rows and columns, each further one half
            of those of the one before.
        dropout: of a head's last layers, in training.
    """

    def __init__(
        self,
        heads: int = 3,
        channels: int = 32,
        widths: tuple[int, ...] = (32, 48, 64, 96),
        dropout: float = 0.15,
    ) -> None:
        super().__init__()
        self.heads = nn.ModuleList(SceneHead(channels, dropout) for _ in range(heads))
        self.detail = Detail(widths)

    def forward(self, low: Tensor, result: Tensor, sizes: Sizes | None = None) -> Tensor:
        """Dark pictures and a network's results → graded pictures, all B×3×H×W in [0, 1], float32.

        sizes: height and width of each picture where some are padded, see `LowLightModel.forward`. Pictures then run
            one by one, without their padding, so that batch-mates and padding change nothing.
        """
        if sizes is None:
            return self.correct(low, result).clamp(0.0, 1.0)
        graded = result.float().clone()
        for index, (height, width) in enumerate(sizes):
            place = slice(index, index + 1), slice(None), slice(height), slice(width)
            graded[place] = self.correct(low[place], result[place]).clamp(0.0, 1.0)
        return graded

    def correct(self, low: Tensor, result: Tensor) -> Tensor:
        """As `forward` without padding, but the corrected pictures are not clamped."""
        low = low.float()
        curves = self.curves(*(thumbnail(each.float()) for each in (low, result)))
        return self.detail(scaled(low, low.mean(dim=(1, 2, 3), keepdim=True)), bend(result, curves))

    def curves(self, low: Tensor, result: Tensor) -> Tensor:
        """Thumbnails of dark pictures and results, B×3×h×w → a and b of `bend`, B×3×2: the mean of the heads'."""
        return torch.stack([head(low, result) for head in self.heads]).mean(dim=0)

    def residual(self, low: Tensor, graded: Tensor) -> None:
        """Nothing: large regions are corrected already."""

    def grade_large(self, low: Tensor, result: Tensor, rows: int, device: str) -> None:
        """As `forward`, on one large picture on the CPU, in place; all at once, because it reads the whole scene."""
        result.copy_(self.forward(low.to(device), result.to(device)))


class SceneHead(nn.Module):
    """Four strided convolutions, mean and maximum of their map, two linear layers; untrained curves are straight."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        widths = [9, channels, 2 * channels, 4 * channels, 4 * channels]
        self.levels = strided_levels(widths)
        self.choice = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(2 * widths[-1] + _NUMBERS, 128),
            nn.SiLU(),
            nn.Dropout(dropout),
            zeroed(nn.Linear(128, 6)),
        )

    def forward(self, low: Tensor, result: Tensor) -> Tensor:
        """Thumbnails of dark pictures and of results, B×3×h×w in [0, 1] → curves B×3×2 within `limit`."""
        mean = low.mean(dim=(1, 2, 3), keepdim=True)
        seen = torch.cat([result - 0.5, scaled(low, mean) - 0.5, (GAIN * low).clamp(0.0, LIMIT) - 0.5], dim=1)
        features = self.levels(seen.contiguous(memory_format=torch.channels_last)).float()
        numbers = [
            mean.flatten(1).clamp_min(1e-3).log2() + 3.0,
            result.mean(dim=(2, 3)),
            result.std(dim=(2, 3)),
            low.amax(dim=(2, 3)),
        ]
        chosen = self.choice(torch.cat([features.mean(dim=(2, 3)), features.amax(dim=(2, 3)), *numbers], dim=1))
        return limit(chosen.float().view(-1, 3, 2))


class Detail(nn.Module):
    """A U-Net that corrects results after their curves; untrained it changes nothing."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.first = nn.Conv2d(2 * 3 * SQUARE**2, widths[0], 3, padding=1)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(widths))
        self.encoder = nn.ModuleList(_Block(width) for width in widths)
        self.up = nn.ModuleList(nn.Conv2d(a + b, a, 3, padding=1) for a, b in pairwise(widths))
        self.decoder = nn.ModuleList(_Block(width) for width in widths[:-1])
        self.last = zeroed(nn.Conv2d(widths[0], 3 * SQUARE**2, 3, padding=1))

    def forward(self, lit: Tensor, bent: Tensor) -> Tensor:
        """Dark pictures from `scaled` and results after their curves, B×3×H×W → corrected results, not clamped."""
        height, width = bent.shape[-2:]
        margin = 0, -width % SQUARE, 0, -height % SQUARE
        seen = [F.pixel_unshuffle(F.pad(each, margin, mode="replicate"), SQUARE) for each in (lit, bent)]
        hidden = self.first((torch.cat(seen, dim=1) - 0.5).contiguous(memory_format=torch.channels_last))
        levels: list[Tensor] = []
        for number, block in enumerate(self.encoder):
            hidden = block(self.down[number - 1](hidden) if number else hidden)
            levels.append(hidden)
        for level, up, block in zip(levels[-2::-1], reversed(self.up), reversed(self.decoder), strict=True):
            wide = F.interpolate(hidden, level.shape[-2:], mode="nearest")
            hidden = block(up(torch.cat([wide, level], dim=1)))
        change: Tensor = F.pixel_shuffle(self.last(hidden).float(), SQUARE)
        return bent + change[..., :height, :width]


class _Block(nn.Module):
    """x + the result of two convolutions on its normalised values."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, width)
        self.convolutions = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        difference: Tensor = self.convolutions(self.norm(x))
        return x + difference


def thumbnail(picture: Tensor) -> Tensor:
    """B×3×H×W of any size → B×3×`THUMBNAIL`."""
    return average_to(picture, THUMBNAIL)


def scaled(low: Tensor, mean: Tensor) -> Tensor:
    """Dark pictures B×3×H×W with their means, B×1×1×1 → the same with the mean `MEAN`, clipped at `BRIGHTEST`."""
    return (low * (MEAN / mean.clamp_min(1e-3))).clamp(0.0, BRIGHTEST)
