"""The training loop: batches, autocast, clipping, averaging, checkpoints, validation. One for all recipes."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from lumen_cli.datasets.pairs import Pair
from lumen_cli.diffusion.noise import picture_noise
from lumen_cli.errors import LumenError
from lumen_cli.metrics import psnr, ssim
from lumen_cli.networks.base import LowLightModel
from lumen_cli.training import checkpoint
from lumen_cli.training.checkpoint import Average, Progress
from lumen_cli.training.curves import draw_curves
from lumen_cli.training.data import Batches, load_bytes
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
    """Within it compiled parts run as they were: every new size would cost a minute of compilation."""
    return torch.compiler.set_stance("force_eager")


@torch.inference_mode()
def enhance_bytes(model: LowLightModel, low: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """uint8 3×H×W → 3×H×W in [0, 1], rounded to 8 bits as a file would be."""
    shape = model.noise_shape(*low.shape[-2:])
    noise = picture_noise(0, low.cpu().numpy().tobytes(), shape)[None].to(device) if shape else None
    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        batch = low[None].to(device).float() / 255.0
        enhanced = model(batch.contiguous(memory_format=torch.channels_last), noise=noise)
    return (enhanced[0].float() * 255.0).round() / 255.0


def validate(
    model: LowLightModel, pairs: Sequence[Pair], device: torch.device, dtype: torch.dtype, sheet: Path | None = None
) -> dict[str, float]:
    """Plain PSNR in dB and SSIM, means over the pairs; writes a sheet of the first four when asked to."""
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
        picture = (torch.cat(same, dim=1).permute(1, 2, 0).cpu().numpy() * 255.0 + 0.5).astype(np.uint8)
        cv2.imwrite(str(sheet), picture[..., ::-1])
    mean = np.mean(scores, axis=0)
    return {"psnr": float(mean[0]), "ssim": float(mean[1])}


WARMUP = 0.02
FINAL_RATE = 0.02
MOST_BROKEN = 5
"""Steps in a row whose gradient is not finite; they change nothing, one more ends the training."""


@dataclass(frozen=True)
class Options:
    """How long and how a stage is trained.

    Attributes:
        steps, minutes: length of a stage; `minutes`, where given, wins over `steps`.
        save_every, validate_every: minutes between checkpoints and between validations.
        clip: bound on the gradient's norm.
        decay: of the moving average of the parameters.
        workers: the processes that share the training; each draws batches of its own, gradients are averaged.
        compiled: whether the network's costly parts go through torch.compile first.
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


@dataclass(frozen=True)
class Report:
    """What the loop tells whoever watches it: means since the last report."""

    stage: str
    step: int
    fraction: float
    seconds: float
    pictures_per_second: float
    losses: dict[str, float]
    validation: dict[str, float] | None = None


def run_stage(
    recipe: Recipe,
    model: LowLightModel,
    stage: Stage,
    batches: Batches,
    out: Path,
    options: Options,
    validation: Sequence[Pair] = (),
    watch: Callable[[Report], None] = lambda report: None,
    report_every: int = 20,
) -> None:
    """Train one stage, from its checkpoint in `out` where there is one; `model` ends with the averaged parameters."""
    parameters = _freeze_all_but(model, list(recipe.trainable(model, stage)))
    ours = stage.rates == "cosine"
    betas, decay = ((0.9, 0.99), 1e-4) if ours else ((0.9, 0.999), 0.0)
    fused = options.device.type == "cuda"
    optimizer = torch.optim.AdamW(parameters, lr=stage.rate, betas=betas, weight_decay=decay, fused=fused)
    average, progress = Average(model, options.decay), Progress(stage.name)
    path = out / f"{stage.name}.pt"
    if path.is_file():
        state = checkpoint.load(path, options.device)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average.values = state["average"]
        progress = Progress(**state["progress"])
        if progress.done and _fraction(progress, stage, options) >= 1.0:
            model.load_state_dict(average.values)
            return

    model.train()
    started, spent = time.monotonic(), progress.seconds
    saved = validated = reported = started
    sums: dict[str, float] = {}
    counted = broken = 0
    workers = options.workers
    while (fraction := workers.agree(_fraction(progress, stage, options))) < 1.0:
        rate = stage.rate * learning_rate(fraction, stage.rates)
        for group in optimizer.param_groups:
            group["lr"] = rate
        generator = batches.generator(stage.name, progress.step, workers.rank)
        batch = batches.draw(generator, stage.batch, stage.crop)
        with torch.autocast(options.device.type, dtype=options.dtype, enabled=options.dtype != torch.float32):
            terms = recipe.losses(model, stage, batch, progress.step, generator)
            total = torch.stack([term.float() for term in terms.values()]).sum()
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        workers.share_gradients(parameters)
        norm = nn.utils.clip_grad_norm_(parameters, options.clip if ours else math.inf)
        # One transfer from the device for all that the loop wants to know.
        size, *values = torch.stack([norm, *terms.values()]).tolist()
        finite = math.isfinite(size)
        broken = 0 if finite else broken + 1
        if broken > MOST_BROKEN:
            raise LumenError(f"stage {stage.name}, step {progress.step}: the loss is not finite; try --precision fp32")
        if finite:
            optimizer.step()
        progress.step += 1
        average.update(model, progress.step)
        if finite:
            for name, value in zip(terms, values, strict=True):
                sums[name] = sums.get(name, 0.0) + value
            counted += 1

        now = time.monotonic()
        progress.seconds = spent + now - started
        if not workers.leads:
            continue
        if counted == report_every:
            losses = {name: value / counted for name, value in sums.items()}
            speed = counted * stage.batch * workers.count / (now - reported)
            watch(Report(stage.name, progress.step, fraction, progress.seconds, speed, losses))
            progress.history.append({"step": float(progress.step), **losses})
            sums, counted, reported = {}, 0, now
        if now - saved > 60.0 * options.save_every:
            checkpoint.save(path, model, average, optimizer, progress)
            draw_curves(progress.history, out / f"{stage.name}.png")
            saved = time.monotonic()
        if validation and now - validated > 60.0 * options.validate_every:
            scores = _validate_average(model, average, validation, options, out, progress)
            watch(Report(stage.name, progress.step, fraction, progress.seconds, 0.0, {}, scores))
            validated = reported = time.monotonic()
            sums, counted = {}, 0

    progress.done = True
    if not workers.leads:
        model.load_state_dict(average.values)
        return
    checkpoint.save(path, model, average, optimizer, progress)
    if validation:
        scores = _validate_average(model, average, validation, options, out, progress)
        watch(Report(stage.name, progress.step, 1.0, progress.seconds, 0.0, {}, scores))
    model.load_state_dict(average.values)
    draw_curves(progress.history, out / f"{stage.name}.png")
    (out / f"{stage.name}.json").write_text(json.dumps(progress.history))


def learning_rate(fraction: float, rates: str = "cosine") -> float:
    """Factor on the peak rate at a fraction in [0, 1] of the stage; see `Stage.rates`."""
    if rates == "constant":
        return 1.0
    if rates == "staircase":
        return float(0.8 ** int(10.0 * fraction))
    if fraction < WARMUP:
        return max(fraction, 1e-3) / WARMUP
    return FINAL_RATE + (1.0 - FINAL_RATE) * 0.5 * (1.0 + math.cos(math.pi * (fraction - WARMUP) / (1.0 - WARMUP)))


def _fraction(progress: Progress, stage: Stage, options: Options) -> float:
    if options.minutes is not None:
        return progress.seconds / (60.0 * options.minutes)
    return progress.step / (options.steps or stage.steps)


def _freeze_all_but(model: nn.Module, chosen: list[nn.Parameter]) -> list[nn.Parameter]:
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for parameter in chosen:
        parameter.requires_grad_(True)
    return chosen


def _validate_average(
    model: LowLightModel,
    average: Average,
    pairs: Sequence[Pair],
    options: Options,
    out: Path,
    progress: Progress,
) -> dict[str, float]:
    current = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(average.values)
    sheet = out / "samples" / f"{progress.stage}-{progress.step:06d}.png"
    sheet.parent.mkdir(parents=True, exist_ok=True)
    with uncompiled():
        scores = validate(model, pairs, options.device, options.dtype, sheet)
    model.load_state_dict(current)
    progress.history.append({"step": float(progress.step), **{f"validation_{k}": v for k, v in scores.items()}})
    return scores
