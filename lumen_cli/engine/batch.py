"""Runs the network on pictures of equal padded shape, each with its own noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from lumen_cli.diffusion import picture_noise
from lumen_cli.engine import Detail
from lumen_cli.engine.device import DevicePolicy
from lumen_cli.engine.light import relight
from lumen_cli.engine.memory import TilePlan, out_of_memory, smaller
from lumen_cli.engine.scene import Scene, finish, refining_of, scene_of
from lumen_cli.errors import LumenError
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
    results = enhance_scenes(network, scenes, policy, **options)
    keep_ratio = options.get("brightness") is not None
    return [
        result.value
        if isinstance(result.value, NetworkError)
        else finish(
            scene,
            result.value,
            strength=strength,
            keep_ratio=keep_ratio,
            refining=refining_of(scene, detail, policy),
        )
        for scene, result in zip(scenes, results, strict=True)
    ]


def prepare(scene: Scene, network: LowLightModel, policy: DevicePolicy, seed: int, content: bytes) -> Scene:
    """The scene with its `input` and `noise` for the network, so that another thread than the network's computes them.

    seed: the run's; content: the picture's `digest()`.
    """
    shape = shape_of(scene.seen, network, policy)
    wanted = network.noise_shape(shape.height, shape.width)
    noise = None if wanted is None else policy.stage(picture_noise(seed, content, wanted)[None])
    return replace(scene, input=_input_of(scene.seen, network, policy), noise=noise)


def _input_of(picture: Picture, network: LowLightModel, policy: DevicePolicy) -> Tensor:
    """A picture on the CPU, as `_load` takes it.

    For a CPU 1×3×H×W float32 in [0, 1], padded. For other devices 1×3×h×w of the file's own bytes where they are sRGB:
    a quarter to travel, and the device pads and scales them.
    """
    raw = picture.values
    if not policy.single and raw is not None and raw.dtype == np.uint8:
        return policy.stage(as_tensor(np.require(raw, requirements="W")))  # PyTorch warns of others
    # A copy: the first stride of a view of one picture is not that of a batch, and layers choose their kernels by it.
    padded = torch.cat([pad_to_multiple(as_tensor(picture.pixels), network.size_multiple)])
    return policy.stage(padded.contiguous(memory_format=torch.channels_last))


def _load(inputs: Sequence[Tensor], network: LowLightModel, policy: DevicePolicy) -> Tensor:
    """What `_input_of` returned for pictures of one `shape_of` → B×3×H×W in [0, 1] on the device."""
    loaded = [policy.upload(each) for each in inputs]
    batch = [pad_to_multiple(_scale(each), network.size_multiple) for each in loaded]
    return (batch[0] if policy.single else torch.cat(batch)).contiguous(memory_format=torch.channels_last)


def _scale(values: Tensor) -> Tensor:
    """uint8 → the floats that `to_unit` gives; floats as they are."""
    if values.dtype != torch.uint8:
        return values
    # CUDA multiplies by the reciprocal of a number, which is another float; it divides by a tensor.
    return values.float() / torch.full((1,), 255.0, device=values.device)


@dataclass(frozen=True, eq=False)
class Bright:
    """A scene and the network's result for it, before its light is decided; `pixels` may run in any thread.

    graded: 3×h×w float32 in [0, 1] on the CPU; residual: `LowLightModel.residual`, on the CPU, for a reduced picture;
    brightness: as in `compute_scenes`; alone: whether the result is the network's alone.
    """

    scene: Scene
    graded: Tensor
    residual: Tensor | None = None
    brightness: float | None = None
    alone: bool = False

    def pixels(self) -> NDArray[np.float32]:
        """The result, h×w×3 float32 in [0, 1]: `residual` added and `relight` applied."""
        with torch.inference_mode():
            pixels = as_pixels(self.graded)
            if self.alone:
                return pixels
            low, bright = as_tensor(self.scene.seen.pixels), as_tensor(pixels)
            if self.residual is not None:
                smooth = F.interpolate(self.residual, bright.shape[-2:], mode="bicubic", align_corners=False)
                bright = (bright + smooth).clamp(0.0, 1.0)
            return as_pixels(relight(low, bright, self.brightness))


def enhance_scenes(
    network: LowLightModel, scenes: Sequence[Scene], policy: DevicePolicy, **options: Any
) -> list[Computed[np.ndarray]]:
    """As `compute_scenes`, but with the `pixels` of each result."""
    return [
        Computed(result.value if isinstance(result.value, NetworkError) else result.value.pixels(), result.notes)
        for result in compute_scenes(network, scenes, policy, **options)
    ]


def compute_scenes(
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
) -> list[Computed[Bright]]:
    """Run the network on the scenes of pictures, all of one `shape_of`.

    Args:
        network: on the policy's device.
        scenes: from `scene_of`, perhaps through `prepare`; sizes may differ within the padded shape.
        policy: from `choose_device`.
        digests: the pictures' `digest()`, where they are already known.
        seed: the run's seed; each picture's noise depends only on it and on the picture's content.
        steps: sampling steps, None for the network's own.
        brightness: target mean linear light, as a multiple of the picture's own; None leaves it to the model.
        illumination_ratio: KinD's α, the ratio of target to source illumination, for networks that take one. The
            result is then the network's alone: no grading, no rule of `light`. None asks for nothing.
        plan: which pictures run in tiles; None: those that do not fit into memory.

    Returns:
        For each scene its result, or the error of a picture whose result has NaN or infinity even in float32. How
        batches are split: see `in_parts`.
    """
    contents = digests or [scene.picture.digest() for scene in scenes]
    if brightness is not None and illumination_ratio is not None:
        raise ValueError("brightness and illumination_ratio cannot be combined")
    knobs: dict[str, Any] = {} if illumination_ratio is None else {"illumination_ratio": illumination_ratio}
    plan = TilePlan() if plan is None else plan
    pictures = [scene.seen for scene in scenes]
    shape = shape_of(pictures[0], network, policy)

    def noise_of(index: int) -> Tensor | None:
        wanted = network.noise_shape(shape.height, shape.width)
        ready = scenes[index].noise
        return ready if ready is not None or wanted is None else picture_noise(seed, contents[index], wanted)[None]

    def input_of(index: int) -> Tensor:
        ready = scenes[index].input
        return _input_of(pictures[index], network, policy) if ready is None else ready

    def run(part: slice, precision: str) -> list[Bright | NetworkError]:
        group = range(len(scenes))[part]
        with policy.running(precision):
            low = _load([input_of(i) for i in group], network, policy)
            drawn = [policy.upload(noise) for i in group if (noise := noise_of(i)) is not None]
            sizes = [(pictures[i].height, pictures[i].width) for i in group]
            bright = network(low, sizes=sizes, noise=torch.cat(drawn) if drawn else None, steps=steps, **knobs).float()
            fetched = policy.fetch(bright)
        parts = [fetched[at, :, :height, :width] for at, (height, width) in enumerate(sizes)]
        return [
            bright_of(i, graded) if is_finite(graded) else _not_finite() for i, graded in zip(group, parts, strict=True)
        ]

    def bright_of(index: int, graded: Tensor) -> Bright:
        scene, alone = scenes[index], illumination_ratio is not None
        residual = None if scene.whole or alone else _residual(network, scene.seen, graded, policy)
        return Bright(replace(scene, input=None, noise=None), graded, residual, brightness, alone)

    def run_tiled(index: int, precision: str, side: int) -> Bright | NetworkError:
        from lumen_cli.engine.tile import enhance_tiled  # few pictures need it

        noise = noise_of(index)
        low = pictures[index].pixels
        sample_whole = plan.whole_sample_fits(network, policy, shape, precision)
        with policy.running(precision):
            made = enhance_tiled(
                network,
                low,
                None if noise is None else noise[0],
                side,
                device=policy.device,
                steps=steps,
                sample_whole=sample_whole,
                **knobs,
            )
        return bright_of(index, as_tensor(made)[0]) if np.isfinite(made).all() else _not_finite()

    return in_parts(run, pictures, policy, network=network, plan=plan, run_tiled=run_tiled)


def is_finite(values: Tensor) -> bool:
    """Whether all values are finite numbers."""
    # A sum is not finite where one of them is not, and takes a tenth of the time.
    return bool(values.sum().isfinite()) or bool(values.isfinite().all())


@torch.inference_mode()
def _residual(network: LowLightModel, seen: Picture, graded: Tensor, policy: DevicePolicy) -> Tensor | None:
    """`LowLightModel.residual` for the result of a reduced picture, 3×H×W on the CPU; on the CPU too."""
    low = as_tensor(seen.pixels)
    residual = network.residual(low.to(policy.device), as_tensor(as_pixels(graded)).to(policy.device))
    return None if residual is None else residual.cpu()


Value = TypeVar("Value")


@dataclass(frozen=True, eq=False)
class Computed(Generic[Value]):
    """The network's value for one picture, or the error in its place; notes: how it was computed, one line each."""

    value: Value | NetworkError
    notes: tuple[str, ...] = ()

    def with_note(self, note: str) -> Computed[Value]:
        """The same with one more note in front."""
        return Computed(self.value, (note, *(other for other in self.notes if other != note)))


@dataclass(frozen=True)
class _Batch(Generic[Value]):
    """What `in_parts` was called with, for the functions below."""

    run: Callable[[slice, str], list[Value | NetworkError]]
    pictures: Sequence[Picture]
    policy: DevicePolicy
    network: LowLightModel
    plan: TilePlan | None
    run_tiled: Callable[[int, str, int], Value | NetworkError] | None
    shape: Shape


def in_parts(
    run: Callable[[slice, str], list[Value | NetworkError]],
    pictures: Sequence[Picture],
    policy: DevicePolicy,
    *,
    network: LowLightModel,
    plan: TilePlan | None = None,
    run_tiled: Callable[[int, str, int], Value | NetworkError] | None = None,
) -> list[Computed[Value]]:
    """Call `run` with all pictures and their precision, or with parts of them where they cannot run together.

    A CPU runs them one by one, so that batch-mates change no bit. A batch that does not fit into memory runs in halves,
    and a single picture that does not fit runs in tiles, as do large pictures by the plan; without `run_tiled` it is a
    TooLargeError. A result that is not finite in half precision is computed again in float32.
    """
    shape = shape_of(pictures[0], network, policy)
    batch = _Batch(run, pictures, policy, network, plan if run_tiled else None, run_tiled, shape)
    results = _run_range(batch, 0, len(pictures), shape.precision)
    for index, result in enumerate(results):
        if isinstance(result.value, NotFiniteError) and shape.precision != "fp32":
            (again,) = _run_range(batch, index, index + 1, "fp32")
            note = f"computed in fp32, because the network's values were not finite in {shape.precision}"
            results[index] = Computed(again.value, tuple(dict.fromkeys((*result.notes, *again.notes, note))))
    return results


def _run_range(batch: _Batch[Value], start: int, stop: int, precision: str) -> list[Computed[Value]]:
    """Pictures `start` to `stop`: in tiles by the plan, one by one on a CPU, else together."""
    if batch.plan is not None:
        side = batch.plan.side_for(batch.network, batch.policy, batch.shape, precision)
        if side is not None:
            return [_run_tiled(batch, index, precision, side) for index in range(start, stop)]
    bounds = range(start, stop + 1) if batch.policy.single else (start, stop)
    return [result for one, following in pairwise(bounds) for result in _run_whole(batch, one, following, precision)]


def _run_whole(batch: _Batch[Value], start: int, stop: int, precision: str) -> list[Computed[Value]]:
    """Pictures together, in halves where the memory is too small, and in tiles where it is too small for one."""
    try:
        return [Computed(value) for value in batch.run(slice(start, stop), precision)]
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
    _give_back()
    if stop - start > 1:
        middle = (start + stop + 1) // 2
        note = f"run in smaller batches: {batch.policy.device} has too little memory for the whole batch"
        halves = _run_whole(batch, start, middle, precision) + _run_whole(batch, middle, stop, precision)
        return [result.with_note(note) for result in halves]
    side = None if batch.plan is None else batch.plan.after_failure(batch.network, batch.shape)
    return [_run_tiled(batch, start, precision, side or 0)]


def _run_tiled(batch: _Batch[Value], index: int, precision: str, side: int) -> Computed[Value]:
    """One picture in tiles, smaller ones where the memory is too small; side 0: tiles are impossible."""
    while side:
        assert batch.run_tiled is not None
        assert batch.plan is not None
        try:
            value = batch.run_tiled(index, precision, side)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        else:
            return Computed(value, (f"run in tiles of {side} pixels: {batch.plan.why}",))
        _give_back()
        side = smaller(side)
    picture = batch.pictures[index]
    size = f"{picture.width}×{picture.height}"
    return Computed(TooLargeError(f"{batch.policy.device} has too little memory for a picture of {size} pixels"))


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
