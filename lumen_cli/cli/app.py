"""The command `lumen`: wires the subcommands. Imports nothing heavy, so that help is there at once."""

from __future__ import annotations

from typing import Annotated

import typer

from lumen_cli import __version__
from lumen_cli.cli import benchmark, compare, decompose, enhance, models, train

app = typer.Typer(
    name="lumen",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("enhance", no_args_is_help=True)(enhance.enhance)
app.command("decompose", no_args_is_help=True)(decompose.decompose)
app.command("compare", no_args_is_help=True)(compare.compare)
app.command("benchmark")(benchmark.benchmark)
app.command("train", no_args_is_help=True)(train.train)
app.add_typer(models.app, name="models")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lumen {__version__}")
        raise typer.Exit


@app.callback()
def _lumen(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Brighten dark photographs in batches with published low-light models.

    \b
    Examples:
      lumen enhance photos/                   → photos-enhanced/
      lumen enhance night.jpg -o bright.jpg
      lumen decompose night.jpg --model kind  → reflectance, illumination
      lumen compare before/ after/            → compare.html
      lumen models                            list available models
    """  # noqa: D301
