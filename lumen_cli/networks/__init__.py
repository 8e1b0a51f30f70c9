"""Pure networks, a file or folder for each architecture. They import torch and lumen's diffusion only.

Here are the parts that several share: channel attentions, merged convolutions, SSIM, brightening without learning.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_EXPORTING = ContextVar("exporting", default=False)


@contextmanager
def exporting() -> Iterator[None]:
    """Networks run inside as one graph for pictures of any size: nothing they do depends on the size."""
    token = _EXPORTING.set(True)
    try:
        yield
    finally:
        _EXPORTING.reset(token)


def is_exporting() -> bool:
    """Whether `exporting` is on."""
    return not torch.compiler.is_compiling() and _EXPORTING.get()  # a compiler cannot read the variable


def at_least(length: int, least: int) -> int:
    """`max`, also for a length that is being traced."""
    return length.clamp(min=least) if isinstance(length, Tensor) else max(length, least)


def average_to(x: Tensor, size: int | tuple[int, int]) -> Tensor:
    """`adaptive_avg_pool2d`: B×C×H×W → B×C×size.

    On Apple's chips PyTorch has it only for sides that divide, and ONNX has none; there the same means are two products
    of matrices.
    """
    rows, columns = (size, size) if isinstance(size, int) else size
    height, width = x.shape[-2:]
    if not is_exporting() and (x.device.type != "mps" or (_divides(height, rows) and _divides(width, columns))):
        return F.adaptive_avg_pool2d(x, (rows, columns))
    across = x @ _window_means(width, columns).to(x).T
    return _window_means(height, rows).to(x) @ across


def quantiles(x: Tensor, shares: Tensor) -> Tensor:
    """`x.quantile(shares, dim=1)`: B×N → S×B. ONNX has none."""
    if not is_exporting():
        return x.quantile(shares, dim=1)
    ordered, last = x.sort(dim=1).values, x.shape[1] - 1
    places = shares.double() * last
    below = places.floor().long()
    lower, upper = ordered[:, below], ordered[:, (below + 1).clamp(max=last)]
    return torch.lerp(lower, upper, (places - below).to(x)).T


def powers_of_two(x: Tensor) -> Tensor:
    """`torch.exp2`, which ONNX does not have."""
    return torch.pow(2.0, x) if is_exporting() else torch.exp2(x)


def _divides(length: int, count: int) -> bool:
    return max(length, count) % min(length, count) == 0


def _window_means(length: int, count: int) -> Tensor:
    """The matrix count×length whose product with a column of values has the means of its `count` windows."""
    places = torch.arange(length)
    starts, stops = torch.arange(count) * length // count, (torch.arange(1, count + 1) * length + count - 1) // count
    inside = (places >= starts[:, None]) & (places < stops[:, None])
    return inside / (stops - starts)[:, None]


def widened(x: Tensor) -> Tensor:
    """`x` in float64; in float32 on Apple's chips, which have no float64."""
    return x.float() if x.device.type == "mps" else x.double()


class DepthwiseSeparable(nn.Module):
    """3×3 convolution per channel, then a 1×1 convolution across channels."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.depth_conv = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels)
        self.point_conv = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W → B×C'×H×W."""
        return self.point_conv(self.depth_conv(x))


class CrossAttention(nn.Module):
    """Attention between the channels of two maps, separately for every row of the map.

    score[row, i, j] = Σ_column q_i k_j / sqrt(channels / 8), softmax over the key channels j. As in the official code
    the scale is that of 8 heads, but the channels are not split into heads.
    """

    def __init__(self, channels: int, heads: int = 8) -> None:
        super().__init__()
        self.query = DepthwiseSeparable(channels, channels)
        self.key = DepthwiseSeparable(channels, channels)
        self.value = DepthwiseSeparable(channels, channels)
        self.scale = (channels // heads) ** -0.5

    def forward(self, query_source: Tensor, context: Tensor) -> Tensor:
        """Query from the first map, keys and values from the second; both B×C×H×W → B×C×H×W."""
        q, k, v = (
            projected.permute(0, 2, 3, 1)
            for projected in (self.query(query_source), self.key(context), self.value(context))
        )
        # B×H×C×C. This order of products reads and writes maps in channels_last without a copy.
        weights = torch.softmax((q.transpose(-2, -1) @ k) * self.scale, dim=-1)
        return (v @ weights.transpose(-2, -1)).permute(0, 3, 1, 2)


class ChannelSelfAttention(nn.Module):
    """Attention between the channels of each head, over the whole map (after Restormer's transposed attention).

    q and k are unit vectors over all positions; no scale and no learned temperature.
    """

    def __init__(self, channels: int, heads: int = 8) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.qkv_dwconv = nn.Conv2d(3 * channels, 3 * channels, 3, padding=1, groups=3 * channels)
        self.project_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W → the same shape."""
        b, c, h, w = x.shape
        q, k, v = (
            part.reshape(b, self.heads, c // self.heads, h * w) for part in self.qkv_dwconv(self.qkv(x)).chunk(3, dim=1)
        )
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
        return self.project_out((torch.softmax(scores, dim=-1) @ v).reshape(b, c, h, w))


def compose(x: Tensor, first: nn.Module, second: nn.Module) -> Tensor:
    """second(first(x)) for two odd, zero-padded convolutions with nothing between them, as one convolution.

    Two linear layers in a row are one: a 5×5 from 3 to c channels and a 5×5 from c to c become a 9×9 from 3 to c, with
    about a seventh of the multiplications at c = 64. They differ along the border, where the second layer pads the
    first one's output with zeros: that ring is computed by the two layers. Differentiable in `x` and all parameters.
    """
    if not (isinstance(first, nn.Conv2d) and isinstance(second, nn.Conv2d)):
        raise TypeError("only plain convolutions can be composed")
    ring = int(second.padding[0])
    reach = int(first.padding[0]) + ring
    strip = ring + reach
    if not is_exporting() and min(x.shape[-2:]) < 2 * strip:
        return second(first(x))
    weight, bias = _compose_kernels(first, second)
    whole = F.conv2d(x, weight, bias, padding=reach)

    def exact(part: Tensor) -> Tensor:
        return second(first(part))

    top = exact(x[..., :strip, :])[..., :ring, :]
    bottom = exact(x[..., -strip:, :])[..., -ring:, :]
    left = exact(x[..., :strip])[..., ring:-ring, :ring]
    right = exact(x[..., -strip:])[..., ring:-ring, -ring:]
    inner = torch.cat([left, whole[..., ring:-ring, ring:-ring], right], dim=-1)
    return torch.cat([top, inner, bottom], dim=-2)


def _compose_kernels(first: nn.Conv2d, second: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Kernel K = Σ_m W2[:, m] ∗ W1[m, :] (full convolution of the kernels) and its bias, in float32."""
    with torch.autocast(first.weight.device.type, enabled=False):
        one, two = first.weight.float(), second.weight.float()
        kernel = F.conv2d(one.transpose(0, 1), two.flip(2, 3), padding=two.shape[-1] - 1).transpose(0, 1)
        if first.bias is None or second.bias is None:
            raise ValueError("both layers need a bias")
        bias = second.bias.float() + two.sum(dim=(2, 3)) @ first.bias.float()
    return kernel.to(first.weight.dtype), bias.to(first.weight.dtype)


def doubled(x: Tensor) -> Tensor:
    """Both sides doubled by repetition: B×C×H×W → B×C×2H×2W."""
    return x[..., None, :, None].expand(-1, -1, -1, 2, -1, 2).flatten(4, 5).flatten(2, 3)


def upsampled_convolution(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """layer(x repeated twice along both sides) for a 3×3 convolution padded by one; B×C×H×W → B×C'×2H×2W.

    Two of the three rows under a kernel are the same: an even row of the result is a sum over two rows of `x` with the
    kernel's rows (0, 1 + 2), an odd one with (0 + 1, 2); likewise the columns. Four 2×2 kernels instead of one 3×3 at
    four times the pixels need 4/9 of the multiplications.
    """
    weight = layer.weight
    for axis in (2, 3):
        first, middle, last = weight.unbind(axis)
        even = torch.stack([first, middle + last], dim=axis)
        weight = torch.cat([even, torch.stack([first + middle, last], dim=axis)])
    bias = None if layer.bias is None else layer.bias.repeat(4)
    height, width = x.shape[-2:]
    # One convolution for all four: the blocks of its output are (column odd, row odd) = 00, 01, 10, 11.
    blocks = F.conv2d(x, weight, bias, padding=1).chunk(4, dim=1)
    whole = torch.empty(
        (x.shape[0], layer.out_channels, 2 * height, 2 * width),
        dtype=blocks[0].dtype,
        device=x.device,
        memory_format=torch.channels_last if _is_channels_last(x) else torch.contiguous_format,
    )
    for number, block in enumerate(blocks):
        column, row = divmod(number, 2)
        whole[..., row::2, column::2] = block[..., row : row + height, column : column + width]
    return whole


def _is_channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def similarity(x: Tensor, y: Tensor) -> Tensor:
    """SSIM (Wang et al., 2004) of pictures B×C×H×W in [0, 1] from 11×11; mean over everything, a scalar.

    Gaussian window of 11×11, σ = 1.5, without padding; population statistics, C1 = 0.01², C2 = 0.03².
    """
    taps = torch.arange(-5, 6, dtype=torch.float64)
    window = torch.exp(-0.5 * (taps / 1.5) ** 2)
    window = (window / window.sum()).to(x.device, torch.float32)
    channels = x.shape[1]

    def blur(maps: Tensor) -> Tensor:
        maps = F.conv2d(maps, window.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
        return F.conv2d(maps, window.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)

    with torch.autocast(x.device.type, enabled=False):
        x, y = x.float(), y.float()
        mean_x, mean_y, xx, yy, xy = blur(torch.cat([x, y, x * x, y * y, x * y])).chunk(5)
        contrast = (2.0 * (xy - mean_x * mean_y) + 9e-4) / (xx - mean_x**2 + yy - mean_y**2 + 9e-4)
        return (contrast * (2.0 * mean_x * mean_y + 1e-4) / (mean_x**2 + mean_y**2 + 1e-4)).mean()


_LARGEST_GAIN = 16.0


def gain_to(low: Tensor, exposure: float) -> Tensor:
    """Factor from 1 to 16 that brings the mean of each picture, B×3×H×W in [0, 1], to `exposure`; B×1×1×1, float32."""
    mean = low.float().mean(dim=(1, 2, 3), keepdim=True)
    return (exposure / mean.clamp_min(1e-4)).clamp(1.0, _LARGEST_GAIN)


def tone_map(low: Tensor, gain: Tensor) -> Tensor:
    """The picture times its gain g ≥ 1, then v (1 + v / g²) / (1 + v), under which white stays white.

    (Reinhard et al., "Photographic Tone Reproduction for Digital Images", equation 4.) `low` B×3×H×W in [0, 1], `gain`
    B×1×1×1 → the same shape and range, float32; at g = 1 the picture itself.
    """
    value = low.float() * gain
    return value * (1.0 + value / gain**2) / (1.0 + value)


def check_fade(exposure: float | None, **bounds: float | None) -> None:
    """ValueError with the name of a bound at which `fade` cannot start."""
    for name, above in bounds.items():
        if above is not None and (exposure is None or not 0.0 <= above < 1.0):
            raise ValueError(f"{name} must lie in [0, 1) and needs exposure, not {above}, {exposure}")


def faded(correction: Tensor, brightened: Tensor, above: float | None, colour_above: float | None) -> Tensor:
    """Reduce a network's correction of a brightened picture, both B×3×H×W, where that picture is bright; see `fade`.

    The whole correction fades above `above`, its colour (the difference from the mean of the channels) above
    `colour_above`: noise hides the colour of dark areas, but little of bright ones. None: no fading.
    """
    if colour_above is not None:
        grey = correction.mean(dim=1, keepdim=True)
        correction = grey + fade(brightened, colour_above) * (correction - grey)
    return correction if above is None else fade(brightened, above) * correction


def fade(brightened: Tensor, above: float) -> Tensor:
    """The share of a network's correction that a brightened picture takes: 1 up to `above`, then less, 0 at white.

    Areas that `tone_map` has made nearly white, such as a lamp, are bright enough. Dark pictures have so few of them
    that a network learns little about them and adds grey patches and coloured spots. The brightest channel counts.
    B×3×H×W in [0, 1] → B×1×H×W.
    """
    return ((1.0 - brightened.amax(dim=1, keepdim=True)) / (1.0 - above)).clamp(0.0, 1.0)
