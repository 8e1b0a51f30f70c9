"""`lumen status`, `lumen config` and `lumen doctor`: they show a state and change nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lumen_cli.cli.app import COMMANDS, Command, Group, walk
from lumen_cli.cli.app import app as whole
from lumen_cli.cli.options import JsonOption
from lumen_cli.cli.settings import options_of, search_places, variables

if TYPE_CHECKING:
    from lumen_cli.cli.settings import Candidate
    from lumen_cli.reports.jsonlines import SettingLine

status_app = typer.Typer(add_completion=False, rich_markup_mode="rich")
config_app = typer.Typer(cls=Group, add_completion=False, invoke_without_command=True, rich_markup_mode="rich")
doctor_app = typer.Typer(add_completion=False, rich_markup_mode="rich")
_INPUT = "The inputs of the runs, a folder or picture; repeatable. Then new and changed inputs count too."


@status_app.command(cls=Command)
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


@config_app.callback()
def config(context: typer.Context, as_json: JsonOption = False) -> None:
    """Show the options that files and variables set, and which source wins.

    The command line goes before the environment, that before the nearest
    lumen.toml, \\[tool.lumen] of the nearest pyproject.toml, and your
    config.toml. `lumen config path` shows where these files are.

    \b
    Examples:
      lumen config
      LUMEN_ENHANCE_STRENGTH=0.5 lumen config
      LUMEN_CONFIG= lumen enhance photos/        without any file
    """  # noqa: D301
    if context.invoked_subcommand is not None:
        return
    from lumen_cli.reports.jsonlines import Loser, SettingLine

    settings = context.meta["lumen.settings"]
    lines = []
    for words, command in walk(typer.main.get_command(whole)):
        settings.defaults(command, words)  # refuses unknown keys
        for option in options_of(command):
            candidates = list(settings.candidates(option, words))
            if not candidates:
                continue
            _require_valid(command, words, option, candidates)
            first, *others = candidates
            losers = [Loser(value=each.value, source=each.source, loses_to=first.beats(each)) for each in others]
            lines.append(
                SettingLine(
                    command=" ".join(words),
                    option=option.opts[0] if option.opts[0].startswith("--") else option.opts[-1],
                    value=first.value,
                    source=first.source,
                    overrides=losers,
                )
            )
    for name in _unknown_variables(typer.main.get_command(whole)):
        typer.echo(f"lumen: {name} sets no option", err=True)
    for line in lines if as_json else ():
        typer.echo(line.line())
    if as_json:
        return
    if not lines:
        typer.echo("no file and no variable sets an option; `lumen config path` shows where files are looked for")
        return
    _print(lines)


@config_app.command("path", cls=Command)
def path(as_json: JsonOption = False) -> None:
    """Show where configuration files are looked for; the first one wins.

    \b
    Examples:
      lumen config path
      lumen config path --json | jq -r 'select(.used) | .path'
    """  # noqa: D301
    from lumen_cli.reports.jsonlines import ConfigFileLine
    from lumen_cli.text import printable

    for place in search_places():
        used = not place.why_not
        line = ConfigFileLine(path=str(place.path), used=used, reason=place.why_not or None)
        typer.echo(line.line() if as_json else f"{printable(place.path)}{'' if used else f'  ({place.why_not})'}")


def _print(lines: Sequence[SettingLine]) -> None:
    """A row for each option, and below it one for each value that loses; rows of several commands are one."""
    from rich.console import Console
    from rich.text import Text

    from lumen_cli.reports import plain_table
    from lumen_cli.text import printable

    commands: dict[str, list[SettingLine]] = {}
    for line in lines:
        commands.setdefault(repr((line.option, line.source, line.value, line.overrides)), []).append(line)
    table = plain_table("<option", "<command", "<value", "<set by", "<loses to")
    for same in commands.values():
        line = same[0]
        names = line.command if len(same) == 1 and line.command else "all"
        cells = line.option, names, _shown(line.value), line.source, ""
        table.add_row(*(Text(printable(cell)) for cell in cells))
        for each in line.overrides:
            lost = "", "", _shown(each.value), each.source, each.loses_to
            table.add_row(*(Text(printable(cell), "dim") for cell in lost))
    Console(highlight=False).print(table)


def _require_valid(command: Any, words: tuple[str, ...], option: Any, candidates: list[Candidate]) -> None:
    """UsageError for a value that the command would refuse."""
    from lumen_cli.errors import UsageError

    context = typer.Context(command, info_name=words[-1] if words else "lumen", resilient_parsing=True)
    first = candidates[0]
    value = option.split_envvar_value(first.value) if option.multiple and isinstance(first.value, str) else first.value
    try:
        option.process_value(context, value)
    except typer.BadParameter as error:
        raise UsageError(f"{first.source}: {option.opts[-1].lstrip('-')}: {error.message.rstrip('.')}") from None


def _unknown_variables(whole: Any) -> list[str]:
    """The variables that begin as a command's, but set none of its options."""
    import os

    known = {name for words, command in walk(whole) for each in options_of(command) for name in variables(each, words)}
    begins = tuple(f"LUMEN_{name.upper()}_" for name in COMMANDS)
    return sorted(name for name in os.environ if name.startswith(begins) and name not in known)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


@doctor_app.command(cls=Command)
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
