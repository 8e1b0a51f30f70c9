"""The layers of AnlightenDiff's networks: weight-normed convolutions, reflection padding, norms after activations."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumen_cli.networks import is_exporting

NORM_EPS = 1e-5


class WeightNormConv(nn.Module):
    """Convolution without padding, its kernel of output channel o being g_o · v_o / ‖v_o‖.

    (Salimans & Kingma, "Weight Normalization", equation 2.) Without gradients the kernel is computed once and kept
    until g or v change.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, bias: bool = True) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.weight_g = nn.Parameter(torch.empty(out_channels, 1, 1, 1))
        self.weight_v = nn.Parameter(torch.empty(out_channels, in_channels, kernel, kernel))
        self.stride = stride
        nn.init.kaiming_uniform_(self.weight_v, a=math.sqrt(5.0))
        with torch.no_grad():
            self.weight_g.copy_(self._norms())
        self._folded: dict[int, Tensor] = {}
        self._folded_from: tuple[object, ...] = ()

    def _norms(self) -> Tensor:
        return self.weight_v.flatten(1).norm(dim=1).view(-1, 1, 1, 1)

    def kernel(self, first: int | None = None) -> Tensor:
        """The kernel for the `first` input channels (None: all), for the last ones where `first` is negative."""
        if torch.is_grad_enabled() or is_exporting():
            return _part(self.weight_v * (self.weight_g / self._norms()), first)
        g, v = self.weight_g, self.weight_v
        source = (g, v, g.data_ptr(), v.data_ptr(), _version(g), _version(v))
        if not _same(source, self._folded_from):
            self._folded, self._folded_from = {}, source
        key = v.shape[1] if first is None else first
        if key not in self._folded:
            layout = (
                torch.channels_last if v.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
            )
            self._folded[key] = _part(v * (g / self._norms()), first).contiguous(memory_format=layout)
        return self._folded[key]

    def train(self, mode: bool = True) -> WeightNormConv:
        """See `nn.Module.train`; drops the kept kernel."""
        self._forget()
        return super().train(mode)

    def _apply(self, *args: Any, **kwargs: Any) -> WeightNormConv:
        self._forget()
        return super()._apply(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_folded": {}, "_folded_from": ()}

    def _forget(self) -> None:
        self._folded, self._folded_from = {}, ()

    def forward(self, x: Tensor, rest: Tensor | None = None) -> Tensor:
        """B×C×H×W → B×C'×H'×W'. `rest`: from `rest`, for further input channels; it includes the bias."""
        if rest is None:
            return F.conv2d(x, self.kernel(), self.bias, self.stride)
        return F.conv2d(x, self.kernel(x.shape[1]), None, self.stride).add_(rest)

    def rest(self, x: Tensor) -> Tensor:
        """The contribution of the last input channels to the result, plus the bias."""
        return F.conv2d(x, self.kernel(-x.shape[1]), self.bias, self.stride)


def _part(kernel: Tensor, first: int | None) -> Tensor:
    if first is None:
        return kernel
    return kernel[:, :first] if first > 0 else kernel[:, first:]


def _version(parameter: Tensor) -> int:
    return 0 if parameter.is_inference() else parameter._version


def _same(one: tuple[object, ...], other: tuple[object, ...]) -> bool:
    return len(one) == len(other) and all(
        a is b if isinstance(a, Tensor) else a == b for a, b in zip(one, other, strict=True)
    )


class Unit(nn.Module):
    """Reflection padding by one, 3×3 convolution, Mish."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.ReflectionPad2d(1), WeightNormConv(in_channels, out_channels, 3), nn.Mish())

    @property
    def conv(self) -> WeightNormConv:
        """The convolution."""
        layer = self.block[1]
        assert isinstance(layer, WeightNormConv)
        return layer

    def forward(self, x: Tensor, rest: Tensor | None = None) -> Tensor:
        """B×C×H×W → B×C'×H×W; sides from 2 up. `rest`: see `WeightNormConv.forward`."""
        return self.block[2](self.conv(self.block[0](x), rest))


Rest = tuple[Tensor, Tensor]


class ResBlock(nn.Module):
    """Unit, norm, twice, with the time embedding added after the first norm, and a shortcut.

    The norms are instance norms without parameters and follow the activation.
    """

    def __init__(self, in_channels: int, out_channels: int, embedding: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Mish(), linear(embedding, out_channels))
        self.block1 = Unit(in_channels, out_channels)
        self.block2 = Unit(out_channels, out_channels)
        self.res_conv = WeightNormConv(in_channels, out_channels, 1) if in_channels != out_channels else None

    def forward(self, x: Tensor, embedding: Tensor | None = None, rest: Rest | None = None) -> Tensor:
        """B×C×H×W and time embedding B×E → B×C'×H×W. `rest`: from `rest`, for input channels behind those of `x`."""
        first, second = (None, None) if rest is None else rest
        h = F.instance_norm(self.block1(x, first), eps=NORM_EPS)
        if embedding is not None:
            h = h + self.mlp(embedding)[:, :, None, None]
        h = F.instance_norm(self.block2(h), eps=NORM_EPS)
        return h + (x if self.res_conv is None else self.res_conv(x, second))

    def rest(self, x: Tensor) -> Rest:
        """The contributions of the block's last input channels to its first convolution and to its shortcut."""
        if self.res_conv is None:
            raise ValueError("a block without a convolution in its shortcut takes no further channels")
        return self.block1.conv.rest(F.pad(x, (1, 1, 1, 1), mode="reflect")), self.res_conv.rest(x)


class Down(nn.Module):
    """Halve both sides, which are even."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.ReflectionPad2d(1), WeightNormConv(channels, channels, 3, stride=2))

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W → B×C×H/2×W/2."""
        return self.conv(x)


class Up(nn.Module):
    """Double both sides."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W → B×C×2H×2W."""
        return self.conv(x)


def linear(in_features: int, out_features: int) -> nn.Linear:
    """A linear layer initialised as in the papers' code: Kaiming-normal times 0.1, bias 0."""
    layer = nn.Linear(in_features, out_features)
    nn.init.normal_(layer.weight, std=0.1 * math.sqrt(2.0 / in_features))
    nn.init.zeros_(layer.bias)
    return layer


class Layers:
    """How the U-Net runs its layers: by their own `forward`, on any device and batch, differentiable.

    `FramedLayers` runs them on maps of another kind.
    """

    def enter(self, x: Tensor) -> Any:
        """A tensor B×C×H×W → a map."""
        return x

    def block(self, block: ResBlock, x: Any, embedding: Tensor | None = None, rest: Rest | None = None) -> Any:
        """See `ResBlock.forward`."""
        return block(x, embedding, rest)

    def rest(self, block: ResBlock, x: Any) -> Rest:
        """See `ResBlock.rest`."""
        return block.rest(x)

    def down(self, layer: Down, x: Any) -> Any:
        """See `Down.forward`."""
        return layer(x)

    def up(self, layer: Up, x: Any) -> Any:
        """See `Up.forward`."""
        return layer(x)

    def join(self, x: Any, skip: Any) -> Any:
        """Concatenate along the channels."""
        return torch.cat([x, skip], dim=1)

    def final(self, layers: nn.Sequential, x: Any) -> Tensor:
        """Unit and 1×1 convolution → a tensor."""
        result: Tensor = layers(x)
        return result
