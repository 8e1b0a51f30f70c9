"""Trains the refiner (`networks/refiner.py`): makes example files, then fits the network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor

from lumen_cli.datasets.pairs import TrainingFiles
from lumen_cli.networks.refiner import SQUARE, Refiner, see, share_of
from lumen_cli.training.checkpoint import Checkpoint, export_part
from lumen_cli.training.data import named_generator
from lumen_cli.training.loop import FitSettings, Watch, autocast, count_examples, descend, learning_rate, run_steps
from lumen_cli.training.recipes import structure
from lumen_cli.training.refiner_examples import Sources, collect
from lumen_cli.training.run import record

STAGE = "refine"
COARSE_SQUARE = 16
"""Side of the squares whose mean light and colour the loss keeps."""


@dataclass(frozen=True)
class Fitting(FitSettings):
    """Settings of the fit.

    paired: share of real pairs in a batch, where there are both kinds; structure, light: weights of `losses`.
    """

    steps: int = 30_000
    batch: int = 4
    crop: int = 192
    rate: float = 1e-3
    paired: float = 0.25
    structure: float = 0.1
    light: float = 2.0


@dataclass(frozen=True)
class RefinerRun:
    """The refiner's data: folders as the user typed them, their files, held-out files."""

    data: tuple[str, ...]
    files: TrainingFiles
    held_out: TrainingFiles | None
    fitting: Fitting


def train_refiner(run: RefinerRun, out: Path, watch: Watch) -> Path:
    """Make the examples, fit the network and write the folder `out/model`.

    Resumes an interrupted training in `out`; UsageError if that training has other settings.
    """
    recipe = {"architecture": "refiner", **run.fitting.recipe()}
    record(out, run.fitting.device, run.data, run.files, run.fitting.dtype, recipe=recipe)
    sources = Sources(run.files, run.fitting.seed)
    examples = collect(out / "examples", sources, count_examples(watch, "examples", len(sources)))
    held_out: list[Path] = []
    if run.held_out is not None:
        others = Sources(run.held_out, run.fitting.seed, paired=1, photographed=1)
        held_out = collect(out / "held-out", others, count_examples(watch, "held-out", len(others)))
    torch.manual_seed(run.fitting.seed)
    model = Refiner().to(run.fitting.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    batches = Batches(examples, sources.pairs, run.fitting)
    fit(model, batches, held_out, run.fitting, out, watch)
    return export_part(model, "refiner", run.data, out / "model")


class Batches:
    """Draws the batch of a step from the files of examples; the same seed and step give the same batch."""

    def __init__(self, examples: Sequence[Path], pairs: int, fitting: Fitting) -> None:
        self._examples, self._pairs, self._fitting = examples, pairs, fitting

    def draw(self, step: int) -> tuple[Tensor, Tensor]:
        """Planes batch×9×crop×crop and maps batch×7×crop/4×crop/4, float32 on the device; see `Example`."""
        generator = named_generator(f"{self._fitting.seed}/refiner/step/{step}", torch.device("cpu"))
        drawn = [self._crop(generator) for _ in range(self._fitting.batch)]
        planes, maps = (torch.stack(each).to(self._fitting.device).float() for each in zip(*drawn, strict=True))
        return planes, maps

    def _crop(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        first, last = 0, len(self._examples)
        if 0 < self._pairs < last:
            paired = float(torch.rand(1, generator=generator)) < self._fitting.paired
            first, last = (0, self._pairs) if paired else (self._pairs, last)
        number, down, across, *turns = torch.randint(1 << 30, (6,), generator=generator).tolist()
        with safe_open(self._examples[first + number % (last - first)], "pt") as file:
            planes, maps = file.get_slice("planes"), file.get_slice("maps")
            _, height, width = maps.get_shape()
            side = min(self._fitting.crop // SQUARE, height, width)
            top, left = down % (height - side + 1), across % (width - side + 1)
            fine = planes[:, SQUARE * top : SQUARE * (top + side), SQUARE * left : SQUARE * (left + side)]
            coarse = maps[:, top : top + side, left : left + side]
        turn = (lambda x: x.transpose(1, 2)) if turns[0] % 2 else (lambda x: x)
        flips = [axis + 1 for axis in range(2) if turns[axis + 1] % 2]
        missing = self._fitting.crop // SQUARE - side
        padded = (
            F.pad(each, (0, count * missing, 0, count * missing), mode="replicate")
            for each, count in ((turn(fine).flip(flips), SQUARE), (turn(coarse).flip(flips), 1))
        )
        fine, coarse = padded
        return fine, coarse


def refine(model: Refiner, planes: Tensor, maps: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The refined picture and its aim, B×3×H×W in Y, Cb and Cr, of `Batches.draw`'s tensors."""
    shrunk, removed, aim = planes.split(3, dim=1)
    deviation, stops = maps[:, :-1], maps[:, -1:]
    seen = see(shrunk, removed, deviation, stops, dtype)
    with autocast(seen.device, dtype):
        change = model(seen, share_of(deviation, stops))
    return shrunk + change, aim


def losses(model: Refiner, planes: Tensor, maps: Tensor, fitting: Fitting) -> dict[str, Tensor]:
    """L1, the structural dissimilarity of Y, and L1 of means over squares, which keeps light and colour."""
    refined, aim = refine(model, planes, maps, fitting.dtype)
    return {
        "picture": F.l1_loss(refined, aim),
        "structure": fitting.structure * structure(refined[:, :1], aim[:, :1], window=8, stride=4),
        "light": fitting.light * F.avg_pool2d(refined - aim, COARSE_SQUARE).abs().mean(),
    }


def fit(
    model: Refiner,
    batches: Batches,
    held_out: Sequence[Path],
    fitting: Fitting,
    out: Path,
    watch: Watch,
    report_every: int = 100,
) -> None:
    """Fit, from the checkpoint in `out` if there is one; at the end `model` has the averaged parameters."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=fitting.rate, betas=(0.9, 0.99), weight_decay=1e-4)
    state = Checkpoint(out / f"{STAGE}.pt", STAGE, model, optimizer, fitting.decay, fitting.device)

    def step(number: int, fraction: float) -> dict[str, float] | None:
        terms = losses(model, *batches.draw(number), fitting)
        return descend(optimizer, terms, fitting.rate * learning_rate(fraction), fitting.clip)

    run_steps(
        state,
        step,
        steps=fitting.steps,
        minutes=fitting.minutes,
        batch=fitting.batch,
        watch=watch,
        report_every=report_every,
        save_every=fitting.save_every,
        validate=(lambda: validate(model, held_out, fitting)) if held_out else None,
        validate_every=fitting.validate_every,
    )


@torch.inference_mode()
def validate(model: Refiner, examples: Sequence[Path], fitting: Fitting) -> dict[str, float]:
    """Mean PSNR in dB and SSIM of Y over examples, and their gains over the shrunk picture."""
    totals = torch.zeros(4, dtype=torch.float64)
    for path in examples:
        with safe_open(path, "pt") as file:
            planes, maps = (file.get_tensor(name)[None].to(fitting.device).float() for name in ("planes", "maps"))
        refined, aim = refine(model, planes, maps, fitting.dtype)
        both = [
            (
                -10.0 * math.log10(float(F.mse_loss(each[:, :1], aim[:, :1])) + 1e-10),
                1.0 - float(structure(each[:, :1], aim[:, :1])),
            )
            for each in (refined, planes[:, :3])
        ]
        totals += torch.tensor([*both[0], both[0][0] - both[1][0], both[0][1] - both[1][1]], dtype=torch.float64)
    psnr, ssim, gained, likened = (totals / len(examples)).tolist()
    return {"psnr": psnr, "ssim": ssim, "psnr_gain": gained, "ssim_gain": likened}
