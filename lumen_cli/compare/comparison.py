"""What `lumen compare` does once its command line is understood: run models, measure, write, report."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.console import Console

    from lumen_cli.compare.matching import Matched, Problem
    from lumen_cli.compare.rows import Looks
    from lumen_cli.files.find import Source
    from lumen_cli.metrics.registry import Metric
    from lumen_cli.run.interrupt import Interruption

_LARGE = 64 << 20


@dataclass(frozen=True)
class Keeping:
    """How models are run here, and where what they make is put."""

    folder: Path
    overwrite: bool
    device: str
    seed: int


@dataclass(frozen=True)
class Wanted:
    """What a comparison is to give."""

    metrics: Sequence[Metric]
    page: Path | None
    sheet: Path | None
    looks: Looks
    linked: bool
    as_json: bool


def models_folder(stack: ExitStack, save_images: str | None) -> Path:
    """Where the models' pictures go: the folder named, or one that is gone in the end."""
    import tempfile
    from pathlib import Path

    from lumen_cli.files.find import absolute

    if save_images is None:
        return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lumen-compare-")))
    return absolute(save_images)


def run_models(
    console: Console,
    interruption: Interruption,
    names: list[str],
    sources: Sequence[Source],
    kept: Keeping,
    reference: str | None,
) -> Matched:
    """Every model on every input, one model after the other; then the versions, matched."""
    from contextlib import closing

    from lumen_cli.atomic import sweep_temporaries
    from lumen_cli.cli.running import default_jobs
    from lumen_cli.compare.models import match_models, plan_models
    from lumen_cli.files.outputs import check_writable
    from lumen_cli.imaging.tags.writer import TagWriter
    from lumen_cli.registry.load import load
    from lumen_cli.reports.progress import progress_line
    from lumen_cli.run.existing import Existing
    from lumen_cli.run.stream import run_stream

    existing = Existing.OVERWRITE if kept.overwrite else Existing.REFUSE
    runs = plan_models(
        [name.strip() for name in names],
        sources,
        kept.folder,
        device=kept.device,
        seed=kept.seed,
        existing=existing,
        reference=reference,
    )
    failed: dict[Path, str] = {}
    for run in runs:
        for folder in run.plan.folders:
            check_writable(folder)
        sweep_temporaries(run.plan.folders)
        network = run.policy.prepare(load(run.card))
        with TagWriter() as tags, progress_line(console, len(run.plan.todo), interruption.stop) as line:
            line.now(run.label)
            stream = run_stream(
                run.plan, network, run.policy, run.work, tags, jobs=default_jobs(), stop=interruption.stop
            )
            with closing(stream) as results:
                for result in results:
                    line.advance(result)
                    if result.status == "failed":
                        failed[result.task.job.target] = result.reason or "failed"
        _end_if_asked(interruption)
    return match_models(runs, failed, reference)


def compare_and_report(console: Console, interruption: Interruption, matched: Matched, wanted: Wanted) -> list[Problem]:
    """Measure, write, report; the pictures that were left out."""
    from lumen_cli.compare.matching import Problem, protect_inputs
    from lumen_cli.compare.page import Page
    from lumen_cli.compare.rows import Measured, compare_rows, means
    from lumen_cli.compare.sheet import ContactSheet, write_sheet
    from lumen_cli.reports.compare import (
        compared_line,
        means_line,
        means_table,
        means_title,
        problem_line,
        problem_lines,
        row_progress,
    )
    from lumen_cli.text import count, memory, printable, short_path

    problems = list(matched.problems)
    measured: list[Measured] = []
    if wanted.sheet is not None:
        protect_inputs(wanted.sheet, matched)
    if wanted.as_json:
        for problem in problems:
            print(problem_line(problem), flush=True)
    with ExitStack() as stack:
        page = wanted.page and stack.enter_context(
            Page(wanted.page, matched, wanted.metrics, wanted.looks, wanted.linked)
        )
        sheet = ContactSheet(matched.labels, len(matched.rows)) if wanted.sheet else None
        advance = stack.enter_context(row_progress(console, len(matched.rows)))
        looks = wanted.looks if page or sheet else None
        for outcome in compare_rows(matched, wanted.metrics, looks):
            _end_if_asked(interruption)
            advance()
            if isinstance(outcome, Problem):
                problems.append(outcome)
                line = problem_line(outcome)
            else:
                measured.append(outcome.measured)
                if page:
                    page.add(outcome)
                if sheet:
                    sheet.add(printable(outcome.measured.row.name), [drawn.image for drawn in outcome.drawn])
                line = compared_line(matched, outcome.measured)
            if wanted.as_json:
                print(line, flush=True)
        size = page.write(problems) if page and measured else None
    if sheet and wanted.sheet and measured:
        write_sheet(sheet, wanted.sheet)
    columns = means(measured, wanted.metrics, len(matched.labels))
    made = [path for path in (wanted.page, wanted.sheet) if path is not None and measured]
    if wanted.as_json:
        written = [path if path in made else None for path in (wanted.page, wanted.sheet)]
        print(means_line(matched, len(measured), columns, *written), flush=True)
    if measured:
        console.print(means_title(matched, measured), soft_wrap=True)
        console.print(means_table(matched, measured, wanted.metrics, columns))
    if problems:
        console.print(problem_lines(problems), soft_wrap=True)
    said = f"{count(len(measured), 'picture')} compared" + (f", {len(problems)} left out" if problems else "")
    where = f" → {', '.join(map(short_path, made))}" if made else ""
    much = "" if size is None else f" ({memory(size)})"
    console.print(f"{said}{where}{much}", soft_wrap=True, markup=False, style="bold red" if problems else "bold green")
    if size is not None and size > _LARGE:
        console.print("a large page; --linked, --max-side or --quality make it smaller", style="yellow")
    return problems


def _end_if_asked(interruption: Interruption) -> None:
    if interruption.stop.is_set():
        typer.echo("lumen: interrupted; no page was written", err=True)
        raise typer.Exit(interruption.exit_code)
