"""The command `lumen`, and what makes every command take files, variables and the options that all have.

A subcommand's module is imported when it is asked for, and imports nothing heavy at its top.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from lumen_cli import __version__
from lumen_cli.cli import log
from lumen_cli.cli.options import LOGGING
from lumen_cli.cli.settings import find_settings, key_of, options_of, variables
from lumen_cli.errors import EXIT_CODES, MORE_CODES, UsageError
from lumen_cli.files.places import is_store, mask

COMMANDS = {
    "enhance": "enhance:app",
    "decompose": "decompose:app",
    "compare": "compare:app",
    "benchmark": "benchmark:app",
    "train": "train:app",
    "models": "models:app",
    "status": "state:status_app",
    "config": "state:config_app",
    "doctor": "state:doctor_app",
}
"""For each command the module of `cli` and its Typer application there, in the order of the help page."""
_META = "lumen.settings"
_RIVALS = (
    {"overwrite", "skip_existing", "resume"},
    {"brightness", "illumination_ratio"},
    {"detail", "tile"},
    {"minutes", "steps"},
    {"verbose", "quiet"},
)
"""Options that contradict each other: one on the command line puts those aside that files or variables set."""
_RANKS = ("COMMANDLINE", "ENVIRONMENT", "DEFAULT_MAP")


class LogFormat(str, enum.Enum):
    """The values of --log-format."""

    text = "text"
    json = "json"


def _acting(*names: str, act: Callable[[typer.Context, Any], None], help: str, metavar: str | None = None) -> Any:
    """An option that acts where it is set, but not while a shell completes a line; commands do not get its value."""

    def callback(context: typer.Context, value: Any) -> Any:
        if value and not context.resilient_parsing:
            act(context, value)
        return value

    return typer.Option(
        *names, metavar=metavar, callback=callback, expose_value=False, rich_help_panel=LOGGING, help=help
    )


def _variable(name: str) -> Callable[[typer.Context, Any], None]:
    """Set a variable for the rest of the command, its helper processes included."""

    def act(context: typer.Context, value: Any) -> None:
        before = os.environ.get(name)
        os.environ[name] = "1"
        context.find_root().call_on_close(
            lambda: os.environ.pop(name, None) if before is None else os.environ.__setitem__(name, before)
        )

    return act


_shared = typer.Typer(add_completion=False)


@_shared.command()
def _options(
    verbose: Annotated[
        bool,
        _acting(
            "--verbose",
            "-v",
            act=lambda context, value: log.show(),
            help="Report model, device, decisions and the time of each stage.",
        ),
    ] = False,
    log_file: Annotated[
        Path | None,
        _acting(
            "--log-file",
            metavar="FILE",
            act=lambda context, value: log.append_to(value),
            help="Append the same, with times, to a file.",
        ),
    ] = None,
    log_format: Annotated[
        LogFormat | None,
        _acting(
            "--log-format",
            metavar="text|json",
            act=lambda context, value: log.set_format(value.value),
            help="Format of the log file (default: text).",
        ),
    ] = None,
    no_color: Annotated[bool, _acting("--no-color", act=_variable("NO_COLOR"), help="Print without colours.")] = False,
    offline: Annotated[
        bool,
        _acting(
            "--offline",
            act=_variable("LUMEN_OFFLINE"),
            help="Download no models; stores (s3://…) are still read and written.",
        ),
    ] = False,
) -> None:
    """The options that stand before or after the command; their callbacks act."""


def shared_options() -> list[Any]:
    """New parameters for the options that every command has."""
    return list(typer.main.get_command(_shared).params)


_EVERYWHERE = tuple(key_of(option) for option in shared_options())


def prepare(command: Any, words: tuple[str, ...]) -> None:
    """Give a command the options of every command, its variables, and the exit codes on its help page; once."""
    if getattr(command, "prepared", False):
        return
    command.prepared = True
    command.params += shared_options()
    for option in options_of(command):
        option.envvar, option.show_envvar = variables(option, words), False
    codes = "; ".join(f"{code} {meaning.replace(';', ',')}" for code, meaning in EXIT_CODES.items())
    command.epilog = f"Exit codes: {codes}. {MORE_CODES}"


def words_of(context: Any) -> tuple[str, ...]:
    """The names of a context's command: ("models", "pull")."""
    return () if context.parent is None else (*words_of(context.parent), context.info_name)


_IN_STORES: dict[str, tuple[str, ...] | None] = {
    "enhance": None,
    "decompose": None,
    "status": None,
    "benchmark": ("--data-root", "--low", "--high", "--check-leak"),
}
"""Commands that take addresses of stores: None for wherever they name files, else behind these options."""


def _refuse_addresses(words: tuple[str, ...], args: list[str]) -> None:
    """UsageError where a command that works on files only gets the address of a store."""
    allowed = _IN_STORES.get(words[0], ()) if words else None
    if allowed is None:
        return
    for before, word in zip(["", *args], args, strict=False):
        option, _, value = word.partition("=") if word.startswith("-") else (before, "", word)
        if is_store(value) and option not in allowed:
            raise UsageError(f"{mask(value)}: only pictures and their outputs, and data sets, may lie in stores")


class _Prepared:
    """Parses with settings from files and variables."""

    params: list[Any]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        words = words_of(ctx)
        prepare(self, words)
        _refuse_addresses(words, args)
        if not ctx.resilient_parsing and not {"-h", "--help"} & set(args):
            if _META not in ctx.meta:
                ctx.meta[_META] = find_settings(tuple(COMMANDS), _EVERYWHERE)
            ctx.default_map = ctx.meta[_META].defaults(self, words)
        rest: list[str] = super().parse_args(ctx, args)  # type: ignore[misc]
        self._put_rivals_aside(ctx)
        return rest

    def _put_rivals_aside(self, ctx: Any) -> None:
        by_name = {option.name: option for option in options_of(self)}
        for rivals in _RIVALS:
            ranks = {}
            for name in rivals & by_name.keys():
                source = ctx.get_parameter_source(name)
                if source is not None and source.name in _RANKS:
                    ranks[name] = _RANKS.index(source.name)
            for name, rank in ranks.items():
                if rank > min(ranks.values()) and by_name[name].expose_value:
                    ctx.params[name] = by_name[name].process_value(ctx, by_name[name].default)


def place_of(context: Any, option: Any) -> str:
    """The variable, or the file, line and key, that an option's value comes from; "" for the command line."""
    source, settings = context.get_parameter_source(option.name), context.meta.get(_META)
    return settings.source(option, words_of(context), source.name) if source is not None and settings else ""


def walk(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """A command and those below it, prepared, each with its names."""
    prepare(command, words)
    yield words, command
    for name in getattr(command, "commands", ()):
        yield from walk(command.get_command(None, name), (*words, name))


class Command(_Prepared, TyperCommand):
    """A command."""


class Group(_Prepared, TyperGroup):
    """A command with subcommands."""


class Subcommands(Group):
    """The subcommands; each is made from its module when it is first asked for."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands: dict[str, Any] = dict.fromkeys(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of this name; None where there is none."""
        if cmd_name in self.commands and self.commands[cmd_name] is None:
            module, _, name = COMMANDS[cmd_name].partition(":")
            command = typer.main.get_command(getattr(import_module(f"lumen_cli.cli.{module}"), name))
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
