"""`lumen train`: parses, calls, prints."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lumen_cli.cli.options import DeviceOption, Precision, PrecisionOption
from lumen_cli.errors import UsageError
from lumen_cli.registry.architectures import ARCHITECTURES, join_ids

if TYPE_CHECKING:
    from lumen_cli.training.data import Mix

LENGTH, DATA = "Length", "Data"
GRADING, FORMERLY = "grading", "rendition"
"""In place of an architecture: the grading of any model's pictures; its former name."""
REFINER = "refiner"
"""In place of an architecture: what removes noise from large pictures."""


class Preset(str, enum.Enum):
    """Whose recipe."""

    compact = "compact"
    paper = "paper"


class Reference(str, enum.Enum):
    """Where the illumination to aim at comes from."""

    paired = "paired"
    unpaired = "unpaired"


def train(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help=f"The architecture: {join_ids(id for id, each in ARCHITECTURES.items() if each.recipes)}. Or "
            "grading: the final brightness, contrast and tint of the --init model's pictures. Or refiner: what removes "
            "noise from large pictures.",
        ),
    ],
    data: Annotated[
        list[Path],
        typer.Option(
            metavar="DIR",
            rich_help_panel=DATA,
            help="A folder with low/ and high/ (real pairs) or of bright pictures (darkened on the fly). Repeatable.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Checkpoints, samples, train.json and, at the end, model/.")],
    val: Annotated[
        Path | None, typer.Option(metavar="DIR", rich_help_panel=DATA, help="Held-out pairs (low/ and high/).")
    ] = None,
    preset: Annotated[
        Preset,
        typer.Option(
            metavar="compact|paper",
            help="compact: small widths and few steps, for an hour or two on small hardware. paper: published widths, "
            "losses, batches and lengths, real pairs only.",
        ),
    ] = Preset.compact,
    init: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Start from this model's weights (a name or folder; the same network), not its grading. For a "
            "grading: any model, whose pictures it then grades.",
        ),
    ] = None,
    stage: Annotated[
        list[str] | None,
        typer.Option(metavar="STAGE", help="Only this stage; may be repeated (default: all, one after the other)."),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.01, metavar="N", rich_help_panel=LENGTH, help="Length of all stages together.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, metavar="N", rich_help_panel=LENGTH, help="The same in steps instead.")
    ] = None,
    reference: Annotated[
        Reference | None,
        typer.Option(
            rich_help_panel=DATA,
            metavar="paired|unpaired",
            help="lightendiffusion: whose illumination to aim at, the same scene's (default) or, as in the paper, any.",
        ),
    ] = None,
    pairs_share: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            metavar="S",
            rich_help_panel=DATA,
            help="Share of real pairs in a batch, 0..1 (default: 0.5; 1 with the paper preset).",
        ),
    ] = None,
    network: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD=VALUE",
            help="Change the compact network, e.g. unet_channels=64 (see the model's config.json). Repeatable.",
        ),
    ] = None,
    compiled: Annotated[
        bool | None,
        typer.Option(
            "--compile/--no-compile",
            help="Compile the network first: some minutes, then faster steps (default: on CUDA).",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of weights, crops, cameras and noise.")] = 0,
    device: DeviceOption = "auto",
    precision: PrecisionOption = Precision.auto,
) -> None:
    """Train a model and write a model folder. Ended at any moment, the same command goes on where it was.

    \b
    Examples:
      lumen train lightendiffusion --data LOL/our485 --data photos/ --val LOL/eval15 --out runs/a --minutes 120
      lumen enhance night.jpg --model runs/a/model
      lumen train diffll --init diffll --stage refine --data mine/ --out runs/b     go on from lumen's weights
      accelerate launch -m lumen_cli train diffll --data LOL/our485 --out runs/d     on several devices
      lumen train diffll --preset paper --data LOL/our485 --out runs/c --device cuda
      lumen train grading --init lumen --data LOL/our485 --data photos/ --out runs/e       for any model's pictures
      lumen train refiner --data LOL/our485 --data photos/ --out runs/f --minutes 120
    """  # noqa: D301
    if minutes is not None and steps is not None:
        raise UsageError("--minutes and --steps both name the length; give one of them")
    if name in (GRADING, FORMERLY):
        if foreign := _given(context, ("preset", "stage", "reference", "pairs_share", "network", "compiled")):
            raise UsageError(f"{foreign[0]} does not apply to a grading")
        _train_grading(init, data, out, val, minutes, steps, seed, device, precision)
        return
    if name == REFINER:
        if foreign := _given(context, ("preset", "init", "stage", "reference", "pairs_share", "network", "compiled")):
            raise UsageError(f"{foreign[0]} does not apply to the refiner")
        _train_refiner(data, out, val, minutes, steps, seed, device, precision)
        return

    import torch
    from rich.console import Console

    from lumen_cli.datasets.pairs import find_pairs, find_training_files
    from lumen_cli.engine.device import DTYPES, choose_device
    from lumen_cli.files.outputs import check_writable
    from lumen_cli.registry.catalog import find_model
    from lumen_cli.reports.training import TrainingWatch
    from lumen_cli.training.recipes import make_recipe
    from lumen_cli.training.run import Run
    from lumen_cli.training.run import train as run_training
    from lumen_cli.training.stage import Options
    from lumen_cli.training.workers import join_workers

    recipe = make_recipe(name, network or (), preset.value, reference=reference.value if reference else None)
    known = [each.name for each in recipe.stages]
    unknown = [each for each in stage or [] if each not in known]
    if unknown:
        raise UsageError(f"there is no stage {unknown[0]}; {name} has {', '.join(known)}")
    workers = join_workers(device)
    if workers.leads:
        check_writable(out)
    chosen = device if workers.device is None else str(workers.device)
    policy = choose_device(chosen, precision.value, precisions=("fp32", "bf16"), model=name)
    run = Run(
        recipe=recipe,
        data=tuple(str(folder) for folder in data),
        files=find_training_files(data),
        validation=find_pairs(val) if val else (),
        mix=_mix(preset, pairs_share),
        seed=seed,
        options=Options(
            torch.device(policy.device),
            DTYPES[policy.precision],
            steps=steps,
            minutes=minutes,
            workers=workers,
            compiled=policy.device.startswith("cuda") if compiled is None else compiled,
        ),
        init=None if init is None else find_model(init),
    )
    console = Console(stderr=True, highlight=False, quiet=not workers.leads)
    together = f" on each of {workers.count} devices" if workers.count > 1 else ""
    console.print(
        f"{len(run.files.pairs)} pairs and {len(run.files.bright)} bright pictures; "
        f"{policy.device} in {policy.precision}{together}: {policy.why}"
    )
    with TrainingWatch(console) as watch:
        folder = run_training(run, out, stage or known, watch)
    console.print(f"model folder: {folder}", markup=False)


def _mix(preset: Preset, pairs: float | None) -> Mix:
    from lumen_cli.training.data import Mix

    if preset is Preset.paper:
        return Mix(pairs=1.0 if pairs is None else pairs, relit_low=0.0, tinted=0.0)
    return Mix() if pairs is None else Mix(pairs=pairs)


def _given(context: typer.Context, names: Sequence[str]) -> list[str]:
    """Those of the options that were typed, as they are typed."""
    options = {each.name: each.opts[0] for each in context.command.params}
    sources = {name: context.get_parameter_source(name) for name in names}
    return [options[name] for name, source in sources.items() if source is not None and source.name != "DEFAULT"]


def _train_grading(
    init: str | None,
    data: list[Path],
    out: Path,
    val: Path | None,
    minutes: float | None,
    steps: int | None,
    seed: int,
    device: str,
    precision: Precision,
) -> None:
    if init is None:
        raise UsageError("a grading belongs to a model: name it with --init (a name or folder)")

    import torch
    from rich.console import Console

    from lumen_cli.datasets.pairs import find_pairs, find_training_files
    from lumen_cli.engine.device import DTYPES, choose_device
    from lumen_cli.files.outputs import check_writable
    from lumen_cli.registry.catalog import find_model
    from lumen_cli.reports.training import TrainingWatch
    from lumen_cli.training.grading import GradingRun, train_grading
    from lumen_cli.training.grading_fit import Fitting
    from lumen_cli.training.workers import join_workers

    if join_workers(device).count > 1:
        raise UsageError("a grading is trained by one process; start it without a launcher")
    card = find_model(init)
    check_writable(out)
    policy = choose_device(device, card.precision_for(precision.value), precisions=card.precisions, model=card.name)
    files = find_training_files(data)
    fitting = Fitting(seed=seed, device=torch.device(policy.device))
    if minutes is not None:
        fitting = replace(fitting, minutes=minutes / fitting.parts)
    elif steps is not None:
        fitting = replace(fitting, steps=max(1, round(steps / fitting.parts)))
    validation = find_pairs(val) if val else ()
    run = GradingRun(card, tuple(map(str, data)), files, validation, fitting, DTYPES[policy.precision])
    console = Console(stderr=True, highlight=False)
    console.print(
        f"{len(files.pairs)} pairs and {len(files.bright)} bright pictures, enhanced by {card.name}; "
        f"{policy.device} in {policy.precision}: {policy.why}"
    )
    with TrainingWatch(console) as watch:
        folder = train_grading(run, out, watch)
    console.print(f"model folder: {folder}", markup=False)


def _train_refiner(
    data: list[Path],
    out: Path,
    val: Path | None,
    minutes: float | None,
    steps: int | None,
    seed: int,
    device: str,
    precision: Precision,
) -> None:
    import torch
    from rich.console import Console

    from lumen_cli.datasets.pairs import find_training_files
    from lumen_cli.engine.device import DTYPES, choose_device
    from lumen_cli.files.outputs import check_writable
    from lumen_cli.reports.training import TrainingWatch
    from lumen_cli.training.refiner import Fitting, RefinerRun, train_refiner
    from lumen_cli.training.workers import join_workers

    if join_workers(device).count > 1:
        raise UsageError("the refiner is trained by one process; start it without a launcher")
    check_writable(out)
    policy = choose_device(device, precision.value, precisions=("fp32", "bf16"), model=REFINER)
    fitting = Fitting(torch.device(policy.device), DTYPES[policy.precision], seed=seed, minutes=minutes)
    if steps is not None:
        fitting = replace(fitting, steps=steps)
    files = find_training_files(data)
    run = RefinerRun(tuple(map(str, data)), files, find_training_files([val]) if val else None, fitting)
    console = Console(stderr=True, highlight=False)
    console.print(
        f"{len(files.pairs)} pairs and {len(files.bright)} bright pictures; "
        f"{policy.device} in {policy.precision}: {policy.why}"
    )
    with TrainingWatch(console) as watch:
        folder = train_refiner(run, out, watch)
    console.print(f"weights: {folder}", markup=False)
