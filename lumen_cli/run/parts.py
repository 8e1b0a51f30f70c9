"""Names for pictures that become several files: `a.jpg` → `a-reflectance.png`, `a-illumination.png`."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from lumen_cli.errors import UsageError
from lumen_cli.files.find import PICTURE_SUFFIXES, Source
from lumen_cli.files.outputs import Job, NameTemplate, folded, plan_outputs, protect_inputs
from lumen_cli.run.plan import Part

ADDITION = "-decomposed"
_STAND_IN = ".lumen-maps"
"""An ending no picture has, while names are sought that do not collide."""


def plan_parts(
    sources: Sequence[Source],
    output: str | None,
    endings: Mapping[str, str],
    addition: str = ADDITION,
    template: NameTemplate | None = None,
) -> tuple[list[Job], list[tuple[Part, ...]]]:
    """Name the files of every picture; nothing is written.

    Args:
        sources: what `find_pictures` found.
        output: a folder. None: `photos` becomes `photos-decomposed` beside it, the files of `a.jpg` lie beside it.
        endings: what stands behind the picture's name in each file's name, by what the file holds.
        addition: what the default folder's name ends with.
        template: what the files are called; None: the picture's name and the ending. Has to use {part} where there are
            several.

    Returns:
        One job a source, in the order of `sources`, whose target is the first of its parts, and the parts of each.

    Raises:
        UsageError: as in `plan_outputs`, or `output` names a file.
    """
    if template is not None and len(endings) > 1 and not template.uses("part"):
        raise UsageError(
            f"--name-template {template.text}: a picture becomes several files; tell them apart with {{part}}"
        )
    bases = _bases(sources, output, addition)
    planned = []
    for source, base in zip(sources, bases, strict=True):
        parts = (Part(name, base.with_name(_name(source, base, ending, template))) for name, ending in endings.items())
        planned.append(tuple(parts))
    jobs = [Job(source, parts[0].path) for source, parts in zip(sources, planned, strict=True)]
    every = [Job(job.source, part.path) for job, parts in zip(jobs, planned, strict=True) for part in parts]
    _refuse_collisions(every)
    protect_inputs(every)
    return jobs, planned


def _name(source: Source, base: Path, ending: str, template: NameTemplate | None) -> str:
    if template is None:
        return f"{base.stem}{ending}"
    part, dot, suffix = ending.removeprefix("-").partition(".")
    return template.name(stem=base.stem, suffix=dot + suffix, parent=source.path.parent.name, part=part)


def _bases(sources: Sequence[Source], output: str | None, addition: str) -> list[Path]:
    """For each source a path whose name, without its ending, the parts' names begin with."""
    groups: dict[str, list[Source]] = defaultdict(list)
    for source in sources:
        groups[_folder(source, addition) if output is None else _as_folder(output)].append(source)
    bases = {}
    for folder, group in groups.items():
        bases.update({job.source.path: job.target for job in plan_outputs(group, folder, _STAND_IN)})
    return [bases[source.path] for source in sources]


def _folder(source: Source, addition: str) -> str:
    if source.root is None:
        return f"{source.path.parent}{os.sep}"
    if not source.root.name:
        raise UsageError(f"{source.root}: name an output folder with -o, there is no place beside this one")
    return f"{source.root.with_name(source.root.name + addition)}{os.sep}"


def _as_folder(output: str) -> str:
    if output == "":
        raise UsageError("the output's name is empty")
    if output.endswith(tuple(filter(None, (os.sep, os.altsep)))) or Path(output).is_dir():
        return output
    if Path(output).suffix.lower() in PICTURE_SUFFIXES | {".npy", ".npz"}:
        raise UsageError(f"{output}: a picture becomes several files; name a folder (for one of this name, {output}/)")
    return f"{output}{os.sep}"


def _refuse_collisions(jobs: Sequence[Job]) -> None:
    """Folders that were planned each by itself may still meet, and so may names after a template."""
    owners: dict[str, Job] = {}
    for job in jobs:
        other = owners.setdefault(folded(job.target), job)
        if other is not job:
            raise UsageError(
                f"{other.source.path} and {job.source.path} would both be written to {job.target}; run them "
                "separately, or tell them apart with --name-template"
            )
