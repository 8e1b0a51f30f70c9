"""What JPEG compression does to a picture, batched on any device: colour transform, 8×8 DCT, quantisation.

ITU-T T.81, annexes A and K; chroma is halved in both directions (4:2:0) as most cameras do. Entropy
coding loses nothing and is left out.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

# Table K.1 and K.2.
_LUMA = (
    "16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62 "
    "18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99"
)
_CHROMA = (
    "17 18 24 47 99 99 99 99 18 21 26 66 99 99 99 99 24 26 56 99 99 99 99 99 47 66 99 99 99 99 99 99 " + "99 " * 32
)
_TO_YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


def jpeg(picture: Tensor, quality: Tensor) -> Tensor:
    """Compress and decompress.

    Args:
        picture: B×3×H×W in [0, 1], sRGB, any size.
        quality: [B], 1 … 100 in libjpeg's scale; pictures with more than 100 come back untouched.

    Returns:
        B×3×H×W in [0, 1], multiples of 1/255 where the input is 8-bit.
    """
    touched = quality <= 100
    if not bool(touched.any()):
        return picture
    height, width = picture.shape[-2:]
    padded = F.pad(picture[touched], (0, -width % 16, 0, -height % 16), mode="replicate") * 255.0
    forward = torch.tensor(_TO_YCBCR, device=picture.device, dtype=picture.dtype)
    ycbcr = torch.einsum("ij,bjhw->bihw", forward, padded)
    ycbcr[:, 0] -= 128.0
    scale = _table_scale(quality[touched].to(picture))
    luma = _quantise(ycbcr[:, :1], _table(_LUMA).to(picture), scale)
    chroma = _quantise(F.avg_pool2d(ycbcr[:, 1:], 2), _table(_CHROMA).to(picture), scale)
    full = torch.cat([luma + 128.0, F.interpolate(chroma, scale_factor=2.0, mode="bilinear")], dim=1)
    rgb = torch.einsum("ij,bjhw->bihw", torch.linalg.inv(forward), full)[..., :height, :width]
    result = picture.clone()
    result[touched] = rgb.round().clamp(0.0, 255.0) / 255.0
    return result


def _table_scale(quality: Tensor) -> Tensor:
    """Libjpeg's percentage for a quality, as a factor, [B]."""
    quality = quality.clamp(1.0, 100.0)
    return torch.where(quality < 50.0, 50.0 / quality, 2.0 - quality / 50.0)


def _quantise(plane: Tensor, table: Tensor, scale: Tensor) -> Tensor:
    b, c, h, w = plane.shape
    basis = _dct_basis().to(plane)
    blocks = plane.reshape(b, c, h // 8, 8, w // 8, 8).permute(0, 1, 2, 4, 3, 5)
    steps = (table * scale.view(-1, 1, 1, 1, 1, 1)).round().clamp(1.0, 255.0)
    coefficients = (basis @ blocks @ basis.T / steps).round() * steps
    return (basis.T @ coefficients @ basis).permute(0, 1, 2, 4, 3, 5).reshape(b, c, h, w)


@lru_cache(maxsize=2)
def _table(text: str) -> Tensor:
    return torch.tensor([float(word) for word in text.split()]).view(8, 8)


@lru_cache(maxsize=1)
def _dct_basis() -> Tensor:
    """Orthonormal DCT-II matrix, 8×8."""
    n = torch.arange(8, dtype=torch.float64)
    basis = torch.cos((2 * n[None, :] + 1) * n[:, None] * math.pi / 16) * 0.5
    basis[0] /= math.sqrt(2.0)
    return basis.float()
