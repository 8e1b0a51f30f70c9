"""Results as one JSON object per line."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lumen_cli.text import with_options

if TYPE_CHECKING:
    from lumen_cli.files.find import Trouble
    from lumen_cli.registry.card import ModelCard
    from lumen_cli.run.task import Result, Task


def picture_line(result: Result) -> str:
    """The result of one picture: status "done", "kept", "left" or "failed"; the other fields are always present.

    input: "-" for standard input; why: the reason to process it or not ("new", "source changed", "finished"); reason:
    why it failed or was left; width, height: pixels; seen: width and height that the network saw, smaller where the
    result was carried to full size; bytes: of the output; seconds: by stage; null where there is none. A decomposed
    picture has `outputs`, paths by content, instead of `output`, and `reconstruction`: null, or mae and psnr (null
    where there is no error) of R ∘ L. One whose sidecar files were copied has `sidecars`, the paths of the copies.
    """
    fidelity = result.fidelity
    sidecars = {"sidecars": [str(path) for path in result.sidecars]} if result.sidecars else {}
    decomposed = {"reconstruction": None if fidelity is None else asdict(fidelity)} if result.task.parts else {}
    return _line(
        status=result.status,
        input=_input(result.task),
        **_outputs(result.task),
        why=result.task.why,
        reason=with_options(result.reason, result.remedy) if result.reason else None,
        width=result.width,
        height=result.height,
        seen=list(result.seen) if result.seen else None,
        bytes=result.size,
        seconds={stage: round(seconds, 6) for stage, seconds in asdict(result.timings).items()},
        warnings=list(result.warnings),
        notices=list(result.notices),
        **decomposed,
        **sidecars,
    )


def trouble_line(trouble: Trouble) -> str:
    """An input that cannot be processed, with the fields of `picture_line`: status "failed" and the reason."""
    return _line(
        status="failed",
        input=str(trouble.path),
        output=None,
        why=None,
        reason=trouble.reason,
        width=None,
        height=None,
        seen=None,
        bytes=None,
        seconds=dict.fromkeys(("read", "run", "write", "tags"), 0.0),
        warnings=[],
        notices=[],
    )


def planned_line(task: Task, status: str) -> str:
    """The plan for one picture: status "planned", "kept" or "left", and why."""
    return _line(status=status, input=_input(task), **_outputs(task), why=with_options(task.why, task.remedy))


def model_line(card: ModelCard) -> str:
    """The fields of a model's config.json, its folder, and `to_pull`: whether weights are missing.

    `weights_sha256` stands for all weights, as in manifests.
    """
    return _line(**card.model_dump(), folder=str(card.folder), weights_sha256=card.weights_sha256, to_pull=card.to_pull)


def _input(task: Task) -> str:
    return task.job.source.label or str(task.job.source.path)


def _outputs(task: Task) -> dict[str, Any]:
    if not task.parts:
        return {"output": str(task.job.target)}
    return {"outputs": {part.name: str(part.path) for part in task.parts}}


def _line(**fields: Any) -> str:
    return json.dumps(fields)
