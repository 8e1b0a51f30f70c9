"""The training terms of KinD (Zhang et al., ACM MM 2019, section 3) and KinD++, as released. Maps are in [0, 1].

Where paper and release differ these are the release's: means for sums, absolute differences for the reflectances,
gradients that are normalised over the whole batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

GREY = (0.2989, 0.5870, 0.1140)
CONTRAST = 1.2


def luminance(picture: Tensor) -> Tensor:
    """B×3×H×W → B×1×H×W, by the weights that the losses use (those of the fusion differ)."""
    weights = torch.tensor(GREY, dtype=picture.dtype, device=picture.device).view(1, 3, 1, 1)
    return (picture * weights).sum(dim=1, keepdim=True)


def normalised_gradients(x: Tensor, *, signed: bool = False) -> tuple[Tensor, Tensor]:
    """Horizontal and vertical differences of B×1×H×W, each brought to [0, 1] by the batch's least and greatest.

    As released: zeros stand below and to the right; the horizontal difference is that of the row below, the vertical
    one that of the column to the right. The border so made mostly sets the maximum. `signed` (KinD++) keeps the sign.
    """
    padded = F.pad(x, (0, 1, 0, 1))
    corner = padded[..., 1:, 1:]
    across, down = corner - padded[..., 1:, :-1], corner - padded[..., :-1, 1:]
    if not signed:
        across, down = across.abs(), down.abs()
    return _normalised(across), _normalised(down)


def _normalised(x: Tensor) -> Tensor:
    least, greatest = x.amin(), x.amax()
    return (x - least) / (greatest - least + 1e-4)


def similarity(a: Tensor, b: Tensor) -> Tensor:
    """SSIM (Wang et al., 2004): Gaussian window of 11×11, σ = 1.5, whole windows only; B×C×H×W → a scalar."""
    taps = torch.arange(-5, 6, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (taps / 1.5) ** 2)
    kernel = (kernel / kernel.sum()).to(a)
    channels = a.shape[1]

    def mean(x: Tensor) -> Tensor:
        x = F.conv2d(x, kernel.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
        return F.conv2d(x, kernel.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)

    with torch.autocast(a.device.type, enabled=False):
        mean_a, mean_b = mean(a), mean(b)
        variance_a = mean(a * a) - mean_a * mean_a
        variance_b = mean(b * b) - mean_b * mean_b
        covariance = mean(a * b) - mean_a * mean_b
        above = (2.0 * mean_a * mean_b + 1e-4) * (2.0 * covariance + 9e-4)
        below = (mean_a * mean_a + mean_b * mean_b + 1e-4) * (variance_a + variance_b + 9e-4)
        return (above / below).mean()


def mutual_consistency(low: Tensor, high: Tensor) -> Tensor:
    """Edges of two illuminations B×1×H×W, strong in both or in neither: mean of Σ s · exp(-10 s), s = ∇low + ∇high."""
    loss = low.new_zeros(())
    for dark, bright in zip(normalised_gradients(low), normalised_gradients(high), strict=True):
        both = dark + bright
        loss = loss + (both * torch.exp(-10.0 * both)).mean()
    return loss


def guided_smoothness(illumination: Tensor, picture: Tensor) -> Tensor:
    """Edges of an illumination B×1×H×W where the picture B×3×H×W has none: mean of Σ ∇L / max(∇I, 0.01)."""
    loss = illumination.new_zeros(())
    guides = normalised_gradients(luminance(picture))
    for change, edge in zip(normalised_gradients(illumination), guides, strict=True):
        loss = loss + (change / edge.clamp_min(0.01)).mean()
    return loss


def gradient_fidelity(output: Tensor, target: Tensor, *, signed: bool = False) -> Tensor:
    """Mean of the squared differences of normalised gradients, summed over both directions; B×1×H×W each."""
    pairs = zip(normalised_gradients(output, signed=signed), normalised_gradients(target, signed=signed), strict=True)
    return torch.stack([F.mse_loss(ours, theirs) for ours, theirs in pairs]).sum()


def decomposition_losses(
    pictures: tuple[Tensor, Tensor],
    reflectances: tuple[Tensor, Tensor],
    illuminations: tuple[Tensor, Tensor],
    reflectance_weight: float = 0.01,
) -> dict[str, Tensor]:
    """Weighted terms of section 3.1 for (dark, bright) pairs of maps. KinD++ weights equal reflectances by 0.009."""
    (low, high), (r_low, r_high), (l_low, l_high) = pictures, reflectances, illuminations
    return {
        "reconstruction_low": F.l1_loss(r_low * l_low, low),
        "reconstruction_high": F.l1_loss(r_high * l_high, high),
        "reflectance": reflectance_weight * F.l1_loss(r_low, r_high),
        "mutual": 0.2 * mutual_consistency(l_low, l_high),
        "smooth_low": 0.15 * guided_smoothness(l_low, low),
        "smooth_high": 0.15 * guided_smoothness(l_high, high),
    }


def adjustment_losses(adjusted: Tensor, target: Tensor, *, signed: bool = False) -> dict[str, Tensor]:
    """Terms of section 3.3 for illuminations B×1×H×W; `signed` for KinD++."""
    return {
        "square": F.mse_loss(adjusted, target),
        "gradient": gradient_fidelity(adjusted, target, signed=signed),
    }


def restoration_losses(restored: Tensor, target: Tensor, *, gradient: bool = True) -> dict[str, Tensor]:
    """Terms of section 3.2 for reflectances B×3×H×W, at least 11×11; KinD++ goes without the gradient."""
    terms = {"square": F.mse_loss(restored, target), "structure": 1.0 - similarity(restored, target)}
    if gradient:
        terms["gradient"] = gradient_fidelity(luminance(restored), luminance(target))
    return terms


def adjustment_pairs(low: Tensor, high: Tensor, brighten: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Source, target and ratio [B] of illuminations B×1×H×W: dark to bright where `brighten` (bool [B]), else back.

    As released, the ratio is mean(low / (high + 1e-4)) on the way down and one over that, plus 1e-4, on the way up.
    """
    down = (low / (high + 1e-4)).mean(dim=(1, 2, 3))
    ratio = torch.where(brighten, 1.0 / down + 1e-4, down)
    choose = brighten.view(-1, 1, 1, 1)
    return torch.where(choose, low, high), torch.where(choose, high, low), ratio
