"""Similarity to a reference: PSNR and SSIM of RGB, of luma and with the reference's mean brightness, and ΔE2000; and
two figures without one: brightness, and whether the order of lightness is kept (LOE).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lumen_cli.imaging.colour.convert import to_linear

_WINDOW = 11
_STRIP_PIXELS = 1 << 18
_CREST = _WINDOW // 2


def psnr(output: Tensor, reference: Tensor) -> float:
    """Peak signal-to-noise ratio over C×H×W in dB, peak 1; infinite for equal pictures. Takes the memory of one.

    >>> round(psnr(torch.full((3, 8, 8), 0.6), torch.full((3, 8, 8), 0.5)), 2)
    20.0
    """
    error = float((output - reference).square_().mean())
    return -10.0 * math.log10(error) if error > 0.0 else math.inf


def ssim(output: Tensor, reference: Tensor) -> float:
    """Structural similarity (Wang et al., 2004) of C×H×W in [0, 1], mean over the channels.

    Gaussian window 11×11, σ 1.5, K1 0.01, K2 0.03, peak 1; as in the authors' code, only where the whole window lies
    in the picture (torchmetrics itself and some tables average over mirrored borders too). NaN for a picture with a
    side below 11 pixels. torchmetrics computes the map in strips, with about 0.3 GB beside pictures of any size.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    height, width = output.shape[-2:]
    if min(height, width) < _WINDOW:
        return math.nan
    total, rows = 0.0, max(_STRIP_PIXELS // width, 1)
    for top in range(0, height - _WINDOW + 1, rows):
        strip = slice(top, min(top + rows + _WINDOW - 1, height))
        parts = output[None, :, strip], reference[None, :, strip]
        _, full = structural_similarity_index_measure(*parts, sigma=1.5, data_range=1.0, return_full_image=True)
        inner = full[..., _CREST:-_CREST, _CREST:-_CREST]
        total += float(inner.mean()) * inner.shape[-2]
    return total / (height - _WINDOW + 1)


def luma(picture: Tensor) -> Tensor:
    """3×H×W in [0, 1] → 1×H×W, BT.601 luma of studio range, 16/255 to 235/255: MATLAB's rgb2ycbcr, not rounded.

    >>> [round(255 * float(luma(torch.full((3, 1, 1), value)))) for value in (0.0, 1.0)]
    [16, 235]
    """
    weights = picture.new_tensor([65.481, 128.553, 24.966]) / 255.0
    return (torch.tensordot(weights, picture, dims=1) + 16.0 / 255.0)[None]


def psnr_y(output: Tensor, reference: Tensor) -> float:
    """`psnr` of `luma`, peak 1 (255 in 8 bits)."""
    return psnr(luma(output), luma(reference))


def ssim_y(output: Tensor, reference: Tensor) -> float:
    """`ssim` of `luma`, peak 1 (255 in 8 bits)."""
    return ssim(luma(output), luma(reference))


def grey(picture: Tensor) -> Tensor:
    """3×H×W → H×W, 0.299 R + 0.587 G + 0.114 B: OpenCV's grey, full range."""
    weights = picture.new_tensor([0.299, 0.587, 0.114])
    return torch.tensordot(weights, picture, dims=1)


def with_mean_of(output: Tensor, reference: Tensor) -> Tensor:
    """The output scaled to the reference's mean: clip(output · mean(grey(reference)) / mean(grey(output)), 0, 1).

    This is how KinD, LLFlow, Retinexformer and later diffusion models are evaluated; it is not rounded to 8 bits again.
    It uses the ground truth's brightness, which the model had to find, so its figures have their own columns. A black
    output stays black. With PSNR it takes the memory of two more pictures.

    >>> round(float(with_mean_of(torch.full((3, 2, 2), 0.2), torch.full((3, 2, 2), 0.6)).mean()), 4)
    0.6
    """
    mean = grey(output).mean()
    factor = torch.where(mean > 0.0, grey(reference).mean() / mean.clamp_min(1e-12), 1.0)
    return (output * factor).clamp_(0.0, 1.0)


def psnr_gt_mean(output: Tensor, reference: Tensor) -> float:
    """`psnr` after `with_mean_of`."""
    return psnr(with_mean_of(output, reference), reference)


def ssim_gt_mean(output: Tensor, reference: Tensor) -> float:
    """`ssim` after `with_mean_of`."""
    return ssim(with_mean_of(output, reference), reference)


_COLOUR_STRIP_PIXELS = 1 << 20
_WHITE = (0.95047, 1.0, 1.08883)
_TO_XYZ = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
_25_TO_7 = 25.0**7


def delta_e(output: Tensor, reference: Tensor) -> float:
    """Mean colour difference ΔE00 over the pixels (CIEDE2000; Sharma, Wu and Dalal, 2005; kL = kC = kH = 1).

    Both 3×H×W in [0, 1] are read as sRGB, white D65, 2° observer. 0 for equal pictures; about 1 is just
    visible, black against white is 100. In strips of a megapixel: about 0.2 GB beside the pictures.

    >>> round(delta_e(torch.zeros(3, 8, 8), torch.ones(3, 8, 8)), 1)
    100.0
    """
    height, width = output.shape[-2:]
    total = 0.0
    for rows in torch.arange(height).split(max(_COLOUR_STRIP_PIXELS // width, 1)):
        strip = slice(int(rows[0]), int(rows[-1]) + 1)
        total += float(ciede2000(lab(output[:, strip]), lab(reference[:, strip])).mean()) * len(rows)
    return total / height


def lab(picture: Tensor) -> Tensor:
    """3×H×W sRGB in [0, 1] → CIE L*a*b*, 3×H×W."""
    matrix = picture.new_tensor(_TO_XYZ) / picture.new_tensor(_WHITE)[:, None]
    xyz = torch.einsum("rc,chw->rhw", matrix, to_linear(picture))
    x, y, z = torch.where(xyz > 216 / 24389, xyz.clamp_min(0.0) ** (1 / 3), (24389 / 27 * xyz + 16) / 116)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def ciede2000(one: Tensor, other: Tensor) -> Tensor:
    """ΔE00 of two 3×H×W in CIE L*a*b* → H×W. Angles in radians; numbers of the equations in Sharma et al."""
    (l1, a1, b1), (l2, a2, b2) = one, other
    mean_chroma = (torch.hypot(a1, b1) + torch.hypot(a2, b2)) / 2  # (2), (3)
    grow = 1.5 - 0.5 * _to_7(mean_chroma)  # 1 + G, (4)
    a1, a2 = a1 * grow, a2 * grow  # (5)
    c1, c2 = torch.hypot(a1, b1), torch.hypot(a2, b2)  # (6)
    h1, h2 = torch.atan2(b1, a1), torch.atan2(b2, a2)  # (7)
    grey = (c1 * c2) == 0
    turn = torch.remainder(h2 - h1 + math.pi, 2 * math.pi) - math.pi  # (10), the shorter way round
    turn = torch.where(grey, 0.0, turn)
    lightness, chroma = l2 - l1, c2 - c1  # (8), (9)
    hue = 2 * torch.sqrt(c1 * c2) * torch.sin(turn / 2)  # (11)
    mean_hue = torch.where(grey, h1 + h2, h1 + turn / 2)  # (14)
    mean_lightness, mean_chroma = (l1 + l2) / 2, (c1 + c2) / 2  # (12), (13)
    weight = (
        1
        - 0.17 * torch.cos(mean_hue - math.radians(30))
        + 0.24 * torch.cos(2 * mean_hue)
        + 0.32 * torch.cos(3 * mean_hue + math.radians(6))
        - 0.20 * torch.cos(4 * mean_hue - math.radians(63))
    )  # (15)
    away = torch.remainder(torch.rad2deg(mean_hue), 360.0) - 275.0
    rotation = (
        -2 * _to_7(mean_chroma) * torch.sin(math.radians(60) * torch.exp(-((away / 25) ** 2)))
    )  # (16), (17), (21)
    off_middle = (mean_lightness - 50) ** 2
    lightness = lightness / (1 + 0.015 * off_middle / torch.sqrt(20 + off_middle))  # (18)
    chroma = chroma / (1 + 0.045 * mean_chroma)  # (19)
    hue = hue / (1 + 0.015 * mean_chroma * weight)  # (20)
    square = lightness**2 + chroma**2 + hue**2 + rotation * chroma * hue  # (22)
    return square.clamp_min(0.0).sqrt()


def _to_7(chroma: Tensor) -> Tensor:
    """√(C⁷ / (C⁷ + 25⁷)), the factor of the equations (4) and (17)."""
    seventh = chroma**7
    return torch.sqrt(seventh / (seventh + _25_TO_7))


_SHORT_SIDE = 50
_GRID = 100
_PAIRS_AT_ONCE = 1 << 22
_TABLE_CELLS = 1 << 20


def brightness(output: Tensor) -> float:
    """Mean of all values of a 3×H×W picture, 0 to 1; tables of exposure state it times 255.

    >>> brightness(torch.full((3, 4, 4), 0.25))
    0.25
    """
    return float(output.mean())


def loe(output: Tensor, input: Tensor) -> float:
    """Lightness order error against the dark picture, 0 to the number of samples (Wang et al., 2013, eq. 21 to 24).

    Lightness is the maximum of R, G and B. For each sample it counts the samples whose order with it (≥) differs
    between output and input, and takes the mean. As in the paper, the pictures are first reduced to 50 pixels on the
    shorter side, here by taking the pixel at the centre of each cell, which keeps the values of 8-bit pictures and
    their ties. A shorter side of up to 50 is not reduced. The scale depends on the number of samples: compare it only
    with figures of the same sampling, see `loe_100`.

    >>> dark = torch.rand(3, 20, 30)
    >>> loe(dark / 2, dark)
    0.0
    """
    height, width = input.shape[-2:]
    ratio = min(1.0, _SHORT_SIDE / min(height, width))
    down, across = max(int(height * ratio), 1), max(int(width * ratio), 1)
    rows, columns = _middles(height, down), _middles(width, across)
    return _order_errors(output[:, rows][:, :, columns], input[:, rows][:, :, columns])


def loe_100(output: Tensor, input: Tensor) -> float:
    """LOE as `loe`, on 100×100 pixels spread evenly from edge to edge whatever the shape, 0 to 10000.

    This is the sampling of BIMEF's evaluation code (Ying et al., 2017), which many tables for DICM, LIME, MEF, NPE and
    VV use.
    """
    rows, columns = (_from_edge_to_edge(side) for side in input.shape[-2:])
    return _order_errors(output[:, rows][:, :, columns], input[:, rows][:, :, columns])


def _middles(side: int, samples: int) -> list[int]:
    return [int((index + 0.5) * side / samples) for index in range(samples)]


def _from_edge_to_edge(side: int) -> list[int]:
    return [int((side - 1) * index / (_GRID - 1) + 0.5) for index in range(_GRID)]


def _order_errors(output: Tensor, input: Tensor) -> float:
    after, before = output.amax(dim=0).flatten(), input.amax(dim=0).flatten()
    levels_after, after_rank = after.unique(return_inverse=True)
    levels_before, before_rank = before.unique(return_inverse=True)
    if len(levels_after) * len(levels_before) <= _TABLE_CELLS:
        errors = _errors_by_table(after_rank, before_rank, len(levels_after), len(levels_before))
    else:
        errors = _errors_by_pairs(after_rank, before_rank)
    return errors / len(after)


def _errors_by_table(after: Tensor, before: Tensor, rows: int, columns: int) -> int:
    """For few levels, as in 8 bits: |A xor B| = |A| + |B| - 2 |A and B|, of cumulative histograms."""
    table = torch.bincount(after * columns + before, minlength=rows * columns).view(rows, columns)
    below = table.cumsum(dim=0).cumsum(dim=1)  # samples of at most this rank in both
    in_order_after = (table.sum(dim=1) * below[:, -1]).sum()
    in_order_before = (table.sum(dim=0) * below[-1]).sum()
    return int(in_order_after + in_order_before - 2 * (table * below).sum())


def _errors_by_pairs(after: Tensor, before: Tensor) -> int:
    errors = 0
    for index in torch.arange(len(after), device=after.device).split(max(_PAIRS_AT_ONCE // len(after), 1)):
        changed = (after[index, None] >= after[None]) ^ (before[index, None] >= before[None])
        errors += int(changed.sum())
    return errors
