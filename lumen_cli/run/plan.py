"""What has to be done: sources, targets, settings and manifests → a frozen plan. Writes no file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lumen_cli.errors import UsageError
from lumen_cli.files.outputs import Job
from lumen_cli.imaging.tags.rules import KEEP_ALL, TagRules
from lumen_cli.limits import METHOD, Detail
from lumen_cli.run.existing import Existing, Fate, judge
from lumen_cli.run.manifest import MANIFEST_NAME, Manifest, Record, signature, state_manifest


@dataclass(frozen=True)
class Settings:
    """Everything but the source that decides about an output's bytes.

    weights: SHA-256; network: its hyper-parameters; steps: None for a network that does not sample; strength: 0 to 1;
    precision, deep_precision: what 8-bit and 16-bit pictures are computed in; format: None keeps each picture's;
    quality: 1 to 100, None for each format's default; brightness: light of the result as a multiple of the picture's
    own, None where the model chooses; illumination_ratio: KinD's α, None where none is given; detail: how large
    pictures reach their size, see `scene`; tags: what becomes of the original's, and lumen's stamp.
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
    illumination_ratio: float | None = None
    tile: int | None = None
    detail: Detail = "auto"
    tags: TagRules = KEEP_ALL

    @property
    def light(self) -> tuple[str, ...]:
        """Brightness or illumination ratio in words, where one was chosen."""
        chosen = {"brightness": self.brightness, "illumination ratio": self.illumination_ratio}
        return tuple(f"{name} {value:g}" for name, value in chosen.items() if value is not None)

    def fingerprint(self) -> str:
        """The settings in 32 hexadecimal digits."""
        fields = without_defaults(asdict(self), self.tags)
        fields["light"] = fields.pop("brightness")  # the first version's `brightness` was the illumination ratio
        for name in ("light", "illumination_ratio", "tile"):
            if fields[name] is None:
                del fields[name]  # what was made before there was this knob is as current as ever
        if self.detail != "whole":
            fields["full_resolution"] = METHOD
        else:
            del fields["detail"]
        return digest_of(fields)


def without_defaults(fields: dict[str, Any], tags: TagRules) -> dict[str, Any]:
    """The fields, those about tags only where something was asked for: older outputs stay as current as they were.

    What `private` keeps is another list than it was, so that such outputs count as made under other settings.
    """
    if tags == KEEP_ALL:
        return {name: value for name, value in fields.items() if name != "tags"}
    if tags.metadata != "private":
        fields["tags"].pop("credits")
    return fields


def digest_of(fields: Mapping[str, Any]) -> str:
    """Values by name, as JSON holds them, in 32 hexadecimal digits."""
    text = json.dumps(fields, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Part:
    """One of the several files that a picture becomes. name: what it holds, "reflectance" for example."""

    name: str
    path: Path


@dataclass(frozen=True)
class Sidecar:
    """A file of tags beside an input, and where its copy goes.

    ours: whatever is there now is lumen's to replace; written: hashes of what lumen wrote there, which is too.
    """

    source: Path
    target: Path
    ours: bool = False
    written: frozenset[str] = frozenset()


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
    """What is to be done. todo: in the order they will be made; kept: they stay as they are; left: what is there is not
    lumen's to replace, `why` says it in a sentence; recorded: whether manifests are written; confirmed: what they are
    to say from now on of sources that were touched, with the manifest's folder; manifests: as they were read, by the
    folder of outputs.
    """

    todo: tuple[Task, ...]
    kept: tuple[Task, ...]
    recorded: bool
    left: tuple[Task, ...] = ()
    confirmed: tuple[tuple[Path, Record], ...] = ()
    manifests: Mapping[Path, Manifest] = field(default_factory=dict)

    @property
    def places(self) -> dict[Path, Path]:
        """The file of each manifest that this plan is about, by the folder of outputs."""
        return {root: self.manifests[root].path for root in self.roots if root in self.manifests}

    @property
    def writes(self) -> bool:
        """Whether carrying it out writes a picture or a line of a manifest."""
        order = self.recorded and any(manifest.unordered for manifest in self.manifests.values())
        return bool(self.todo or self.confirmed or order)

    @property
    def outdated(self) -> bool:
        """Whether another run has written a line since the plan was made."""
        return any(signature(manifest.path) != manifest.seen for manifest in self.manifests.values())

    @property
    def tasks(self) -> tuple[Task, ...]:
        """All of them."""
        return *self.todo, *self.kept, *self.left

    @property
    def roots(self) -> list[Path]:
        """The folders that hold a manifest."""
        return sorted({task.root for task in (*self.todo, *self.kept)})

    @property
    def folders(self) -> list[Path]:
        """Every folder that outputs are written to."""
        return sorted({task.job.target.parent for task in self.todo} | {task.root for task in self.todo})


def make_plan(
    jobs: Sequence[Job],
    fingerprint: str,
    existing: Existing = Existing.REFUSE,
    parts: Sequence[tuple[Part, ...]] | None = None,
    looked: Callable[[], None] = lambda: None,
    *,
    in_state: bool = False,
    stamp: str | None = None,
) -> Plan:
    """Decide for each job whether it has to be done; see `judge`.

    Args:
        jobs: from `plan_outputs`.
        fingerprint: of the settings.
        existing: what happens to outputs that are there. With REFUSE nothing may be.
        parts: for each job the files its picture becomes, where it becomes several; all in one folder. A picture
            is finished when all of them are.
        looked: called after each job; where pictures were touched, looking takes its time.
        in_state: whether pictures named directly, whose outputs lie among photographs, get a manifest in the user's
            state folder; else a picture named alone gets none.
        stamp: what the outputs will carry, to know outputs whose manifest is gone.

    Raises:
        UsageError: outputs exist, and existing is REFUSE.
    """
    roots = [output_root(job) for job in jobs]
    # Pictures named directly get no manifest beside them, unless one is there and has to stay true.
    named = {root for root in set(roots) if _lies_among_photographs(root, jobs, roots)}
    manifests = {
        root: Manifest(root, state_manifest(root) if root in named and in_state else None) for root in set(roots)
    }
    sorted_out: dict[Fate, list[Task]] = {fate: [] for fate in Fate}
    confirmed: list[tuple[Path, Record]] = []
    for job, root, files in zip(jobs, roots, parts or [()] * len(jobs), strict=True):
        task = Task(job, root, job.target.relative_to(root).as_posix(), "new", files)
        verdict = judge(task, manifests[root], fingerprint, existing, stamp)
        sorted_out[verdict.fate].append(replace(task, why=verdict.why))
        confirmed += [(root, record) for record in verdict.confirmed]
        looked()
    todo, kept, left = (tuple(sorted_out[fate]) for fate in (Fate.MAKE, Fate.KEEP, Fate.LEAVE))
    if existing is Existing.REFUSE:
        present = [target for task in (*todo, *kept, *left) for target in task.targets if os.path.lexists(target)]
        if present:
            raise UsageError(_refusal(present, len(jobs)))
    recorded = in_state or len(jobs) != 1 or not named
    return Plan(todo, kept, recorded, left, tuple(confirmed), manifests)


def _lies_among_photographs(root: Path, jobs: Sequence[Job], roots: Sequence[Path]) -> bool:
    """Whether outputs in `root` are those of pictures named directly, beside them or of one alone."""
    own = [job for job, place in zip(jobs, roots, strict=True) if place == root]
    if os.path.lexists(root / MANIFEST_NAME) or any(job.source.root is not None for job in own):
        return False
    return len(jobs) == 1 or all(job.target.parent == job.source.path.parent for job in own)


def output_root(job: Job) -> Path:
    """The folder of the output that mirrors the source's root: target without the source's relative folders."""
    folders = job.source.relative.parent.parts
    parent = job.target.parent
    return parent.parents[len(folders) - 1] if folders and parent.parts[-len(folders) :] == folders else parent


def _refusal(present: Sequence[Path], total: int) -> str:
    if total == 1:
        return f"{present[0]} already exists; --overwrite replaces it"
    folder = os.path.commonpath([path.parent for path in present])
    return f"{len(present)} of {total} outputs already exist in {folder}; --overwrite replaces them"
