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

from lumen_cli.datasets.darken import darken, draw_camera, draw_shade, to_linear, to_srgb
from lumen_cli.datasets.pairs import TrainingFiles
from lumen_cli.errors import UsageError
from lumen_cli.imaging.codec import read_picture

WHOLE = 64


@dataclass(frozen=True)
class Mix:
    """What a batch is made of.

    Attributes:
        pairs: share of real pairs; the rest are bright pictures darkened by the camera model.
        exposed: share of the darkened pictures that stay well exposed, so that a good picture is left alone.
        uneven: share of the darkened pictures that keep lit places, so that lamps, windows and skies are left alone.
        relit_low: share of the real pairs whose dark side is exposed anew by up to ±0.7 EV.
        tinted: share of all pictures whose channels are scaled together, against a colour bias of the data.
    """

    pairs: float = 0.5
    exposed: float = 0.15
    uneven: float = 0.4
    relit_low: float = 0.3
    tinted: float = 0.4


class PictureBank:
    """Pictures as uint8 tensors on one device, any sizes; `reduced` holds them as 3×WHOLE×WHOLE in [0, 1]."""

    def __init__(self, paths: Sequence[Path], device: torch.device, progress: Callable[[], None] | None = None) -> None:
        self.pictures: list[Tensor] = []
        self.reduced: list[Tensor] = []
        for path in paths:
            picture = load_bytes(path).to(device)
            self.pictures.append(picture)
            self.reduced.append(F.adaptive_avg_pool2d(picture.float() / 255.0, WHOLE))
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

    def generator(self, stage: str, step: int, worker: int = 0) -> torch.Generator:
        """Randomness of one step, on the device; each of several workers has its own."""
        name = f"{self.seed}/{stage}/{step}" + (f"/{worker}" if worker else "")
        key = hashlib.blake2b(name.encode(), digest_size=8).digest()
        return torch.Generator(device=self.device).manual_seed(int.from_bytes(key, "little") >> 1)

    def draw(self, generator: torch.Generator, count: int, crop: int) -> dict[str, Tensor]:
        """One batch.

        Returns:
            `low`, `high`: count×3×crop×crop in [0, 1]; `whole`: the dark pictures that `low` is cut from, reduced to
            count×3×WHOLE×WHOLE; `paired`: bool [count], a real pair.
        """
        real = round(count * self.mix.pairs) if len(self.bright) else count
        if not len(self.low):
            real = 0
        elif len(self.bright) and (count * self.mix.pairs) % 1:
            real = int(count * self.mix.pairs) + int(self._uniform(generator, 1).item() < (count * self.mix.pairs) % 1)
        parts = zip(self._real(generator, real, crop), self._darkened(generator, count - real, crop), strict=True)
        low, high, whole = (torch.cat(part) for part in parts)
        paired = torch.arange(count, device=self.device) < real
        batch = {"low": low, "high": high, "whole": whole, "paired": paired}
        return self._tint(generator, batch)

    def _real(self, generator: torch.Generator, count: int, crop: int) -> tuple[Tensor, Tensor, Tensor]:
        lows, highs, wholes = [], [], []
        for index in self._integers(generator, len(self.low), count):
            place = self._integers(generator, 1 << 30, 5)
            lows.append(_crop(self.low.pictures[index], crop, place))
            highs.append(_crop(self.high.pictures[index], crop, place))
            wholes.append(self.low.reduced[index])
        low, high = _stack(lows, crop, self.device), _stack(highs, crop, self.device)
        ev = (self._uniform(generator, count) * 1.4 - 0.7) * (self._uniform(generator, count) < self.mix.relit_low)
        light = torch.exp2(ev).view(-1, 1, 1, 1)

        def relit(picture: Tensor) -> Tensor:
            return to_srgb((to_linear(picture) * light).clamp(0.0, 1.0))

        return relit(low), high, relit(_batch(wholes, WHOLE, self.device))

    def _darkened(self, generator: torch.Generator, count: int, crop: int) -> tuple[Tensor, Tensor, Tensor]:
        chosen = self._integers(generator, len(self.bright), count)
        places = [self._integers(generator, 1 << 30, 5) for _ in chosen]
        crops = [_crop(self.bright.pictures[index], crop, place) for index, place in zip(chosen, places, strict=True)]
        bright = _stack(crops, crop, self.device)
        whole = _batch([self.bright.reduced[index] for index in chosen], WHOLE, self.device)
        if not count:
            return bright, bright, whole
        camera = draw_camera(count, generator)
        exposed = (self._uniform(generator, count) < self.mix.exposed).view(-1, 1, 1, 1)
        even = (self._uniform(generator, count) >= self.mix.uneven).view(-1, 1, 1, 1)
        shade = torch.where(even, torch.ones(()).to(bright), draw_shade(count, crop, generator))
        # The whole picture's light is that of an even shade as deep as the crop's is in the mean.
        shades = shade, shade.mean(dim=(1, 2, 3), keepdim=True)
        dark, whole_dark = (
            torch.where(exposed, of, darken(of, camera, generator, shade=depth))
            for of, depth in zip((bright, whole), shades, strict=True)
        )
        return dark, bright, whole_dark

    def _tint(self, generator: torch.Generator, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        count = len(batch["low"])
        gains = 0.85 + 0.3 * torch.rand(count, 3, generator=generator, device=self.device)
        tinted = self._uniform(generator, count) < self.mix.tinted
        gains = torch.where(tinted[:, None], gains, torch.ones_like(gains))[:, :, None, None]
        return batch | {name: (batch[name] * gains).clamp(0.0, 1.0) for name in ("low", "high", "whole")}

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
    return _batch(parts, crop, device).float() / 255.0


def _batch(parts: list[Tensor], size: int, device: torch.device) -> Tensor:
    return torch.stack(parts) if parts else torch.zeros(0, 3, size, size, device=device)
