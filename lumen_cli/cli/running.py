"""What `enhance` and `decompose` do once their options are understood: show the plan, run it, or watch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import typer

from lumen_cli.cli.inputs import Inputs
from lumen_cli.cli.picture_options import PictureOptions

if TYPE_CHECKING:
    from lumen_cli.engine.device import DevicePolicy
    from lumen_cli.files.find import Trouble
    from lumen_cli.files.outputs import NameTemplate
    from lumen_cli.registry.card import ModelCard
    from lumen_cli.run.operation import Operation
    from lumen_cli.run.plan import Plan
    from lumen_cli.run.run import Run
    from lumen_cli.run.task import Task


def carry_out(
    options: PictureOptions,
    pictures: Inputs,
    card: ModelCard,
    policy: DevicePolicy,
    operation: Operation,
    template: NameTemplate | None,
    darker_than: float | None = None,
) -> None:
    """Plan, then show the plan, or run it and report; typer.Exit with the exit code where that is not 0."""
    from rich.console import Console

    from lumen_cli.cli.session import Session, plan_visibly
    from lumen_cli.run.run import Run

    console = Console(stderr=True, highlight=False, quiet=options.quiet)
    run = Run(card, policy, operation, replace(options.for_run(pictures.output, template), darker_than=darker_than))
    if options.dry_run:
        show_plan(run, plan_visibly(console, run, pictures.found.sources), pictures.found.troubles, options.as_json)
        return
    with run:
        session = Session(options, pictures, run, console)
        if options.watch:
            from lumen_cli.cli.watching import watch

            code = watch(session)
        else:
            code = session.make(pictures.found.sources, pictures.found.troubles)
        session.report()
    if code == 0 and session.failed:
        code = 1
    if code:
        raise typer.Exit(code)


def show_plan(run: Run, plan: Plan, troubles: Sequence[Trouble], as_json: bool) -> None:
    """Print what would be done, one line per picture."""
    from lumen_cli.reports.jsonlines import planned_line, run_facts, trouble_line
    from lumen_cli.reports.summary import source_name
    from lumen_cli.text import count, printable, short_path, with_options

    facts = run_facts(run)
    tasks_by_status: dict[Literal["planned", "kept", "left"], Sequence[Task]]
    tasks_by_status = {"planned": plan.todo, "kept": plan.kept, "left": plan.left}
    for status, tasks in tasks_by_status.items():
        for task in tasks:
            outputs = ", ".join([short_path(task.job.target), *(printable(path.name) for path in task.targets[1:])])
            why = printable(with_options(task.why, task.remedy))
            line = f"{source_name(task.job.source)} → {outputs}  ({why})"
            typer.echo(planned_line(task, status, facts) if as_json else line)
    for trouble in troubles:
        line = f"{short_path(trouble.path)}: {printable(trouble.reason)}"
        typer.echo(trouble_line(trouble, facts) if as_json else line)
    left = f", {len(plan.left)} to leave untouched" if plan.left else ""
    numbers = f"{count(len(plan.todo), 'picture')} to make, {len(plan.kept)} to keep{left}"
    bright = "" if run.options.darker_than is None else ", unless they turn out to be bright enough"
    typer.echo(f"dry run: {numbers}{bright}; nothing done", err=True)
