"""Trains the grading that knows LOL's scenes (`networks/lol_grading.py`): collects results of models, fits the network.

One grading serves all models, so it is fitted to results of different ones. Heads come first, each on thumbnails of
whole pictures; then the U-Net, on crops that have these heads' curves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lumen_cli.datasets import Pair, TrainingFiles
from lumen_cli.metrics import psnr, ssim
from lumen_cli.metrics.fidelity import psnr_gt_mean
from lumen_cli.networks.grading import bend
from lumen_cli.networks.lol_grading import SQUARE, THUMBNAIL, Detail, LolGrading, SceneHead, scaled, thumbnail
from lumen_cli.registry.card import ModelCard
from lumen_cli.registry.load import load
from lumen_cli.training.checkpoint import Checkpoint, export_part
from lumen_cli.training.data import load_bytes
from lumen_cli.training.loop import FitSettings, Watch, autocast, count_examples, descend, learning_rate, run_steps
from lumen_cli.training.recipes import structure
from lumen_cli.training.run import enhance_bytes, record

NAME = "lol-grading"
DARK, BRIGHT = "low", "high"
SCENES, HEAD_RATE, HEAD_DECAY = 32, 1e-3, 0.05
"""Of a head's fit: examples in a batch, learning rate, weight decay."""
SHIFT = 3
"""Rows and columns by which thumbnails are moved at most; views of a scene differ by as much."""
MIRRORED, CHANGED = 0.25, 0.7
"""Shares of the U-Net's examples that are mirrored, and of a head's whose result gets another light and tint: networks
have seen most training pictures, so their results are better there than on test pictures."""
STOPS, TINT, DARKNESS = 0.26, 0.09, 0.15
"""Deviations, in powers of two: of the exponent that changes a result, the same per channel, and of the dark picture's
light."""
DETAIL_STOPS, DETAIL_TINT = 0.1, 0.03
"""The same for the U-Net, where results and bright pictures change alike: it leaves the light to the heads."""
CROP = 256, 320
"""Rows and columns of the U-Net's crops."""


@dataclass(frozen=True)
class Fitting(FitSettings):
    """Settings of the fit.

    steps: of the U-Net, and of each head; minutes: of the whole fit, where given, instead; batch, rate, structure: of
    the U-Net, the last is the weight of its second loss term.
    """

    heads: int = 3
    batch: int = 2
    rate: float = 8e-4
    structure: float = 0.15
    decay: float = 0.998
    validate_every: float = 15.0

    def share(self, part: float) -> float | None:
        """Minutes of a part of the fit."""
        return None if self.minutes is None else part * self.minutes


@dataclass(frozen=True)
class LolGradingRun:
    """Models whose results are graded; the pairs' folders as the user typed them, their files, held-out pairs."""

    models: tuple[ModelCard, ...]
    data: tuple[str, ...]
    files: TrainingFiles
    validation: Sequence[Pair]
    fitting: Fitting


def train_lol_grading(run: LolGradingRun, out: Path, watch: Watch) -> Path:
    """Collect the models' results, fit the network and write the folder `out/model`.

    Resumes an interrupted training in `out`; UsageError if that training has other settings.
    """
    fitting = run.fitting
    recipe = {
        "architecture": NAME,
        **fitting.recipe(),
        "models": {card.name: card.weights_sha256 for card in run.models},
    }
    record(out, fitting.device, run.data, run.files, fitting.dtype, recipe=recipe)
    names = [card.name for card in run.models]
    examples = _collect(out / "examples", run.files.pairs, run, watch)
    held_out = _collect(out / "held-out", run.validation, run, watch)
    bank = Bank(examples, names)
    torch.manual_seed(fitting.seed)
    model = LolGrading(fitting.heads).to(fitting.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for number, head in enumerate(model.heads, start=1):
        fit_head(head, f"head{number}", bank, fitting, out, watch)
    model.heads.eval().requires_grad_(False)
    fit_detail(model, bank, held_out, fitting, out, watch)
    return export_part(model, NAME, run.data, out / "model", names)


def _collect(folder: Path, pairs: Sequence[Pair], run: LolGradingRun, watch: Watch) -> list[Path]:
    """A file for each pair with its pictures and each model's result, uint8 3×H×W; makes those that are missing.

    One model is loaded at a time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{number:06d}.safetensors" for number in range(len(pairs))]
    for card in run.models:
        tell = count_examples(watch, f"{folder.name} of {card.name}", len(pairs))
        network = None
        for number, (path, pair) in enumerate(zip(files, pairs, strict=True)):
            if card.name not in _names(path):
                network = network or load(card, "none").to(run.fitting.device)
                if path.is_file():
                    tensors = _read(path)
                else:
                    low, high = load_bytes(pair.low), load_bytes(pair.high)
                    pair.require_one_size(low.shape, high.shape)
                    tensors = {DARK: low, BRIGHT: high}
                made = enhance_bytes(network, tensors[DARK], run.fitting.device, run.fitting.dtype)
                tensors[card.name] = (made * 255.0).round().to(torch.uint8).cpu().contiguous()
                beside = path.with_suffix(".tmp")
                save_file(tensors, beside)
                beside.replace(path)
            tell(number + 1)
    return files


def _names(path: Path) -> set[str]:
    """What is in a file, from its header; nothing where there is no file."""
    if not path.is_file():
        return set()
    with safe_open(path, "pt") as file:
        return set(file.keys())


def _read(path: Path) -> dict[str, Tensor]:
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


class Bank:
    """The examples' files, and thumbnails of all of them in memory: float32, N×3×h×w, results models×N×3×h×w."""

    def __init__(self, files: Sequence[Path], models: Sequence[str]) -> None:
        self.files, self.models = list(files), list(models)
        small = [{name: thumbnail(each[None] / 255.0)[0] for name, each in _read(path).items()} for path in files]
        self.low, self.high = (torch.stack([each[side] for each in small]) for side in (DARK, BRIGHT))
        self.made = torch.stack([torch.stack([each[name] for each in small]) for name in models])

    def scenes(self, random: np.random.Generator, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Thumbnails of dark pictures, of changed results and of bright pictures, all moved alike; count×3×h×w."""
        chosen = torch.from_numpy(random.integers(len(self.files), size=count))
        model = torch.from_numpy(random.integers(len(self.models), size=count))
        down, across = random.integers(2 * SHIFT + 1, size=2).tolist()
        rows, columns = THUMBNAIL
        low, made, high = (
            F.pad(each, (SHIFT,) * 4, mode="replicate")[..., down : down + rows, across : across + columns]
            for each in (self.low[chosen], self.made[model, chosen], self.high[chosen])
        )
        stops = STOPS * _normal(random, count, 1) + TINT * _normal(random, count, 3)
        changed = torch.from_numpy(random.random((count, 1, 1, 1)) < CHANGED)
        made = made.clamp(1e-4, 1.0) ** torch.exp2(stops * changed)
        return (low * torch.exp2(DARKNESS * _normal(random, count, 1))).clamp(0.0, 1.0), made, high

    def crops(self, random: np.random.Generator, count: int) -> tuple[list[int], list[int], Tensor, Tensor, Tensor]:
        """Numbers of examples and models; crops of dark pictures, results and bright pictures, count×3×h×w in [0, 1].

        Pictures smaller than `CROP` are repeated.
        """
        chosen = random.integers(len(self.files), size=count).tolist()
        models = random.integers(len(self.models), size=count).tolist()
        crops = [
            _crop(self.files[number], self.models[model], random) for number, model in zip(chosen, models, strict=True)
        ]
        low, made, high = (torch.stack(each).float() / 255.0 for each in zip(*crops, strict=True))
        return chosen, models, low, made, high


def _crop(path: Path, model: str, random: np.random.Generator) -> list[Tensor]:
    with safe_open(path, "pt") as file:
        slices = [file.get_slice(name) for name in (DARK, model, BRIGHT)]
        _, *sides = slices[0].get_shape()
        top, left = (
            int(random.integers(max(0, side - size) // SQUARE + 1)) * SQUARE
            for side, size in zip(sides, CROP, strict=True)
        )
        parts = [each[:, top : top + CROP[0], left : left + CROP[1]] for each in slices]
    down, across = (torch.arange(size) % side for size, side in zip(CROP, parts[0].shape[1:], strict=True))
    across = across.flip(0) if random.random() < MIRRORED else across
    return [part[:, down][:, :, across] for part in parts]


def _normal(random: np.random.Generator, count: int, channels: int) -> Tensor:
    return torch.from_numpy(random.standard_normal((count, channels, 1, 1)).astype(np.float32))


def _fit(
    part: nn.Module,
    name: str,
    loss: Callable[[np.random.Generator], dict[str, Tensor]],
    optimizer: torch.optim.Optimizer,
    rate: float,
    batch: int,
    minutes: float | None,
    fitting: Fitting,
    out: Path,
    watch: Watch,
    validate: Callable[[], dict[str, float]] | None = None,
) -> None:
    """Fit a part, from its checkpoint in `out` if there is one; at the end it has the averaged parameters.

    loss: of a generator of random numbers; the same seed and step give the same one.
    """
    state = Checkpoint(out / f"{name}.pt", name, part, optimizer, fitting.decay, fitting.device)

    def step(number: int, fraction: float) -> dict[str, float] | None:
        torch.manual_seed(number)  # dropout
        random = np.random.default_rng([fitting.seed, *name.encode(), number])
        return descend(optimizer, loss(random), rate * learning_rate(fraction), fitting.clip)

    part.train()
    run_steps(
        state,
        step,
        steps=fitting.steps,
        minutes=minutes,
        batch=batch,
        watch=watch,
        report_every=100,
        save_every=fitting.save_every,
        validate=validate,
        validate_every=fitting.validate_every,
    )


def _error(picture: Tensor, high: Tensor) -> Tensor:
    """Mean of the pictures' root mean square errors, so that those far off do not outweigh the others."""
    return ((picture - high).square().mean(dim=(1, 2, 3)) + 1e-5).sqrt().mean()


def fit_head(head: SceneHead, name: str, bank: Bank, fitting: Fitting, out: Path, watch: Watch) -> None:
    """Fit one head to thumbnails of scenes."""
    optimizer = torch.optim.AdamW(head.parameters(), lr=HEAD_RATE, weight_decay=HEAD_DECAY)

    def loss(random: np.random.Generator) -> dict[str, Tensor]:
        low, made, high = (each.to(fitting.device) for each in bank.scenes(random, SCENES))
        with autocast(fitting.device, fitting.dtype):
            curves = head(low, made)
        return {"error": _error(bend(made, curves), high)}

    minutes = fitting.share(0.4 / fitting.heads)
    _fit(head, name, loss, optimizer, HEAD_RATE, SCENES, minutes, fitting, out, watch)


def fit_detail(
    model: LolGrading, bank: Bank, held_out: Sequence[Path], fitting: Fitting, out: Path, watch: Watch
) -> None:
    """Fit the U-Net to crops after the curves of `model`'s heads."""
    with torch.inference_mode(), autocast(fitting.device, fitting.dtype):
        curves = torch.stack(
            [model.curves(bank.low.to(fitting.device), made.to(fitting.device)).float() for made in bank.made]
        ).clone()
    means = bank.low.mean(dim=(1, 2, 3), keepdim=True)
    detail: Detail = model.detail
    optimizer = torch.optim.AdamW(detail.parameters(), lr=fitting.rate, betas=(0.9, 0.99), weight_decay=0.02)

    def loss(random: np.random.Generator) -> dict[str, Tensor]:
        chosen, models, low, made, high = bank.crops(random, fitting.batch)
        exponents = torch.exp2(
            DETAIL_STOPS * _normal(random, fitting.batch, 1) + DETAIL_TINT * _normal(random, fitting.batch, 3)
        ).to(fitting.device)
        lit = scaled(low, means[chosen]).to(fitting.device)
        bent = bend(made.to(fitting.device), curves[models, chosen]).clamp_min(1e-4) ** exponents
        aim = high.to(fitting.device).clamp_min(1e-4) ** exponents
        with autocast(fitting.device, fitting.dtype):
            corrected = detail(lit, bent)
        return {
            "error": _error(corrected, aim),
            "structure": fitting.structure * structure(corrected.clamp(0.0, 1.0), aim, window=8),
        }

    validation = (lambda: validate(model, held_out, bank.models, fitting)) if held_out else None
    minutes = fitting.share(0.6)
    _fit(detail, "detail", loss, optimizer, fitting.rate, fitting.batch, minutes, fitting, out, watch, validation)


@torch.inference_mode()
def validate(model: LolGrading, held_out: Sequence[Path], models: Sequence[str], fitting: Fitting) -> dict[str, float]:
    """Plain PSNR in dB, PSNR at the reference's mean and SSIM, means over all pictures and models."""
    scores = []
    for path in held_out:
        tensors = {name: tensor.to(fitting.device)[None] / 255.0 for name, tensor in _read(path).items()}
        for name in models:
            with autocast(fitting.device, fitting.dtype):
                graded = model(tensors[DARK], tensors[name])
            pair = (graded * 255.0).round() / 255.0, tensors[BRIGHT]
            scores.append((psnr(*pair), psnr_gt_mean(*pair), ssim(*pair)))
    means = torch.tensor(scores, dtype=torch.float64).mean(dim=0).tolist()
    return dict(zip(("psnr", "psnr_gt_mean", "ssim"), means, strict=True))
