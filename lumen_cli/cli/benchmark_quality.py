"""`lumen benchmark` without --speed: look for leaks, judge pictures, print and write what was found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from lumen_cli.cli.benchmark_plan import QualityOptions, entrants_for, metrics_for, samples_for
from lumen_cli.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from lumen_cli.benchmark.entrants import Entrant
    from lumen_cli.benchmark.quality import Row, Save, Score
    from lumen_cli.benchmark.samples import Samples
    from lumen_cli.metrics.registry import Metric
    from lumen_cli.run.interrupt import Interruption


def image_targets(folder: Path | None, samples: Samples, entrants: Sequence[Entrant]) -> dict[tuple[str, str], Path]:
    """The file of each row's result for each picture; none where no folder is given."""
    if folder is None:
        return {}
    return {
        (entrant.name, sample.name): _image_target(folder, entrant.name, sample.name)
        for entrant in entrants
        for sample in samples.items
    }


def _image_target(folder: Path, row: str, name: str) -> Path:
    return folder / row / f"{name}.png"


def saver(folder: Path) -> Save:
    """What writes a row's result: a PNG, complete or not at all."""
    from lumen_cli.atomic import replacing
    from lumen_cli.imaging.picture import Picture
    from lumen_cli.imaging.write import write_picture

    def save(row: str, name: str, picture: Picture) -> None:
        target = _image_target(folder, row, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as temporary:
            write_picture(picture, temporary, format="png")

    return save


def check_targets(targets: Sequence[Path], samples: Samples, overwrite: bool) -> None:
    """Before any work: every file can be written, none is a picture measured on, and none exists unless `overwrite`.

    Raises:
        UsageError: the first that cannot be.
    """
    from lumen_cli.files.outputs import check_writable

    sources = {path.resolve() for path in samples.files}
    for target in targets:
        if target.resolve() in sources:
            raise UsageError(f"{target} is one of the pictures measured on; write somewhere else")
        if target.exists() and not overwrite:
            raise UsageError(f"{target} exists; --overwrite replaces it")
    for folder in dict.fromkeys(target.parent for target in targets):
        check_writable(folder)
    doubled = len(targets) - len({target.resolve() for target in targets})
    if doubled:
        raise UsageError("two results would be written to one file: two models, or two reports, of one name")


def write_text(path: Path, text: str) -> None:
    """A report, complete or not at all; UsageError where it cannot be written."""
    from lumen_cli.atomic import replacing

    try:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror or error})") from None


def measure_quality(options: QualityOptions, as_json: bool, quiet: bool) -> None:
    """Check everything that was asked for, then look for leaks and run; typer.Exit where the exit code is not 0."""
    from rich.console import Console

    from lumen_cli.reports.benchmark_files import writer_for
    from lumen_cli.run.interrupt import interruptible
    from lumen_cli.text import printable

    for path in options.outputs:
        writer_for(path)
    samples = samples_for(options)
    metrics = metrics_for(options, samples)
    only_leak = options.check_leak is not None and not options.models
    if only_leak and (options.outputs or options.save_images or options.baselines or options.metrics):
        raise UsageError("--check-leak alone only compares; name a --model to measure too")
    entrants = [] if only_leak else entrants_for(options)
    targets = [*options.outputs, *image_targets(options.save_images, samples, entrants).values()]
    check_targets(targets, samples, options.overwrite)
    console = Console(stderr=True, highlight=False, quiet=quiet)
    failed = bool(samples.problems)
    with interruptible(dict.fromkeys(target.parent for target in targets)) as interruption:
        leaked = None
        if options.check_leak is not None:
            leaked, unread = _look_for_leaks(samples, options.check_leak, interruption, console, as_json and only_leak)
            failed |= unread
        if entrants and not interruption.stop.is_set():
            failed |= _judge(options, samples, entrants, metrics, interruption, console, as_json, leaked)
        elif only_leak:
            _say_problems(samples, console)
    if quiet:
        for problem in samples.problems:
            typer.echo(f"lumen: {printable(problem.path)}: refused: {printable(problem.reason)}", err=True)
    if interruption.exit_code:
        typer.echo("lumen: interrupted; models that were not finished are left out", err=True)
        raise typer.Exit(interruption.exit_code)
    if failed:
        raise typer.Exit(1)


def _judge(
    options: QualityOptions,
    samples: Samples,
    entrants: Sequence[Entrant],
    metrics: Sequence[Metric],
    interruption: Interruption,
    console: Console,
    as_json: bool,
    leaked: str | None,
) -> bool:
    """Run, print and write the report; whether a picture failed."""
    from lumen_cli.benchmark.quality import run_quality
    from lumen_cli.benchmark.report import QualityReport, standard_notes
    from lumen_cli.reports.benchmark import print_quality
    from lumen_cli.reports.benchmark_files import quality_lines, writer_for
    from lumen_cli.reports.progress import steps_line
    from lumen_cli.text import printable

    reasons = {metric.name: reason for metric in metrics if (reason := metric.unavailable()) is not None}
    computed = [metric for metric in metrics if metric.name not in reasons]
    rows: list[Row] = []
    with steps_line(console, len(entrants) * len(samples.items), interruption.stop, entrants[0].name) as (count, _):

        def advance(name: str, score: Score) -> None:
            count(f"{name}: {score.name}")

        save = saver(options.save_images) if options.save_images is not None else None
        rows += run_quality(samples, entrants, computed, stop=interruption.stop, advance=advance, save=save)
    notes = standard_notes(samples, computed, rows) + ((leaked,) if leaked else ())
    if len(rows) < len(entrants):
        notes += (f"interrupted: {len(rows)} of {len(entrants)} rows",)
    report = QualityReport(samples, tuple(metrics), reasons, tuple(rows), _machine(), notes)
    if rows:
        print_quality(report, console)
        for path in options.outputs:
            write_text(path, writer_for(path)(report))
            console.print(f"→ {path}", style="dim", markup=False, soft_wrap=True)
        if as_json:
            for line in quality_lines(report):
                print(line, flush=True)
    if console.quiet:
        for name, score in report.failures:
            where = f" ({name})" if name else ""
            typer.echo(f"lumen: {printable(score.name)}{where}: {printable(score.reason or '')}", err=True)
    return bool(report.failures)


def _look_for_leaks(
    samples: Samples, train: Path, interruption: Interruption, console: Console, as_json: bool
) -> tuple[str, bool]:
    """Print what was found; its one line, and whether a picture could not be read."""
    from lumen_cli.benchmark.leak import check_leak
    from lumen_cli.reports.benchmark import leak_headline, leak_table
    from lumen_cli.reports.benchmark_files import leak_lines
    from lumen_cli.reports.progress import steps_line
    from lumen_cli.text import printable

    with steps_line(console, len(samples.items), interruption.stop, "comparing") as (count, total):
        report = check_leak(samples, train, stop=interruption.stop, advance=lambda: count("comparing"), total=total)
    headline = leak_headline(report)
    console.print(headline, style="bold", markup=False, soft_wrap=True)
    if report.likenesses:
        console.print(leak_table(report))
    for name, reason in report.failures:
        typer.echo(f"lumen: {printable(name)}: {printable(reason)}", err=True)
    if as_json:
        for line in leak_lines(report):
            print(line, flush=True)
    return headline, bool(report.failures)


def _machine() -> dict[str, str]:
    import torch

    from lumen_cli import __version__

    return {"lumen": __version__, "torch": torch.__version__, "threads": str(torch.get_num_threads())}


def _say_problems(samples: Samples, console: Console) -> None:
    from lumen_cli.text import printable, short_path

    for problem in samples.problems:
        console.print(
            f"✗ {short_path(problem.path)}: refused: {printable(problem.reason)}", markup=False, soft_wrap=True
        )
