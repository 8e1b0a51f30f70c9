"""Batches of dark and bright crops, drawn and darkened on the device from pictures held there as bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lumen_cli.datasets.darken import darken, draw_camera, to_linear, to_srgb
from lumen_cli.datasets.pairs import TrainingFiles
from lumen_cli.errors import UsageError
from lumen_cli.imaging.codec import read_picture


@dataclass(frozen=True)
class Mix:
    """What a batch is made of.

    Attributes:
        pairs: share of real pairs; the rest are bright pictures darkened by the camera model.
        exposed: share of the darkened pictures that stay well exposed, so that a good picture is left alone.
        relit_low: share of the real pairs whose dark side is exposed anew by up to ±0.7 EV.
        tinted: share of all pictures whose channels are scaled together, against a colour bias of the data.
    """

    pairs: float = 0.5
    exposed: float = 0.15
    relit_low: float = 0.3
    tinted: float = 0.4


class PictureBank:
    """Pictures as uint8 tensors on one device, any sizes."""

    def __init__(self, paths: Sequence[Path], device: torch.device, progress: Callable[[], None] | None = None) -> None:
        self.pictures: list[Tensor] = []
        for path in paths:
            self.pictures.append(load_bytes(path).to(device))
            if progress is not None:
                progress()

    def __len__(self) -> int:
        return len(self.pictures)


def load_bytes(path: Path) -> Tensor:
    """A picture as uint8 3×H×W."""
    pixels = read_picture(path).pixels
    return torch.from_numpy(np.rint(pixels * 255.0).astype(np.uint8)).permute(2, 0, 1).contiguous()


class Batches:
    """Draws the batch of a given step; the same seed, stage and step give the same batch, also after a restart."""

    def __init__(self, files: TrainingFiles, device: torch.device, mix: Mix, seed: int) -> None:
        if not files.pairs and not files.bright:
            raise UsageError("no training pictures: name folders with low/ and high/, or folders of bright pictures")
        self.device, self.mix, self.seed = device, mix, seed
        self.low = PictureBank([pair.low for pair in files.pairs], device)
        self.high = PictureBank([pair.high for pair in files.pairs], device)
        self.bright = PictureBank(files.bright, device)
        for pair, low, high in zip(files.pairs, self.low.pictures, self.high.pictures, strict=True):
            if low.shape != high.shape:
                raise UsageError(f"{pair.low} and {pair.high} differ in size")

    def generator(self, stage: str, step: int) -> torch.Generator:
        """Randomness of one step, on the device."""
        key = hashlib.blake2b(f"{self.seed}/{stage}/{step}".encode(), digest_size=8).digest()
        return torch.Generator(device=self.device).manual_seed(int.from_bytes(key, "little") >> 1)

    def draw(self, generator: torch.Generator, count: int, crop: int) -> dict[str, Tensor]:
        """`low`, `high` (count×3×crop×crop in [0, 1]) and `paired` (bool [count]: a real pair)."""
        real = round(count * self.mix.pairs) if len(self.bright) else count
        if not len(self.low):
            real = 0
        elif len(self.bright) and (count * self.mix.pairs) % 1:
            real = int(count * self.mix.pairs) + int(self._uniform(generator, 1).item() < (count * self.mix.pairs) % 1)
        low, high = self._real(generator, real, crop)
        dark, bright = self._darkened(generator, count - real, crop)
        paired = torch.arange(count, device=self.device) < real
        batch = {"low": torch.cat([low, dark]), "high": torch.cat([high, bright]), "paired": paired}
        return self._tint(generator, batch)

    def _real(self, generator: torch.Generator, count: int, crop: int) -> tuple[Tensor, Tensor]:
        lows, highs = [], []
        for index in self._integers(generator, len(self.low), count):
            place = self._integers(generator, 1 << 30, 5)
            lows.append(_crop(self.low.pictures[index], crop, place))
            highs.append(_crop(self.high.pictures[index], crop, place))
        low, high = _stack(lows, crop, self.device), _stack(highs, crop, self.device)
        ev = (self._uniform(generator, count) * 1.4 - 0.7) * (self._uniform(generator, count) < self.mix.relit_low)
        return to_srgb((to_linear(low) * torch.exp2(ev).view(-1, 1, 1, 1)).clamp(0, 1)), high

    def _darkened(self, generator: torch.Generator, count: int, crop: int) -> tuple[Tensor, Tensor]:
        bright = _stack(
            [
                _crop(self.bright.pictures[index], crop, self._integers(generator, 1 << 30, 5))
                for index in self._integers(generator, len(self.bright), count)
            ],
            crop,
            self.device,
        )
        if not count:
            return bright, bright
        dark = darken(bright, draw_camera(count, generator), generator)
        exposed = (self._uniform(generator, count) < self.mix.exposed).view(-1, 1, 1, 1)
        return torch.where(exposed, bright, dark), bright

    def _tint(self, generator: torch.Generator, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        count = len(batch["low"])
        gains = 0.85 + 0.3 * torch.rand(count, 3, generator=generator, device=self.device)
        tinted = self._uniform(generator, count) < self.mix.tinted
        gains = torch.where(tinted[:, None], gains, torch.ones_like(gains))[:, :, None, None]
        return batch | {name: (batch[name] * gains).clamp(0.0, 1.0) for name in ("low", "high")}

    def _uniform(self, generator: torch.Generator, count: int) -> Tensor:
        return torch.rand(count, generator=generator, device=self.device)

    def _integers(self, generator: torch.Generator, limit: int, count: int) -> list[int]:
        if not limit or not count:
            return []
        return torch.randint(limit, (count,), generator=generator, device=self.device).tolist()


def _crop(picture: Tensor, size: int, place: list[int]) -> Tensor:
    """A crop at a place given by five large integers: top, left, two flips, transposition. 3×size×size, uint8."""
    _, height, width = picture.shape
    if min(height, width) < size:
        grown = F.pad(picture[None].float(), (0, max(size - width, 0), 0, max(size - height, 0)), mode="replicate")
        picture = grown[0].to(torch.uint8)
        _, height, width = picture.shape
    top, left = place[0] % (height - size + 1), place[1] % (width - size + 1)
    part = picture[:, top : top + size, left : left + size]
    flips = [axis for axis, bit in ((1, place[2] & 1), (2, place[3] & 1)) if bit]
    part = part.flip(flips) if flips else part
    return part.transpose(1, 2) if place[4] & 1 else part


def _stack(parts: list[Tensor], crop: int, device: torch.device) -> Tensor:
    if not parts:
        return torch.zeros(0, 3, crop, crop, device=device)
    return torch.stack(parts).float() / 255.0
