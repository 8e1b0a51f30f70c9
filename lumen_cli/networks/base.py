"""The interface of every network, which other packages subclass too, and the mean of several models' results."""

from __future__ import annotations

import inspect
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from lumen_cli.networks import is_exporting
from lumen_cli.networks.grading import Grading, Sizes

if TYPE_CHECKING:
    from lumen_cli.networks.lol_grading import LolGrading


@dataclass(frozen=True)
class Retinex:
    """A decomposed batch as pictures of its own size; float32."""

    reflectance: Tensor
    """B×3×H×W in [0, 1]."""
    illumination: Tensor
    """B×1×H×W in [0, 1]."""
    latents: Mapping[str, Tensor] | None = None
    """For a model that decomposes a smaller latent, its maps: `reflectance` B×3×h×w, `illumination` B×1×h×w and
    `latent` B×3×h×w, without padding. The two pictures are then renderings of the maps."""
    rebuild: Callable[[], Tensor] | None = None
    """Computes the picture of R ∘ L for such a model: the product of renderings is no rendering of the product."""

    @property
    def reconstruction(self) -> Tensor:
        """R ∘ L as a picture, B×3×H×W in [0, 1]; computed on access."""
        return self.reflectance * self.illumination if self.rebuild is None else self.rebuild()


@dataclass(frozen=True)
class Member:
    """A network whose results another one averages."""

    network: LowLightModel
    share: float
    """Weight of its results; all shares add up to 1."""
    steps: int | None
    """Sampling steps, or None for the network's own."""


class LowLightModel(nn.Module):
    """A network that brightens pictures. Subclasses name their parameters as the official checkpoint does."""

    size_multiple: int = 1
    training_only: tuple[str, ...] = ()
    """Prefixes of the parameters that only `losses` reads; models trained with lumen are exported without them."""
    costly: tuple[str, ...] = ()
    """Where training spends its time, as modules or "part.method"; a compiler takes them one by one."""
    whole_rows: bool = False
    """Whether the network uses whole rows of the picture, so that a tile must be as wide as the picture."""
    members: Sequence[Member] = ()
    """The networks whose results this one averages; empty for every other network."""

    grading: Grading | LolGrading | None
    """Grades results; only weights of our own have one. `enhance` does not apply it, calling the model does."""

    def __init__(self) -> None:
        super().__init__()
        self.grading = None

    def forward(self, low: Tensor, *, sizes: Sizes | None = None, **options: Any) -> Tensor:
        """`enhance` whole pictures, then grade them if the model can: B×3×H×W in [0, 1] → the same.

        sizes: height and width of each picture where some are padded on the right and at the bottom; the grading
            ignores the padding.
        """
        return self.grade(low, self.enhance(low, **options), sizes=sizes, **options)

    def grade(self, low: Tensor, result: Tensor, *, sizes: Sizes | None = None, **options: Any) -> Tensor:
        """Whole pictures and the results of `enhance` with these options, B×3×H×W in [0, 1] → the graded results."""
        grading = self.grading_for(**options)
        graded: Tensor = result if grading is None else grading(low, result, sizes)
        return graded

    def grading_for(self, **options: Any) -> Grading | LolGrading | None:
        """The grading that applies to these options: none with an `illumination_ratio`."""
        return self.grading if options.get("illumination_ratio") is None else None

    def residual(self, low: Tensor, graded: Tensor) -> Tensor | None:
        """See `Grading.residual`; None where the grading has none."""
        return None if self.grading is None else self.grading.residual(low, graded)

    def abilities(self) -> list[str]:
        """The abilities as config.json names them: "enhance", and "decompose", "illumination-ratio" where supported."""
        decomposes = type(self).decompose is not LowLightModel.decompose
        takes_ratio = "illumination_ratio" in inspect.signature(self.enhance).parameters
        return ["enhance", *["decompose"] * decomposes, *["illumination-ratio"] * takes_ratio]

    def steps_range(self) -> list[int] | None:
        """Fewest and most sampling steps, as config.json names them; None for a network that does not sample."""
        schedule = getattr(self, "schedule", None)
        return None if schedule is None else [schedule.fewest_steps, schedule.timesteps]

    def noise_shape(self, height: int, width: int) -> tuple[int, int, int] | None:
        """Shape C×h×w of the noise that a picture of `height` × `width` needs; None for a deterministic network."""
        return None

    @property
    def is_random(self) -> bool:
        """Whether results depend on the noise; without one where it has no share in them."""
        sampler = getattr(self, "sampler", None)
        return self.noise_shape(1, 1) is not None and (
            sampler is None or sampler.temperature > 0.0 or sampler.eta > 0.0
        )

    @property
    def obstacle_to_export(self) -> str:
        """Why one graph for all sizes cannot compute it, as the end of a sentence; empty where nothing is known."""
        return ""

    def member_noise(self, member: LowLightModel, noise: Tensor | None, height: int, width: int) -> Tensor | None:
        """The noise of a member for a picture of `height` × `width`, from this network's noise B×C×h×w."""
        return noise

    @property
    def tiles(self) -> bool:
        """Whether tiles that get `global_context` reproduce the whole picture's result."""
        return True

    def global_context(self, low: Tensor, **options: Any) -> dict[str, Any]:
        """What `enhance` needs of the whole picture to process its tiles: further arguments of `enhance`.

        Args:
            low: 1×3×H×W in [0, 1], on the CPU.
            options: arguments of `enhance` that the caller has chosen; they are not replaced.
        """
        return {}

    def sample_whole(self, low: Tensor, noise: Tensor, steps: int | None = None, **context: Any) -> Tensor | None:
        """Sample once for the whole picture, for a network that samples on a map far smaller than the picture.

        `low` 1×3×H×W and `noise` 1×C×h×w on the CPU → the sampled map 1×C×h×w. `enhance` takes the part under a tile as
        `noise` with `presampled`. None for a network that samples at full size or not at all.
        """
        return None

    @abstractmethod
    def enhance(self, low: Tensor, *, noise: Tensor | None = None, steps: int | None = None) -> Tensor:
        """Brighten a batch.

        Args:
            low: B×3×H×W in [0, 1], any H and W from 1 up.
            noise: B×C×h×w float32 standard normal, of the shape of `noise_shape(H, W)`; None where that is None.
            steps: sampling steps, or None for the network's own default.

        Returns:
            B×3×H×W in [0, 1], in the dtype the network computes in.
        """

    def prepare(self, low: Tensor) -> Tensor:
        """The picture that the model decomposes and that R ∘ L rebuilds: B×3×H×W in [0, 1] → the same.

        `low` itself, unless the model changes its range first.
        """
        return low

    def decompose(self, low: Tensor) -> Retinex:
        """Decompose a batch B×3×H×W in [0, 1]; deterministic. NotImplementedError where the model cannot."""
        raise NotImplementedError(f"{type(self).__name__} does not decompose pictures")

    def losses(self, batch: dict[str, Tensor], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The paper's training terms by name, each a scalar that is already weighted, and their sum as `total`."""
        raise NotImplementedError(f"{type(self).__name__} has no training losses")


def as_tensor(pixels: NDArray[Any]) -> Tensor:
    """H×W×C → 1×C×H×W, a view that keeps the layout (channels last)."""
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]


def as_pixels(picture: Tensor) -> NDArray[Any]:
    """C×H×W or 1×C×H×W on any device → H×W×C."""
    pixels: NDArray[Any] = picture.reshape(picture.shape[-3:]).permute(1, 2, 0).contiguous().cpu().numpy()
    return pixels


def padded_size(height: int, width: int, multiple: int) -> tuple[int, int]:
    """The next multiples of `multiple` that hold `height` × `width`."""
    # Not -(-height // multiple): ONNX rounds towards zero.
    return (height + multiple - 1) // multiple * multiple, (width + multiple - 1) // multiple * multiple


def pad_to_multiple(picture: Tensor, multiple: int) -> Tensor:
    """Pad B×C×H×W at the bottom and the right to the next multiple of `multiple`; see `pad_to_size`."""
    return pad_to_size(picture, *padded_size(picture.shape[-2], picture.shape[-1], multiple))


def pad_to_size(picture: Tensor, height: int, width: int) -> Tensor:
    """Pad B×C×H×W at the bottom and the right to `height` × `width`, which are at least H and W.

    The padding is a reflection, as in the papers. A side that is shorter than its padding is reflected several times;
    a single row or column is repeated.
    """
    if is_exporting():
        return reflect_to(reflect_to(picture, width, axis=-1), height, axis=-2)
    while picture.shape[-1] < width:
        picture = _grow(picture, width, horizontal=True)
    while picture.shape[-2] < height:
        picture = _grow(picture, height, horizontal=False)
    return picture


def reflect_to(picture: Tensor, target: int, axis: int) -> Tensor:
    """The same padding of one axis by places, for any size."""
    last = torch.arange(picture.shape[axis], device=picture.device)[-1:]
    places = torch.arange(target, device=picture.device) % (2 * last).clamp_min(1)
    return picture.index_select(axis, torch.minimum(places, 2 * last - places))


def _grow(picture: Tensor, target: int, *, horizontal: bool) -> Tensor:
    side = picture.shape[-1] if horizontal else picture.shape[-2]
    mode = "reflect" if side > 1 else "replicate"
    amount = min(target - side, side - 1) if side > 1 else target - side
    return F.pad(picture, (0, amount, 0, 0) if horizontal else (0, 0, 0, amount), mode=mode)


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

    @property
    def is_random(self) -> bool:
        """See `LowLightModel.is_random`."""
        return any(member.network.is_random for member in self.members)

    @property
    def obstacle_to_export(self) -> str:
        """See `LowLightModel.obstacle_to_export`; the first of its members'."""
        return next(filter(None, (member.network.obstacle_to_export for member in self.members)), "")

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
