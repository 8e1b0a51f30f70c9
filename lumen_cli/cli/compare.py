"""`lumen compare`: parses, calls, prints."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated

import typer

from lumen_cli.cli.options import FILES, LOOK, DeviceOption, JsonOption, OverwriteOption, QuietOption, SeedOption
from lumen_cli.errors import UsageError

PAGE = "Page"


def compare(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="A B …", help="Folders of the same pictures, or single pictures; with --models inputs."),
    ],
    models: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,…",
            rich_help_panel=LOOK,
            help="Run these models on the inputs and compare what they make; the first column is the input.",
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|FILE",
            rich_help_panel=LOOK,
            help="The ground truth: one of the versions or a further one (default: measured against the first).",
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(metavar="A,B,…", rich_help_panel=LOOK, help="Figures to compute, e.g. psnr,ssim,niqe."),
    ] = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            rich_help_panel=FILES,
            help="The page (default: compare.html beside the first version).",
        ),
    ] = None,
    sheet: Annotated[
        str | None,
        typer.Option(metavar="FILE", rich_help_panel=FILES, help="A contact sheet too: png, jpg, webp, tiff or bmp."),
    ] = None,
    no_page: Annotated[
        bool, typer.Option("--no-page", rich_help_panel=FILES, help="Only the table, and the sheet if asked for.")
    ] = False,
    save_images: Annotated[
        str | None,
        typer.Option(metavar="DIR", rich_help_panel=FILES, help="Keep what --models makes, as DIR/MODEL/NAME.png."),
    ] = None,
    overwrite: OverwriteOption = False,
    max_side: Annotated[
        int,
        typer.Option(
            min=64,
            max=16383,
            metavar="N",
            rich_help_panel=PAGE,
            help="Pixels of the longer side of pictures on the page; larger ones are reduced.",
        ),
    ] = 1600,
    quality: Annotated[
        int,
        typer.Option(
            min=1, max=100, metavar="Q", rich_help_panel=PAGE, help="Of the WebP pictures on the page; 100: lossless."
        ),
    ] = 90,
    linked: Annotated[
        bool,
        typer.Option(
            "--linked", rich_help_panel=PAGE, help="Refer to the original files instead of copying them into the page."
        ),
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Compare versions of the same pictures: a table, and one HTML page.

    Pictures belong together by their path below each folder, endings and an
    added -enhanced left aside; single pictures whatever they are called. One
    without partner, or of another size, is named and left out.

    The page is one file and needs no network: before/after slider, all
    versions under one zoom, differences, histograms, tags, sortable figures.

    Exit codes: 0 all compared, 1 some left out, 2 wrong usage,
    130 interrupted, 141 standard output closed by its reader.

    \b
    Examples:
      lumen compare before/ after/               → compare.html
      lumen compare low/ kind/ diffll/ --reference high/ -o kind-or-diffll.html
      lumen compare night.jpg night-enhanced.jpg --sheet night-sheet.png
      lumen compare --models kind,lightendiffusion photos/
      lumen compare low/ kind/ --reference high/ --no-page --json | jq .versions
    """  # noqa: D301
    if linked and models is not None and save_images is None:
        raise UsageError("--linked needs files that stay: name a folder for what the models make with --save-images")
    if save_images is not None and models is None:
        raise UsageError("--save-images keeps what --models makes; there is no --models here")
    if no_page and (linked or output is not None):
        raise UsageError(f"--no-page and {'--linked' if linked else '--output'} cannot be combined")

    from rich.console import Console

    from lumen_cli.atomic import sweep_temporaries
    from lumen_cli.compare.comparison import Keeping, Wanted, compare_and_report, models_folder, run_models
    from lumen_cli.compare.matching import absolute_name, match_paths, page_target, sheet_target
    from lumen_cli.compare.rows import Looks, chosen_metrics
    from lumen_cli.files.find import find_pictures
    from lumen_cli.files.outputs import check_writable
    from lumen_cli.run.interrupt import interruptible

    console = Console(stderr=True, highlight=False, quiet=quiet)
    figures, missing = chosen_metrics(None if metrics is None else metrics.split(","), reference is not None)
    sources = [] if models is None else find_pictures(inputs)
    beside = absolute_name(inputs[0]) if models is None else sources[0].root or sources[0].path
    page = None if no_page else page_target(output, beside, overwrite)
    contact = None if sheet is None else sheet_target(sheet, overwrite)
    for line in missing:
        console.print(line, markup=False, style="yellow")
    matched = None if models is not None else match_paths(inputs, reference)
    for target in filter(None, (page, contact)):
        check_writable(target.parent)
        sweep_temporaries([target.parent])
    with ExitStack() as stack, interruptible([]) as interruption:
        if matched is None:
            kept = Keeping(models_folder(stack, save_images), overwrite, device, seed)
            matched = run_models(console, interruption, (models or "").split(","), sources, kept, reference)
        wanted = Wanted(figures, page, contact, Looks(max_side, quality), linked, as_json)
        failed = compare_and_report(console, interruption, matched, wanted)
        if quiet:
            from lumen_cli.text import printable

            for problem in failed:
                typer.echo(f"lumen: {printable(problem.name)}: {printable(problem.reason)}", err=True)
    if failed:
        raise typer.Exit(1)
