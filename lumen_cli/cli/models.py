"""`lumen models`: lists, shows, fetches, imports and removes models."""

from __future__ import annotations

import enum
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from lumen_cli.cli.app import Command, Group
from lumen_cli.cli.options import (
    FILES,
    LOOK,
    JsonOption,
    StepsOption,
    complete_importable,
    complete_missing_model,
    complete_named_model,
    complete_own_model,
)
from lumen_cli.errors import LumenError, UsageError
from lumen_cli.registry.architectures import ARCHITECTURES, join_ids

_file = partial(typer.Option, rich_help_panel=FILES)
OutputOption = Annotated[
    Path | None,
    _file(
        "--output",
        "-o",
        metavar="FOLDER",
        help="Model folder to create (default: among your own models, found by name).",
    ),
]
_ARCHITECTURE = f"The checkpoint's architecture: {join_ids(id for id, each in ARCHITECTURES.items() if each.release)}."
_CHECKPOINT = (
    "The authors' file: .ckpt, .pth, .pth.tar or .safetensors. For kind and kind-plus the folder with the three "
    "TensorFlow checkpoints, or the prefix, .index or .data file of each."
)
_AVERAGED = (
    "Take the averaged parameters, or the last ones (default: what the authors evaluate; for "
    f"{join_ids((id for id, each in ARCHITECTURES.items() if each.release and each.release.averaged), 'and')} the "
    "averaged ones)."
)
_IGNORE = "Ignore tensors whose names start with PREFIX, if nothing else fits them. Repeatable."
_SOURCE = (
    "A listed model without weights, the https:// address of a model folder or of its config.json, or hf://org/name (a "
    "revision: hf://org/name@v1)."
)


class ExportChoice(str, enum.Enum):
    """The values of --format."""

    onnx = "onnx"
    openvino = "openvino"


class NoiseChoice(str, enum.Enum):
    """Where an exported model's noise comes from."""

    input = "input"
    fixed = "fixed"


app = typer.Typer(cls=Group, add_completion=False, invoke_without_command=True, rich_markup_mode="rich")


@app.callback()
def models(context: typer.Context, as_json: JsonOption = False) -> None:
    """List available models; `info` shows one, `pull` fetches one.

    \b
    Examples:
      lumen models
      lumen models --json | jq -r .name
      lumen models info lightendiffusion
      lumen models pull hf://organisation/name
      lumen models import diffll model.pth.tar
    """  # noqa: D301
    if context.invoked_subcommand is None:
        _list(as_json)


@app.command("list", cls=Command)
def list_(as_json: JsonOption = False) -> None:
    """List available models, as `lumen models` alone does.

    \b
    Examples:
      lumen models list
      lumen models list --json | jq -r .folder
    """  # noqa: D301
    _list(as_json)


def _list(as_json: bool) -> None:
    from rich.console import Console

    from lumen_cli.registry import default_model, scan_models
    from lumen_cli.reports.models import model_line, models_table

    cards, broken = scan_models()
    for _, error in broken:
        typer.echo(f"lumen: left out: {error}", err=True)
    if as_json:
        for card in cards:
            typer.echo(model_line(card))
    elif cards:
        console = Console(highlight=False)
        console.print(models_table(cards, console.width, default_model(cards)))
    else:
        typer.echo("lumen: no models found", err=True)


@app.command("info", cls=Command)
def info(
    name: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            autocompletion=complete_named_model,
            help="A name, a model folder, hf://org/name or an architecture.",
        ),
    ],
    as_json: JsonOption = False,
) -> None:
    """Show a model's card, and where its authors publish their own weights and under which terms.

    \b
    Examples:
      lumen models info lightendiffusion
      lumen models info diffll              the official release, if no model of that name is here
      lumen models info ./runs/x/model --json | jq .weights_sha256
    """  # noqa: D301
    from rich.console import Console

    from lumen_cli.registry import find_model, is_model
    from lumen_cli.reports.models import model_details, model_line, release_details, release_line

    console = Console(highlight=False)
    architecture = ARCHITECTURES.get(name)
    if architecture is not None and architecture.release is not None and not is_model(name):
        if as_json:
            typer.echo(release_line(architecture))
        else:
            console.print(release_details(architecture))
        return
    card = find_model(name)
    if as_json:
        typer.echo(model_line(card))
    else:
        console.print(model_details(card))


@app.command("path", cls=Command)
def path(
    name: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", autocompletion=complete_named_model, help="A name, a model folder or hf://org/name."
        ),
    ],
    as_json: JsonOption = False,
) -> None:
    """Print the folder of a model.

    \b
    Examples:
      lumen models path kind
      ls "$(lumen models path kind)"
    """  # noqa: D301
    from lumen_cli.registry import find_model
    from lumen_cli.reports.jsonlines import ModelPathLine

    card = find_model(name)
    folder = str(card.folder)
    typer.echo(ModelPathLine(status="found", name=card.name, folder=folder).line() if as_json else folder)


@app.command("remove", cls=Command, no_args_is_help=True)
def remove(
    name: Annotated[
        str,
        typer.Argument(metavar="MODEL", autocompletion=complete_own_model, help="The name of one of your own models."),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove without asking.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove a model from your own folder. lumen's models, and those in LUMEN_MODELS, stay.

    \b
    Examples:
      lumen models remove night
      lumen models remove night --yes
    """  # noqa: D301
    from lumen_cli.registry import own_model_folder, remove_model
    from lumen_cli.reports.jsonlines import ModelPathLine
    from lumen_cli.text import short_folder

    folder = own_model_folder(name)
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError(f"there is no terminal to ask in; --yes removes {short_folder(folder)} without asking")
        typer.echo(f"Remove {short_folder(folder)}? [y/N] ", err=True, nl=False)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise LumenError("nothing was removed")
    remove_model(folder)
    if as_json:
        typer.echo(ModelPathLine(status="removed", name=name, folder=str(folder)).line())
    else:
        typer.echo(f"removed {short_folder(folder)}", err=True)


@app.command("import", cls=Command, no_args_is_help=True)
def import_(
    architecture: Annotated[
        str, typer.Argument(metavar="NAME", autocompletion=complete_importable, help=_ARCHITECTURE)
    ],
    checkpoints: Annotated[list[Path], typer.Argument(metavar="CHECKPOINT", help=_CHECKPOINT)],
    output: OutputOption = None,
    name: Annotated[
        str | None, _file("--name", metavar="NAME", help="Name of the model (default: NAME-official).")
    ] = None,
    overwrite: Annotated[bool, _file("--overwrite", help="Replace an existing model folder.")] = False,
    averaged: Annotated[bool | None, typer.Option("--ema/--no-ema", show_default=False, help=_AVERAGED)] = None,
    ignore: Annotated[list[str] | None, typer.Option(metavar="PREFIX", help=_IGNORE)] = None,
    as_json: JsonOption = False,
) -> None:
    """Convert an official checkpoint to a model folder.

    \b
    No code in the file is run: PyTorch's safe loader reads it, and a file
    with more than tensors and plain values is refused. Tensors are matched
    by name and shape; the network's widths follow from the shapes.
    `lumen models info NAME` shows where the authors publish their files.

    \b
    Examples:
      lumen models import diffll model.pth.tar
      lumen enhance night.jpg --model diffll-official
      lumen models import kind KinD/checkpoint/ -o models/kind-paper
    """  # noqa: D301
    from rich.console import Console

    from lumen_cli.registry.checkpoints.importing import import_checkpoint
    from lumen_cli.reports.models import import_line, import_tables

    imported = import_checkpoint(
        architecture, checkpoints, output, name=name, averaged=averaged, ignore=ignore or (), overwrite=overwrite
    )
    console = Console(stderr=True, highlight=False)
    for table in import_tables(imported):
        console.print(table)
    if as_json:
        typer.echo(import_line(imported))


@app.command("pull", cls=Command, no_args_is_help=True)
def pull(
    source: Annotated[str, typer.Argument(metavar="SOURCE", autocompletion=complete_missing_model, help=_SOURCE)],
    output: OutputOption = None,
    overwrite: Annotated[
        bool, _file("--overwrite", help="Replace another model, once the new one is complete.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Fetch a model folder, or the weights that a listed model lacks.

    \b
    No downloaded code is run. config.json is checked, and the weights must
    match its checksum and its architecture; the model appears only when it
    is complete. Interrupted downloads resume.

    \b
    Examples:
      lumen models pull NAME                a model of `lumen models`
      lumen models pull https://example.org/models/night
      lumen models pull hf://organisation/name@v1 -o models/night
    """  # noqa: D301
    from rich.console import Console

    from lumen_cli.cli import ending_cleanly
    from lumen_cli.registry.download import pull_model
    from lumen_cli.reports import download_line
    from lumen_cli.reports.models import pull_line, pull_tables

    console = Console(stderr=True, highlight=False)
    with ending_cleanly(), download_line(console) as progress:
        pulled = pull_model(source, output, overwrite=overwrite, progress=progress)
    for table in pull_tables(pulled):
        console.print(table)
    if as_json:
        typer.echo(pull_line(pulled))


@app.command("export", cls=Command, no_args_is_help=True)
def export(
    name: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", autocompletion=complete_named_model, help="A name, a model folder or hf://org/name."
        ),
    ],
    output: Annotated[Path, _file("--output", "-o", metavar="FOLDER", help="Folder to create.")],
    format: Annotated[
        ExportChoice, _file("--format", metavar="onnx|openvino", help="The runtime that the file is for.")
    ] = ExportChoice.onnx,
    steps: StepsOption = None,
    noise: Annotated[
        NoiseChoice,
        typer.Option(
            "--noise",
            metavar="input|fixed",
            rich_help_panel=LOOK,
            help="input: the noise is an input, where results depend on it; fixed: the file has noise of its own.",
        ),
    ] = NoiseChoice.input,
    overwrite: Annotated[bool, _file("--overwrite", help="Replace an existing export.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a model as a file for ONNX Runtime or OpenVINO: network and grading, pictures of any size.

    \b
    The folder has the model, a README, export.json and an example. The file is
    compared with PyTorch before it appears. Formats need packages:
    pip install 'lumen-cli[onnx]' or 'lumen-cli[openvino]'.

    \b
    Examples:
      lumen models export lumen -o lumen-onnx
      lumen models export diffll -o diffll-ov --format openvino
      lumen models export lightendiffusion -o ld --steps 8 --noise fixed
    """  # noqa: D301
    from rich.console import Console

    from lumen_cli.registry import find_model

    card = find_model(name)

    from lumen_cli.cli import ending_cleanly
    from lumen_cli.registry.export import export_model
    from lumen_cli.reports.models import export_line, export_table

    with ending_cleanly():
        exported = export_model(card, output, format.value, steps=steps, noise=noise.value, overwrite=overwrite)
    Console(stderr=True, highlight=False).print(export_table(exported))
    if as_json:
        typer.echo(export_line(exported))
