"""Pictures of equal padded shape through the network, each with its own noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

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

    Returns:
        For each picture H×W×3 float32 in [0, 1], or the error of a picture whose result has NaN or infinity. A CPU runs
        them one by one, so that batch-mates change no bit. A batch that the device's memory cannot hold is run in
        halves; a picture that does not fit alone is a NetworkError too.
    """
    if len(pictures) > 1 and policy.single:
        return _in_parts(network, pictures, policy, digests, seed, steps, strength, len(pictures))
    try:
        return _run(network, pictures, policy, digests, seed, steps, strength)
    except (RuntimeError, MemoryError) as error:
        if not _out_of_memory(error):
            raise
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    if len(pictures) == 1:
        size = f"{pictures[0].width}×{pictures[0].height}"
        return [NetworkError(f"{policy.device} has too little memory for a picture of {size} pixels")]
    return _in_parts(network, pictures, policy, digests, seed, steps, strength, 2)


def _in_parts(
    network: LowLightModel,
    pictures: Sequence[Picture],
    policy: DevicePolicy,
    digests: Sequence[bytes] | None,
    seed: int,
    steps: int | None,
    strength: float,
    parts: int,
) -> list[np.ndarray | NetworkError]:
    results: list[np.ndarray | NetworkError] = []
    size = -(-len(pictures) // parts)
    for start in range(0, len(pictures), size):
        part = slice(start, start + size)
        known = digests[part] if digests else None
        results += enhance_batch(
            network, pictures[part], policy, digests=known, seed=seed, steps=steps, strength=strength
        )
    return results


def _run(
    network: LowLightModel,
    pictures: Sequence[Picture],
    policy: DevicePolicy,
    digests: Sequence[bytes] | None,
    seed: int,
    steps: int | None,
    strength: float,
) -> list[np.ndarray | NetworkError]:
    shape = shape_of(pictures[0], network, policy)
    with policy.running(shape.precision):
        padded = [pad_to_multiple(_tensor(picture), network.size_multiple) for picture in pictures]
        low = torch.cat(padded).to(policy.device).contiguous(memory_format=torch.channels_last)
        wanted = network.noise_shape(shape.height, shape.width)
        noise = None
        if wanted is not None:
            contents = digests or [picture.digest() for picture in pictures]
            drawn = [picture_noise(seed, content, wanted) for content in contents]
            noise = torch.stack(drawn).to(policy.device)
        mixed = torch.lerp(low, network.enhance(low, noise=noise, steps=steps).float(), strength)
        return [_cropped(mixed[index], picture) for index, picture in enumerate(pictures)]


def _tensor(picture: Picture) -> Tensor:
    """H×W×3 → 1×3×H×W without a copy: it keeps its layout, which is the channels-last one."""
    return torch.from_numpy(picture.pixels).permute(2, 0, 1)[None]


def _cropped(result: Tensor, picture: Picture) -> np.ndarray | NetworkError:
    pixels = result[:, : picture.height, : picture.width].permute(1, 2, 0).contiguous().cpu()
    if not bool(torch.isfinite(pixels).all()):
        return NetworkError("the network returned numbers that are not finite; --precision fp32 may help")
    array: np.ndarray = pixels.numpy()
    return array


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or "can't allocate memory" in str(error)
