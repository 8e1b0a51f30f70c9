"""How bright, contrasty and tinted the whole picture ends: a small network that bends a model's result by three curves.

What the papers' networks leave open is the rendition of the scene as a whole; after a ground-truth gain and contrast
a picture of theirs gains seven dB on LOL. So, as in the global branch of Cui et al., "You Only Need 90K Parameters to
Adapt Light" (BMVC 2022), a network looks at the picture reduced to a thumbnail and chooses a few numbers; as in Guo et
al., "Zero-Reference Deep Curve Estimation" (CVPR 2020), these are curves that leave black black and white white.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

THUMBNAIL = 64
BOUND = 0.95
"""On |a| + |b| of a curve: beyond 1 it could fall somewhere."""
DISTRUST = 0.3


class Rendition(nn.Module):
    """Several heads of different initialisation, which have to agree: see `agreed`.

    Args:
        channels: width of the first of a head's four levels, a multiple of 4.
        heads: how many.
        dropout: of a head's last layers, in training.
    """

    def __init__(self, channels: int = 24, heads: int = 3, dropout: float = 0.3) -> None:
        super().__init__()
        if channels < 4 or channels % 4 or heads < 1:
            raise ValueError(f"a rendition needs channels in fours and a head or more, not {channels}, {heads}")
        self.heads = nn.ModuleList(Head(channels, dropout) for _ in range(heads))

    def curves(self, low: Tensor, made: Tensor) -> Tensor:
        """Dark pictures and what a model made of them, B×3×H×W in [0, 1] → a pair of numbers per channel, B×3×2."""
        return self.curves_of(*look(low, made))

    def curves_of(self, light: Tensor, thumbnail: Tensor) -> Tensor:
        """The same of what `look` gives."""
        with torch.autocast(thumbnail.device.type, enabled=False):
            return agreed(torch.stack([head(light, thumbnail) for head in self.heads]))

    def forward(self, low: Tensor, made: Tensor) -> Tensor:
        """Dark pictures and what a model made of them → finished pictures, all B×3×H×W in [0, 1], float32."""
        return bend(made, self.curves(low, made))


def agreed(curves: Tensor) -> Tensor:
    """What several heads agree on, heads×B×3×2 → B×3×2: their mean m times m² / (m² + `DISTRUST` · variance).

    Heads that know a kind of scene say the same; of one that is new to them each says something else, and the picture
    had better stay as the model made it.
    """
    mean = curves.mean(dim=0)
    if len(curves) == 1:
        return mean
    return mean * mean.square() / (mean.square() + DISTRUST * curves.var(dim=0) + 1e-9)


class Head(nn.Module):
    """Four strided convolutions, mean and maximum of their map, two linear layers; starts from straight curves."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        widths = [3, channels, 2 * channels, 4 * channels, 4 * channels]
        self.levels = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1), nn.GroupNorm(4, b), nn.SiLU())
                for a, b in pairwise(widths)
            )
        )
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
        """What `look` gives → curves B×3×2, within `BOUND`."""
        dtype = next(self.parameters()).dtype
        thumbnail = thumbnail.to(dtype)
        seen = self.levels(thumbnail - 0.5)
        numbers = [light.to(dtype), thumbnail.mean(dim=(2, 3)), thumbnail.std(dim=(2, 3))]
        chosen = self.choice(torch.cat([seen.mean(dim=(2, 3)), seen.amax(dim=(2, 3)), *numbers], dim=1))
        chosen = chosen.float().view(-1, 3, 2)
        length = chosen.abs().sum(dim=2, keepdim=True).clamp_min(1e-6)
        return chosen * (BOUND * torch.tanh(length) / length)


def look(low: Tensor, made: Tensor) -> tuple[Tensor, Tensor]:
    """What the heads see, float32: the dark picture's mean light in stops above an eighth B×1, the result's thumbnail.

    The thumbnail is B×3×THUMBNAIL×THUMBNAIL in [0, 1], of whatever shape the picture is.
    """
    light = low.float().mean(dim=(1, 2, 3)).clamp_min(1e-3).log2() + 3.0
    return light[:, None], F.adaptive_avg_pool2d(made.float(), THUMBNAIL).clamp(0.0, 1.0)


def bend(picture: Tensor, curves: Tensor) -> Tensor:
    """Pass x as x + x (1 - x) (a + b (1 - 2x)) in every channel; 0 and 1 stay where they are.

    Its slope, 1 + a (1 - 2x) + b (1 - 6x (1 - x)), is nowhere below 1 - |a| - |b|, so that within `BOUND` no two
    values change their order.

    Args:
        picture: B×3×H×W, clamped to [0, 1].
        curves: B×3×2, a and b.

    Returns:
        B×3×H×W in [0, 1], float32.
    """
    x = picture.float().clamp(0.0, 1.0)
    a, b = curves.to(x)[..., None, None].unbind(2)
    return x + x * (1.0 - x) * (a + b * (1.0 - 2.0 * x))
