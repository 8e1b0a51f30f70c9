"""`lumen compare`: parses, calls, prints."""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from lumen_cli.cli.app import Command
from lumen_cli.cli.options import (
    FILES,
    LOOK,
    DeviceOption,
    JsonOption,
    OverwriteOption,
    QuietOption,
    SeedOption,
    complete_metrics,
    complete_models,
)
from lumen_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.console import Console

    from lumen_cli.cli import Interruption
    from lumen_cli.compare import Matched
    from lumen_cli.compare.comparison import Comparison
    from lumen_cli.files import Source

app = typer.Typer(add_completion=False, rich_markup_mode="rich")
PAGE = "Page"
_LARGE_PAGE = 64 << 20


@app.command(cls=Command, no_args_is_help=True)
def compare(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="A B …", help="Folders of the same pictures, or single pictures; with --models the inputs."
        ),
    ],
    models: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,…",
            autocompletion=complete_models,
            rich_help_panel=LOOK,
            help="Run these models on the inputs and compare the results; the first column is the input.",
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|FILE",
            rich_help_panel=LOOK,
            help="The ground truth: one of the versions or another folder (default: compare with the first version).",
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,…",
            autocompletion=complete_metrics,
            rich_help_panel=LOOK,
            help="Metrics to compute, for example psnr,ssim,niqe.",
        ),
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
            help="File name of the page (default: compare.html beside the first version).",
        ),
    ] = None,
    sheet: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", rich_help_panel=FILES, help="Also write a contact sheet: png, jpg, webp, tiff or bmp."
        ),
    ] = None,
    no_page: Annotated[
        bool,
        typer.Option(
            "--no-page",
            rich_help_panel=FILES,
            help="Do not write a page; print the table, and write the sheet if requested.",
        ),
    ] = False,
    save_images: Annotated[
        str | None,
        typer.Option(metavar="DIR", rich_help_panel=FILES, help="Save generated images as DIR/MODEL/NAME.png."),
    ] = None,
    overwrite: OverwriteOption = False,
    max_side: Annotated[
        int,
        typer.Option(
            min=64,
            max=16383,
            metavar="N",
            rich_help_panel=PAGE,
            help="Longest side of pictures on the page in pixels; larger ones are reduced.",
        ),
    ] = 1600,
    quality: Annotated[
        int,
        typer.Option(
            min=1, max=100, metavar="Q", rich_help_panel=PAGE, help="WebP quality on the page (100 = lossless)."
        ),
    ] = 90,
    single_file: Annotated[
        bool,
        typer.Option(
            "--single-file",
            rich_help_panel=PAGE,
            help="Keep the pictures in the page itself, which becomes large, instead of in a folder beside it.",
        ),
    ] = False,
    linked: Annotated[
        bool,
        typer.Option("--linked", rich_help_panel=PAGE, help="Link to the original files instead of copying them."),
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Compare versions of the same pictures: a table, and one HTML page.

    Pictures are matched by their path below each folder, ignoring extensions
    and an -enhanced suffix; single pictures may have any name. A picture
    without a counterpart, or of another size, is reported and left out.

    The page works offline: all pictures at a glance, sorted and filtered,
    before/after slider, one zoom for all versions, differences, histograms,
    tags, metrics; keys mark pictures to keep and to reject, for a list that
    --from-file takes. Its pictures lie in a folder beside it.

    \b
    Examples:
      lumen compare before/ after/               → compare.html
      lumen compare low/ kind/ diffll/ --reference high/ -o kind-or-diffll.html
      lumen compare night.jpg night-enhanced.jpg --sheet night-sheet.png
      lumen compare --models kind,lightendiffusion photos/
      lumen compare low/ kind/ --reference high/ --no-page --json | jq .versions
    """  # noqa: D301
    if linked and models is not None and save_images is None:
        raise UsageError("--linked needs files that stay; save the generated images with --save-images")
    if save_images is not None and models is None:
        raise UsageError("--save-images needs --models")
    if no_page and (linked or single_file or output is not None):
        given = "--linked" if linked else "--single-file" if single_file else "--output"
        raise UsageError(f"--no-page and {given} cannot be combined")
    if linked and single_file:
        raise UsageError("--linked and --single-file cannot be combined: the one links to files, the other has none")

    from rich.console import Console

    from lumen_cli.atomic import sweep_temporaries
    from lumen_cli.cli import interruptible
    from lumen_cli.compare import absolute_name, match_paths, page_target, sheet_target
    from lumen_cli.compare.comparison import Comparison, Wanted
    from lumen_cli.compare.drawing import require_free
    from lumen_cli.compare.rows import Looks, chosen_metrics
    from lumen_cli.files.find import find_pictures
    from lumen_cli.files.outputs import check_writable

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
        sweep_temporaries([target.parent], whole_folders=True)
    if page is not None and not single_file:
        require_free(page)
    with ExitStack() as stack, interruptible([]) as interruption:
        if models is not None:
            folder = _models_folder(stack, save_images)
            names = [name.strip() for name in models.split(",")]
            matched = _run_models(console, interruption, names, sources, folder, overwrite, device, seed, reference)
        assert matched is not None
        comparison = Comparison(matched, Wanted(figures, page, contact, Looks(max_side, quality), linked, single_file))
        _compare(console, interruption, comparison, as_json)
    _report(console, comparison, as_json)
    if quiet:
        from lumen_cli.text import printable

        for problem in comparison.problems:
            typer.echo(f"lumen: {printable(problem.name)}: {printable(problem.reason)}", err=True)
    if comparison.problems:
        raise typer.Exit(1)


def _models_folder(stack: ExitStack, save_images: str | None) -> Path:
    """Where the models' pictures go: the folder named, or a temporary one."""
    import tempfile
    from pathlib import Path

    from lumen_cli.files.find import absolute

    if save_images is None:
        return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lumen-compare-")))
    return absolute(save_images)


def _run_models(
    console: Console,
    interruption: Interruption,
    names: Sequence[str],
    sources: Sequence[Source],
    folder: Path,
    overwrite: bool,
    device: str,
    seed: int,
    reference: str | None,
) -> Matched:
    """Run every model on every input, one model after the other; then match the versions."""
    from lumen_cli.compare.comparison import match_models, plan_models
    from lumen_cli.reports import progress_line
    from lumen_cli.run.existing import IfExists

    if_exists = IfExists.OVERWRITE if overwrite else IfExists.REFUSE
    models = plan_models(names, sources, folder, device=device, seed=seed, if_exists=if_exists, reference=reference)
    failed: dict[Path, str] = {}
    for model in models:
        with model.run, progress_line(console, len(model.plan.todo), interruption.stop) as line:
            line.now(model.label)
            with closing(model.run.results(model.plan, interruption.stop)) as results:
                for result in results:
                    line.advance(result)
                    if result.status == "failed":
                        failed[result.task.job.target] = result.reason or "failed"
        if interruption.stop.is_set():
            _end_interrupted(interruption)
    return match_models(models, failed, reference)


def _compare(console: Console, interruption: Interruption, comparison: Comparison, as_json: bool) -> None:
    """Measure and draw; shows progress, or a JSON line for each row."""
    from lumen_cli.compare import Problem
    from lumen_cli.reports import steps_line
    from lumen_cli.reports.quality import compared_line, problem_line

    matched = comparison.matched
    for problem in matched.problems if as_json else ():
        print(problem_line(problem), flush=True)
    with steps_line(console, len(matched.rows), interruption.stop, "comparing") as (advance, _):
        for outcome in comparison.rows(interruption.stop):
            advance("comparing")
            if as_json:
                line = problem_line(outcome) if isinstance(outcome, Problem) else compared_line(matched, outcome)
                print(line, flush=True)
    if not comparison.complete:
        _end_interrupted(interruption)


def _report(console: Console, comparison: Comparison, as_json: bool) -> None:
    from lumen_cli.reports.quality import means_line, means_table, means_title, problem_lines
    from lumen_cli.text import count, memory, short_path

    matched, measured, problems = comparison.matched, comparison.measured, comparison.problems
    columns, size = comparison.means(), comparison.size
    if as_json:
        print(means_line(matched, len(measured), columns, *comparison.written), flush=True)
    if measured:
        console.print(means_title(matched, measured), soft_wrap=True)
        console.print(means_table(matched, measured, comparison.wanted.metrics, columns))
    if problems:
        console.print(problem_lines(problems), soft_wrap=True)
    text = f"{count(len(measured), 'picture')} compared" + (f", {len(problems)} left out" if problems else "")
    written = [short_path(path) for path in comparison.written if path is not None]
    text += f" → {', '.join(written)}" if written else ""
    text += "" if size is None else f" ({memory(size)})"
    console.print(text, soft_wrap=True, markup=False, style="bold red" if problems else "bold green")
    if size is not None and size > _LARGE_PAGE and comparison.wanted.single:
        console.print("a large page; without --single-file it opens faster", style="yellow")


def _end_interrupted(interruption: Interruption) -> NoReturn:
    typer.echo("lumen: interrupted; no page was written", err=True)
    raise typer.Exit(interruption.exit_code)
