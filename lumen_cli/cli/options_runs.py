"""Options about a run: which pictures it is for, what outputs are called, what happens to those that are there."""

from __future__ import annotations

from typing import Annotated

import typer

from lumen_cli.cli.options import FILES

WHICH = "Which pictures"

InputsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT",
        show_default=False,
        help="Pictures, folders (with all below them) or globs; - for a picture on standard input.",
    ),
]
FromFileOption = Annotated[
    str | None,
    typer.Option(
        "--from-file",
        metavar="LIST",
        rich_help_panel=WHICH,
        help="A file with a path on each line, relative to the working folder; - for standard input.",
    ),
]
NullOption = Annotated[
    bool,
    typer.Option(
        "--null", "-0", rich_help_panel=WHICH, help="Paths in LIST end with a NUL byte, as find -print0 writes them."
    ),
]
FollowLinksOption = Annotated[
    bool,
    typer.Option("--follow-links", rich_help_panel=WHICH, help="Follow links that lead out of an input folder."),
]
IncludeOutputsOption = Annotated[
    bool,
    typer.Option(
        "--include-outputs",
        rich_help_panel=WHICH,
        help="Also process pictures that lumen wrote; they are left out otherwise.",
    ),
]
WatchOption = Annotated[
    bool,
    typer.Option("--watch", rich_help_panel=WHICH, help="Keep watching for new or changed pictures; stop with Ctrl-C."),
]
NameTemplateOption = Annotated[
    str | None,
    typer.Option(
        "--name-template",
        metavar="NAME",
        rich_help_panel=FILES,
        help="Output file name pattern, for example {stem}-{model}{suffix}; further fields: {parent}, the picture's "
        "folder, {seed} for enhance, {part} for decompose.",
    ),
]
ResumeOption = Annotated[
    bool,
    typer.Option(
        "--resume",
        rich_help_panel=FILES,
        help="Process missing or outdated outputs (default); what lumen did not write is left alone.",
    ),
]
SkipExistingOption = Annotated[
    bool,
    typer.Option("--skip-existing", rich_help_panel=FILES, help="Never touch existing outputs."),
]
