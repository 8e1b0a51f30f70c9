"""Several models as one: the weighted mean of the pictures they make (an ensemble)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from lumen_cli.networks.base import LowLightModel, padded_size
from lumen_cli.networks.grading import Sizes


class Mean(LowLightModel):
    """Runs every member on the picture and averages what they make.

    What the members get wrong in different ways, such as left-over noise, colours and exposure, partly cancels.

    Args:
        members: at least two networks.
        shares: of the members in the mean, in their order; they are made to add up to 1. None for equal ones.
        steps: sampling steps of each member; None for the networks' own.
    """

    def __init__(
        self,
        members: Sequence[LowLightModel],
        shares: Sequence[float] | None = None,
        steps: Sequence[int | None] | None = None,
    ) -> None:
        super().__init__()
        shares = [1.0] * len(members) if shares is None else list(shares)
        if len(members) < 2 or len(shares) != len(members):
            raise ValueError(f"a mean needs two members or more and a share for each, not {len(members)}, {shares}")
        if not all(0.0 < share < math.inf for share in shares):
            raise ValueError(f"shares must be above 0, not {shares}")
        self.members = nn.ModuleList(members)
        self.shares = [share / math.fsum(shares) for share in shares]
        self.member_steps = [None] * len(members) if steps is None else list(steps)
        self.size_multiple = math.lcm(*(member.size_multiple for member in members))

    def parts(self) -> Iterator[tuple[LowLightModel, float, int | None]]:
        """The members with their shares and steps."""
        return zip(self.members, self.shares, self.member_steps, strict=True)  # type: ignore[arg-type]

    @property
    def tiles(self) -> bool:
        """See `LowLightModel.tiles`."""
        return all(member.tiles for member in self.members)

    def steps_range(self) -> None:
        """None: each member takes its own steps."""

    def noise_shape(self, height: int, width: int) -> tuple[int, int, int] | None:
        """The shape of the finest noise that any member asks for a picture padded to the common multiple."""
        padded = padded_size(height, width, self.size_multiple)
        shapes = [shape for member in self.members if (shape := member.noise_shape(*padded)) is not None]  # type: ignore[operator]
        return max(shapes, key=math.prod, default=None)

    def noise_for(self, member: LowLightModel, noise: Tensor | None, height: int, width: int) -> Tensor | None:
        """A member's noise for a picture of `height` × `width`, from that of `noise_shape`, B×C×h×w.

        Blocks of n × n values are summed and divided by n, which leaves the noise standard normal and independent.
        """
        wanted = member.noise_shape(height, width)
        if wanted is None or noise is None:
            return None
        padded = padded_size(height, width, self.size_multiple)
        whole = member.noise_shape(*padded)
        assert whole is not None
        # The finest noise may lie on a canvas that is larger than the picture; what is over is left.
        block = min(noise.shape[-2] // whole[-2], noise.shape[-1] // whole[-1])
        if block < 1 or noise.shape[1] != whole[0]:
            raise ValueError(f"noise of {tuple(noise.shape)} cannot serve {type(member).__name__}, which takes {whole}")
        return (F.avg_pool2d(noise, block) * block)[..., : wanted[-2], : wanted[-1]]

    def enhance(self, low: Tensor, *, noise: Tensor | None = None, steps: int | None = None) -> Tensor:
        """See `LowLightModel.enhance`; `steps` has to be None. The members grade their pictures."""
        return self._mean(low, None, noise, steps)

    def forward(self, low: Tensor, *, sizes: Sizes | None = None, **options: Any) -> Tensor:
        """See `LowLightModel.forward`."""
        return self.grade(low, self._mean(low, sizes, **options), sizes=sizes)

    def _mean(self, low: Tensor, sizes: Sizes | None, noise: Tensor | None = None, steps: int | None = None) -> Tensor:
        if steps is not None:
            raise ValueError("each member of a mean takes its own steps")
        height, width = low.shape[-2:]
        made = [
            share * member(low, sizes=sizes, noise=self.noise_for(member, noise, height, width), steps=own).float()
            for member, share, own in self.parts()
        ]
        return sum(made[1:], made[0])
