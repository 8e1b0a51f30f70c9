"""Batches of dark and bright crops, drawn and darkened on the device from pictures stored there as bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lumen_cli.datasets import TrainingFiles
from lumen_cli.datasets.darken import darken, draw_camera, draw_shade, expose
from lumen_cli.diffusion import normal
from lumen_cli.imaging.picture import read_picture
from lumen_cli.networks import average_to
from lumen_cli.networks.base import LowLightModel, Member, as_tensor

WHOLE = 64
REDUCTION = 2
"""Pixels of the photograph along each side of a pixel of a reduced scene."""


@dataclass(frozen=True)
class Mix:
    """The composition of a batch.

    Attributes:
        pairs: share of real pairs; the others are bright pictures darkened by the camera model.
        exposed: share of the darkened pictures that stay well exposed, so that the network keeps a good picture.
        uneven: share of the darkened pictures with lit places, so that the network keeps lamps, windows and skies.
        reduced: share of the darkened pictures that are reduced by area afterwards, as lumen shows large photographs to
            a network: more of the scene, with weaker noise.
        relit_low: share of the real pairs whose dark side changes by up to ±0.7 EV.
        tinted: share of all pictures whose channels are scaled, on both sides alike, against a colour bias of the data.
    """

    pairs: float = 0.5
    exposed: float = 0.15
    uneven: float = 0.4
    reduced: float = 0.5
    relit_low: float = 0.3
    tinted: float = 0.4


class PictureBank:
    """Pictures of any sizes as bytes in one tensor on a device, so that one call takes crops of many.

    reduced: all pictures as N×3×WHOLE×WHOLE in [0, 1].
    """

    def __init__(self, paths: Sequence[Path], device: torch.device, progress: Callable[[], None] | None = None) -> None:
        self.shapes: list[tuple[int, int]] = []
        flat, reduced = [], [torch.zeros(0, 3, WHOLE, WHOLE, device=device)]
        for path in paths:
            picture = load_bytes(path).to(device)
            self.shapes.append((picture.shape[-2], picture.shape[-1]))
            flat.append(picture.flatten())
            reduced.append(average_to(picture.float() / 255.0, WHOLE)[None])
            if progress is not None:
                progress()
        self.reduced = torch.cat(reduced)
        self._bytes = torch.cat(flat) if flat else torch.zeros(0, dtype=torch.uint8, device=device)
        sizes = torch.tensor(self.shapes, dtype=torch.int64).view(-1, 2)
        starts = F.pad((3 * sizes.prod(dim=1)).cumsum(0), (1, 0))[:-1]
        self._places = torch.cat([starts[:, None], sizes], dim=1).to(device)

    def __len__(self) -> int:
        return len(self.shapes)

    def crops(self, chosen: Tensor, places: Tensor, size: int) -> Tensor:
        """Square crops, n×3×size×size in [0, 1]; a smaller picture is extended by its last row and column.

        chosen: numbers of the pictures, [n]; places: large integers [n, 5] for top, left, two flips, transposition.
        """
        start, height, width = self._places[chosen].view(-1, 3, 1, 1, 1).unbind(1)
        top, left, *turns = places.view(-1, 5, 1, 1, 1).unbind(1)
        upside_down, mirrored, transposed = (turn % 2 == 1 for turn in turns)
        down = torch.arange(size, device=places.device).view(1, 1, -1, 1)
        right = down.transpose(-1, -2)
        row, column = torch.where(transposed, right, down), torch.where(transposed, down, right)
        row, column = torch.where(upside_down, size - 1 - row, row), torch.where(mirrored, size - 1 - column, column)
        row = torch.minimum(top % ((height - size).clamp_min(0) + 1) + row, height - 1)
        column = torch.minimum(left % ((width - size).clamp_min(0) + 1) + column, width - 1)
        channel = torch.arange(3, device=places.device).view(1, -1, 1, 1)
        return self._bytes[start + (channel * height + row) * width + column].float() / 255.0


def load_bytes(path: Path) -> Tensor:
    """A picture as uint8 3×H×W."""
    pixels = read_picture(path).pixels
    return as_tensor(np.rint(pixels * 255.0).astype(np.uint8))[0].contiguous()


def named_generator(name: str, device: torch.device) -> torch.Generator:
    """A generator on a device, seeded by a name."""
    key = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return torch.Generator(device=device).manual_seed(int.from_bytes(key, "little") >> 1)


class Batches:
    """Draws the batch of a step. The same seed, stage and step give the same batch, also after a restart."""

    def __init__(self, files: TrainingFiles, device: torch.device, mix: Mix, seed: int) -> None:
        files.require_some()
        self.device, self.mix, self.seed = device, mix, seed
        self.low = PictureBank([pair.low for pair in files.pairs], device)
        self.high = PictureBank([pair.high for pair in files.pairs], device)
        self.bright = PictureBank(files.bright, device)
        for pair, low, high in zip(files.pairs, self.low.shapes, self.high.shapes, strict=True):
            pair.require_one_size(low, high)

    def generator(self, stage: str, step: int, worker: int = 0) -> torch.Generator:
        """The generator of one step, on the device; each worker has its own."""
        name = f"{self.seed}/{stage}/{step}" + (f"/{worker}" if worker else "")
        return named_generator(name, self.device)

    def draw(self, generator: torch.Generator, count: int, crop: int) -> dict[str, Tensor]:
        """One batch.

        Returns:
            `low`, `high`: count×3×crop×crop in [0, 1]; `whole`: the dark pictures that contain `low`, reduced to
            count×3×WHOLE×WHOLE; `paired`: bool [count], whether it is a real pair.
        """
        real = round(count * self.mix.pairs) if len(self.bright) else count
        if not len(self.low):
            real = 0
        elif len(self.bright) and (count * self.mix.pairs) % 1:
            real = self._round(generator, count * self.mix.pairs)
        reduced = 0
        if any(min(shape) >= REDUCTION * crop for shape in self.bright.shapes):
            reduced = self._round(generator, (count - real) * self.mix.reduced)
        parts = (
            self._real(generator, real, crop),
            self._darken(generator, count - real - reduced, crop),
            self._darken(generator, reduced, crop, REDUCTION),
        )
        low, high, whole = (torch.cat(part) for part in zip(*parts, strict=True))
        paired = torch.arange(count, device=self.device) < real
        batch = {"low": low, "high": high, "whole": whole, "paired": paired}
        return self._tint(generator, batch)

    def _real(self, generator: torch.Generator, count: int, crop: int) -> tuple[Tensor, Tensor, Tensor]:
        chosen, places = self._choose(generator, self.low, count)
        low, high = self.low.crops(chosen, places, crop), self.high.crops(chosen, places, crop)
        ev = (self._uniform(generator, count) * 1.4 - 0.7) * (self._uniform(generator, count) < self.mix.relit_low)
        return expose(low, ev), high, expose(self.low.reduced[chosen], ev)

    def _darken(
        self, generator: torch.Generator, count: int, crop: int, reduction: int = 1
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Crops of `crop` pixels a side; with a reduction they show so many times as much, darkened at full size."""
        full = crop * reduction
        chosen, places = self._choose(generator, self.bright, count, full if reduction > 1 else 1)
        bright, whole = self.bright.crops(chosen, places, full), self.bright.reduced[chosen]
        if not count:
            return bright[..., :crop, :crop], bright[..., :crop, :crop], whole
        camera = draw_camera(count, generator)
        exposed = (self._uniform(generator, count) < self.mix.exposed).view(-1, 1, 1, 1)
        even = (self._uniform(generator, count) >= self.mix.uneven).view(-1, 1, 1, 1)
        shade = torch.where(even, torch.ones(()).to(bright), draw_shade(count, full, generator))
        # The whole picture gets an even shade with the mean of the crop's.
        shades = shade, shade.mean(dim=(1, 2, 3), keepdim=True)
        dark, whole_dark = (
            torch.where(exposed, of, darken(of, camera, generator, shade=depth))
            for of, depth in zip((bright, whole), shades, strict=True)
        )
        return F.avg_pool2d(dark, reduction), F.avg_pool2d(bright, reduction), whole_dark

    def _tint(self, generator: torch.Generator, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        count = len(batch["low"])
        gains = 0.85 + 0.3 * torch.rand(count, 3, generator=generator, device=self.device)
        tinted = self._uniform(generator, count) < self.mix.tinted
        gains = torch.where(tinted[:, None], gains, torch.ones_like(gains))[:, :, None, None]
        return batch | {name: (batch[name] * gains).clamp(0.0, 1.0) for name in ("low", "high", "whole")}

    def _round(self, generator: torch.Generator, count: float) -> int:
        """One of the two whole numbers beside a number, by chance, so that the mean of many is the number."""
        rest = count % 1
        return int(count) + (int(self._uniform(generator, 1).item() < rest) if rest else 0)

    def _uniform(self, generator: torch.Generator, count: int) -> Tensor:
        return torch.rand(count, generator=generator, device=self.device)

    def _choose(
        self, generator: torch.Generator, bank: PictureBank, count: int, smallest: int = 1
    ) -> tuple[Tensor, Tensor]:
        """Numbers of `count` pictures whose shorter side has `smallest` pixels or more, and places for their crops."""
        large = [number for number, shape in enumerate(bank.shapes) if min(shape) >= smallest]
        count = count if large else 0
        chosen = torch.randint(max(len(large), 1), (count,), generator=generator, device=self.device)
        chosen = torch.tensor(large, dtype=torch.int64, device=self.device)[chosen]
        return chosen, torch.randint(1 << 30, (count, 5), generator=generator, device=self.device)


class Teacher:
    """A model whose results replace the bright side of batches: distillation (Hinton et al., 2015, arXiv 1503.02531).

    Its results lack what cannot be known from the dark side, so a student needs fewer steps than with the truth. They
    are means over the picture and its mirror image, and are not graded: a grading takes whole pictures.
    """

    def __init__(self, model: LowLightModel) -> None:
        self.members = model.members or (Member(model, 1.0, None),)
        for member in self.members:
            member.network.eval()

    @torch.no_grad()
    def teach(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """A batch of `Batches.draw` with the teacher's results as `high`."""
        sides = [self._enhance(batch["low"].flip(axes), batch["whole"], generator).flip(axes) for axes in ((), (-1,))]
        return batch | {"high": torch.stack(sides).mean(dim=0)}

    def _enhance(self, low: Tensor, whole: Tensor, generator: torch.Generator) -> Tensor:
        results = []
        for network, share, steps in ((each.network, each.share, each.steps) for each in self.members):
            shape = network.noise_shape(*low.shape[-2:])
            noise = None if shape is None else normal((len(low), *shape), low, generator)
            contexts = [network.global_context(picture[None]) for picture in whole]
            context = {name: torch.cat([each[name] for each in contexts]) for name in contexts[0]}
            results.append(share * network.enhance(low, noise=noise, steps=steps, **context).float())
        return torch.stack(results).sum(dim=0)
