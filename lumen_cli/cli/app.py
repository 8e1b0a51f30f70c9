"""The command `lumen`. A subcommand's module is imported when it is asked for, and imports nothing heavy at its top."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Any

import typer

from lumen_cli import __version__
from lumen_cli.cli.options import COMMANDS, Group


class Subcommands(Group):
    """The subcommands; each is made from its module when it is first asked for."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands: dict[str, Any] = dict.fromkeys(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of this name; None where there is none."""
        if cmd_name in self.commands and self.commands[cmd_name] is None:
            command = typer.main.get_command(import_module(f"lumen_cli.cli.{cmd_name}").app)
            command.name = cmd_name  # a group has none of its own
            self.commands[cmd_name] = command
        return self.commands.get(cmd_name)


app = typer.Typer(
    name="lumen",
    cls=Subcommands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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
