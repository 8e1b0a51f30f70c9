"""Statistics of a whole picture for a network's norms, poolings and attentions, while it runs on tiles.

A group norm divides by the spread of the whole map, and an attention reads all its positions. On a tile alone both
would depend on that tile, and neighbours would differ. So their statistics are collected over all tiles, call by call,
and given to each tile. After one pass over the tiles the first call is exact, so the input of the second is exact, and
so on; few passes are enough (see `tile`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lumen_cli.networks import widened

_TINY = 1e-12
MOST_POSITIONS = 1 << 16
"""Most keys and values of an attention; of a larger picture every n-th."""


class EnoughError(Exception):
    """All calls have been seen; the rest of the network is not needed."""


@dataclass(frozen=True)
class Moments:
    """Count, mean and variance [C or groups], `widened`, of a map's values; `merge` joins those of parts."""

    count: int
    mean: Tensor
    variance: Tensor


Seen = Moments | tuple[Tensor, Tensor]
"""The statistics of one call: moments, or the keys and values of an attention, 1×1×N×C each."""


@dataclass(frozen=True)
class Core:
    """The part of a tile that belongs to no other tile: rows and columns in its pixels; `size` is the tile's.

    A core that reaches the tile's end includes what follows in a map, such as padding.
    """

    size: tuple[int, int]
    rows: tuple[int, int]
    columns: tuple[int, int]

    def of(self, x: Tensor) -> Tensor:
        """The same part of a map B×C×h×w, whose sides are the tile's by a power of two."""
        for axis, length, (start, stop) in zip((-2, -1), self.size, (self.rows, self.columns), strict=True):
            side = x.shape[axis]
            factor = 1 << max(0, round(_log2(length / side)))
            last = side if stop == length else stop // factor
            x = x.narrow(axis, start // factor, max(1, last - start // factor))
        return x


class WholeStatistics(TorchFunctionMode):
    """Run a network inside: its calls use `known` statistics of the whole picture; their own are recorded.

    Args:
        known: for each call in order; None where nothing is known yet (all calls then use their own map).
        usual: the calls' statistics of the one core at the time of `known`. The calls then use their current ones,
            changed as `known` differs from `usual`, so that an error in one call does not spread to the next.
        cores: where to record; `seen` has a list for each core.
        enough: whether the last known call ends the run by EnoughError.
    """

    def __init__(
        self,
        known: Sequence[Seen] | None = None,
        usual: Sequence[Seen] | None = None,
        cores: Sequence[Core] = (),
        *,
        enough: bool = False,
    ) -> None:
        super().__init__()
        self.known, self.usual, self.cores, self.enough = known, usual, cores, enough
        self.seen: list[list[Seen]] = [[] for _ in cores]
        self._calls = 0
        self._map = (0, 0)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Forward every call except those that read a whole map."""
        call = _CALLS.get(func)
        return func(*args, **(kwargs or {})) if call is None else call(self, *args, **(kwargs or {}))

    def _next(self, see: Callable[[Core], Seen]) -> Seen | None:
        """The statistics for this call, None for its own map; its own are recorded."""
        for core, seen in zip(self.cores, self.seen, strict=True):
            seen.append(see(core))
        number, self._calls = self._calls, self._calls + 1
        if self.known is None:
            return None
        if self.enough and self._calls == len(self.known):
            raise EnoughError
        known = self.known[number]
        return known if self.usual is None else _correct(self.seen[0][number], self.usual[number], known)

    def group_norm(
        self, x: Tensor, groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
    ) -> Tensor:
        """See `torch.nn.functional.group_norm`; B = 1."""
        self._map = (x.shape[-2], x.shape[-1])
        known = self._next(lambda core: moments(core.of(x), groups))
        if known is None:
            return F.group_norm(x, groups, weight, bias, eps)
        assert isinstance(known, Moments)
        each = x.shape[1] // groups
        scale = (known.variance + eps).rsqrt().repeat_interleave(each)
        shift = -known.mean.repeat_interleave(each) * scale
        if weight is not None:
            scale, shift = scale * weight, shift * weight
        if bias is not None:
            shift = shift + bias
        return _scaled(x, scale, shift)

    def instance_norm(
        self,
        x: Tensor,
        running_mean: Tensor | None = None,
        running_var: Tensor | None = None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        use_input_stats: bool = True,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        """See `torch.nn.functional.instance_norm`, without running statistics; B = 1."""
        if not use_input_stats:
            return F.instance_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
        return self.group_norm(x, x.shape[1], weight, bias, eps)

    def average(self, x: Tensor, output_size: Any) -> Tensor:
        """See `torch.nn.functional.adaptive_avg_pool2d`; only the mean of the whole map differs for a tile."""
        if output_size not in (1, (1, 1), [1, 1]):
            return F.adaptive_avg_pool2d(x, output_size)
        known = self._next(lambda core: moments(core.of(x), x.shape[1]))
        if known is None:
            return F.adaptive_avg_pool2d(x, output_size)
        assert isinstance(known, Moments)
        return known.mean.to(x.dtype).view(1, -1, 1, 1)

    def attention(self, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        """See `torch.nn.functional.scaled_dot_product_attention`, over the positions of the last normalised map."""
        height, width = self._map
        if height * width != key.shape[-2] or key.ndim != 4 or key.shape[:2] != (1, 1):
            return F.scaled_dot_product_attention(query, key, value, **options)

        def see(core: Core) -> Seen:
            maps = (each[0].transpose(-2, -1).unflatten(-1, (height, width)) for each in (key, value))
            inside = [core.of(each).flatten(2).transpose(-2, -1)[None].contiguous() for each in maps]
            return inside[0], inside[1]

        known = self._next(see)
        if known is None:
            return F.scaled_dot_product_attention(query, key, value, **options)
        assert isinstance(known, tuple)
        return F.scaled_dot_product_attention(query, known[0].to(key.dtype), known[1].to(value.dtype), **options)


_CALLS: dict[Callable[..., Any], Callable[..., Any]] = {
    F.group_norm: WholeStatistics.group_norm,
    F.instance_norm: WholeStatistics.instance_norm,
    F.adaptive_avg_pool2d: WholeStatistics.average,
    F.scaled_dot_product_attention: WholeStatistics.attention,
}


def moments(x: Tensor, groups: int) -> Moments:
    """Mean and variance of each group of channels of 1×C×H×W."""
    variance, mean = torch.var_mean(x.reshape(groups, -1).float(), dim=1, correction=0)
    return Moments(x.numel() // groups, widened(mean), widened(variance))


def merge(parts: Sequence[Sequence[Seen]]) -> list[Seen]:
    """Statistics of each tile → statistics of the whole, call by call."""
    return [_merge(call) for call in zip(*parts, strict=True)]


def _merge(parts: Sequence[Seen]) -> Seen:
    if not isinstance(parts[0], Moments):
        pairs = [part for part in parts if not isinstance(part, Moments)]
        keys, values = (torch.cat([pair[index] for pair in pairs], dim=2) for index in (0, 1))
        every = -(-keys.shape[2] // MOST_POSITIONS)
        return keys[:, :, ::every], values[:, :, ::every]
    known = [part for part in parts if isinstance(part, Moments)]
    total = sum(part.count for part in known)
    first = known[0].mean
    weights = torch.tensor([part.count / total for part in known], dtype=first.dtype, device=first.device)
    means = torch.stack([part.mean for part in known])
    mean = torch.tensordot(weights, means, dims=1)
    # (Chan, Golub & LeVeque, "Algorithms for Computing the Sample Variance", equation 2.1.)
    spread = torch.stack([part.variance for part in known]) + (means - mean) ** 2
    return Moments(total, mean, torch.tensordot(weights, spread, dims=1))


def _correct(now: Seen, then: Seen, known: Seen) -> Seen:
    """`known`, corrected for a part whose statistics are `now` instead of `then`."""
    if not (isinstance(now, Moments) and isinstance(then, Moments) and isinstance(known, Moments)):
        return known
    ratio = (now.variance + _TINY) / (then.variance + _TINY)
    mean = now.mean + (known.mean - then.mean) * ratio.sqrt()
    return Moments(known.count, mean, known.variance * ratio)


def _scaled(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Each channel times its scale plus its shift, in the dtype of `x`."""
    return torch.addcmul(shift.float().view(1, -1, 1, 1), x, scale.float().view(1, -1, 1, 1)).to(x.dtype)


def _log2(ratio: float) -> float:
    return float(torch.tensor(ratio, dtype=torch.float64).log2())
