"""Train the grading of a model: collect the model's results on training pictures, fit a grading, write a folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from lumen_cli.datasets.pairs import Pair, TrainingFiles
from lumen_cli.networks.grading import Grading
from lumen_cli.registry.card import ModelCard
from lumen_cli.registry.config_file import CARD_FILE, CONFIG_FILE, GRADING_FILE, NETWORK_FILE
from lumen_cli.registry.load import load, save_weights
from lumen_cli.training.grading_examples import (
    UNSEEN,
    VARIANTS,
    Example,
    Sources,
    collect,
    load_pair,
    make_example,
    unseen_examples,
    values,
)
from lumen_cli.training.grading_fit import Fitting, fit
from lumen_cli.training.loop import Report
from lumen_cli.training.run import record


@dataclass(frozen=True)
class GradingRun:
    """Which model's grading is trained on which pictures.

    Attributes:
        card: the model; the training replaces a grading that it has.
        data: the folders, as the user typed them.
        files: the files in these folders.
        validation: held-out pairs, possibly none.
        fitting: length, widths, device and seed; device and seed apply to the examples too.
        dtype: the precision in which the model makes the examples.
    """

    card: ModelCard
    data: tuple[str, ...]
    files: TrainingFiles
    validation: Sequence[Pair]
    fitting: Fitting
    dtype: torch.dtype


def train_grading(run: GradingRun, out: Path, watch: Callable[[Report], None]) -> Path:
    """Collect the examples, fit the grading and write the model folder `out/model`.

    Resumes an interrupted training in `out`; UsageError if that training has other settings.
    """
    sources = Sources(run.files, run.fitting.seed)
    fitting = run.fitting
    record(
        out,
        fitting.device,
        run.data,
        run.files,
        run.dtype,
        grading={"channels": fitting.channels, "heads": fitting.heads},
        model=run.card.name,
        sha256=run.card.weights_sha256,
        validation=len(run.validation),
        variants=VARIANTS,
        unseen=UNSEEN,
        batch=fitting.batch,
        steps=fitting.steps if fitting.minutes is None else None,
        minutes=fitting.minutes,
        seed=fitting.seed,
    )
    model = load(run.card).to(run.fitting.device)
    model.grading = None
    if run.fitting.device.type == "cuda":
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def example(number: int) -> Example:
        return make_example(model, *sources.draw(number), run.fitting.device, run.dtype)

    def held_out(number: int) -> Example:
        low, high = load_pair(run.validation[number])
        return make_example(model, "held-out", low, values(high), run.fitting.device, run.dtype)

    examples = collect(out / "examples.pt", len(sources), example, watch)
    validation = collect(out / "held-out.pt", len(run.validation), held_out, watch)
    examples += unseen_examples(run.files, run.fitting.seed, watch)
    grading = fit(examples, run.fitting, out, validation, watch)
    return export_grading(run.card, grading, out / "model")


def export_grading(card: ModelCard, grading: Grading, folder: Path) -> Path:
    """Write a copy of the model's folder with this grading, in float16; returns the folder.

    The network's file is copied; a model that averages others has none. The single file of an earlier version is split.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = json.loads((card.folder / CONFIG_FILE).read_text(encoding="utf-8"))
    model = load(card)
    model.grading = grading
    weights: dict[str, Any] = {}
    if not card.members:
        weights["network"] = _copy_network(card, folder)
    weights["grading"] = save_weights(grading.state_dict(), folder / GRADING_FILE, torch.float16)
    config["weights"] = {**weights, "parameters": sum(parameter.numel() for parameter in model.parameters())}
    config.pop("rendition", None)
    channels = grading.heads[0].levels[0][0].out_channels  # type: ignore[index, union-attr]
    config["grading"] = {"channels": channels, "heads": len(grading.heads)}
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if (card.folder / CARD_FILE).is_file():
        shutil.copyfile(card.folder / CARD_FILE, folder / CARD_FILE)
    return folder


def _copy_network(card: ModelCard, folder: Path) -> dict[str, Any]:
    """Copy the network's weights as they are stored; returns the file's entry in config.json."""
    file = card.files["network"]
    if card.grading is None or "grading" in card.files:
        shutil.copyfile(card.path(file), folder / file.file)
        return file.model_dump(exclude_none=True)
    tensors = {name: tensor for name, tensor in load_file(card.path(file)).items() if not name.startswith("rendition.")}
    return save_weights(tensors, folder / NETWORK_FILE)
