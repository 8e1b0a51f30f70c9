"""Pictures of equal padded shape through the network, each with its own noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from lumen_cli.diffusion.noise import picture_noise
from lumen_cli.errors import LumenError
from lumen_cli.networks.padding import pad_to_multiple, padded_size
from lumen_cli.pipeline.device import DevicePolicy

if TYPE_CHECKING:
    from torch import Tensor

    from lumen_cli.imaging.codec import Picture
    from lumen_cli.networks.base import LowLightModel


@dataclass(frozen=True)
class Shape:
    """What pictures in one batch have in common: padded height and width in pixels, and the precision."""

    height: int
    width: int
    precision: str


class NetworkError(LumenError):
    """The network gave no usable result for one picture."""


def shape_of(picture: Picture, network: LowLightModel, policy: DevicePolicy) -> Shape:
    """The batch a picture belongs in."""
    height, width = padded_size(picture.height, picture.width, network.size_multiple)
    return Shape(height, width, policy.precision_for(picture.bit_depth))


def enhance_batch(
    network: LowLightModel,
    pictures: Sequence[Picture],
    policy: DevicePolicy,
    *,
    digests: Sequence[bytes] | None = None,
    seed: int = 0,
    steps: int | None = None,
    strength: float = 1.0,
    brightness: float | None = None,
) -> list[np.ndarray | NetworkError]:
    """Brighten pictures of one `shape_of`.

    Args:
        network: on the policy's device.
        policy: from `choose_device`.
        pictures: H×W×3 float32 in [0, 1] each; sizes may differ within the padded shape.
        digests: the pictures' `digest()`, where they are known already.
        seed: the run's seed; each picture's noise comes from it and from the picture's content alone.
        steps: sampling steps, None for the network's own.
        strength: 0 returns the picture, 1 the network's result, between them a straight mix.
        brightness: ratio of target to source illumination, for networks that take one; None asks for nothing.

    Returns:
        For each picture H×W×3 float32 in [0, 1], or the error of a picture whose result has NaN or infinity. How
        batches are taken apart: see `in_parts`.
    """
    contents = digests or [picture.digest() for picture in pictures]
    knobs: dict[str, Any] = {} if brightness is None else {"brightness": brightness}

    def run(part: slice) -> list[np.ndarray | NetworkError]:
        group = pictures[part]
        shape = shape_of(group[0], network, policy)
        with policy.running(shape.precision):
            low = as_batch(group, network, policy)
            wanted = network.noise_shape(shape.height, shape.width)
            noise = None
            if wanted is not None:
                noise = torch.stack([picture_noise(seed, content, wanted) for content in contents[part]])
                noise = noise.to(policy.device)
            mixed = torch.lerp(low, network.enhance(low, noise=noise, steps=steps, **knobs).float(), strength)
            return [cropped(mixed[index], picture) for index, picture in enumerate(group)]

    return in_parts(run, pictures, policy)


Outcome = TypeVar("Outcome")


def in_parts(
    run: Callable[[slice], list[Outcome | NetworkError]],
    pictures: Sequence[Picture],
    policy: DevicePolicy,
    part: slice | None = None,
) -> list[Outcome | NetworkError]:
    """Call `run` for all pictures (or `part` of them) at once, or bit by bit where they cannot be run together.

    A CPU runs them one by one, so that batch-mates change no bit. A batch that the device's memory cannot hold is run
    in halves; a picture that does not fit alone is a NetworkError.
    """
    start, stop = (0, len(pictures)) if part is None else (part.start, part.stop)
    if stop - start > 1 and policy.single:
        singles = (slice(index, index + 1) for index in range(start, stop))
        return [outcome for single in singles for outcome in in_parts(run, pictures, policy, single)]
    try:
        return run(slice(start, stop))
    except (RuntimeError, MemoryError) as error:
        if not _out_of_memory(error):
            raise
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if stop - start == 1:
        size = f"{pictures[start].width}×{pictures[start].height}"
        return [NetworkError(f"{policy.device} has too little memory for a picture of {size} pixels")]
    middle = (start + stop + 1) // 2
    halves = slice(start, middle), slice(middle, stop)
    return [outcome for half in halves for outcome in in_parts(run, pictures, policy, half)]


def as_batch(pictures: Sequence[Picture], network: LowLightModel, policy: DevicePolicy) -> Tensor:
    """Pictures of one `shape_of` → B×3×H×W in [0, 1] on the device, padded to the network's multiple."""
    padded = [pad_to_multiple(_tensor(picture), network.size_multiple) for picture in pictures]
    return torch.cat(padded).to(policy.device).contiguous(memory_format=torch.channels_last)


def _tensor(picture: Picture) -> Tensor:
    """H×W×3 → 1×3×H×W without a copy: it keeps its layout, which is the channels-last one."""
    return torch.from_numpy(picture.pixels).permute(2, 0, 1)[None]


def cropped(result: Tensor, picture: Picture) -> np.ndarray | NetworkError:
    """C×H×W of the padded shape → H×W×C of the picture's size, or the error of a result that is not finite."""
    pixels = result[:, : picture.height, : picture.width].permute(1, 2, 0).contiguous().cpu()
    if not bool(torch.isfinite(pixels).all()):
        return NetworkError("the network returned numbers that are not finite; --precision fp32 may help")
    array: np.ndarray = pixels.numpy()
    return array


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or "can't allocate memory" in str(error)
