"""`lumen benchmark`: parses, calls, prints."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lumen_cli.cli.app import Command
from lumen_cli.cli.options import (
    LOOK,
    MACHINE,
    DetailChoice,
    DetailOption,
    DeviceOption,
    EngineChoice,
    EngineOption,
    EngineOptions,
    GpusPerWorkerOption,
    GradingChoice,
    JsonOption,
    QuietOption,
    RayAddressOption,
    SeedOption,
    StepsOption,
    WorkersOption,
    complete_dataset,
    complete_metrics,
    complete_models,
)
from lumen_cli.errors import UsageError

if TYPE_CHECKING:
    from lumen_cli.benchmark.speed_request import SpeedResult

app = typer.Typer(add_completion=False, rich_markup_mode="rich")
_data = partial(typer.Option, rich_help_panel="Pictures", show_default=False)
_look = partial(typer.Option, rich_help_panel=LOOK, show_default=False)
_result = partial(typer.Option, rich_help_panel="Results", show_default=False)
_machine = partial(typer.Option, rich_help_panel=MACHINE, show_default=False)
_speed = partial(typer.Option, rich_help_panel="Speed", show_default=False)

_SETS = (
    "LOL-v1, LOL-v2-real, LOL-v2-synthetic, VE-LOL, VE-LOL-synthetic, LSRW, LSRW-Huawei, LSRW-Nikon, SICE, DICM, LIME, "
    "MEF, NPE, VV or folder (default: folder with --data-root, else the built-in set)."
)
_SPLIT = "test (default), train, or a folder with a dark and a bright side, such as val20."
_LEAK = "Search these training pictures for the test pictures; models run only with --model."
_DARKEN = "Simulate underexposure of the photographs of --data-root by EV stops; 0: no change."
_MODEL = "A name, a model folder or hf://org/name; repeatable (default: all)."
_BASELINE = "gamma or gain: a global curve, fitted without the reference; repeatable."
_METRIC = "A metric's name, or all; repeatable, or separated by commas."
_PRECISION = "auto, fp32, bf16 or fp16; with --speed several, separated by commas (default: auto)."
_BATCH = "Pictures per batch on a GPU; with --speed several, separated by commas."
_SIZE = "Sizes, separated by commas: 600x400 (default), 1080p, 4k, 12mp …; with --darken one, such as 2mp."
_GRADING = "Final light and colour, as in enhance (default: photo; on LOL-v1 a row for each)."
_PUBLISHED = "Time the papers' full-size networks, with random weights."


@app.command(cls=Command)
def benchmark(
    dataset: Annotated[
        str | None, _data("--dataset", "-d", metavar="NAME", autocompletion=complete_dataset, help=_SETS)
    ] = None,
    data_root: Annotated[
        Path | None, _data(metavar="DIR", help="The data set's folder, or its parent folder; also in a store.")
    ] = None,
    split: Annotated[str | None, _data(metavar="NAME", help=_SPLIT)] = None,
    low: Annotated[Path | None, _data(metavar="DIR", help="Your own dark pictures; needs --high.")] = None,
    high: Annotated[Path | None, _data(metavar="DIR", help="Their references, with the same names.")] = None,
    check_leak: Annotated[Path | None, _data(metavar="DIR", help=_LEAK)] = None,
    darken: Annotated[float | None, _data(min=0.0, max=8.0, metavar="EV", help=_DARKEN)] = None,
    model: Annotated[
        list[str] | None, _look("--model", "-m", metavar="MODEL", autocompletion=complete_models, help=_MODEL)
    ] = None,
    baseline: Annotated[list[str] | None, _look("--baseline", metavar="NAME", help=_BASELINE)] = None,
    steps: StepsOption = None,
    detail: DetailOption = DetailChoice.auto,
    grading: Annotated[GradingChoice | None, _look(metavar="photo|lol", help=_GRADING)] = None,
    seed: SeedOption = 0,
    metric: Annotated[
        list[str] | None, _result("--metric", metavar="NAME", autocompletion=complete_metrics, help=_METRIC)
    ] = None,
    output: Annotated[
        list[Path] | None,
        _result("--output", "-o", metavar="FILE", help="Write the report: .md, .csv, .json or .tex; repeatable."),
    ] = None,
    save_images: Annotated[
        Path | None, _result(metavar="DIR", help="Save the generated images as DIR/MODEL/NAME.png.")
    ] = None,
    overwrite: Annotated[bool, _result("--overwrite", help="Overwrite existing reports and images.")] = False,
    device: DeviceOption = "auto",
    precision: Annotated[str, _machine(metavar="PRECISION", help=_PRECISION)] = "auto",
    batch: Annotated[str | None, _machine(metavar="N", help=_BATCH)] = None,
    engine: EngineOption = EngineChoice.local,
    ray_address: RayAddressOption = None,
    workers: WorkersOption = None,
    gpus_per_worker: GpusPerWorkerOption = None,
    speed: Annotated[bool, _speed("--speed", help="Measure the models' speed instead of their quality.")] = False,
    size: Annotated[str | None, _speed(metavar="WxH|Nmp", help=_SIZE)] = None,
    repeat: Annotated[int | None, _speed(min=1, metavar="N", help="Timed calls (default: 5).")] = None,
    threads: Annotated[int | None, _speed(min=1, metavar="N", help="CPU threads (default: torch's).")] = None,
    plain: Annotated[bool, _speed("--plain", help="Also time the reference implementation.")] = False,
    pipeline: Annotated[bool, _speed("--pipeline", help="Also time a folder of pictures from disk to disk.")] = False,
    published: Annotated[bool, _speed("--published", help=_PUBLISHED)] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure the models' quality on a data set, or their speed, compared with published results.

    \b
    Examples:
      lumen benchmark                            the built-in set
      lumen benchmark -d LOL --data-root ~/data -o report.md -o report.json
      lumen benchmark -d DICM --data-root ~/data --metric niqe,loe
      lumen benchmark --low dark/ --high bright/ -m kind --baseline gamma
      lumen benchmark --data-root photos/ --darken 3 --baseline gamma,gain
      lumen benchmark -d LOL --data-root ~/LOL --check-leak ~/LOL/our485
      lumen benchmark --data-root photos/ --darken 3 --size 2mp
      lumen benchmark -d LOL --data-root /shared --engine ray --ray-address auto
      lumen benchmark --speed --size 1mp,12mp,24mp
      lumen benchmark --json | jq '{model, psnr: .figures.psnr.mean}'
    """  # noqa: D301
    pictures = {"dataset": dataset, "data_root": data_root, "split": split, "low": low, "high": high, "darken": darken}
    results = {"check_leak": check_leak, "baseline": baseline, "metric": metric, "output": output}
    timed = {"repeat": repeat, "threads": threads, "plain": plain, "pipeline": pipeline, "published": published}
    where = EngineOptions(engine, ray_address, workers, gpus_per_worker, device, quiet)
    where.check()
    if speed:
        _refuse("cannot be combined with --speed", **pictures, **results, save_images=save_images, grading=grading)
        _refuse("cannot be combined with --speed", engine=engine is EngineChoice.ray)
        _measure_speed(
            _split(model),
            as_json,
            quiet,
            size=size,
            precision=precision,
            batch=batch,
            steps=steps,
            device=device,
            detail=detail.value,
            **timed,
        )
        return
    _refuse("needs --speed", **timed)
    from lumen_cli.cli.benchmark_quality import QualityOptions, measure_quality

    options = QualityOptions(
        **pictures,  # type: ignore[arg-type]
        check_leak=check_leak,
        size=size,
        models=_split(model),
        baselines=_split(baseline),
        metrics=_split(metric),
        outputs=tuple(output or ()),
        save_images=save_images,
        overwrite=overwrite,
        batch=batch,
        grading=grading.value if grading else None,
        where=where,
    )
    run = {"steps": steps, "seed": seed, "device": device, "precision": precision, "detail": detail.value}
    with ExitStack() as stack:
        here = partial(_local, stack, where)
        options = replace(options, data_root=here(data_root), low=here(low), high=here(high))
        measure_quality(replace(options, check_leak=here(check_leak)), run, as_json, quiet)


def _local(stack: ExitStack, where: EngineOptions, folder: Path | None) -> Path | None:
    """A folder as one on the disk: one in a store is copied, and the copy removed when the stack closes.

    Raises:
        UsageError: it cannot be read, or other machines would have to read the copy.
    """
    from lumen_cli.files.contents import local_folder
    from lumen_cli.files.places import StoreError, as_place

    if folder is None:
        return None
    place = as_place(folder)
    if place is not folder and where.engine is EngineChoice.ray:
        raise UsageError(f"{place}: --engine ray needs data sets in a folder that the nodes share, not in a store")
    if place is not folder and not where.quiet:
        typer.echo(f"lumen: copying {place} to a temporary folder", err=True)
    try:
        return stack.enter_context(local_folder(place))
    except StoreError as error:
        raise UsageError(str(error)) from error


def _measure_speed(
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
        batches=(1,) if batch is None else _parse_numbers("--batch", batch),
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


def _parse_numbers(option: str, text: str) -> tuple[int, ...]:
    """Whole numbers from 1 up, separated by commas, each once; UsageError for anything else."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() and int(part) for part in parts):
        raise UsageError(f"{option}: expected whole numbers from 1 up, separated by commas, found {text}")
    return tuple(dict.fromkeys(map(int, parts)))


def _split(values: list[str] | None) -> tuple[str, ...]:
    """`--metric a,b --metric c` → a, b, c, each once."""
    parts = (part.strip() for value in values or () for part in value.split(","))
    return tuple(dict.fromkeys(filter(None, parts)))


def _refuse(why: str, **options: object) -> None:
    for name, value in options.items():
        if value is not None and value is not False and value != []:
            raise UsageError(f"--{name.replace('_', '-')} {why}")
