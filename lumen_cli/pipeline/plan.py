"""What has to be done: sources, targets, settings and manifests → a frozen plan. Touches no file."""

from __future__ import annotations

import enum
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lumen_cli.errors import UsageError
from lumen_cli.imaging.files import Job
from lumen_cli.pipeline.manifest import MANIFEST_NAME, Manifest, Record


@dataclass(frozen=True)
class Settings:
    """Everything but the source that decides about an output's bytes.

    weights: SHA-256; network: its hyper-parameters; steps: None for a network that does not sample; strength: 0 to 1;
    precision, deep_precision: what 8-bit and 16-bit pictures are computed in; format: None keeps each picture's;
    quality: 1 to 100, None for each format's default.
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

    def fingerprint(self) -> str:
        """The settings in 32 hexadecimal digits."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class Existing(enum.Enum):
    """What happens to outputs that are already there."""

    REFUSE = "refuse"
    RESUME = "resume"
    OVERWRITE = "overwrite"


@dataclass(frozen=True)
class Task:
    """One picture to make. root: the folder whose manifest records it; output: its name below that, with "/"."""

    job: Job
    root: Path
    output: str
    why: str

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


def make_plan(jobs: Sequence[Job], fingerprint: str, existing: Existing = Existing.REFUSE) -> Plan:
    """Decide for each job whether it has to be done.

    With RESUME an output stays when the manifest says that it is finished, from the source as it is now, under these
    settings. Outputs that no manifest knows are not lumen's to replace.

    Raises:
        UsageError: outputs exist and nothing was said about them, or resuming would replace files of unknown origin.
    """
    roots = [output_root(job) for job in jobs]
    manifests = {root: Manifest(root) for root in set(roots)}
    todo, kept, unknown, present = [], [], [], []
    for job, root in zip(jobs, roots, strict=True):
        output = job.target.relative_to(root).as_posix()
        if job.target.is_dir():
            raise UsageError(f"cannot write {job.target}: a folder of that name is in the way")
        if not job.target.exists():
            todo.append(Task(job, root, output, "new"))
            continue
        present.append(job.target)
        record = manifests[root].get(output)
        stale = "overwritten" if existing is Existing.OVERWRITE else _stale(record, job, fingerprint)
        if record is None:
            unknown.append(job.target)
        if stale is None:
            kept.append(Task(job, root, output, "finished"))
        else:
            todo.append(Task(job, root, output, stale))
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


def announcement(task: Task) -> Record:
    """The manifest's line for an output that is about to be written."""
    return Record(task.output, task.source_name)


def _stale(record: Record | None, job: Job, fingerprint: str) -> str | None:
    """Why an existing output has to be made again, None when it is finished and current."""
    if record is None:
        return "of unknown origin"
    if not record.finished or job.target.stat().st_size != record.output_size:
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
