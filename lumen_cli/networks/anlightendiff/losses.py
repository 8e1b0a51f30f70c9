"""AnlightenDiff's forward process around a centre, and the features of its encoder; 2z - 1 maps [0, 1] to [-1, 1]."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lumen_cli.diffusion.schedule import Schedule

ImageLoss = Callable[[Tensor, Tensor], Tensor]
"""(prediction, target), both B×3×H×W in [0, 1] → a scalar, as LPIPS."""


def to_residual(high: Tensor, low: Tensor) -> Tensor:
    """What the diffusion models: 2 (high - low) - 1, in [-3, 1], not clamped. All B×3×H×W."""
    return 2.0 * (high - low) - 1.0


def to_picture(residual: Tensor, low: Tensor) -> Tensor:
    """Residual → picture in [0, 1]. The change of `low` is clamped to [0, 1]: no pixel becomes darker."""
    return (low + (residual.clamp(-1.0, 1.0) + 1.0) / 2.0).clamp(0.0, 1.0)


@dataclass(frozen=True)
class Diffused:
    """A batch at its timesteps (the paper's DRDA): x_t = signal · x_0 + spread · ε*; tensors B×3×H×W."""

    clean: Tensor
    """x_0."""
    shifted: Tensor
    """ε* = ε + shift, the noise that the network should return."""
    shift: Tensor
    """(1 - signal) / spread · m' for the centre m' in [-1, 1]."""
    noisy: Tensor
    """x_t."""
    signal: Tensor
    """sqrt(ᾱ_t), B×1×1×1."""
    spread: Tensor
    """sqrt(1 - ᾱ_t), B×1×1×1."""

    def picture(self, shifted: Tensor, low: Tensor) -> Tensor:
        """The picture of a returned noise, as DFPL compares it: x_t rebuilt with that noise, not x_0.

        As in the papers' code, the centre's shift is added a second time, although `shifted` contains it. It decides
        which pixels `to_picture` clamps, and so which ones get a gradient.
        """
        return to_picture(self.signal * self.clean + self.spread * (shifted + self.shift), low)


def diffuse(clean: Tensor, center: Tensor, noise: Tensor, timesteps: Tensor, schedule: Schedule) -> Diffused:
    """Add noise around a centre.

    Args:
        clean: x_0, B×3×H×W.
        center: m of the same shape, around [0, 1]; not clamped.
        noise: ε of the same shape, standard normal.
        timesteps: integers [B].
        schedule: the forward process.
    """
    signal, spread = schedule.coefficients(timesteps, clean)
    # (1 - signal) / spread without the difference of two numbers that are nearly equal.
    shift = spread / (1.0 + signal) * (2.0 * center - 1.0)
    shifted = noise + shift
    return Diffused(clean, shifted, shift, signal * clean + spread * shifted, signal, spread)


def bright_center(generator: torch.Generator | None) -> bool:
    """The coin toss of the paper's training: whether the bright picture is this batch's centre, not the encoder's."""
    device = None if generator is None else generator.device
    return bool(torch.rand((), generator=generator, device=device) < 0.5)


CHANNELS = 12
LEVELS = 256
ROWS = 512


def features(picture: Tensor, table: Tensor | None = None) -> Tensor:
    """Picture B×3×H×W in [0, 1] → B×12×H×W in [0, 1], float32: picture, equalised picture, colours, their gradient.

    `table`: the `equalisation` of the picture that this one is a part of.
    """
    with torch.autocast(picture.device.type, enabled=False):
        picture = picture.float()
        colours = color_map(picture)
        return torch.cat([picture, equalise(picture, table), colours, gradient_map(colours)], dim=1)


def equalise(picture: Tensor, table: Tensor | None = None) -> Tensor:
    """Histogram equalisation of every picture and channel on its own, in 256 levels: B×C×H×W in [0, 1] → the same.

    The algorithm of Pillow and torchvision: a level becomes (levels below it + step/2) / step, all integers, with
    step = 1/255 of the pixels that are not of the brightest level; a channel whose step is 0 keeps its levels.
    Deeper pictures are rounded down to 256 levels; the levels of 8-bit pictures need float32.
    `table`: the `equalisation` of the picture that this one is a part of; None for its own.
    """
    table = equalisation(picture) if table is None else table.to(picture.device)
    return table.gather(1, _levels(picture)).view(picture.shape).to(picture.dtype) / (LEVELS - 1)


def equalisation(picture: Tensor) -> Tensor:
    """Pictures B×C×H×W in [0, 1] → the new level of each of 256 levels, BC×256, integers."""
    total = torch.zeros(picture.shape[0] * picture.shape[1] * LEVELS, dtype=torch.long, device=picture.device)
    for rows in picture.split(ROWS, dim=-2):  # int64 levels of a large picture would take too much memory
        levels = _levels(rows)
        planes = torch.arange(len(levels), device=picture.device)[:, None]
        total = total + torch.bincount((levels + planes * LEVELS).flatten(), minlength=LEVELS * len(levels))
    histogram = total.view(-1, LEVELS)
    order = torch.arange(LEVELS, device=picture.device)
    brightest = histogram.gather(1, torch.where(histogram > 0, order, 0).amax(dim=1, keepdim=True))
    step = (picture.shape[-2] * picture.shape[-1] - brightest) // (LEVELS - 1)
    below = histogram.cumsum(dim=1) - histogram
    table = ((below + step // 2) // step.clamp(min=1)).clamp_(0, LEVELS - 1)
    return torch.where(step > 0, table, order)


def _levels(picture: Tensor) -> Tensor:
    """B×C×H×W in [0, 1] → BC×HW in 0 … 255."""
    return (picture * (LEVELS - 1)).long().clamp_(0, LEVELS - 1).reshape(-1, picture.shape[-2] * picture.shape[-1])


def color_map(picture: Tensor) -> Tensor:
    """Each channel's share of the pixel's sum, B×3×H×W in [0, 1]; black pixels give 0."""
    return (picture / (picture.mean(dim=1, keepdim=True) + 1e-8) / 3.0).clamp(0.0, 1.0)


def gradient_map(picture: Tensor) -> Tensor:
    """The larger of the two absolute forward differences, per channel; 0 beyond the border. B×C×H×W."""
    down = F.pad(picture[..., 1:, :] - picture[..., :-1, :], (0, 0, 0, 1))
    right = F.pad(picture[..., 1:] - picture[..., :-1], (0, 1))
    return torch.maximum(down.abs(), right.abs())
