"""`lumen doctor`: what works on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from lumen_cli.cli.app import Command
from lumen_cli.cli.options import JsonOption

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command(cls=Command)
def doctor(
    self_test: Annotated[
        bool, typer.Option("--self-test/--no-self-test", help="Enhance a small made picture and check the result.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Check this machine: what works, what is limited, what is broken.

    \b
    Processor, memory, Python, PyTorch and its devices, picture formats,
    exiftool, models and their checksums, folders, and a self-test of a few
    seconds. Nothing is changed. Exit code 1: something is broken.

    \b
    Examples:
      lumen doctor
      lumen doctor --no-self-test
      lumen doctor --json | jq 'select(.status != "ok")'
    """  # noqa: D301
    from rich.console import Console

    from lumen_cli.doctor import run_checks
    from lumen_cli.reports import is_watched
    from lumen_cli.reports.state import check_line, checks_table, verdict

    messages, checks = Console(stderr=True, highlight=False), []
    messages.quiet = not is_watched(messages)
    with messages.status("looking at this machine"):
        for check in run_checks(self_test=self_test):
            checks.append(check)
            if as_json:
                typer.echo(check_line(check))
    if not as_json:
        Console(highlight=False).print(checks_table(checks))
        typer.echo(verdict(checks))
    if any(check.status == "broken" for check in checks):
        raise typer.Exit(1)
