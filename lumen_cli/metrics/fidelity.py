"""How near an output is to its reference: PSNR and SSIM of RGB, of luma, and with the reference's mean brightness."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_WINDOW = 11
_STRIP_PIXELS = 1 << 18
_CREST = _WINDOW // 2


def psnr(output: Tensor, reference: Tensor) -> float:
    """Peak signal-to-noise ratio over C×H×W in dB, peak 1; infinite for equal pictures. Takes the memory of one."""
    error = float((output - reference).square_().mean())
    return -10.0 * math.log10(error) if error > 0.0 else math.inf


def ssim(output: Tensor, reference: Tensor) -> float:
    """Structural similarity (Wang et al., 2004) of C×H×W in [0, 1], mean over the channels.

    Gaussian window 11×11, σ 1.5, K1 0.01, K2 0.03, peak 1; as in the authors' code, only where the whole window lies
    in the picture (torchmetrics itself and some tables average over mirrored borders too). NaN for a picture with a
    side below 11 pixels. torchmetrics computes the map, in strips: some 0.3 GB beside the pictures of any size.
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
    """3×H×W in [0, 1] → 1×H×W, BT.601 luma of studio range, 16/255 to 235/255: MATLAB's rgb2ycbcr, not rounded."""
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
    """The output as GT-mean figures see it: clip(output · mean(grey(reference)) / mean(grey(output)), 0, 1).

    As KinD, LLFlow, Retinexformer and the diffusion models after them evaluate; not rounded to 8 bits again. It takes
    from the ground truth what the model had to find, so its figures stand in columns of their own. A black output
    stays black. With PSNR it takes the memory of two more pictures.
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
