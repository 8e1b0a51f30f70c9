"""`lumen status`: the state of the pictures of a folder, across runs and shards."""

from __future__ import annotations

from typing import Annotated

import typer

from lumen_cli.cli.app import Command
from lumen_cli.cli.options import JsonOption

app = typer.Typer(add_completion=False, rich_markup_mode="rich")
_INPUT = "The inputs of the runs, a folder or picture; repeatable. Then new and changed inputs count too."


@app.command(cls=Command)
def status(
    output: Annotated[str, typer.Argument(metavar="OUTPUT", show_default=False, help="A folder that lumen wrote to.")],
    inputs: Annotated[
        list[str] | None, typer.Option("--input", "-i", metavar="INPUT", show_default=False, help=_INPUT)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Tell which outputs are done, missing or failed, and why, across runs and shards.

    \b
    The manifests in OUTPUT tell. Nothing is changed, also while runs go on.
    Exit code 1: something is not done.

    \b
    Examples:
      lumen status bright/
      lumen status bright/ --input photos/
      lumen status bright/ --json | jq -r 'select(.state == "failed").input'
    """  # noqa: D301
    from rich.console import Console

    from lumen_cli.files.find import absolute, search
    from lumen_cli.reports.state import failures_text, state_line, states_table, totals_line
    from lumen_cli.run.existing import OwnOutputs
    from lumen_cli.run.shards import count_states, find_states

    sources = None
    if inputs:
        found, _ = OwnOutputs(remember=False).without(search(inputs, may_be_none=True))
        sources = found.sources
    states = find_states(absolute(output), sources)
    counts = count_states(states)
    if as_json:
        for state in states:
            if state.state != "done":
                typer.echo(state_line(state))
        typer.echo(totals_line(output, counts))
    else:
        console = Console(highlight=False)
        console.print(states_table(counts))
        if failures := failures_text(states):
            console.print(failures, soft_wrap=True)
    if any(state.state != "done" for state in states):
        raise typer.Exit(1)
