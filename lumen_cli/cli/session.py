"""A run of `enhance` or `decompose` on the screen: the plan, progress, JSON lines, and the report at the end."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import typer

from lumen_cli.cli import LOGGER, interruptible, log
from lumen_cli.cli.inputs import Inputs, report_own, watch
from lumen_cli.cli.picture_options import PictureOptions

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from lumen_cli.cli.options import Engine
    from lumen_cli.cli.run_page import RunPage
    from lumen_cli.engine.device import DevicePolicy
    from lumen_cli.files import Source
    from lumen_cli.files.find import Trouble
    from lumen_cli.files.outputs import NameTemplate
    from lumen_cli.registry.card import ModelCard
    from lumen_cli.reports.jsonlines import RunFacts
    from lumen_cli.run import Result, Task
    from lumen_cli.run.operation import Operation
    from lumen_cli.run.plan import Plan
    from lumen_cli.run.run import Run


_SELDOM = 50
"""Pictures between two updates of the line."""


def plan_visibly(console: Console, run: Run, sources: Sequence[Source]) -> Plan:
    """The plan; shows progress where making it takes a while."""
    from rich.progress import TextColumn

    from lumen_cli.reports import transient_line

    line = transient_line(console, TextColumn("checking existing outputs"))
    task = line.add_task("", total=len(sources))
    looked = itertools.count(1)

    def advance() -> None:
        if (number := next(looked)) % _SELDOM == 0:  # the line takes longer than looking at one picture
            line.update(task, completed=number)

    with line:
        return run.plan(sources, advance)


class Session:
    """A run and its report, for one plan or, when watching, for one plan after the other."""

    def __init__(
        self, options: PictureOptions, pictures: Inputs, run: Run, console: Console, page: RunPage | None = None
    ) -> None:
        from lumen_cli.reports.summary import Summary

        self.options, self.pictures, self.run, self.console, self.page = options, pictures, run, console, page
        self.summary = Summary(total=0, word=run.operation.done)
        self._working = 0.0
        self._outputs: list[Path] = []
        self._roots: set[Path] = set()
        self._ended: str | None = None
        self._noticed = False

    @cached_property
    def _facts(self) -> RunFacts:
        from lumen_cli.reports.picture_lines import run_facts

        return run_facts(self.run)

    @property
    def failed(self) -> bool:
        """Whether a picture was not made that should have been."""
        return bool(self.summary.failures or self.summary.left or self._ended)

    def make(
        self,
        sources: Sequence[Source],
        troubles: Sequence[Trouble] = (),
        wanted: Callable[[Source], bool] | None = None,
    ) -> int:
        """Plan and make pictures, all or those `wanted`, and add up; 0, or the exit code of an interruption."""
        if self.pictures.own is not None:
            return self._make_pieces(sources, troubles)
        plan = plan_visibly(self.console, self.run, sources)
        return self._make(plan if wanted is None else plan.only(wanted), troubles)

    def _make_pieces(self, sources: Sequence[Source], troubles: Sequence[Trouble]) -> int:
        from lumen_cli.run.plan import plan_pieces

        assert self.pictures.own is not None
        planned = 0
        for plan, own in plan_pieces(self.run, sources, self.pictures.own):
            if own and not self.options.quiet:
                report_own(own)
            planned += len(plan.tasks) + len(own)
            code = self._make(plan, troubles)
            if code or self._ended:
                self.summary.total += len(sources) - planned if self.options.shard is None else 0
                return code
            troubles = ()
        return 0

    def _make(self, plan: Plan, troubles: Sequence[Trouble]) -> int:
        from lumen_cli.reports import progress_line
        from lumen_cli.run import RunEndedError

        if self.page:
            self.page.prepare(plan)
            self.page.troubles += troubles
        self.summary.total += len(plan.tasks) + len(troubles)
        self._roots |= set(plan.roots)
        if self.options.retry_failed and not plan.tasks:
            typer.echo("lumen: no picture failed in the last attempt", err=True)
        if len(plan.tasks) == 1:
            self._outputs = list(plan.tasks[0].targets)
        LOGGER.info("%d to make, %d to keep, %d to leave", len(plan.todo), len(plan.kept), len(plan.left))
        for trouble in troubles:
            LOGGER.error("%s: failed; %s", trouble.path, trouble.reason)
            self.summary.trouble(trouble)
            if self.options.as_json:
                from lumen_cli.reports.picture_lines import trouble_line

                print(trouble_line(trouble, self._facts), flush=True)
        if plan.todo and self.run.tags.notice and not self._noticed:
            self.console.print(self.run.tags.notice, markup=False, style="yellow")
            self._noticed = True
        started, loading = time.perf_counter(), self.run.loading
        with (
            interruptible(plan.folders, self.run.locks) as interruption,
            progress_line(self.console, len(plan.todo), interruption.stop) as line,
        ):
            results = self.run.results(plan, interruption.stop, now=line.now, warn=self._warn, share=line.share)
            try:
                with closing(results):
                    for number, result in enumerate(results):
                        self._take(result)
                        if number >= len(plan.kept) + len(plan.left):
                            line.advance(result)
            except RunEndedError as error:
                self._ended = str(error)
        if plan.todo:
            self._working += time.perf_counter() - started - (self.run.loading - loading)
        if interruption.exit_code:
            again = "the same command without --overwrite" if self.options.overwrite else "the same command"
            log.warning("interrupted")
            typer.echo(f"lumen: interrupted; run {again} to resume", err=True)
        return interruption.exit_code

    def _warn(self, text: str) -> None:
        log.warning(text)
        if not self.options.quiet:
            typer.echo(f"lumen: {text}", err=True)

    def _take(self, result: Result) -> None:
        if result.status == "done":
            self.pictures.deliver(result.task.job.target)
        self.summary.add(result)
        if self.page:
            self.page.results.append(result)
        if self.options.as_json:
            from lumen_cli.reports.picture_lines import picture_line

            print(picture_line(result, self._facts), flush=True)
        if LOGGER.isEnabledFor(logging.INFO):
            self._log(result)

    def _log(self, result: Result) -> None:
        """One line: the picture, its result, the time of each stage; in JSON also its line."""
        import json

        from lumen_cli.reports.picture_lines import picture_line
        from lumen_cli.text import duration, with_options

        times = ", ".join(f"{stage} {duration(value)}" for stage, value in asdict(result.timings).items() if value)
        seen = result.seen
        facts = [
            result.status,
            with_options(result.reason, result.remedy) if result.reason else result.task.why,
            times,
            f"{result.width}×{result.height}" if result.width else "",
            f"network saw {seen[0]}×{seen[1]}" if seen else "",
            result.precision or "",
            *result.notices,
            *result.warnings,
        ]
        level = {"failed": logging.ERROR, "left": logging.WARNING}.get(result.status, logging.INFO)
        text = f"{result.task.job.source.path}: {'; '.join(filter(None, facts))}"
        LOGGER.log(level, "%s", text, extra={"picture": json.loads(picture_line(result, self._facts))})

    def report(self) -> None:
        """Tables for batches and with --stats, failures, the headline; with --quiet one line per failure."""
        from lumen_cli.reports.summary import peak_memory
        from lumen_cli.text import count, duration, printable

        summary, policy, about = self.summary, self.run.policy, self.run.operation.about
        model = self.run.card.name if self.run.card else ""
        tables = self.options.stats or summary.total > 1
        if summary.done and not tables:
            for part in summary.remarks():
                self.console.print(part, soft_wrap=True)
        if summary.done and tables:
            facts = {
                "model": " · ".join((model, *about)),
                "ran on": f"{policy.label} ({policy.chips}) in {policy.precision}: {policy.why}",
                "tags by": self.run.tags.engine,
                "peak memory": peak_memory([each.device for each in policy.each]),
            }
            if set(summary.whys) != {"new"}:
                facts["why"] = ", ".join(f"{number} × {why}" for why, number in summary.whys.most_common())
            if summary.sidecars:
                facts["sidecars"] = f"{count(summary.sidecars, 'file')} copied beside the outputs"
            for table in summary.tables(self.run.loading, self._working, facts):
                self.console.print(table)
        if summary.failures or summary.left:
            self.console.print(summary.failed(), soft_wrap=True)
        if tables or summary.failures or summary.left:
            self.console.print()
        self.console.print(summary.headline(self._where()), soft_wrap=True)
        if summary.done and not tables:
            why = "" if set(summary.whys) == {"new"} else f" ({', '.join(summary.whys)})"
            settings = " · ".join((model, *about, f"{policy.label} in {policy.precision}"))
            took = duration(self.run.loading + self._working)
            self.console.print(f"{settings} · {took}{why}", style="dim", markup=False, soft_wrap=True)
        if self._ended is not None:
            typer.echo(f"lumen: {printable(self._ended)}", err=True)
        if self.options.quiet:
            for line in (*summary.failures, *summary.left):
                typer.echo(f"lumen: {line.name}: {printable(line.reason)}", err=True)

    def write_page(self, page: RunPage) -> int:
        """Write the page and report it; 0, or the exit code of an interruption."""
        code, number = page.write(self.console)
        if code:
            typer.echo("lumen: interrupted; no page was written", err=True)
        elif number and self.options.as_json:
            from lumen_cli.reports.jsonlines import PageLine

            print(PageLine(page=str(page.target), pictures=number).line(), flush=True)
        return code

    def _where(self) -> str:
        """The one picture's outputs, or the folder or folders that hold them."""
        from lumen_cli.text import join_first, printable, short_folder, short_path

        if self.options.to_stdout:
            return "standard output"
        if self.summary.total == 1 and self._outputs:
            return ", ".join([short_path(self._outputs[0]), *(printable(path.name) for path in self._outputs[1:])])
        return join_first([short_folder(root) for root in sorted(self._roots)])


def carry_out(
    options: PictureOptions,
    pictures: Inputs,
    engine: Engine,
    card: ModelCard,
    policy: DevicePolicy,
    operation: Operation,
    template: NameTemplate | None,
    darker_than: float | None = None,
    page: RunPage | None = None,
) -> None:
    """Plan, then show the plan, or run it and report; typer.Exit with the exit code where that is not 0.

    page: is written at the end, unless the run is interrupted.
    """
    from rich.console import Console

    console = Console(stderr=True, highlight=False, quiet=options.quiet)
    run_options = replace(options.for_run(pictures.output, template), darker_than=darker_than)
    run = engine.run(card, policy, operation, run_options)
    if options.dry_run:
        show_plan(run, plan_visibly(console, run, pictures.found.sources), pictures.found.troubles, options.as_json)
        return
    with run:
        session = Session(options, pictures, run, console, page)
        code = watch(session) if options.watch else session.make(pictures.found.sources, pictures.found.troubles)
        session.report()
    if page and code == 0:
        code = session.write_page(page)
    if code == 0 and session.failed:
        code = 1
    if code:
        raise typer.Exit(code)


def show_plan(run: Run, plan: Plan, troubles: Sequence[Trouble], as_json: bool) -> None:
    """Print what would be done, one line per picture."""
    from lumen_cli.reports.picture_lines import planned_line, run_facts, trouble_line
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
    tars = sum(task.is_tar for task in plan.todo)
    made = [count(tars, "tar file")] if tars else []
    if len(plan.todo) > tars or not made:
        made.insert(0, count(len(plan.todo) - tars, "picture"))
    numbers = f"{' and '.join(made)} to make, {len(plan.kept)} to keep{left}"
    bright = "" if run.options.darker_than is None else ", unless they turn out to be bright enough"
    typer.echo(f"dry run: {numbers}{bright}; nothing done", err=True)
