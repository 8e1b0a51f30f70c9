"""The refiner: a small network that removes noise which wavelet shrinkage leaves, and restores detail that it removes.

It runs on the full-size picture and so has to be cheap. As in FFDNet (Zhang, Zuo, Zhang: "FFDNet: Toward a Fast and
Flexible Solution for CNN based Image Denoising", IEEE TIP 2018), squares of pixels become channels, a map of the noise
is part of the input, a few 3×3 convolutions follow, and squares become pixels again. The result is a correction of the
shrunk picture, so a network of zeros changes nothing.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SQUARE = 4
"""Side of the squares of pixels that become channels."""
LEVELS = 2
"""Scales at which the deviation of the noise is given."""
FAINT, FULL = math.log2(1.1), math.log2(1.8)
"""Gains in stops up to which nothing changes, and from which on corrections count in full."""
STRONG = 3 / 255
"""Deviation of the noise in Y from which on corrections count in full; without noise nothing changes."""
_PIXELS = 2 * 3 * SQUARE**2
_SEEN = _PIXELS + 3 * LEVELS + 2


class Refiner(nn.Module):
    """Corrects Y, Cb and Cr of a picture whose noise was shrunk.

    Args:
        channels: width of the convolutions.
        blocks: number of residual blocks, two convolutions each, between the first and the last convolution.
    """

    def __init__(self, channels: int = 64, blocks: int = 2) -> None:
        super().__init__()
        self.first = nn.Conv2d(_SEEN, channels, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1)
            )
            for _ in range(blocks)
        )
        self.last = nn.Conv2d(channels, 3 * SQUARE**2, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    @property
    def margin(self) -> int:
        """Pixels beyond a block that its values depend on."""
        return SQUARE * (2 * len(self.blocks) + 2)

    def forward(self, seen: Tensor, share: Tensor) -> Tensor:
        """What to add to the shrunk picture.

        Args:
            seen: from `see`, B×C×H/4×W/4.
            share: from `share_of`, B×1×H/4×W/4.

        Returns:
            B×3×H×W, Y, Cb and Cr, in the dtype of `share`.
        """
        hidden = F.relu(self.first(seen))
        for block in self.blocks:
            hidden = F.relu(hidden + block(hidden))
        return F.pixel_shuffle(self.last(hidden).to(share.dtype) * (0.25 * share), SQUARE)


def share_of(deviation: Tensor, stops: Tensor) -> Tensor:
    """How much of a correction counts, B×1×h×w in [0, 1]; the arguments are those of `see`."""
    brightened = ((stops - FAINT) / (FULL - FAINT)).clamp(0.0, 1.0)
    return brightened * (deviation[:, :1] / STRONG).clamp(0.0, 1.0)


def see(shrunk: Tensor, removed: Tensor, deviation: Tensor, stops: Tensor, dtype: torch.dtype) -> Tensor:
    """What the network sees, in channels_last.

    Args:
        shrunk: B×3×H×W, Y in [0, 1], Cb and Cr in [-0.5, 0.5]; H and W are multiples of `SQUARE`.
        removed: B×3×H×W, what shrinkage took from the picture.
        deviation: B×(3·`LEVELS`)×H/4×W/4, of the noise in Y, Cb and Cr at each scale, before shrinkage.
        stops: B×1×H/4×W/4, how much brighter the picture was made.
        dtype: that of the network's weights.

    Returns:
        B×(96 + 3·`LEVELS` + 2)×H/4×W/4. Factors bring all to about the same spread; the last channel is 1 and so tells
        the picture from what the convolutions add around it.
    """
    batch, _, height, width = shrunk.shape
    rows, columns = height // SQUARE, width // SQUARE
    seen = torch.ones(batch, rows, columns, _SEEN, dtype=dtype, device=shrunk.device)
    planes = torch.cat([shrunk.to(dtype) * 2.0, removed.to(dtype) * 8.0], dim=1)
    lines = planes.view(batch, 6, rows, SQUARE, columns, SQUARE).permute(0, 2, 4, 1, 3, 5)
    target = seen[..., :_PIXELS].view(batch, rows, columns, 6, SQUARE, SQUARE)
    if dtype.itemsize == 2 and shrunk.device.type == "cpu":  # Four pixels are copied as one number: six times faster.
        lines, target = (each.view(torch.int64) for each in (lines, target))
    target.copy_(lines)
    seen[..., _PIXELS:-2] = (8.0 * deviation).permute(0, 2, 3, 1)
    seen[..., -2] = stops[:, 0] * 0.25
    return seen.permute(0, 3, 1, 2)
