"""`lumen benchmark --speed`: time the models and print what was found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from lumen_cli.errors import UsageError
from lumen_cli.limits import Detail

if TYPE_CHECKING:
    from lumen_cli.benchmark.speed_request import SpeedResult


@dataclass(frozen=True)
class SpeedOptions:
    """The command line's options about speed, as they came."""

    models: tuple[str, ...]
    size: str | None
    precision: str
    batch: str | None
    repeat: int | None
    threads: int | None
    steps: int | None
    device: str
    plain: bool
    pipeline: bool
    published: bool
    detail: Detail = "auto"


def measure_speed(options: SpeedOptions, as_json: bool, quiet: bool) -> None:
    """Time models; typer.Exit(1) where a row, or its plain way, failed."""
    from rich.console import Console

    from lumen_cli.benchmark.speed import run_speed, speed_cases
    from lumen_cli.benchmark.speed_request import DEFAULT_SIZES, SpeedRequest, parse_sizes
    from lumen_cli.reports.speed import speed_line, speed_progress, speed_tables
    from lumen_cli.text import printable

    request = SpeedRequest(
        models=options.models or ("all",),
        sizes=DEFAULT_SIZES if options.size is None else parse_sizes(options.size),
        precisions=tuple(dict.fromkeys(part.strip() for part in options.precision.split(","))),
        batches=(1,) if options.batch is None else _numbers("--batch", options.batch),
        device=options.device,
        threads=options.threads,
        steps=options.steps,
        published=options.published,
        plain=options.plain,
        pipeline=options.pipeline,
        detail=options.detail,
        **({} if options.repeat is None else {"repeat": options.repeat}),
    )
    console = Console(stderr=True, highlight=False, quiet=quiet)
    total = len(speed_cases(request))
    with speed_progress(console, total) as (begun, done):

        def finished(result: SpeedResult) -> None:
            done(result)
            if as_json:
                print(speed_line(result), flush=True)

        results = run_speed(request, begun=begun, done=finished)
    for table in speed_tables(results):
        console.print(table)
    failed = [result for result in results if result.error is not None or result.plain_error is not None]
    if quiet:
        for result in failed:
            typer.echo(
                f"lumen: {printable(result.model)}: {printable(result.error or result.plain_error or '')}", err=True
            )
    if failed:
        raise typer.Exit(1)


def _numbers(option: str, text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() and int(part) for part in parts):
        raise UsageError(f"{option}: expected whole numbers from 1 up, with commas, found {text}")
    return tuple(dict.fromkeys(map(int, parts)))
