"""Noise of a picture: the same for every batch, order, worker and device."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


def picture_noise(seed: int, digest: bytes, shape: tuple[int, ...]) -> Tensor:
    """Standard normal noise for one whole picture, float32, on the CPU.

    Args:
        seed: the run's seed, any integer.
        digest: hash of the picture's decoded content.
        shape: C×H×W of the network's noise for the picture at its full size.

    The same three arguments give the same numbers on every machine.

    >>> first, again = (picture_noise(0, b"digest", (3, 2, 2)) for _ in range(2))
    >>> torch.equal(first, again), torch.equal(first, picture_noise(1, b"digest", (3, 2, 2)))
    (True, False)
    """
    key = hashlib.blake2b(digest, key=str(seed).encode()[:64], digest_size=8).digest()
    generator = torch.Generator(device="cpu").manual_seed(int.from_bytes(key, "little") >> 1)
    # torch fills 16 and more values with another algorithm than fewer: draw a fixed minimum.
    count = max(math.prod(shape), 16)
    return torch.randn(count, generator=generator, dtype=torch.float32)[: math.prod(shape)].view(shape)


def normal(shape: Sequence[int], like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Standard normal values of `like`'s dtype and on its device, drawn on the generator's (or the CPU)."""
    device = None if generator is None else generator.device
    return torch.randn(tuple(shape), generator=generator, device=device, dtype=like.dtype).to(like.device)


def fresh_noise(noise: Tensor) -> Iterator[Tensor]:
    """Endless standard normal noise in the shape of `noise` (B×C×h×w), float32, for samplers that add it in every step.

    It is derived from each picture's own `noise`, so that batch-mates and devices change nothing.

    >>> both = torch.randn(2, 3, 4, 4)
    >>> torch.equal(next(fresh_noise(both))[1:], next(fresh_noise(both[1:])))
    True
    """
    generators = []
    for picture in noise:
        key = hashlib.blake2b(picture.float().cpu().contiguous().numpy().tobytes(), digest_size=8).digest()
        generators.append(torch.Generator(device="cpu").manual_seed(int.from_bytes(key, "little") >> 1))
    while True:
        yield torch.stack([torch.randn(noise.shape[1:], generator=each) for each in generators]).to(noise.device)
