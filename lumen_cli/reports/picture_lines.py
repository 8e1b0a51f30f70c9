"""The results of a run's pictures, and the plan for them, as JSON lines."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

from lumen_cli.reports.jsonlines import ClipFigures, PictureLine, Reconstruction, RunFacts, Seconds
from lumen_cli.text import with_options

if TYPE_CHECKING:
    from lumen_cli.files.find import Trouble
    from lumen_cli.run import Result, Task
    from lumen_cli.run.run import Run

_DIGITS = 12
"""Of the weights' SHA-256, as in stamps."""


def run_facts(run: Run) -> RunFacts:
    """What the pictures of a run share."""
    settings = run.operation.settings
    chosen = asdict(settings)
    for name in ("architecture", "network", "weights", "precision", "deep_precision", "tags"):
        del chosen[name]
    return RunFacts(
        model=run.card.name if run.card else "",
        weights=settings.weights[:_DIGITS],
        seed=chosen.pop("seed", None),
        device=run.policy.label,
        settings=chosen | {"metadata": settings.tags.metadata, "stamp": settings.tags.stamp is not None},
    )


def picture_line(result: Result, facts: RunFacts) -> str:
    """The result of one picture."""
    fidelity = result.fidelity
    return PictureLine(
        status=result.status,  # type: ignore[arg-type]
        **_paths(result.task),
        why=result.task.why,
        reason=with_options(result.reason, result.remedy) if result.reason else None,
        width=result.width,
        height=result.height,
        seen=list(result.seen) if result.seen else None,
        bytes=result.size,
        seconds=Seconds(**{stage: round(value, 6) for stage, value in asdict(result.timings).items()}),
        warnings=list(result.warnings),
        notices=list(result.notices),
        reconstruction=None if fidelity is None else Reconstruction(**asdict(fidelity)),
        sidecars=[str(path) for path in result.sidecars],
        precision=result.precision,
        clip=None if result.clip is None else ClipFigures(**asdict(result.clip)),
        **vars(facts),
    ).line()


def trouble_line(trouble: Trouble, facts: RunFacts) -> str:
    """An input that cannot be processed."""
    return PictureLine(status="failed", input=str(trouble.path), reason=trouble.reason, **vars(facts)).line()


def planned_line(task: Task, status: Literal["planned", "kept", "left"], facts: RunFacts) -> str:
    """The plan for one picture."""
    return PictureLine(status=status, **_paths(task), why=with_options(task.why, task.remedy), **vars(facts)).line()


def _paths(task: Task) -> dict[str, Any]:
    source = task.job.source.label or str(task.job.source.path)
    if not task.parts:
        return {"input": source, "output": str(task.job.target)}
    return {"input": source, "outputs": {part.name: str(part.path) for part in task.parts}}
