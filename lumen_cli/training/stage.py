"""One stage of a recipe's training, and the validation of its network."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from lumen_cli.datasets.pairs import Pair
from lumen_cli.diffusion.sampler import picture_noise
from lumen_cli.metrics import psnr, ssim
from lumen_cli.networks.base import LowLightModel, as_pixels
from lumen_cli.training.checkpoint import Checkpoint
from lumen_cli.training.data import Batches, load_bytes
from lumen_cli.training.loop import Watch, autocast, descend, learning_rate, run_steps
from lumen_cli.training.recipes.base import Recipe, Stage
from lumen_cli.training.workers import ALONE, Workers


def compile_parts(model: LowLightModel, backend: str = "inductor") -> None:
    """Hand each of the model's `costly` parts to torch.compile, in place; its parameters keep their names."""
    for path in model.costly:
        part = attrgetter(path)(model)
        if isinstance(part, nn.Module):
            part.compile(backend=backend, dynamic=False)
        else:
            owner, _, name = path.rpartition(".")
            setattr(attrgetter(owner)(model), name, torch.compile(part, backend=backend, dynamic=False))


def uncompiled() -> AbstractContextManager[object]:
    """Within it compiled parts run uncompiled: every new size would cost a minute of compilation."""
    return torch.compiler.set_stance("force_eager")


@torch.inference_mode()
def enhance_bytes(model: LowLightModel, low: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """uint8 3×H×W → 3×H×W in [0, 1], rounded to 8 bits as a file would be."""
    shape = model.noise_shape(*low.shape[-2:])
    noise = picture_noise(0, low.cpu().numpy().tobytes(), shape)[None].to(device) if shape else None
    with autocast(device, dtype):
        batch = low[None].to(device).float() / 255.0
        enhanced = model(batch.contiguous(memory_format=torch.channels_last), noise=noise)
    return (enhanced[0].float() * 255.0).round() / 255.0


def validate(
    model: LowLightModel, pairs: Sequence[Pair], device: torch.device, dtype: torch.dtype, sheet: Path | None = None
) -> dict[str, float]:
    """Plain PSNR in dB and SSIM, means over the pairs; writes a sheet of the first four where `sheet` is given."""
    model.eval()
    scores: list[tuple[float, float]] = []
    rows: list[Tensor] = []
    for pair in pairs:
        low, high = load_bytes(pair.low), load_bytes(pair.high).to(device).float() / 255.0
        enhanced = enhance_bytes(model, low, device, dtype)
        scores.append((psnr(enhanced[None], high[None]), ssim(enhanced[None], high[None])))
        if len(rows) < 4:
            rows.append(torch.cat([low.to(device).float() / 255.0, enhanced, high], dim=2))
    model.train()
    if sheet is not None and rows:
        height, width = rows[0].shape[-2:]
        same = [row for row in rows if row.shape[-2:] == (height, width)]
        picture = (as_pixels(torch.cat(same, dim=1)) * 255.0 + 0.5).astype(np.uint8)
        cv2.imwrite(str(sheet), picture[..., ::-1])
    mean = np.mean(scores, axis=0)
    return {"psnr": float(mean[0]), "ssim": float(mean[1])}


@dataclass(frozen=True)
class Options:
    """How a stage is trained, and for how long.

    Attributes:
        steps: length of a stage; None for the recipe's own.
        minutes: the same in minutes; where given, it wins over `steps`.
        save_every: minutes between checkpoints.
        validate_every: minutes between validations.
        clip: bound on the gradient's norm.
        decay: of the moving average of the parameters.
        workers: the processes that share the training; each draws its own batches, gradients are averaged.
        compiled: whether torch.compile compiles the network's costly parts first.
    """

    device: torch.device
    dtype: torch.dtype
    steps: int | None = None
    minutes: float | None = None
    clip: float = 1.0
    decay: float = 0.999
    save_every: float = 3.0
    validate_every: float = 6.0
    workers: Workers = ALONE
    compiled: bool = False


def run_stage(
    recipe: Recipe,
    model: LowLightModel,
    stage: Stage,
    batches: Batches,
    out: Path,
    options: Options,
    validation: Sequence[Pair] = (),
    watch: Watch = lambda report: None,
    report_every: int = 20,
) -> None:
    """Train one stage, from its checkpoint in `out` where there is one; `model` ends with the averaged parameters."""
    parameters = _freeze_all_but(model, list(recipe.trainable(model, stage)))
    ours, workers = stage.rates == "cosine", options.workers
    betas, decay = ((0.9, 0.99), 1e-4) if ours else ((0.9, 0.999), 0.0)
    fused = options.device.type == "cuda"
    optimizer = torch.optim.AdamW(parameters, lr=stage.rate, betas=betas, weight_decay=decay, fused=fused)
    state = Checkpoint(out / f"{stage.name}.pt", stage.name, model, optimizer, options.decay, options.device)

    def step(number: int, fraction: float) -> dict[str, float] | None:
        generator = batches.generator(stage.name, number, workers.rank)
        batch = batches.draw(generator, stage.batch, stage.crop)
        with autocast(options.device, options.dtype):
            terms = recipe.losses(model, stage, batch, number, generator)
        rate = stage.rate * learning_rate(fraction, stage.rates)
        return descend(optimizer, terms, rate, options.clip if ours else math.inf, workers)

    def score() -> dict[str, float]:
        sheet = out / "samples" / f"{stage.name}-{state.progress.step:06d}.png"
        sheet.parent.mkdir(parents=True, exist_ok=True)
        with uncompiled():
            return validate(model, validation, options.device, options.dtype, sheet)

    model.train()
    run_steps(
        state,
        step,
        steps=options.steps or stage.steps,
        minutes=options.minutes,
        batch=stage.batch,
        watch=watch,
        report_every=report_every,
        save_every=options.save_every,
        validate=score if validation else None,
        validate_every=options.validate_every,
        workers=workers,
    )
    if workers.leads:
        (out / f"{stage.name}.json").write_text(json.dumps(state.progress.history))


def _freeze_all_but(model: nn.Module, chosen: list[nn.Parameter]) -> list[nn.Parameter]:
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for parameter in chosen:
        parameter.requires_grad_(True)
    return chosen
