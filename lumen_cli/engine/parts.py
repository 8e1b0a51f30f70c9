"""Pictures of one shape in as few parts as memory allows: together, in halves, one by one, in tiles.

How much memory a network needs is measured on a small picture.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lumen_cli.engine.device import DevicePolicy
from lumen_cli.engine.memory import TilePlan, out_of_memory, smaller
from lumen_cli.errors import LumenError
from lumen_cli.networks.base import padded_size

if TYPE_CHECKING:
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

    run: Callable[[slice, str], Callable[[], list[Value | NetworkError]]]
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
    network: LowLightModel,
) -> list[Computed[Value]]:
    """As `launch_parts`, for a `run` that waits."""

    def launch(part: slice, precision: str) -> Callable[[], list[Value | NetworkError]]:
        made = run(part, precision)
        return lambda: made

    return launch_parts(launch, pictures, policy, network=network)()


def launch_parts(
    run: Callable[[slice, str], Callable[[], list[Value | NetworkError]]],
    pictures: Sequence[Picture],
    policy: DevicePolicy,
    *,
    network: LowLightModel,
    plan: TilePlan | None = None,
    run_tiled: Callable[[int, str, int], Value | NetworkError] | None = None,
) -> Callable[[], list[Computed[Value]]]:
    """Call `run` with all pictures and their precision, or with parts of them where they cannot run together.

    `run` launches the work, and the function that it returns waits for it; so does the function that this returns.

    A CPU runs them one by one, so that batch-mates change no bit. A batch that does not fit into memory runs in halves,
    and a single picture that does not fit runs in tiles, as do large pictures by the plan; without `run_tiled` it is a
    TooLargeError. A result that is not finite in half precision is computed again in float32.
    """
    shape = shape_of(pictures[0], network, policy)
    batch = _Batch(run, pictures, policy, network, plan if run_tiled else None, run_tiled, shape)
    launched = _launch_range(batch, 0, len(pictures), shape.precision)

    def finish() -> list[Computed[Value]]:
        results = launched()
        for index, result in enumerate(results):
            if isinstance(result.value, NotFiniteError) and shape.precision != "fp32":
                (again,) = _launch_range(batch, index, index + 1, "fp32")()
                note = f"computed in fp32, because the network's values were not finite in {shape.precision}"
                results[index] = Computed(again.value, tuple(dict.fromkeys((*result.notes, *again.notes, note))))
        return results

    return finish


Launched = Callable[[], "list[Computed[Value]]"]


def _launch_range(batch: _Batch[Value], start: int, stop: int, precision: str) -> Launched[Value]:
    """Pictures `start` to `stop`: in tiles by the plan, one by one on a CPU, else together."""
    if batch.plan is not None:
        side = batch.plan.side_for(batch.network, batch.policy, batch.shape, precision)
        if side is not None:
            tiled = [_run_tiled(batch, index, precision, side) for index in range(start, stop)]
            return lambda: tiled
    bounds = range(start, stop + 1) if batch.policy.single else (start, stop)
    parts = [_launch_whole(batch, one, following, precision) for one, following in pairwise(bounds)]
    return lambda: [result for part in parts for result in part()]


def _launch_whole(batch: _Batch[Value], start: int, stop: int, precision: str) -> Launched[Value]:
    """Pictures together, in halves where the memory is too small, and in tiles where it is too small for one."""
    try:
        finish = batch.run(slice(start, stop), precision)
        return lambda: [Computed(value) for value in finish()]
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
    _give_back()
    if stop - start > 1:
        middle = (start + stop + 1) // 2
        note = f"run in smaller batches: {batch.policy.device} has too little memory for the whole batch"
        halves = [_launch_whole(batch, *half, precision) for half in ((start, middle), (middle, stop))]
        return lambda: [result.with_note(note) for half in halves for result in half()]
    side = None if batch.plan is None else batch.plan.after_failure(batch.network, batch.shape)
    result = _run_tiled(batch, start, precision, side or 0)
    return lambda: [result]


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


def not_finite() -> NotFiniteError:
    """The error of a result with NaN or infinity."""
    return NotFiniteError("the network returned numbers that are not finite")


PROBE_SIDE = 256
SPARE = 1.25
"""Factor for the temporary memory of the libraries beside the tensors themselves."""


def bytes_per_pixel(
    network: LowLightModel, policy: DevicePolicy, precision: str, *, sample_whole: bool = False
) -> float:
    """Peak memory of a network's tensors per pixel of the picture, measured on a small one.

    sample_whole: only its `sample_whole`; of a mean, the dearest of its members', which are run one after the other.
    """
    if sample_whole and network.members:
        return max(bytes_per_pixel(member.network, policy, precision, sample_whole=True) for member in network.members)
    device = torch.device(policy.device)
    side = -(-PROBE_SIDE // network.size_multiple) * network.size_multiple
    low = torch.full((1, 3, side, side), 0.1, device=device).contiguous(memory_format=torch.channels_last)
    wanted = network.noise_shape(side, side)
    with policy.running(precision):
        noise = None if wanted is None else torch.zeros(1, *wanted, device=device)
        steps = network.steps_range()
        with _Watch() as watch:
            fewest = None if steps is None else steps[0]
            if not sample_whole:
                network(low, noise=noise, steps=fewest)
            elif noise is not None:
                network.sample_whole(low, noise, fewest)
    return SPARE * watch.most / side**2


class _Watch(TorchDispatchMode):
    """Tracks the bytes of the live tensors that were created inside; `most` is the peak."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._add(leaf.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size
