"""Runs the network on pictures of equal padded shape, each with its own noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from lumen_cli.diffusion.noise import picture_noise
from lumen_cli.engine.device import DevicePolicy
from lumen_cli.engine.light import relight
from lumen_cli.engine.memory import out_of_memory
from lumen_cli.engine.refine import refining_of
from lumen_cli.engine.scene import Scene, finish, scene_of
from lumen_cli.engine.tile import enhance_tiled
from lumen_cli.engine.tile_plan import TilePlan, smaller
from lumen_cli.errors import LumenError
from lumen_cli.limits import Detail
from lumen_cli.networks.base import as_pixels, as_tensor, pad_to_multiple, padded_size

if TYPE_CHECKING:
    from torch import Tensor

    from lumen_cli.imaging.picture import Picture
    from lumen_cli.networks.base import LowLightModel


@dataclass(frozen=True)
class Shape:
    """The common properties of a batch: padded height and width in pixels, and the precision."""

    height: int
    width: int
    precision: str


class NetworkError(LumenError):
    """The network returned no usable result for one picture."""


class NotFiniteError(NetworkError):
    """The result holds NaN or infinity."""


class TooLargeError(NetworkError):
    """The picture does not fit into memory."""


def shape_of(picture: Picture, network: LowLightModel, policy: DevicePolicy) -> Shape:
    """The shape of a picture's batch."""
    height, width = padded_size(picture.height, picture.width, network.size_multiple)
    return Shape(height, width, policy.precision_for(picture.bit_depth))


def enhance_batch(
    network: LowLightModel,
    pictures: Sequence[Picture],
    policy: DevicePolicy,
    *,
    detail: Detail = "auto",
    strength: float = 1.0,
    **options: Any,
) -> list[NDArray[Any] | NetworkError]:
    """Brighten pictures whose scenes have one `shape_of`: `enhance_scenes`, then `finish`.

    Returns:
        For each picture H×W×3, floats in [0, 1] or integers of the picture's depth, or the error of its result.
    """
    scenes = [scene_of(picture, detail) for picture in pictures]
    outcomes = enhance_scenes(network, scenes, policy, **options)
    keep_ratio = options.get("brightness") is not None
    return [
        outcome
        if isinstance(outcome, NetworkError)
        else finish(
            scene,
            outcome,
            strength=strength,
            keep_ratio=keep_ratio,
            refining=refining_of(scene, detail, policy),
        )
        for scene, outcome in zip(scenes, outcomes, strict=True)
    ]


def enhance_scenes(
    network: LowLightModel,
    scenes: Sequence[Scene],
    policy: DevicePolicy,
    *,
    digests: Sequence[bytes] | None = None,
    seed: int = 0,
    steps: int | None = None,
    brightness: float | None = None,
    illumination_ratio: float | None = None,
    plan: TilePlan | None = None,
    notes: Notes | None = None,
) -> list[np.ndarray | NetworkError]:
    """Run the network on the scenes of pictures, all of one `shape_of`.

    Args:
        network: on the policy's device.
        scenes: from `scene_of`; sizes may differ within the padded shape.
        policy: from `choose_device`.
        digests: the pictures' `digest()`, where they are already known.
        seed: the run's seed; each picture's noise depends only on it and on the picture's content.
        steps: sampling steps, None for the network's own.
        brightness: target mean linear light, as a multiple of the picture's own; None leaves it to the model.
        illumination_ratio: KinD's α, the ratio of target to source illumination, for networks that take one. The
            result is then the network's alone: no grading, no rule of `light`. None asks for nothing.
        plan: which pictures run in tiles; None: those that do not fit into memory.
        notes: collects remarks by the picture's number.

    Returns:
        For each scene h×w×3 float32 in [0, 1], or the error of a picture whose result has NaN or infinity even in
        float32. How batches are split: see `in_parts`.
    """
    contents = digests or [scene.picture.digest() for scene in scenes]
    pictures = [scene.seen for scene in scenes]
    if brightness is not None and illumination_ratio is not None:
        raise ValueError("brightness and illumination_ratio cannot be combined")
    knobs: dict[str, Any] = {} if illumination_ratio is None else {"illumination_ratio": illumination_ratio}
    plan = TilePlan() if plan is None else plan
    shape = shape_of(pictures[0], network, policy)

    def noise_of(contents: Sequence[bytes]) -> Tensor | None:
        wanted = network.noise_shape(shape.height, shape.width)
        return None if wanted is None else torch.stack([picture_noise(seed, content, wanted) for content in contents])

    def run(part: slice, precision: str) -> list[np.ndarray | NetworkError]:
        group = pictures[part]
        with policy.running(precision):
            low = as_batch(group, network, policy)
            noise = noise_of(contents[part])
            noise = None if noise is None else noise.to(policy.device)
            sizes = [(picture.height, picture.width) for picture in group]
            bright = network(low, sizes=sizes, noise=noise, steps=steps, **knobs).float()
            return [cropped(bright[index], picture) for index, picture in enumerate(group)]

    def run_tiled(index: int, precision: str, side: int) -> np.ndarray | NetworkError:
        noise = noise_of(contents[index : index + 1])
        low = pictures[index].pixels
        sample_whole = plan.whole_sample_fits(network, policy, shape, precision)
        with policy.running(precision):
            bright = enhance_tiled(
                network,
                low,
                None if noise is None else noise[0],
                side,
                device=policy.device,
                steps=steps,
                sample_whole=sample_whole,
                **knobs,
            )
        return bright if np.isfinite(bright).all() else _not_finite()

    outcomes = in_parts(run, pictures, policy, network=network, plan=plan, run_tiled=run_tiled, notes=notes)
    if illumination_ratio is not None:
        return outcomes
    return [
        outcome if isinstance(outcome, NetworkError) else _lit(picture, outcome, brightness)
        for picture, outcome in zip(pictures, outcomes, strict=True)
    ]


def _lit(picture: Picture, result: NDArray[np.float32], brightness: float | None) -> NDArray[np.float32]:
    """`relight` for H×W×3."""
    return as_pixels(relight(as_tensor(picture.pixels), as_tensor(result), brightness))


Outcome = TypeVar("Outcome")
Notes = dict[int, list[str]]
"""Remarks on the pictures of a batch, by their numbers."""


def notes_of(notes: Notes, index: int) -> tuple[str, ...]:
    """The remarks on one picture, each once."""
    return tuple(dict.fromkeys(notes.get(index, ())))


def in_parts(
    run: Callable[[slice, str], list[Outcome | NetworkError]],
    pictures: Sequence[Picture],
    policy: DevicePolicy,
    *,
    network: LowLightModel,
    plan: TilePlan | None = None,
    run_tiled: Callable[[int, str, int], Outcome | NetworkError] | None = None,
    notes: Notes | None = None,
) -> list[Outcome | NetworkError]:
    """Call `run` with all pictures and their precision, or with parts of them where they cannot run together.

    A CPU runs them one by one, so that batch-mates change no bit. A batch that does not fit into memory runs in halves,
    and a single picture that does not fit runs in tiles, as do large pictures by the plan; without `run_tiled` it is a
    TooLargeError. A result that is not finite in half precision is computed again in float32.
    """
    parts = _Parts(run, pictures, policy, network, plan, run_tiled, {} if notes is None else notes)
    return parts.all()


@dataclass(frozen=True)
class _Parts(Generic[Outcome]):
    """A batch in progress. It uses no recursive closures, whose reference cycles would keep pictures in memory."""

    run: Callable[[slice, str], list[Outcome | NetworkError]]
    pictures: Sequence[Picture]
    policy: DevicePolicy
    network: LowLightModel
    plan: TilePlan | None
    run_tiled: Callable[[int, str, int], Outcome | NetworkError] | None
    notes: Notes

    def all(self) -> list[Outcome | NetworkError]:
        precision = self.shape.precision
        outcomes = self.once(0, len(self.pictures), precision)
        for index, outcome in enumerate(outcomes):
            if isinstance(outcome, NotFiniteError) and precision != "fp32":
                (outcomes[index],) = self.once(index, index + 1, "fp32")
                self.say(index, f"computed in fp32, because the network's values were not finite in {precision}")
        return outcomes

    @property
    def shape(self) -> Shape:
        return shape_of(self.pictures[0], self.network, self.policy)

    def say(self, index: int, text: str) -> None:
        self.notes.setdefault(index, []).append(text)

    def once(self, start: int, stop: int, precision: str) -> list[Outcome | NetworkError]:
        side = None
        if self.plan is not None and self.run_tiled is not None:
            side = self.plan.side_for(self.network, self.policy, self.shape, precision)
        if side is not None:
            return [self.tiled(index, precision, side) for index in range(start, stop)]
        bounds = range(start, stop + 1) if self.policy.single else (start, stop)
        return [outcome for one, following in pairwise(bounds) for outcome in self.whole(one, following, precision)]

    def whole(self, start: int, stop: int, precision: str) -> list[Outcome | NetworkError]:
        try:
            return self.run(slice(start, stop), precision)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        _give_back()
        if stop - start > 1:
            middle = (start + stop + 1) // 2
            for index in range(start, stop):
                self.say(
                    index, f"run in smaller batches: {self.policy.device} has too little memory for the whole batch"
                )
            return self.whole(start, middle, precision) + self.whole(middle, stop, precision)
        side = None
        if self.plan is not None and self.run_tiled is not None:
            side = self.plan.after_failure(self.network, self.shape)
        return [self.too_large(start) if side is None else self.tiled(start, precision, side)]

    def tiled(self, index: int, precision: str, side: int) -> Outcome | NetworkError:
        assert self.run_tiled is not None
        assert self.plan is not None
        while side:
            try:
                outcome = self.run_tiled(index, precision, side)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
            else:
                self.say(index, f"run in tiles of {side} pixels: {self.plan.why}")
                return outcome
            _give_back()
            side = smaller(side)
        return self.too_large(index)

    def too_large(self, index: int) -> TooLargeError:
        picture = self.pictures[index]
        size = f"{picture.width}×{picture.height}"
        return TooLargeError(f"{self.policy.device} has too little memory for a picture of {size} pixels")


def _give_back() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _not_finite() -> NotFiniteError:
    return NotFiniteError("the network returned numbers that are not finite")


def as_batch(pictures: Sequence[Picture], network: LowLightModel, policy: DevicePolicy) -> Tensor:
    """Pictures of one `shape_of` → B×3×H×W in [0, 1] on the device, padded to the network's multiple."""
    padded = [pad_to_multiple(as_tensor(picture.pixels), network.size_multiple) for picture in pictures]
    return torch.cat(padded).to(policy.device).contiguous(memory_format=torch.channels_last)


def cropped(result: Tensor, picture: Picture) -> np.ndarray | NetworkError:
    """C×H×W of the padded shape → H×W×C of the picture's size, or an error where the result is not finite."""
    pixels = as_pixels(result[:, : picture.height, : picture.width])
    return pixels if np.isfinite(pixels).all() else _not_finite()
