"""What commands that put pictures through a model have in common: the plan shown, or run and reported."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import typer

from lumen_cli.cli.inputs import Gathered, Request

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from lumen_cli.engine.device import DevicePolicy
    from lumen_cli.files.find import Source, Trouble
    from lumen_cli.imaging.tags.writer import TagWriter
    from lumen_cli.networks.base import LowLightModel
    from lumen_cli.registry.card import ModelCard
    from lumen_cli.run.interrupt import Interruption
    from lumen_cli.run.operation import Work
    from lumen_cli.run.plan import Plan
    from lumen_cli.run.stages import Result

_MOST_JOBS = 8

Planner = Callable[["Sequence[Source]", "Callable[[], None]"], "Plan"]
"""Pictures → what is to be done with them; the second is called after each one that was looked at."""


def default_jobs() -> int:
    """Threads that read, and as many that write, where no number is given."""
    return min(_MOST_JOBS, os.cpu_count() or 1)


def carry_out(
    request: Request, pictures: Gathered, card: ModelCard, policy: DevicePolicy, work: Work, planner: Planner
) -> None:
    """Plan, then show the plan, or run it and report; typer.Exit with the exit code where that is not 0."""
    from rich.console import Console

    from lumen_cli.imaging.tags.writer import TagWriter

    console = Console(stderr=True, highlight=False, quiet=request.quiet)
    if request.dry_run:
        show_plan(planned(console, planner, pictures.found.sources), pictures.found.troubles, request.as_json)
        return
    # Before any work: what is asked for may need exiftool, and that is said here.
    with TagWriter(rules=work.tags) as tags:
        session = Session(request, pictures, card, policy, work, tags, console)
        if request.watch:
            from lumen_cli.cli.watching import watch

            code = watch(session, planner)
        else:
            code = session.make(planner, pictures.found.sources, pictures.found.troubles)
        session.report()
    if code == 0 and session.failed:
        code = 1
    if code:
        raise typer.Exit(code)


def planned(console: Console, planner: Planner, sources: Sequence[Source]) -> Plan:
    """The plan; shows how far it has come where that takes a while."""
    from rich.progress import TextColumn

    from lumen_cli.reports.progress import transient_line

    line = transient_line(console, TextColumn("looking at what is there"))
    task = line.add_task("", total=len(sources))
    with line:
        return planner(sources, lambda: line.advance(task))


def show_plan(plan: Plan, troubles: Sequence[Trouble], as_json: bool) -> None:
    """Say what would be done, a line a picture."""
    from lumen_cli.reports.jsonlines import planned_line, trouble_line
    from lumen_cli.reports.summary import source_name
    from lumen_cli.text import count, printable, short_path

    for status, tasks in (("planned", plan.todo), ("kept", plan.kept), ("left", plan.left)):
        for task in tasks:
            outputs = ", ".join([short_path(task.job.target), *(printable(path.name) for path in task.targets[1:])])
            line = f"{source_name(task.job.source)} → {outputs}  ({printable(task.why)})"
            typer.echo(planned_line(task, status) if as_json else line)
    for trouble in troubles:
        line = f"{short_path(trouble.path)}: {printable(trouble.reason)}"
        typer.echo(trouble_line(trouble) if as_json else line)
    left = f", {len(plan.left)} to leave alone" if plan.left else ""
    said = f"{count(len(plan.todo), 'picture')} to make, {len(plan.kept)} to keep{left}"
    typer.echo(f"dry run: {said}; nothing done", err=True)


class Session:
    """One model and one report, for one plan or, when watching, for one after the other."""

    def __init__(
        self,
        request: Request,
        pictures: Gathered,
        card: ModelCard,
        policy: DevicePolicy,
        work: Work,
        tags: TagWriter,
        console: Console,
    ) -> None:
        from lumen_cli.reports.summary import Summary

        self.request, self.pictures, self.console = request, pictures, console
        self.summary = Summary(total=0, word=work.done)
        self._card, self._policy, self._work, self._tags = card, policy, work, tags
        self._network: LowLightModel | None = None
        self._loading = self._working = 0.0
        self._outputs: list[Path] = []
        self._roots: set[Path] = set()
        self._ended: str | None = None
        self._now: Callable[[str], None] = lambda doing: None

    @property
    def failed(self) -> bool:
        """Whether a picture was not made that should have been."""
        return bool(self.summary.failures or self.summary.left or self._ended)

    def make(
        self,
        planner: Planner,
        sources: Sequence[Source],
        troubles: Sequence[Trouble] = (),
        wanted: Callable[[Source], bool] | None = None,
    ) -> int:
        """Plan and make pictures, all or those `wanted`, and add up; 0, or the exit code of an interruption.

        Where another run writes into the same folders this one waits, and then looks once more at what is there.
        """
        from lumen_cli.files.outputs import check_writable
        from lumen_cli.run.manifest import locked

        def look() -> Plan:
            plan = planned(self.console, planner, sources)
            return plan if wanted is None else only(plan, wanted)

        plan = look()
        if not plan.writes:
            return self._run(plan, troubles)
        for folder in plan.folders:
            check_writable(folder)
        plan = self._recordable(plan)
        with locked(plan.places.values() if plan.recorded else (), self._tell_waiting):
            return self._run(look() if plan.outdated else plan, troubles)

    def _recordable(self, plan: Plan) -> Plan:
        """The plan, without manifests where the user's state folder cannot be written to; one line says so."""
        from lumen_cli.errors import LumenError

        for root, place in plan.places.items():
            if place.parent == root:
                continue
            try:
                plan.manifests[root].begin()
            except LumenError as error:
                typer.echo(f"lumen: {error}; later runs know these outputs by their stamp alone", err=True)
                return replace(plan, recorded=False)
        return plan

    def _tell_waiting(self, place: Path) -> None:
        self.console.print(f"waiting for another run of lumen that writes {place}", style="yellow", markup=False)

    def _run(self, plan: Plan, troubles: Sequence[Trouble]) -> int:
        from lumen_cli.atomic import sweep_temporaries
        from lumen_cli.run.interrupt import interruptible
        from lumen_cli.run.manifest import lock_of, put_in_order

        sweep_temporaries(plan.folders)
        self._confirm(plan)
        self._take_in(plan, troubles)
        if not plan.todo:
            if plan.recorded:
                put_in_order(plan.places)
            return 0
        started, loading = time.perf_counter(), self._loading
        locks = [lock_of(place) for place in plan.places.values()] if plan.recorded else []
        with interruptible(plan.folders, locks) as interruption:
            self._stream(plan, interruption)
        self._working += time.perf_counter() - started - (self._loading - loading)
        if interruption.exit_code:
            again = "the same command without --overwrite" if self.request.overwrite else "the same command"
            typer.echo(f"lumen: interrupted; run {again} to resume", err=True)
        return interruption.exit_code

    def report(self) -> None:
        """Tables for batches and with --stats, failures, the headline; with --quiet what failed, a line each."""
        from lumen_cli.reports.summary import peak_memory
        from lumen_cli.text import count, duration, printable

        summary, policy = self.summary, self._policy
        tables = self.request.stats or summary.total > 1
        if summary.done and not tables:
            for part in summary.remarks():
                self.console.print(part, soft_wrap=True)
        if summary.done and tables:
            facts = {
                "model": " · ".join((self._card.name, *self._work.about)),
                "ran on": f"{policy.device} ({policy.device_name}) in {policy.precision}: {policy.why}",
                "tags by": self._tags.engine,
                "peak memory": peak_memory(policy.device),
            }
            if set(summary.whys) != {"new"}:
                facts["why"] = ", ".join(f"{number} × {why}" for why, number in summary.whys.most_common())
            if summary.sidecars:
                facts["sidecars"] = f"{count(summary.sidecars, 'file')} copied beside the outputs"
            for table in summary.tables(self._loading, self._working, facts):
                self.console.print(table)
        if summary.failures or summary.left:
            self.console.print(summary.failed(), soft_wrap=True)
        if tables or summary.failures or summary.left:
            self.console.print()
        self.console.print(summary.headline(self._where()), soft_wrap=True)
        if summary.done and not tables:
            why = "" if set(summary.whys) == {"new"} else f" ({', '.join(summary.whys)})"
            with_what = " · ".join((self._card.name, *self._work.about, f"{policy.device} in {policy.precision}"))
            took = duration(self._loading + self._working)
            self.console.print(f"{with_what} · {took}{why}", style="dim", markup=False, soft_wrap=True)
        if self._ended is not None:
            typer.echo(f"lumen: {printable(self._ended)}", err=True)
        if self.request.quiet:
            for line in (*summary.failures, *summary.left):
                typer.echo(f"lumen: {line.name}: {printable(line.reason)}", err=True)

    def _loaded(self) -> LowLightModel:
        from lumen_cli.registry.load import load

        if self._network is None:
            started = time.perf_counter()
            self._now(f"loading {self._card.name}")
            self._network = self._policy.prepare(load(self._card))
            self._loading = time.perf_counter() - started
            if self._tags.notice:
                self.console.print(self._tags.notice, markup=False, style="yellow")
        return self._network

    def _confirm(self, plan: Plan) -> None:
        """Spare the next run another look at sources that were touched, where that can be written."""
        from lumen_cli.errors import LumenError

        for root, record in plan.confirmed:
            try:
                plan.manifests[root].add(record)
            except LumenError:
                return

    def _take_in(self, plan: Plan, troubles: Sequence[Trouble]) -> None:
        """What is settled before the work."""
        from lumen_cli.reports.jsonlines import trouble_line
        from lumen_cli.run.existing import EDITED
        from lumen_cli.run.stages import Result

        self.summary.total += len(plan.tasks) + len(troubles)
        self.summary.kept += len(plan.kept)
        self.summary.edited += sum(task.why == EDITED for task in plan.kept)
        self._roots |= set(plan.roots)
        if len(plan.tasks) == 1:
            self._outputs = list(plan.tasks[0].targets)
        for trouble in troubles:
            self.summary.trouble(trouble)
            if self.request.as_json:
                print(trouble_line(trouble), flush=True)
        for task in plan.left:
            self._take(Result(task, "left", task.why))
        for task in plan.kept:
            self._say(Result(task, "kept"))

    def _stream(self, plan: Plan, interruption: Interruption) -> None:
        from lumen_cli.reports.progress import progress_line
        from lumen_cli.run.stream import RunEndedError, run_stream

        with progress_line(self.console, len(plan.todo), interruption.stop) as line:
            self._now = line.now
            self._now(f"reading {plan.todo[0].job.source.path.name}")
            stream = run_stream(
                plan,
                self._loaded,
                self._policy,
                self._work,
                self._tags,
                jobs=self.request.jobs or default_jobs(),
                stop=interruption.stop,
                preserve_times=self.request.preserve_times,
                max_pixels=self.request.max_pixels,
                timeout=self.request.timeout or None,
                working=lambda task: line.now(f"{self._work.doing} {task.job.source.path.name}"),
            )
            try:
                with closing(stream) as results:
                    for result in results:
                        self._take(result)
                        line.advance(result)
            except RunEndedError as error:
                self._ended = str(error)

    def _take(self, result: Result) -> None:
        if result.status == "done":
            self.pictures.deliver(result.task.job.target)
        self.summary.add(result)
        self._say(result)

    def _say(self, result: Result) -> None:
        from lumen_cli.reports.jsonlines import picture_line

        if self.request.as_json:
            print(picture_line(result), flush=True)

    def _where(self) -> str:
        """The one picture's outputs, or the folder or folders they are in."""
        from lumen_cli.text import printable, short_folder, short_path

        if self.request.to_stdout:
            return "standard output"
        if self.summary.total == 1 and self._outputs:
            return ", ".join([short_path(self._outputs[0]), *(printable(path.name) for path in self._outputs[1:])])
        roots = sorted(self._roots)
        return ", ".join(map(short_folder, roots[:3])) + (", …" if len(roots) > 3 else "")


def only(plan: Plan, wanted: Callable[[Source], bool]) -> Plan:
    """The part of a plan that is about some pictures."""
    todo, kept, left = (
        tuple(task for task in tasks if wanted(task.job.source)) for tasks in (plan.todo, plan.kept, plan.left)
    )
    return replace(plan, todo=todo, kept=kept, left=left)
