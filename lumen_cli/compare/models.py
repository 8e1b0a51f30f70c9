"""Versions that models make: the inputs through one model after the other, into files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lumen_cli.compare.matching import Matched, Problem, Version, by_name, distinct_labels, match
from lumen_cli.engine.device import choose_device
from lumen_cli.errors import UsageError
from lumen_cli.files import Job, Source
from lumen_cli.files.find import find_pictures
from lumen_cli.registry.catalog import find_model
from lumen_cli.run.existing import IfExists
from lumen_cli.run.operation import Enhance, Settings
from lumen_cli.run.plan import Plan
from lumen_cli.run.run import Run, RunOptions

INPUT = "input"
SUFFIX = ".png"
"""A lossless format that holds 16 bits."""


@dataclass(frozen=True)
class ModelRun:
    """One model, its run and its plan; nothing has run yet."""

    label: str
    run: Run
    plan: Plan

    @property
    def jobs(self) -> list[Job]:
        """A job for each input."""
        return [task.job for task in self.plan.tasks]


def plan_models(
    names: Sequence[str],
    sources: Sequence[Source],
    folder: Path,
    *,
    device: str = "auto",
    seed: int = 0,
    if_exists: IfExists = IfExists.REFUSE,
    reference: str | None = None,
) -> list[ModelRun]:
    """A run for each model, with its defaults; its pictures go to `folder`/model/, in the inputs' tree.

    `reference` is only searched, so that a wrong name is reported before anything runs.

    Raises:
        ModelError: there is no such model.
        UsageError: a model is named twice, there is no such device, or outputs exist and `if_exists` is REFUSE.
    """
    if reference is not None:
        find_pictures([reference])
    cards = [find_model(name) for name in names]
    if len({card.folder for card in cards}) < len(cards):
        raise UsageError("a model is named twice; name each one once", remedy="models")
    alike = len({card.name for card in cards}) < len(cards)
    labels = distinct_labels([card.folder for card in cards]) if alike else tuple(card.name for card in cards)
    runs = []
    for card, label in zip(cards, labels, strict=True):
        if label == INPUT:
            raise UsageError(f"a model cannot be called {INPUT} here: the first column has this name")
        policy = choose_device(
            device, card.defaults.precision, precisions=card.precisions, model=card.name, several=True
        )
        settings = Settings.with_model(card, policy, steps=card.steps_for(None), seed=seed, format=SUFFIX)
        output = f"{folder / label.replace('/', '_')}{os.sep}"
        run = Run(card, policy, Enhance(settings), RunOptions(output, if_exists=if_exists))
        plan = run.plan(sources)
        if plan.left:
            raise UsageError(plan.left[0].why, remedy=plan.left[0].remedy)
        runs.append(ModelRun(label, run, plan))
    return runs


def match_models(runs: Sequence[ModelRun], failed: dict[Path, str], reference: str | None = None) -> Matched:
    """The inputs, the models' pictures and, where it is named, the ground truth as the last version.

    Args:
        runs: finished.
        failed: the reason for each output that could not be made.
        reference: a folder whose names match the inputs', or one picture for one input; None: the input.

    Raises:
        UsageError: nothing is left to compare.
    """
    inputs = _names(runs[0].jobs)
    versions = [Version(INPUT, {name: job.source.path for name, job in inputs.items()})]
    for run in runs:
        versions.append(Version(run.label, {name: job.target for name, job in _names(run.jobs).items()}))
    problems = dict(_failures(runs, failed))
    kept = [
        Version(version.label, {name: path for name, path in version.pictures.items() if name not in problems})
        for version in versions
    ]
    missing = [Problem(name, reason) for name, reason in problems.items()]
    if not kept[0].pictures:
        raise UsageError(f"no model made a picture of any input; the first: {missing[0].name}: {missing[0].reason}")
    if reference is None:
        return replace(match(kept, 0, False), problems=tuple(missing))
    truth = _truth(reference, kept[0], runs)
    matched = match([*kept, truth], len(kept), True)
    unused = {name for name in truth.pictures if name in problems}
    others = tuple(problem for problem in matched.problems if problem.name not in unused)
    return replace(matched, problems=(*missing, *others))


def _truth(reference: str, inputs: Version, runs: Sequence[ModelRun]) -> Version:
    sources = find_pictures([reference])
    labels = (INPUT, *(run.label for run in runs))
    label = Path(reference).resolve().name or reference
    label = f"{label} (reference)" if label in labels else label
    if not Path(reference).is_dir():
        if len(sources) != 1 or len(inputs.pictures) != 1:
            raise UsageError(
                "there is one reference picture for several inputs; name a folder with the same names",
                remedy="reference",
            )
        return Version(label, {next(iter(inputs.pictures)): sources[0].path})
    stand_ins = [Source(path, None, Path(f"{name}{SUFFIX}")) for name, path in inputs.pictures.items()]
    return by_name((INPUT, label), (stand_ins, sources))[1]


def _names(jobs: Sequence[Job]) -> dict[str, Job]:
    """Jobs by the output's name below the folder that is common to all of them, without ending."""
    folders = [len(job.source.relative.parts) for job in jobs]
    roots = {job.target.parents[depth - 1] for job, depth in zip(jobs, folders, strict=True)}
    root = Path(os.path.commonpath(sorted(roots)))
    return {job.target.relative_to(root).with_suffix("").as_posix(): job for job in jobs}


def _failures(runs: Sequence[ModelRun], failed: dict[Path, str]) -> Iterator[tuple[str, str]]:
    for run in reversed(runs):  # the first model's reason is the one that stays
        for name, job in _names(run.jobs).items():
            if job.target in failed:
                yield name, f"{failed[job.target]} ({run.label}); left out"
