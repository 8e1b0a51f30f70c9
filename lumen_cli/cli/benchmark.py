"""`lumen benchmark`: parses, calls, prints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lumen_cli.cli.options import (
    LOOK,
    MACHINE,
    DetailChoice,
    DetailOption,
    DeviceOption,
    JsonOption,
    QuietOption,
    SeedOption,
    StepsOption,
)
from lumen_cli.errors import UsageError

DATA = "Pictures"
RESULT = "Results"
SPEED = "Speed"


def _list(help: str, metavar: str, panel: str, *names: str) -> object:
    return typer.Option(*names, metavar=metavar, rich_help_panel=panel, help=help, show_default=False)


def benchmark(
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            "-d",
            metavar="NAME",
            rich_help_panel=DATA,
            help="LOL-v1, LOL-v2-real, LOL-v2-synthetic, VE-LOL, VE-LOL-synthetic, LSRW, LSRW-Huawei, LSRW-Nikon, "
            "SICE, DICM, LIME, MEF, NPE, VV or folder (default: folder with --data-root, else the built-in set).",
        ),
    ] = None,
    data_root: Annotated[
        Path | None,
        typer.Option(metavar="DIR", rich_help_panel=DATA, help="The data set's folder, or the one around it."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            rich_help_panel=DATA,
            help="test (default), train, or a folder with a dark and a bright side, such as val20.",
        ),
    ] = None,
    low: Annotated[
        Path | None, typer.Option(metavar="DIR", rich_help_panel=DATA, help="Your own dark pictures; goes with --high.")
    ] = None,
    high: Annotated[
        Path | None, typer.Option(metavar="DIR", rich_help_panel=DATA, help="Their references, of the same names.")
    ] = None,
    check_leak: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            rich_help_panel=DATA,
            help="Look for the test pictures among these training pictures; models run too where --model is given.",
        ),
    ] = None,
    darken: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=8.0,
            metavar="EV",
            rich_help_panel=DATA,
            help="Take the photographs of --data-root with EV stops less light, as a camera would; 0: as they are.",
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        _list("A name, a model folder or hf://org/name; repeatable (default: all).", "MODEL", LOOK, "--model", "-m"),
    ] = None,
    baseline: Annotated[
        list[str] | None,
        _list("gamma or gain: a global curve fitted without the reference; repeatable.", "NAME", LOOK, "--baseline"),
    ] = None,
    steps: StepsOption = None,
    detail: DetailOption = DetailChoice.auto,
    seed: SeedOption = 0,
    metric: Annotated[
        list[str] | None,
        _list("A metric's name, or all; repeatable, or with commas.", "NAME", RESULT, "--metric"),
    ] = None,
    output: Annotated[
        list[Path] | None,
        _list("Write the report: .md, .csv, .json or .tex; repeatable.", "FILE", RESULT, "--output", "-o"),
    ] = None,
    save_images: Annotated[
        Path | None,
        typer.Option(metavar="DIR", rich_help_panel=RESULT, help="Keep the results as DIR/MODEL/NAME.png."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", rich_help_panel=RESULT, help="Write reports and pictures that exist anew.")
    ] = False,
    device: DeviceOption = "auto",
    precision: Annotated[
        str,
        typer.Option(
            metavar="PRECISION",
            rich_help_panel=MACHINE,
            help="auto, fp32, bf16 or fp16; with --speed several, with commas.",
        ),
    ] = "auto",
    batch: Annotated[
        str | None,
        typer.Option(
            metavar="N", rich_help_panel=MACHINE, help="Pictures at once on a GPU; with --speed several, with commas."
        ),
    ] = None,
    speed: Annotated[
        bool, typer.Option("--speed", rich_help_panel=SPEED, help="Time the models instead of judging their pictures.")
    ] = False,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="WxH|Nmp",
            rich_help_panel=SPEED,
            help="Sizes with commas: 600x400 (default), 1080p, 4k, 12mp …; with --darken one, such as 2mp.",
        ),
    ] = None,
    repeat: Annotated[
        int | None, typer.Option(min=1, metavar="N", rich_help_panel=SPEED, help="Timed calls (default: 5).")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, metavar="N", rich_help_panel=SPEED, help="Threads of a CPU (default: torch's).")
    ] = None,
    plain: Annotated[
        bool,
        typer.Option(
            "--plain", rich_help_panel=SPEED, help="Time the way of the papers' own code too, as the yardstick."
        ),
    ] = False,
    pipeline: Annotated[
        bool, typer.Option("--pipeline", rich_help_panel=SPEED, help="Time a folder from disk to disk too.")
    ] = False,
    published: Annotated[
        bool,
        typer.Option("--published", rich_help_panel=SPEED, help="Time the papers' full widths, with random weights."),
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure how good the models are on a data set, or how fast, beside what their papers state.

    Exit codes: 0 all done, 1 some pictures refused or failed, 2 wrong usage, 130 interrupted,
    141 standard output closed by its reader.

    \b
    Examples:
      lumen benchmark                            the built-in set
      lumen benchmark -d LOL --data-root ~/data -o report.md -o report.json
      lumen benchmark -d DICM --data-root ~/data --metric niqe,loe
      lumen benchmark --low dark/ --high bright/ -m kind --baseline gamma
      lumen benchmark --data-root photos/ --darken 3 --baseline gamma,gain
      lumen benchmark -d LOL --data-root ~/LOL --check-leak ~/LOL/our485
      lumen benchmark --data-root photos/ --darken 3 --size 2mp
      lumen benchmark --speed --size 1mp,12mp,24mp
      lumen benchmark --json | jq '{model, psnr: .figures.psnr.mean}'
    """  # noqa: D301
    names = _split(model)
    if speed:
        _refuse(
            "goes with pictures, not with --speed",
            dataset=dataset,
            data_root=data_root,
            split=split,
            low=low,
            high=high,
            darken=darken is not None,
            check_leak=check_leak,
            baseline=baseline,
            metric=metric,
            output=output,
            save_images=save_images,
        )
        from lumen_cli.cli.benchmark_speed import SpeedOptions, measure_speed

        measure_speed(
            SpeedOptions(
                names, size, precision, batch, repeat, threads, steps, device, plain, pipeline, published, detail.value
            ),
            as_json,
            quiet,
        )
        return
    _refuse(
        "goes with --speed",
        repeat=repeat,
        threads=threads,
        plain=plain,
        pipeline=pipeline,
        published=published,
    )
    from lumen_cli.cli.benchmark_plan import QualityOptions
    from lumen_cli.cli.benchmark_quality import measure_quality

    measure_quality(
        QualityOptions(
            dataset=dataset,
            data_root=data_root,
            split=split,
            low=low,
            high=high,
            darken=darken,
            check_leak=check_leak,
            models=names,
            baselines=_split(baseline),
            metrics=_split(metric),
            steps=steps,
            seed=seed,
            device=device,
            precision=precision,
            batch=batch,
            outputs=tuple(output or ()),
            save_images=save_images,
            overwrite=overwrite,
            detail=detail.value,
            size=size,
        ),
        as_json,
        quiet,
    )


def _split(values: list[str] | None) -> tuple[str, ...]:
    """`--metric a,b --metric c` → a, b, c, each once."""
    parts = (part.strip() for value in values or () for part in value.split(","))
    return tuple(dict.fromkeys(filter(None, parts)))


def _refuse(why: str, **options: object) -> None:
    for name, value in options.items():
        if value:
            raise UsageError(f"--{name.replace('_', '-')} {why}")
