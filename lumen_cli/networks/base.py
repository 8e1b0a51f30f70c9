"""What every network of lumen offers to the rest of the house."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumen_cli.networks.grading import Grading, Sizes


@dataclass(frozen=True)
class Retinex:
    """A batch taken apart, as pictures of its own size; float32.

    reflectance: B×3×H×W in [0, 1]; illumination: B×1×H×W in [0, 1]; latents: where the model decomposes a smaller
    latent rather than the picture, its maps by name (`reflectance` B×3×h×w, `illumination` B×1×h×w, `latent` B×3×h×w,
    the part that shows the picture), of which the two pictures are renderings; rebuild: then, what makes the picture
    of R ∘ L, as a product of renderings is no rendering of the product.
    """

    reflectance: Tensor
    illumination: Tensor
    latents: Mapping[str, Tensor] | None = None
    rebuild: Callable[[], Tensor] | None = None

    @property
    def reconstruction(self) -> Tensor:
        """R ∘ L as a picture, B×3×H×W in [0, 1]; computed when asked for."""
        return self.reflectance * self.illumination if self.rebuild is None else self.rebuild()


class LowLightModel(nn.Module):
    """A network that brightens pictures. Sub-classes name their parameters as the official checkpoint does."""

    size_multiple: int = 1
    training_only: tuple[str, ...] = ()
    """Prefixes of the parameters that only `losses` reads; models trained with lumen are exported without them."""
    costly: tuple[str, ...] = ()
    """Parts that training spends its time in, modules or "part.method", for a compiler to take one by one."""
    whole_rows: bool = False
    """Whether it looks along whole rows of the picture, so that a tile has to be as wide as the picture."""

    grading: Grading | None
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

    def grading_for(self, **options: Any) -> Grading | None:
        """The grading that applies to these options: none with an `illumination_ratio`."""
        return self.grading if options.get("illumination_ratio") is None else None

    def abilities(self) -> list[str]:
        """What it can do, as config.json names it: "enhance", and "decompose", "illumination-ratio" where it can."""
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
    def tiles(self) -> bool:
        """Whether parts of a picture, told of the whole by `context`, make up what the whole picture gives."""
        return True

    def context(self, low: Tensor, **knobs: Any) -> dict[str, Any]:
        """What `enhance` takes from the whole picture before anything else, as further arguments for its parts.

        `low` 1×3×H×W in [0, 1], on the CPU; knobs: arguments of `enhance` that were chosen, which stay as they are.
        """
        return {}

    def survey(self, low: Tensor, noise: Tensor, steps: int | None = None, **context: Any) -> Tensor | None:
        """Sample for the whole picture, where that happens on a map far smaller than the picture.

        `low` 1×3×H×W and `noise` 1×C×h×w on the CPU → what the sampler ends with, 1×C×h×w, whose parts `enhance` then
        takes as `noise` of the picture's parts with `sampled`. None for a network that samples at full size, or not.
        """
        return None

    @abstractmethod
    def enhance(self, low: Tensor, *, noise: Tensor | None = None, steps: int | None = None) -> Tensor:
        """Brighten a batch.

        Args:
            low: B×3×H×W in [0, 1], any H and W from 1 up.
            noise: B×C×h×w float32 standard normal, of the shape `noise_shape(H, W)` gives; None where it gives None.
            steps: sampling steps, or None for the network's own default.

        Returns:
            B×3×H×W in [0, 1], in the dtype the network computes in.
        """

    def prepare(self, low: Tensor) -> Tensor:
        """The picture as the model takes it apart, which R ∘ L rebuilds: B×3×H×W in [0, 1] → the same.

        `low` itself, unless the model changes its range first.
        """
        return low

    def decompose(self, low: Tensor) -> Retinex:
        """Take a batch B×3×H×W in [0, 1] apart; deterministic. NotImplementedError where the model cannot."""
        raise NotImplementedError(f"{type(self).__name__} does not decompose pictures")

    def losses(self, batch: dict[str, Tensor], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The paper's training terms by name, each a scalar that is already weighted, plus their sum as `total`."""
        raise NotImplementedError(f"{type(self).__name__} has no training losses")


def padded_size(height: int, width: int, multiple: int) -> tuple[int, int]:
    """The next multiples of `multiple` that hold `height` × `width`."""
    return -(-height // multiple) * multiple, -(-width // multiple) * multiple


def pad_to_multiple(picture: Tensor, multiple: int) -> Tensor:
    """Pad B×C×H×W at the bottom and the right to the next multiple of `multiple`; see `pad_to_size`."""
    return pad_to_size(picture, *padded_size(picture.shape[-2], picture.shape[-1], multiple))


def pad_to_size(picture: Tensor, height: int, width: int) -> Tensor:
    """Pad B×C×H×W at the bottom and the right to `height` × `width`, neither below H or W.

    Reflection (the papers' choice) as long as the side is longer than the padding; what is still
    missing on a short side is filled by reflecting again, on a single row or column by repeating it.
    """
    while picture.shape[-1] < width:
        picture = _grow(picture, width, horizontal=True)
    while picture.shape[-2] < height:
        picture = _grow(picture, height, horizontal=False)
    return picture


def _grow(picture: Tensor, target: int, *, horizontal: bool) -> Tensor:
    side = picture.shape[-1] if horizontal else picture.shape[-2]
    mode = "reflect" if side > 1 else "replicate"
    amount = min(target - side, side - 1) if side > 1 else target - side
    return F.pad(picture, (0, amount, 0, 0) if horizontal else (0, 0, 0, amount), mode=mode)
