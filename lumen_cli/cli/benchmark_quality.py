"""`lumen benchmark` without --speed: chooses the pictures, searches for leaks, measures, prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lumen_cli.cli.options import EngineChoice, EngineOptions, open_engine
from lumen_cli.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from lumen_cli.benchmark.entrants import Entrant
    from lumen_cli.benchmark.quality import Score, Scorer
    from lumen_cli.benchmark.samples import Samples
    from lumen_cli.cli import Interruption
    from lumen_cli.metrics import Metric
    from lumen_cli.registry import GradingName
    from lumen_cli.run.cluster import Cluster


@dataclass(frozen=True)
class QualityOptions:
    """The command line's options about pictures and results."""

    dataset: str | None
    data_root: Path | None
    split: str | None
    low: Path | None
    high: Path | None
    darken: float | None
    check_leak: Path | None
    size: str | None
    models: tuple[str, ...]
    baselines: tuple[str, ...]
    metrics: tuple[str, ...]
    outputs: tuple[Path, ...]
    save_images: Path | None
    overwrite: bool
    batch: str | None
    grading: GradingName | None
    where: EngineOptions


def choose_samples(options: QualityOptions) -> Samples:
    """The pictures that the options name; UsageError where options contradict each other or there are no pictures."""
    from lumen_cli.benchmark.samples import NAME, builtin_samples, photograph_samples, samples_of
    from lumen_cli.datasets.layouts import FOLDER, find_dataset, find_folders, find_layout

    name, root = options.dataset, options.data_root
    if options.darken is not None:
        if root is None or any((name, options.split, options.low, options.high)):
            raise UsageError("--darken needs --data-root DIR, a folder of well-exposed photographs, and no other input")
        return photograph_samples(root.expanduser(), options.darken, _parse_pixels(options.size))
    if options.size is not None:
        raise UsageError("--size needs --darken or --speed")
    if options.low is not None or options.high is not None:
        if options.low is None or options.high is None:
            raise UsageError("--low and --high belong together: the dark pictures and their references")
        if root is not None or options.split is not None or (name or FOLDER) != FOLDER:
            raise UsageError("--low and --high cannot be combined with --data-root, --split or another --dataset")
        return samples_of(find_folders(options.low, options.high))
    if root is not None:
        if name == NAME:
            raise UsageError("the built-in set takes no --data-root")
        return samples_of(find_dataset(name or FOLDER, root.expanduser(), options.split))
    if name is None or name == NAME:
        if options.split is not None:
            raise UsageError("--split needs --data-root: the built-in set has no splits")
        return builtin_samples()
    if name == FOLDER:
        raise UsageError("--dataset folder needs --data-root DIR, or --low DIR and --high DIR")
    layout = find_layout(name)
    raise UsageError(
        f"{layout.name} needs --data-root DIR, the folder with {layout.expected}; its authors publish it at "
        f"{layout.page}; without --dataset the built-in set is measured"
    )


def _parse_pixels(size: str | None) -> int | None:
    from lumen_cli.benchmark.speed_request import parse_megapixels

    pixels = None if size is None else parse_megapixels(size)
    if size is not None and pixels is None:
        raise UsageError(f"--size {size}: --darken expects a number of megapixels, such as 2mp")
    return pixels


def _parse_batch(text: str | None) -> int | None:
    if text is not None and not (text.isascii() and text.isdecimal() and int(text)):
        raise UsageError(f"--batch: expected one whole number from 1 up, found {text}")
    return None if text is None else int(text)


def measure_quality(options: QualityOptions, run: dict[str, Any], as_json: bool, quiet: bool) -> None:
    """Check all options, then search for leaks and measure; typer.Exit where the exit code is not 0.

    run: steps, seed, device, precision and detail, as `choose_entrants` takes them.
    """
    from rich.console import Console

    from lumen_cli.atomic import sweep_temporaries
    from lumen_cli.benchmark.plan import check_targets, choose_entrants, choose_metrics, gradings_for, image_paths
    from lumen_cli.cli import interruptible
    from lumen_cli.registry import find_model
    from lumen_cli.reports import failure_line
    from lumen_cli.reports.benchmark_files import writer_for
    from lumen_cli.text import printable, short_path

    for path in options.outputs:
        writer_for(path)
    samples = choose_samples(options)
    metrics = choose_metrics(options.metrics, samples)
    only_leak = options.check_leak is not None and not options.models
    by_ray = options.where.engine is EngineChoice.ray
    if only_leak and (options.outputs or options.save_images or options.baselines or options.metrics or by_ray):
        raise UsageError("--check-leak without --model measures nothing; name a --model")
    for name in options.models if by_ray else ():  # before a cluster is joined
        if name != "all":
            find_model(name)
    gradings = partial(gradings_for, samples=samples, chosen=options.grading)
    run |= {"batch_size": _parse_batch(options.batch), "gradings": gradings}
    console = Console(stderr=True, highlight=False, quiet=quiet)
    failed, leaked = bool(samples.problems), None
    with open_engine(options.where) as engine:
        choose = partial(engine.choose_device, several=False)
        entrants = [] if only_leak else choose_entrants(options.models, options.baselines, choose=choose, **run)
        images = image_paths(options.save_images, samples, entrants) if options.save_images else []
        targets = [*options.outputs, *images]
        check_targets(targets, samples, options.overwrite)
        folders = dict.fromkeys(target.parent for target in targets)
        with interruptible(folders) as interruption:
            if options.check_leak is not None:
                leaked, unread = _check_leak(samples, options.check_leak, interruption, console, as_json and only_leak)
                failed |= unread
            if entrants and not interruption.stop.is_set():
                measured = samples, entrants, metrics
                failed |= _measure(options, *measured, engine.cluster, interruption, console, as_json, leaked)
            elif only_leak:
                for problem in samples.problems:
                    console.print(failure_line(short_path(problem.path), f"refused: {problem.reason}"), soft_wrap=True)
        if by_ray:  # a worker that ended may have left a part of a file
            sweep_temporaries(folders)
    for problem in samples.problems if quiet else ():
        typer.echo(f"lumen: {printable(problem.path)}: refused: {printable(problem.reason)}", err=True)
    if interruption.exit_code:
        typer.echo("lumen: interrupted; unfinished models are left out", err=True)
        raise typer.Exit(interruption.exit_code)
    if failed:
        raise typer.Exit(1)


def _measure(
    options: QualityOptions,
    samples: Samples,
    entrants: Sequence[Entrant],
    metrics: Sequence[Metric],
    cluster: Cluster | None,
    interruption: Interruption,
    console: Console,
    as_json: bool,
    leaked: str | None,
) -> bool:
    """Measure, print and write the report; returns whether a picture failed."""
    from lumen_cli.benchmark.plan import grading_notes, make_report, save_images
    from lumen_cli.benchmark.quality import run_quality
    from lumen_cli.reports import steps_line
    from lumen_cli.reports.benchmark_files import quality_lines, write_report
    from lumen_cli.reports.quality import print_quality
    from lumen_cli.text import printable

    scorer: Scorer | None = None
    if cluster is not None:
        from lumen_cli.benchmark.quality import ClusterScores

        scorer = ClusterScores(cluster)
    computed = [metric for metric in metrics if metric.unavailable() is None]
    with steps_line(console, len(entrants) * len(samples.items), interruption.stop, entrants[0].name) as (count, _):

        def advance(name: str, score: Score) -> None:
            count(f"{name}: {score.name}")

        save = save_images(options.save_images) if options.save_images else None
        stop = interruption.stop
        rows = list(run_quality(samples, entrants, computed, stop=stop, advance=advance, save=save, score=scorer))
    missing = (f"interrupted: {len(rows)} of {len(entrants)} rows",) if len(rows) < len(entrants) else ()
    computer = (f"computed by {cluster.about}",) if cluster is not None else ()
    notes = (*((leaked,) if leaked else ()), *grading_notes(samples, rows), *computer, *missing)
    report = make_report(samples, metrics, rows, notes)
    if rows:
        print_quality(report, console)
        for path in options.outputs:
            write_report(report, path)
            console.print(f"→ {path}", style="dim", markup=False, soft_wrap=True)
        for line in quality_lines(report) if as_json else ():
            print(line, flush=True)
    for name, score in report.failures if console.quiet else ():
        where = f" ({name})" if name else ""
        typer.echo(f"lumen: {printable(score.name)}{where}: {printable(score.reason or '')}", err=True)
    return bool(report.failures)


def _check_leak(
    samples: Samples, train: Path, interruption: Interruption, console: Console, as_json: bool
) -> tuple[str, bool]:
    """Print the leaks found; returns the headline and whether a picture could not be read."""
    from lumen_cli.benchmark.samples import check_leak
    from lumen_cli.reports import steps_line
    from lumen_cli.reports.benchmark_files import leak_lines
    from lumen_cli.reports.quality import leak_headline, leak_table
    from lumen_cli.text import printable

    with steps_line(console, len(samples.items), interruption.stop, "comparing") as (count, total):
        report = check_leak(samples, train, stop=interruption.stop, advance=lambda: count("comparing"), total=total)
    headline = leak_headline(report)
    console.print(headline, style="bold", markup=False, soft_wrap=True)
    if report.likenesses:
        console.print(leak_table(report))
    for name, reason in report.failures:
        typer.echo(f"lumen: {printable(name)}: {printable(reason)}", err=True)
    for line in leak_lines(report) if as_json else ():
        print(line, flush=True)
    return headline, bool(report.failures)
