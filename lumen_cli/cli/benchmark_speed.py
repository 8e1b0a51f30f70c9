"""`lumen benchmark --speed`: parses sizes and numbers, times the models, prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from lumen_cli.errors import UsageError

if TYPE_CHECKING:
    from lumen_cli.benchmark.speed_request import SpeedResult


def measure_speed(
    models: tuple[str, ...],
    as_json: bool,
    quiet: bool,
    *,
    size: str | None,
    precision: str,
    batch: str | None,
    repeat: int | None,
    **options: Any,
) -> None:
    """Time models; typer.Exit(1) where a row or its reference implementation failed. options: of `SpeedRequest`."""
    from rich.console import Console

    from lumen_cli.benchmark.speed import run_speed, speed_cases
    from lumen_cli.benchmark.speed_request import DEFAULT_SIZES, SpeedRequest, parse_sizes
    from lumen_cli.reports.speed import speed_line, speed_progress, speed_tables
    from lumen_cli.text import printable

    if repeat is not None:
        options["repeat"] = repeat
    request = SpeedRequest(
        models=models or ("all",),
        sizes=DEFAULT_SIZES if size is None else parse_sizes(size),
        precisions=tuple(dict.fromkeys(part.strip() for part in precision.split(","))),
        batches=(1,) if batch is None else parse_numbers("--batch", batch),
        **options,
    )
    console = Console(stderr=True, highlight=False, quiet=quiet)
    with speed_progress(console, len(speed_cases(request))) as (begun, done):

        def finished(result: SpeedResult) -> None:
            done(result)
            if as_json:
                print(speed_line(result), flush=True)

        results = run_speed(request, begun=begun, done=finished)
    for table in speed_tables(results):
        console.print(table)
    failed = [result for result in results if result.error is not None or result.plain_error is not None]
    for result in failed if quiet else ():
        reason = result.error or result.plain_error or ""
        typer.echo(f"lumen: {printable(result.model)}: {printable(reason)}", err=True)
    if failed:
        raise typer.Exit(1)


def parse_numbers(option: str, text: str) -> tuple[int, ...]:
    """Whole numbers from 1 up, separated by commas, each once; UsageError for anything else."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() and int(part) for part in parts):
        raise UsageError(f"{option}: expected whole numbers from 1 up, separated by commas, found {text}")
    return tuple(dict.fromkeys(map(int, parts)))
