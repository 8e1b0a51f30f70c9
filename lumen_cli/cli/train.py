"""`lumen train`: parses, calls, prints."""

from __future__ import annotations

import enum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from lumen_cli.cli.app import Command
from lumen_cli.cli.options import DeviceOption, Precision, PrecisionOption, complete_named_model, complete_trainable
from lumen_cli.errors import UsageError
from lumen_cli.registry.architectures import ARCHITECTURES, join_ids

app = typer.Typer(add_completion=False, rich_markup_mode="rich")
GRADING, FORMERLY, REFINER, LOL_GRADING = "grading", "rendition", "refiner", "lol-grading"
"""In place of an architecture: the grading of any model's pictures, its former name, what denoises large pictures,
and the grading that knows LOL."""
OF_NETWORKS = "preset", "teacher", "stage", "reference", "pairs_share", "network", "compiled"
"""Parameters that only the training of a network has."""
_data = partial(typer.Option, rich_help_panel="Data")
_length = partial(typer.Option, rich_help_panel="Length", metavar="N")

_MODEL = (
    f"The architecture: {join_ids(id for id, each in ARCHITECTURES.items() if each.recipes)}. Or grading: the final "
    "brightness, contrast and tint of the --init model's pictures. Or lol-grading: the one that knows LOL. "
    "Or refiner: the denoiser for large pictures."
)
_DATA = "A folder with low/ and high/ (real pairs) or of bright pictures (darkened on the fly). Repeatable."
_PRESET = (
    "compact: small widths and few steps, for an hour or two on small hardware. paper: published widths, losses, "
    "batches and lengths, real pairs only."
)
_INIT = (
    "Start from this model's weights (a name or folder; the same network), without its grading. For a grading: the "
    "model whose pictures it grades."
)
_TEACHER = (
    "Learn from this model's results in place of the bright pictures (distillation); one network can so replace a "
    "mean of several."
)
_REFERENCE = "lightendiffusion: target illumination, of the same scene (default) or, as in the paper, of any scene."
_SHARE = "Share of real pairs in a batch, 0..1 (default: 0.5; 1 with the paper preset)."
_NETWORK = "Change the compact network, e.g. unet_channels=64 (see the model's config.json). Repeatable."
_COMPILE = "Compile the network first: takes some minutes, then steps are faster (default: on CUDA)."


Preset = enum.Enum("Preset", {"compact": "compact", "paper": "paper"}, type=str)
Reference = enum.Enum("Reference", {"paired": "paired", "unpaired": "unpaired"}, type=str)


@app.command(cls=Command, no_args_is_help=True)
def train(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="MODEL", autocompletion=complete_trainable, help=_MODEL)],
    data: Annotated[list[Path], _data(metavar="DIR", help=_DATA)],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Checkpoints, samples, train.json and, at the end, model/.")],
    val: Annotated[Path | None, _data(metavar="DIR", help="Held-out pairs (low/ and high/).")] = None,
    preset: Annotated[Preset, typer.Option(metavar="compact|paper", help=_PRESET)] = Preset.compact,
    init: Annotated[str | None, typer.Option(metavar="MODEL", autocompletion=complete_named_model, help=_INIT)] = None,
    teacher: Annotated[
        str | None, typer.Option(metavar="MODEL", autocompletion=complete_named_model, help=_TEACHER)
    ] = None,
    stage: Annotated[
        list[str] | None, typer.Option(metavar="STAGE", help="Train only this stage; repeatable (default: all).")
    ] = None,
    minutes: Annotated[float | None, _length(min=0.01, help="Length of all stages together, in minutes.")] = None,
    steps: Annotated[int | None, _length(min=1, help="Length of all stages together, in steps.")] = None,
    reference: Annotated[Reference | None, _data(metavar="paired|unpaired", help=_REFERENCE)] = None,
    pairs_share: Annotated[float | None, _data(min=0.0, max=1.0, metavar="S", help=_SHARE)] = None,
    network: Annotated[list[str] | None, typer.Option(metavar="FIELD=VALUE", help=_NETWORK)] = None,
    compiled: Annotated[bool | None, typer.Option("--compile/--no-compile", help=_COMPILE)] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Random seed.")] = 0,
    device: DeviceOption = "auto",
    precision: PrecisionOption = Precision.auto,
) -> None:
    """Train a model and write a model folder. Interrupt at any time; run the same command to resume.

    \b
    Examples:
      lumen train lightendiffusion --data LOL/our485 --data photos/ --val LOL/eval15 --out runs/a --minutes 120
      lumen enhance night.jpg --model runs/a/model
      lumen train diffll --init diffll --stage refine --data mine/ --out runs/b     start from lumen's weights
      accelerate launch -m lumen_cli train diffll --data LOL/our485 --out runs/d     on several devices
      lumen train lightendiffusion --init lightendiffusion --teacher lumen --data … --out runs/h   learn from a mean
      lumen train diffll --preset paper --data LOL/our485 --out runs/c --device cuda
      lumen train grading --init lumen --data LOL/our485 --data photos/ --out runs/e       for any model's pictures
      lumen train refiner --data LOL/our485 --data photos/ --out runs/f --minutes 120
      lumen train lol-grading --data LOL/our485 --out runs/g --minutes 60                  for enhance --grading lol
    """  # noqa: D301
    if minutes is not None and steps is not None:
        raise UsageError("--minutes and --steps cannot be combined; give one of them")
    if name in (GRADING, FORMERLY):
        _refuse_typed(context, "a grading", *OF_NETWORKS)
        if init is None:
            raise UsageError("a grading belongs to a model: name it with --init (a name or folder)")
    elif name in (REFINER, LOL_GRADING):
        _refuse_typed(context, f"the {name}", "init", *OF_NETWORKS)

    from rich.console import Console

    from lumen_cli.reports import TrainingWatch
    from lumen_cli.training import Request, plan_grading, plan_lol_grading, plan_network, plan_refiner

    request = Request(data, out, val, minutes, steps, seed, device, precision.value)
    if init is not None and name in (GRADING, FORMERLY):
        training = plan_grading(request, init)
    elif name == REFINER:
        training = plan_refiner(request)
    elif name == LOL_GRADING:
        training = plan_lol_grading(request)
    else:
        training = plan_network(
            request,
            name,
            init=init,
            teacher=teacher,
            stages=stage or (),
            preset=preset.value,
            reference=reference.value if reference else None,
            pairs_share=pairs_share,
            network=network or (),
            compiled=compiled,
        )
    console = Console(stderr=True, highlight=False, quiet=not training.leads)
    console.print(training.about)
    with TrainingWatch(console) as watch:
        folder = training.run(watch)
    console.print(f"model folder: {folder}", markup=False)


def _refuse_typed(context: typer.Context, what: str, *names: str) -> None:
    """UsageError for the first of these options that was typed."""
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name in names and source is not None and source.name == "COMMANDLINE":
            raise UsageError(f"{parameter.opts[0]} does not apply to {what}")
