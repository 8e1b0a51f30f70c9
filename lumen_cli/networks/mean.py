"""The weighted mean of several models' results (an ensemble)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from lumen_cli.networks.base import LowLightModel, Member, padded_size
from lumen_cli.networks.grading import Sizes


class Mean(LowLightModel):
    """Runs every member on the picture and averages their results.

    Errors that differ between members, such as left-over noise, colours and exposure, partly cancel.

    Args:
        networks: at least two networks.
        shares: weights of the networks; they are scaled to add up to 1. None: equal weights.
        steps: sampling steps of each network; None: the networks' own.
    """

    def __init__(
        self,
        networks: Sequence[LowLightModel],
        shares: Sequence[float] | None = None,
        steps: Sequence[int | None] | None = None,
    ) -> None:
        super().__init__()
        shares = [1.0] * len(networks) if shares is None else list(shares)
        steps = [None] * len(networks) if steps is None else list(steps)
        if len(networks) < 2 or len(shares) != len(networks):
            raise ValueError(f"a mean needs two members or more and a share for each, not {len(networks)}, {shares}")
        if not all(0.0 < share < math.inf for share in shares):
            raise ValueError(f"shares must be above 0, not {shares}")
        total = math.fsum(shares)
        self.members = [
            Member(network, share / total, own) for network, share, own in zip(networks, shares, steps, strict=True)
        ]
        self.networks = nn.ModuleList(networks)
        self.size_multiple = math.lcm(*(network.size_multiple for network in networks))

    @property
    def tiles(self) -> bool:
        """See `LowLightModel.tiles`."""
        return all(member.network.tiles for member in self.members)

    def steps_range(self) -> None:
        """None: each member has its own steps."""

    def noise_shape(self, height: int, width: int) -> tuple[int, int, int] | None:
        """The largest noise that a member needs for a picture padded to the common multiple."""
        padded = padded_size(height, width, self.size_multiple)
        shapes = [shape for member in self.members if (shape := member.network.noise_shape(*padded)) is not None]
        return max(shapes, key=math.prod, default=None)

    def member_noise(self, member: LowLightModel, noise: Tensor | None, height: int, width: int) -> Tensor | None:
        """See `LowLightModel.member_noise`.

        Blocks of n × n values are summed and divided by n: the noise stays standard normal and independent.
        """
        wanted = member.noise_shape(height, width)
        if wanted is None or noise is None:
            return None
        whole = member.noise_shape(*padded_size(height, width, self.size_multiple))
        assert whole is not None
        # The noise of a member with a larger canvas than the picture leaves values over; they are dropped.
        block = min(noise.shape[-2] // whole[-2], noise.shape[-1] // whole[-1])
        if block < 1 or noise.shape[1] != whole[0]:
            raise ValueError(f"noise of {tuple(noise.shape)} does not fit {type(member).__name__}, which takes {whole}")
        return (F.avg_pool2d(noise, block) * block)[..., : wanted[-2], : wanted[-1]]

    def enhance(self, low: Tensor, *, noise: Tensor | None = None, steps: int | None = None) -> Tensor:
        """See `LowLightModel.enhance`; `steps` must be None. The members grade their results."""
        return self._mean(low, None, noise, steps)

    def forward(self, low: Tensor, *, sizes: Sizes | None = None, **options: Any) -> Tensor:
        """See `LowLightModel.forward`."""
        return self.grade(low, self._mean(low, sizes, **options), sizes=sizes)

    def residual(self, low: Tensor, graded: Tensor) -> Tensor | None:
        """See `LowLightModel.residual`; the mean of the members' where the mean has no grading of its own."""
        if self.grading is not None:
            return self.grading.residual(low, graded)
        found = [(member.share, member.network.residual(low, graded)) for member in self.members]
        parts = [share * residual for share, residual in found if residual is not None]
        return sum(parts[1:], parts[0]) if parts else None

    def _mean(self, low: Tensor, sizes: Sizes | None, noise: Tensor | None = None, steps: int | None = None) -> Tensor:
        if steps is not None:
            raise ValueError("each member of a mean has its own steps")
        height, width = low.shape[-2:]
        results = []
        for member in self.members:
            own = self.member_noise(member.network, noise, height, width)
            results.append(member.share * member.network(low, sizes=sizes, noise=own, steps=member.steps).float())
        return sum(results[1:], results[0])
