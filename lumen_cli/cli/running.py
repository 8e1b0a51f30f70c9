"""What commands that put pictures through a model have in common: the plan shown, or run and reported."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import typer

from lumen_cli.errors import UsageError

if TYPE_CHECKING:
    from lumen_cli.card import ModelCard
    from lumen_cli.imaging.metadata import TagWriter
    from lumen_cli.pipeline.device import DevicePolicy
    from lumen_cli.pipeline.plan import Existing, Plan
    from lumen_cli.pipeline.work import Work

_MOST_JOBS = 8


def default_jobs() -> int:
    """Threads that read, and as many that write, where no number is given."""
    return min(_MOST_JOBS, os.cpu_count() or 1)


def refuse_both(overwrite: bool, resume: bool) -> None:
    """UsageError where all is to be made anew and only what is missing."""
    if overwrite and resume:
        raise UsageError("--overwrite and --resume exclude each other: all anew, or what is missing?")


def existing_outputs(overwrite: bool, resume: bool) -> Existing:
    """The two flags as one value."""
    from lumen_cli.pipeline.plan import Existing

    return Existing.OVERWRITE if overwrite else Existing.RESUME if resume else Existing.REFUSE


def show_plan(plan: Plan, as_json: bool) -> None:
    """Say what would be done, a line a picture."""
    from lumen_cli.reports.jsonlines import planned_line
    from lumen_cli.reports.text import count, printable, short_path

    for status, tasks in (("planned", plan.todo), ("kept", plan.kept)):
        for task in tasks:
            outputs = ", ".join([short_path(task.job.target), *(printable(path.name) for path in task.targets[1:])])
            line = f"{short_path(task.job.source.path)} → {outputs}  ({task.why})"
            typer.echo(planned_line(task, status) if as_json else line)
    typer.echo(f"dry run: {count(len(plan.todo), 'picture')} to make, {len(plan.kept)} to keep; nothing done", err=True)


def run_plan(
    card: ModelCard,
    policy: DevicePolicy,
    work: Work,
    plan: Plan,
    jobs: int | None,
    as_json: bool,
    quiet: bool,
    preserve_times: bool = False,
) -> None:
    """Make the plan's pictures and report; typer.Exit with the exit code where it is not 0."""
    from lumen_cli.imaging.metadata import TagWriter

    # First of all: what is asked for may need exiftool, and that is said before any work.
    with TagWriter(rules=work.tags) as tags:
        _run(card, policy, work, plan, tags, jobs or default_jobs(), as_json, quiet, preserve_times)


def _run(
    card: ModelCard,
    policy: DevicePolicy,
    work: Work,
    plan: Plan,
    tags: TagWriter,
    jobs: int,
    as_json: bool,
    quiet: bool,
    preserve_times: bool,
) -> None:
    import time
    from contextlib import closing

    from rich.console import Console

    from lumen_cli.imaging.files import check_writable, sweep_temporaries
    from lumen_cli.pipeline.interrupt import interruptible
    from lumen_cli.pipeline.stages import Result
    from lumen_cli.pipeline.stream import run_stream
    from lumen_cli.registry import load
    from lumen_cli.reports.jsonlines import picture_line
    from lumen_cli.reports.progress import progress_line
    from lumen_cli.reports.summary import Summary, peak_memory
    from lumen_cli.reports.text import count, printable

    for folder in plan.folders:
        check_writable(folder)
    sweep_temporaries(plan.folders)
    console = Console(stderr=True, highlight=False, quiet=quiet)
    summary = Summary(total=len(plan.todo) + len(plan.kept), kept=len(plan.kept), word=work.done)
    started = time.perf_counter()
    network = policy.prepare(load(card))
    loaded = time.perf_counter()
    with interruptible(plan.folders) as interruption:
        if tags.notice:
            console.print(tags.notice, markup=False, style="yellow")
        with progress_line(console, len(plan.todo), interruption.stop, work.doing) as advance:
            if as_json:
                for task in plan.kept:
                    print(picture_line(Result(task, "kept")), flush=True)
            stream = run_stream(
                plan, network, policy, work, tags, jobs=jobs, stop=interruption.stop, preserve_times=preserve_times
            )
            with closing(stream) as results:
                for result in results:
                    summary.add(result)
                    advance(result)
                    if as_json:
                        print(picture_line(result), flush=True)
        engine = tags.engine
    ended = time.perf_counter()
    facts = {
        "model": " · ".join((card.name, *work.about)),
        "ran on": f"{policy.device} ({policy.device_name}) in {policy.precision}: {policy.why}",
        "tags by": engine,
        "peak memory": peak_memory(policy.device),
    }
    if summary.sidecars:
        facts["sidecars"] = f"{count(summary.sidecars, 'file')} copied beside the outputs"
    for table in summary.tables(loaded - started, ended - loaded, facts):
        console.print(table)
    if summary.failures:
        console.print(summary.failed(), soft_wrap=True)
    console.print()
    console.print(summary.headline(_where(plan)), soft_wrap=True)
    if quiet:
        for failed in summary.failures:
            typer.echo(f"lumen: {printable(failed.task.job.source.path)}: {printable(failed.reason or '')}", err=True)
    if interruption.exit_code:
        typer.echo("lumen: interrupted; --resume goes on from here", err=True)
        raise typer.Exit(interruption.exit_code)
    if summary.failures:
        raise typer.Exit(1)


def _where(plan: Plan) -> str:
    """The one picture's outputs, or the folder or folders they are in."""
    from lumen_cli.reports.text import printable, short_folder, short_path

    tasks = (*plan.todo, *plan.kept)
    if len(tasks) == 1:
        files = tasks[0].targets
        return ", ".join([short_path(files[0]), *(printable(path.name) for path in files[1:])])
    return ", ".join(map(short_folder, plan.roots[:3])) + (", …" if len(plan.roots) > 3 else "")
