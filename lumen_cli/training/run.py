"""The training of a network: its stages, the record for repeating it, and the model folder at the end."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lumen_cli import __version__
from lumen_cli.datasets.pairs import Pair, TrainingFiles
from lumen_cli.errors import UsageError
from lumen_cli.networks.base import LowLightModel
from lumen_cli.registry.card import ModelCard
from lumen_cli.registry.load import load
from lumen_cli.training import checkpoint
from lumen_cli.training.checkpoint import export_model
from lumen_cli.training.data import Batches, Mix
from lumen_cli.training.loop import Watch
from lumen_cli.training.recipes.base import Recipe
from lumen_cli.training.stage import Options, compile_parts, run_stage

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
    """

    recipe: Recipe
    data: tuple[str, ...]
    files: TrainingFiles
    validation: Sequence[Pair]
    mix: Mix
    seed: int
    options: Options
    init: ModelCard | None = None


def train(run: Run, out: Path, stages: Sequence[str], watch: Watch) -> Path:
    """Train the named stages, in the recipe's order, and write the model folder `out/model`.

    Resumes an interrupted training in `out`; UsageError if that training has other settings.
    """
    leads = run.options.workers.leads
    if leads:
        settings = {"recipe": as_json(run.recipe), "mix": asdict(run.mix), "seed": run.seed}
        settings |= {} if run.init is None else {"init": run.init.weights_sha256}
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
    lengths = _lengths(run.recipe, run.options)
    for stage in run.recipe.stages:
        path = out / f"{stage.name}.pt"
        if stage.name in stages:
            run_stage(run.recipe, model, stage, batches, out, lengths[stage.name], run.validation, watch)
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
        changed = [name for name, value in settings.items() if before.get(name) != value]
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
