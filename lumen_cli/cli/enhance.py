"""`lumen enhance`: parses, calls, prints."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from lumen_cli.cli.options import (
    BatchSizeOption,
    DeviceOption,
    DryRunOption,
    FormatOption,
    JobsOption,
    JsonOption,
    ModelOption,
    OutputFormat,
    OutputOption,
    OverwriteOption,
    Precision,
    PrecisionOption,
    QualityOption,
    QuietOption,
    ResumeOption,
    SeedOption,
    StepsOption,
    StrengthOption,
)
from lumen_cli.errors import UsageError
from lumen_cli.registry import DEFAULT_MODEL

if TYPE_CHECKING:
    from lumen_cli.card import ModelCard
    from lumen_cli.pipeline.device import DevicePolicy
    from lumen_cli.pipeline.plan import Plan, Settings

_MOST_JOBS = 8


def enhance(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT", help="Pictures, folders (with all below them) or globs.")
    ],
    output: OutputOption = None,
    model: ModelOption = DEFAULT_MODEL,
    steps: StepsOption = None,
    seed: SeedOption = 0,
    strength: StrengthOption = 1.0,
    device: DeviceOption = "auto",
    precision: PrecisionOption = Precision.auto,
    batch_size: BatchSizeOption = None,
    output_format: FormatOption = OutputFormat.keep,
    quality: QualityOption = None,
    jobs: JobsOption = None,
    dry_run: DryRunOption = False,
    overwrite: OverwriteOption = False,
    resume: ResumeOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Brighten dark pictures: folders in, folders out, same tree, same names, same tags.

    Exit codes: 0 all done, 1 some failed, 2 wrong usage, 130 interrupted.

    \b
    Examples:
      lumen enhance photos/                      → photos-enhanced/
      lumen enhance night.jpg -o bright.png
      lumen enhance 'raw/**/*.tif' -o out/ --format png --strength 0.7
      lumen enhance photos/ --resume             go on where a run was ended
      lumen enhance photos/ --dry-run            only show what would be done
      lumen enhance photos/ --json | jq 'select(.status == "failed")'
    """  # noqa: D301
    if overwrite and resume:
        raise UsageError("--overwrite and --resume exclude each other: all anew, or what is missing?")

    from lumen_cli.imaging.files import find_pictures, plan_outputs
    from lumen_cli.imaging.formats import suffix_for
    from lumen_cli.pipeline.plan import Existing, Settings, make_plan
    from lumen_cli.registry import find_model

    card = find_model(model)
    chosen_steps = card.steps_for(steps)
    sources = find_pictures(inputs)
    suffix = None if output_format is OutputFormat.keep else suffix_for(output_format.value)
    pictures = plan_outputs(sources, output, suffix)

    from lumen_cli.pipeline.device import choose_device

    asked = card.default_precision if precision is Precision.auto else precision.value
    policy = choose_device(device, asked, precisions=card.precisions, batch_size=batch_size, model=card.name)
    settings = Settings(
        architecture=card.architecture,
        network=card.network,
        weights=card.weights_sha256,
        steps=chosen_steps,
        seed=seed,
        strength=strength,
        precision=policy.precision,
        deep_precision=policy.deep_precision,
        format=suffix,
        quality=quality,
    )
    existing = Existing.OVERWRITE if overwrite else Existing.RESUME if resume else Existing.REFUSE
    plan = make_plan(pictures, settings.fingerprint(), existing)
    if dry_run:
        _show_plan(plan, as_json)
        return
    code = _run(card, policy, settings, plan, jobs or min(_MOST_JOBS, os.cpu_count() or 1), as_json, quiet)
    if code:
        raise typer.Exit(code)


def _show_plan(plan: Plan, as_json: bool) -> None:
    from lumen_cli.reports.jsonlines import planned_line
    from lumen_cli.reports.text import count, short_path

    for status, tasks in (("planned", plan.todo), ("kept", plan.kept)):
        for task in tasks:
            line = f"{short_path(task.job.source.path)} → {short_path(task.job.target)}  ({task.why})"
            typer.echo(planned_line(task, status) if as_json else line)
    typer.echo(f"dry run: {count(len(plan.todo), 'picture')} to make, {len(plan.kept)} to keep; nothing done", err=True)


def _run(
    card: ModelCard, policy: DevicePolicy, settings: Settings, plan: Plan, jobs: int, as_json: bool, quiet: bool
) -> int:
    """Make the plan's pictures; returns the exit code."""
    import time
    from contextlib import closing

    from rich.console import Console

    from lumen_cli.imaging.files import check_writable, sweep_temporaries
    from lumen_cli.imaging.metadata import TagWriter
    from lumen_cli.pipeline.interrupt import interruptible
    from lumen_cli.pipeline.stages import Result
    from lumen_cli.pipeline.stream import enhance_stream
    from lumen_cli.registry import load
    from lumen_cli.reports.jsonlines import picture_line
    from lumen_cli.reports.progress import progress_line
    from lumen_cli.reports.summary import Summary, peak_memory
    from lumen_cli.reports.text import printable

    for folder in plan.folders:
        check_writable(folder)
    sweep_temporaries(plan.folders)
    console = Console(stderr=True, highlight=False, quiet=quiet)
    summary = Summary(total=len(plan.todo) + len(plan.kept), kept=len(plan.kept))
    started = time.perf_counter()
    network = policy.prepare(load(card))
    loaded = time.perf_counter()
    with TagWriter() as tags, interruptible(plan.folders) as interruption:
        if tags.notice:
            console.print(tags.notice, markup=False, style="yellow")
        with progress_line(console, len(plan.todo), interruption.stop) as advance:
            if as_json:
                for task in plan.kept:
                    print(picture_line(Result(task, "kept")), flush=True)
            stream = enhance_stream(plan, network, policy, settings, tags, jobs=jobs, stop=interruption.stop)
            with closing(stream) as results:
                for result in results:
                    summary.add(result)
                    advance(result)
                    if as_json:
                        print(picture_line(result), flush=True)
        engine = tags.engine
    ended = time.perf_counter()
    facts = {
        "model": f"{card.name}" + (f" · {settings.steps} steps" if settings.steps else "") + f" · seed {settings.seed}",
        "ran on": f"{policy.device} ({policy.device_name}) in {policy.precision}: {policy.why}",
        "tags by": engine,
        "peak memory": peak_memory(policy.device),
    }
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
        return interruption.exit_code
    return 1 if summary.failures else 0


def _where(plan: Plan) -> str:
    """The one output, or the folder or folders they are in."""
    from lumen_cli.reports.text import short_folder, short_path

    tasks = (*plan.todo, *plan.kept)
    if len(tasks) == 1:
        return short_path(tasks[0].job.target)
    return ", ".join(map(short_folder, plan.roots[:3])) + (", …" if len(plan.roots) > 3 else "")
