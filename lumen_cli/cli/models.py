"""`lumen models`: what there is, and what a model is."""

from __future__ import annotations

from typing import Annotated

import typer

from lumen_cli.cli.options import JsonOption

app = typer.Typer(invoke_without_command=True, rich_markup_mode="rich")


@app.callback()
def models(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the models, or show one with `info`.

    \b
    Examples:
      lumen models
      lumen models --json | jq -r .name
      lumen models info lightendiffusion
    """  # noqa: D301
    if context.invoked_subcommand is not None:
        return
    from rich.console import Console

    from lumen_cli.registry import scan_models
    from lumen_cli.reports.jsonlines import model_line
    from lumen_cli.reports.models import models_table

    cards, broken = scan_models()
    for _, error in broken:
        typer.echo(f"lumen: left out: {error}", err=True)
    if as_json:
        for card in cards:
            typer.echo(model_line(card))
    elif cards:
        Console(highlight=False).print(models_table(cards))
    else:
        typer.echo("lumen: no models found", err=True)


@app.command("info")
def info(
    name: Annotated[str, typer.Argument(metavar="MODEL", help="A name, a model folder or hf://org/name.")],
    as_json: JsonOption = False,
) -> None:
    """Show all that a model's card says: network, steps, training data, licence, paper, checksum.

    \b
    Examples:
      lumen models info lightendiffusion
      lumen models info ./runs/x/model --json | jq .weights_sha256
    """  # noqa: D301
    from rich.console import Console

    from lumen_cli.registry import find_model
    from lumen_cli.reports.jsonlines import model_line
    from lumen_cli.reports.models import model_details

    card = find_model(name)
    if as_json:
        typer.echo(model_line(card))
    else:
        Console(highlight=False).print(model_details(card))
