"""What has to be done: sources, targets, settings and manifests → a frozen plan. Touches no file."""

from __future__ import annotations

import enum
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lumen_cli.errors import UsageError
from lumen_cli.imaging.files import Job
from lumen_cli.imaging.tag_rules import KEEP_ALL, TagRules
from lumen_cli.pipeline.manifest import MANIFEST_NAME, Manifest, Record


@dataclass(frozen=True)
class Settings:
    """Everything but the source that decides about an output's bytes.

    weights: SHA-256; network: its hyper-parameters; steps: None for a network that does not sample; strength: 0 to 1;
    precision, deep_precision: what 8-bit and 16-bit pictures are computed in; format: None keeps each picture's;
    quality: 1 to 100, None for each format's default; brightness: ratio of target to source illumination, None where
    the model chooses it or has no such knob; tags: what becomes of the original's, and lumen's stamp.
    """

    architecture: str
    network: Mapping[str, Any]
    weights: str
    steps: int | None = None
    seed: int = 0
    strength: float = 1.0
    precision: str = "fp32"
    deep_precision: str = "fp32"
    format: str | None = None
    quality: int | None = None
    brightness: float | None = None
    tags: TagRules = KEEP_ALL

    def fingerprint(self) -> str:
        """The settings in 32 hexadecimal digits."""
        fields = without_defaults(asdict(self), self.tags)
        if self.brightness is None:
            del fields["brightness"]  # what was made before there was this knob is as current as ever
        return digest_of(fields)


def without_defaults(fields: dict[str, Any], tags: TagRules) -> dict[str, Any]:
    """The fields, those about tags only where something was asked for: older outputs stay as current as they were."""
    return {name: value for name, value in fields.items() if name != "tags" or tags != KEEP_ALL}


def digest_of(fields: Mapping[str, Any]) -> str:
    """Values by name, as JSON holds them, in 32 hexadecimal digits."""
    text = json.dumps(fields, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class Existing(enum.Enum):
    """What happens to outputs that are already there."""

    REFUSE = "refuse"
    RESUME = "resume"
    OVERWRITE = "overwrite"


@dataclass(frozen=True)
class Part:
    """One of the several files that a picture becomes. name: what it holds, "reflectance" for example."""

    name: str
    path: Path


@dataclass(frozen=True)
class Sidecar:
    """A file of tags beside an input, and where its copy goes. ours: a file that is there now is lumen's to replace."""

    source: Path
    target: Path
    ours: bool = False


@dataclass(frozen=True)
class Task:
    """One picture to make. root: the folder whose manifest records it; output: its name below that, with "/".

    parts: the files of a picture that becomes several, the first of them `job.target`; empty where that is all;
    sidecars: what follows it.
    """

    job: Job
    root: Path
    output: str
    why: str
    parts: tuple[Part, ...] = ()
    sidecars: tuple[Sidecar, ...] = ()

    @property
    def targets(self) -> tuple[Path, ...]:
        """Every file the picture becomes."""
        return tuple(part.path for part in self.parts) or (self.job.target,)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of `targets` below `root`, with "/"."""
        return tuple(target.relative_to(self.root).as_posix() for target in self.targets)

    @property
    def source_name(self) -> str:
        """The source relative to where it was found, with "/"."""
        return self.job.source.relative.as_posix()


@dataclass(frozen=True)
class Plan:
    """todo: in the order they will be made; kept: finished and current; recorded: whether manifests are written."""

    todo: tuple[Task, ...]
    kept: tuple[Task, ...]
    recorded: bool

    @property
    def roots(self) -> list[Path]:
        """The folders that hold a manifest."""
        return sorted({task.root for task in (*self.todo, *self.kept)})

    @property
    def folders(self) -> list[Path]:
        """Every folder that outputs go to."""
        return sorted({task.job.target.parent for task in (*self.todo, *self.kept)} | set(self.roots))


def make_plan(
    jobs: Sequence[Job],
    fingerprint: str,
    existing: Existing = Existing.REFUSE,
    parts: Sequence[tuple[Part, ...]] | None = None,
) -> Plan:
    """Decide for each job whether it has to be done.

    With RESUME an output stays when the manifest says that it is finished, from the source as it is now, under these
    settings. Outputs that no manifest knows are not lumen's to replace.

    Args:
        jobs: from `plan_outputs`.
        fingerprint: of the settings.
        existing: what happens to outputs that are there.
        parts: for each job the files its picture becomes, where it becomes several; all in one folder. A picture
            is finished when all of them are.

    Raises:
        UsageError: outputs exist and nothing was said about them, or resuming would replace files of unknown origin.
    """
    roots = [output_root(job) for job in jobs]
    manifests = {root: Manifest(root) for root in set(roots)}
    todo, kept, unknown, present = [], [], [], []
    for job, root, files in zip(jobs, roots, parts or [()] * len(jobs), strict=True):
        task = Task(job, root, job.target.relative_to(root).as_posix(), "new", files)
        records = {target: manifests[root].get(name) for target, name in zip(task.targets, task.outputs, strict=True)}
        for target in task.targets:
            if target.is_dir():
                raise UsageError(f"cannot write {target}: a folder of that name is in the way")
        there = [target for target in task.targets if target.exists()]
        if not there:
            todo.append(task)
            continue
        present.append(there[0])
        unknown += [target for target in there if records[target] is None]
        if existing is Existing.OVERWRITE:
            stale = "overwritten"
        elif len(there) < len(records):
            stale = "unfinished"
        else:
            stale = next(filter(None, (_stale(records[target], job, target, fingerprint) for target in there)), "")
        if stale:
            todo.append(replace(task, why=stale))
        else:
            kept.append(replace(task, why="finished"))
    if present and existing is Existing.REFUSE:
        raise UsageError(_refusal(present, len(jobs)))
    if unknown and existing is Existing.RESUME:
        raise UsageError(
            f"cannot resume: no manifest says that lumen wrote {unknown[0]}{_and_more(len(unknown) - 1)}; "
            "move what is there away, or use --overwrite to replace it"
        )
    # A picture named alone gets no manifest beside it, unless one is there and has to stay true.
    alone = len(jobs) == 1 and jobs[0].source.root is None and not (roots[0] / MANIFEST_NAME).exists()
    return Plan(tuple(todo), tuple(kept), recorded=not alone)


def output_root(job: Job) -> Path:
    """The folder of the output that mirrors the source's root: target without the source's relative folders."""
    folders = job.source.relative.parent.parts
    parent = job.target.parent
    return parent.parents[len(folders) - 1] if folders and parent.parts[-len(folders) :] == folders else parent


def announcements(task: Task) -> list[Record]:
    """The manifest's lines for outputs that are about to be written."""
    return [Record(output, task.source_name) for output in task.outputs]


def _stale(record: Record | None, job: Job, target: Path, fingerprint: str) -> str | None:
    """Why an existing output has to be made again, None when it is finished and current."""
    if record is None:
        return "of unknown origin"
    if not record.finished or target.stat().st_size != record.output_size:
        return "unfinished"
    source = job.source.path.stat()
    if record.source != job.source.relative.as_posix():
        return "made from another picture"
    if (source.st_size, source.st_mtime_ns) != (record.source_size, record.source_mtime_ns):
        return "source changed"
    return None if record.settings == fingerprint else "settings changed"


def _refusal(present: list[Path], total: int) -> str:
    if total == 1:
        return f"{present[0]} already exists; --overwrite writes it anew"
    folder = present[0].parent if len({path.parent for path in present}) == 1 else _common_folder(present)
    return (
        f"{len(present)} of {total} outputs already exist in {folder}; "
        "--resume keeps those that are finished and current, --overwrite writes them anew"
    )


def _common_folder(paths: Sequence[Path]) -> Path:
    """The deepest folder that holds all paths."""
    return Path(os.path.commonpath([path.parent for path in paths]))


def _and_more(number: int) -> str:
    return f" and {number} more" if number else ""
