"""How bright, contrasty and tinted the whole picture ends: small networks that bend a model's result by three curves.

What the papers' networks leave open is the rendition of the scene as a whole; after a ground-truth gain and contrast
a picture of theirs gains seven dB on LOL. So, as in the global branch of Cui et al., "You Only Need 90K Parameters to
Adapt Light" (BMVC 2022), a network looks at the picture reduced to a thumbnail and chooses a few numbers; as in Guo et
al., "Zero-Reference Deep Curve Estimation" (CVPR 2020), these are curves that leave black black and white white.
Where nothing but light was lacking, or none was, the dark picture says better where the result should end.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumen_cli.networks.grading.auto_exposure import (
    NUMBERS,
    THUMBNAIL,
    Developed,
    Development,
    bend,
    bounded,
    curves_towards,
    measured,
)
from lumen_cli.srgb import to_srgb

DISTRUST = 0.3
GUIDES = ("own", "given", "developed")
"""What a result may follow: the heads' own curves, the picture as it was given, or as it is developed."""


Sizes = Sequence[tuple[int, int]]
"""Heights and widths, pixels."""


class Rendition(nn.Module):
    """A development of the dark picture, heads that have to agree (see `agreed`), and a judge of which to follow.

    Args:
        channels: width of the first of a head's four levels, a multiple of 8; the judge's is half of it.
        heads: how many, of different initialisation.
        dropout: of a head's last layers, in training.
    """

    def __init__(self, channels: int = 24, heads: int = 3, dropout: float = 0.3) -> None:
        super().__init__()
        if channels < 8 or channels % 8 or heads < 1:
            raise ValueError(f"a rendition needs channels in eights and a head or more, not {channels}, {heads}")
        self.development = Development()
        self.judge = Judge(channels // 2)
        self.heads = nn.ModuleList(Head(channels, dropout) for _ in range(heads))

    def curves(self, low: Tensor, made: Tensor) -> Tensor:
        """Dark pictures and what a model made of them, B×3×H×W in [0, 1] → a pair of numbers per channel, B×3×2."""
        return self.curves_of(*look(low, made))

    def curves_of(self, light: Tensor, thumbnail: Tensor) -> Tensor:
        """The same of what `look` gives."""
        with torch.autocast(thumbnail.device.type, enabled=False):
            developed = self.development(light)
            mean = stops(light)
            own = agreed(torch.stack([head(mean, thumbnail) for head in self.heads]))
            aims = (developed.given, developed.picture)
            curves = torch.stack([own, *(bounded(curves_towards(thumbnail, aim)) for aim in aims)])
            shares = self.judge(developed).softmax(dim=1)
            return (shares.T[..., None, None] * curves).sum(dim=0)

    def forward(self, low: Tensor, made: Tensor, sizes: Sizes | None = None) -> Tensor:
        """Dark pictures and what a model made of them → finished pictures, all B×3×H×W in [0, 1], float32.

        sizes: height and width of each picture where some were padded, see `LowLightModel.forward`.
        """
        if sizes is None:
            return bend(made, self.curves(low, made))
        looks = [
            look(low[index : index + 1, :, :height, :width], made[index : index + 1, :, :height, :width])
            for index, (height, width) in enumerate(sizes)
        ]
        light, thumbnails = (torch.cat(parts) for parts in zip(*looks, strict=True))
        return bend(made, self.curves_of(light, thumbnails))


def agreed(curves: Tensor) -> Tensor:
    """What several heads agree on, heads×B×3×2 → B×3×2: their mean m times m² / (m² + `DISTRUST` · variance).

    Heads that know a kind of scene say the same; of one that is new to them each says something else, and the picture
    had better stay as the model made it.
    """
    mean = curves.mean(dim=0)
    if len(curves) == 1:
        return mean
    return mean * mean.square() / (mean.square() + DISTRUST * curves.var(dim=0) + 1e-9)


class Judge(nn.Module):
    """Looks at the dark picture, as it is and developed: logits over `GUIDES`. A fresh one is undecided."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.levels = _levels([6, channels, 2 * channels, 4 * channels, 4 * channels])
        self.choice = nn.Linear(8 * channels + NUMBERS, len(GUIDES))
        nn.init.zeros_(self.choice.weight)
        nn.init.zeros_(self.choice.bias)

    def forward(self, developed: Developed) -> Tensor:
        """What a `Development` found → B×3, float32."""
        dtype = next(self.parameters()).dtype
        seen = self.levels(torch.cat([developed.given, developed.picture], dim=1).to(dtype) - 0.5)
        numbers = developed.numbers.to(dtype)
        logits: Tensor = self.choice(torch.cat([seen.mean(dim=(2, 3)), seen.amax(dim=(2, 3)), numbers], dim=1)).float()
        return logits


class Head(nn.Module):
    """Four strided convolutions, mean and maximum of their map, two linear layers; starts from straight curves."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        widths = [3, channels, 2 * channels, 4 * channels, 4 * channels]
        self.levels = _levels(widths)
        self.choice = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(8 * channels + 7, 64),
            nn.SiLU(),
            nn.Dropout(dropout),
            nn.Linear(64, 6),
        )
        nn.init.zeros_(self.choice[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.choice[-1].bias)  # type: ignore[arg-type]

    def forward(self, light: Tensor, thumbnail: Tensor) -> Tensor:
        """The dark pictures' mean light in stops above an eighth, B×1, and thumbnails of the results → curves B×3×2."""
        dtype = next(self.parameters()).dtype
        thumbnail = thumbnail.to(dtype)
        seen = self.levels(thumbnail - 0.5)
        numbers = [light.to(dtype), thumbnail.mean(dim=(2, 3)), thumbnail.std(dim=(2, 3))]
        chosen = self.choice(torch.cat([seen.mean(dim=(2, 3)), seen.amax(dim=(2, 3)), *numbers], dim=1))
        chosen = chosen.float().view(-1, 3, 2)
        return bounded(chosen)


def _levels(widths: list[int]) -> nn.Sequential:
    return nn.Sequential(
        *(
            nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1), nn.GroupNorm(4, b), nn.SiLU())
            for a, b in pairwise(widths)
        )
    )


def look(low: Tensor, made: Tensor) -> tuple[Tensor, Tensor]:
    """What matters of a dark picture and of what a model made of it, both B×3×H×W in [0, 1]: float32, whatever H and W.

    That is the dark picture's light on a grid, see `measured`, and the result's thumbnail B×3×THUMBNAIL×THUMBNAIL.
    """
    return measured(low), F.adaptive_avg_pool2d(made.float(), THUMBNAIL).clamp(0.0, 1.0)


def stops(light: Tensor) -> Tensor:
    """Mean of the sRGB values of what `measured` gives, as heads are told it: in powers of two above an eighth, B×1."""
    return to_srgb(light).mean(dim=(1, 2, 3)).clamp_min(1e-3).log2()[:, None] + 3.0
