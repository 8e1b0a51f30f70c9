"""The twelve hand-made channels that AnlightenDiff's encoder sees; no parameters."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CHANNELS = 12
LEVELS = 256


def features(picture: Tensor) -> Tensor:
    """Picture B×3×H×W in [0, 1] → B×12×H×W in [0, 1], float32: picture, equalised picture, colours, their gradient."""
    with torch.autocast(picture.device.type, enabled=False):
        picture = picture.float()
        colours = color_map(picture)
        return torch.cat([picture, equalise(picture), colours, gradient_map(colours)], dim=1)


def equalise(picture: Tensor) -> Tensor:
    """Histogram equalisation of every picture and channel on its own, in 256 levels: B×C×H×W in [0, 1] → the same.

    The algorithm of Pillow and torchvision: a level becomes (levels below it + step/2) / step, all integers, with
    step = 1/255 of the pixels that are not of the brightest level; a channel whose step is 0 keeps its levels.
    Deeper pictures are rounded down to 256 levels, and less than float32 would not find those of an 8-bit one.
    """
    batch, channels, height, width = picture.shape
    levels = (picture * (LEVELS - 1)).long().clamp_(0, LEVELS - 1).reshape(batch * channels, height * width)
    planes = torch.arange(len(levels), device=picture.device)[:, None]
    histogram = torch.bincount((levels + planes * LEVELS).flatten(), minlength=LEVELS * len(levels))
    histogram = histogram.view(-1, LEVELS)
    brightest = histogram.gather(1, levels.amax(dim=1, keepdim=True))
    step = (height * width - brightest) // (LEVELS - 1)
    below = histogram.cumsum(dim=1) - histogram
    table = ((below + step // 2) // step.clamp(min=1)).clamp_(0, LEVELS - 1)
    table = torch.where(step > 0, table, torch.arange(LEVELS, device=picture.device))
    return table.gather(1, levels).view(picture.shape).to(picture.dtype) / (LEVELS - 1)


def color_map(picture: Tensor) -> Tensor:
    """Each channel's share of the pixel's sum, B×3×H×W in [0, 1]; black pixels give 0."""
    return (picture / (picture.mean(dim=1, keepdim=True) + 1e-8) / 3.0).clamp(0.0, 1.0)


def gradient_map(picture: Tensor) -> Tensor:
    """Larger of the two absolute forward differences, per channel; 0 for the one beyond the border. B×C×H×W."""
    down = F.pad(picture[..., 1:, :] - picture[..., :-1, :], (0, 0, 0, 1))
    right = F.pad(picture[..., 1:] - picture[..., :-1], (0, 1))
    return torch.maximum(down.abs(), right.abs())
