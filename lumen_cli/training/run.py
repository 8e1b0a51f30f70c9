"""The training of a network: its stages, their validation, the record for repeating it, the model folder at the end."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from lumen_cli import __version__
from lumen_cli.datasets import Pair, TrainingFiles
from lumen_cli.diffusion import picture_noise
from lumen_cli.errors import UsageError
from lumen_cli.metrics import psnr, ssim
from lumen_cli.networks.base import LowLightModel, as_pixels
from lumen_cli.registry.card import ModelCard
from lumen_cli.registry.load import load
from lumen_cli.training import checkpoint
from lumen_cli.training.checkpoint import Checkpoint, export_model
from lumen_cli.training.data import Batches, Mix, Teacher, load_bytes
from lumen_cli.training.loop import ALONE, Watch, Workers, autocast, descend, learning_rate, run_steps
from lumen_cli.training.recipes import Recipe, Stage


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
    teacher: Teacher | None = None,
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
            batch = batch if teacher is None else teacher.teach(batch, generator)
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


RECORD = "train.json"


@dataclass(frozen=True)
class Run:
    """A recipe, its data and its options.

    Attributes:
        recipe: stages, losses and widths of the architecture.
        data: the folders, as the user typed them.
        files: the files in these folders.
        validation: held-out pairs, possibly none.
        mix: composition of the batches.
        seed: of parameters and batches.
        options: device, precision, lengths; here `minutes` and `steps` are those of the whole training.
        init: the model whose weights the training starts from, None for a fresh network.
        teacher: the model whose results replace the bright side of batches, None for the truth.
    """

    recipe: Recipe
    data: tuple[str, ...]
    files: TrainingFiles
    validation: Sequence[Pair]
    mix: Mix
    seed: int
    options: Options
    init: ModelCard | None = None
    teacher: ModelCard | None = None


def train(run: Run, out: Path, stages: Sequence[str], watch: Watch) -> Path:
    """Train the named stages, in the recipe's order, and write the model folder `out/model`.

    Resumes an interrupted training in `out`; UsageError if that training has other settings.
    """
    leads = run.options.workers.leads
    if leads:
        settings = {"recipe": as_json(run.recipe), "mix": asdict(run.mix), "seed": run.seed}
        for name, card in (("init", run.init), ("teacher", run.teacher)):
            settings |= {} if card is None else {name: card.weights_sha256}
        record(out, run.options.device, run.data, run.files, run.options.dtype, **settings)
    torch.manual_seed(run.seed)
    model = run.recipe.build()
    if run.init is not None:
        start_from(model, run.init)
    model = model.to(run.options.device)
    if run.options.device.type == "cuda":  # On the CPU group norms go backward through channels_last 2.5 times slower.
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if run.options.compiled:
        compile_parts(model)
    batches = Batches(run.files, run.options.device, run.mix, run.seed)
    teacher = None if run.teacher is None else Teacher(load(run.teacher, grading="none").to(run.options.device))
    lengths = _lengths(run.recipe, run.options)
    for stage in run.recipe.stages:
        path = out / f"{stage.name}.pt"
        if stage.name in stages:
            run_stage(
                run.recipe, model, stage, batches, out, lengths[stage.name], run.validation, watch, teacher=teacher
            )
        elif path.is_file():
            model.load_state_dict(checkpoint.load(path, run.options.device)["average"])
    return export_model(model, run.recipe, run.data, out / "model") if leads else out / "model"


def start_from(model: LowLightModel, card: ModelCard) -> None:
    """Copy a model folder's weights into a network of the same architecture and widths.

    Parts for training only are not in a model folder and keep their initial values. The grading is dropped, because it
    was fitted to the results of the old weights. UsageError where the networks differ.
    """
    start = load(card)
    start.grading = None
    tensors, own = start.state_dict(), model.state_dict()
    wanted = {name for name in own if not name.startswith(model.training_only)}
    reshaped = {name for name in wanted & tensors.keys() if own[name].shape != tensors[name].shape}
    differing = sorted((wanted ^ tensors.keys()) | reshaped)
    if differing:
        raise UsageError(
            f"cannot start from {card.name}: its network differs from the one to train (first at {differing[0]})",
            remedy="network",
        )
    model.load_state_dict(tensors, strict=False)


def as_json(value: Any) -> Any:
    """A dataclass as JSON reads it back: tuples become lists."""
    return json.loads(json.dumps(asdict(value)))


def _lengths(recipe: Recipe, options: Options) -> dict[str, Options]:
    """The options of each stage: the total length, divided in proportion to the stages' own lengths."""
    total = sum(stage.steps for stage in recipe.stages)
    lengths = {}
    for stage in recipe.stages:
        share = stage.steps / total
        lengths[stage.name] = replace(
            options,
            minutes=None if options.minutes is None else options.minutes * share,
            steps=None if options.steps is None else max(1, round(options.steps * share)),
        )
    return lengths


def record(
    out: Path, device: torch.device, data: Sequence[str], files: TrainingFiles, dtype: torch.dtype, **settings: Any
) -> None:
    """Write train.json, or compare the settings with those of an existing one; UsageError where they differ."""
    out.mkdir(parents=True, exist_ok=True)
    settings |= {
        "data": list(data),
        "pairs": len(files.pairs),
        "bright": len(files.bright),
        "precision": str(dtype).removeprefix("torch."),
    }
    path = out / RECORD
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))["settings"]
        changed = [name for name in {**settings, **before} if before.get(name) != settings.get(name)]
        if changed:
            raise UsageError(
                f"{out} holds a training with other settings ({', '.join(changed)} differ; see {path}); choose another "
                "folder, or repeat its settings",
                remedy="out",
            )
        return
    versions = {"lumen": __version__, "torch": str(torch.__version__), "python": platform.python_version()}
    whole = {"settings": settings, "versions": versions, "device": str(device)}
    path.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
