"""The plan of a run: for each picture its files, the folder whose manifest records it, and what is done with it.

Planning writes no file.
"""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import compress, repeat
from pathlib import Path
from typing import TYPE_CHECKING

from lumen_cli.errors import LumenError, UsageError
from lumen_cli.files import Job, Source, stem_of
from lumen_cli.files.collisions import each_once
from lumen_cli.files.contents import Listings, exists
from lumen_cli.files.find import Found
from lumen_cli.files.places import ObjectPath, StoreError
from lumen_cli.run import Action, Part, Task
from lumen_cli.run.existing import NEW, IfExists, OwnOutputs, Rules, decide, leads_out
from lumen_cli.run.manifest import (
    MANIFEST_NAME,
    PARTS,
    Manifest,
    Record,
    open_manifest,
    part_manifest,
    signature,
    state_manifest,
)

if TYPE_CHECKING:
    from lumen_cli.run.run import Run
    from lumen_cli.run.shards import Shard


_SINGLE_REQUESTS = 16
"""Outputs in a store up to which each is asked for alone; for more, their folder is listed."""


FIRST_PIECE, PIECE = 1_000, 20_000
"""Pictures in the first piece, and in all others, of those that `plan_pieces` plans; it plans more than `PIECE`."""


@dataclass(frozen=True)
class Plan:
    """What is done with each picture.

    tasks: all pictures, in the order in which they are made; rules: what decided about them; recorded: whether
    manifests are written; confirmed: lines that manifests get because a source was touched but not changed, with the
    manifest's folder; manifests: as they were read, by the folder of outputs.
    """

    tasks: tuple[Task, ...]
    rules: Rules
    recorded: bool
    confirmed: tuple[tuple[Path, Record], ...]
    manifests: Mapping[Path, Manifest]

    @cached_property
    def todo(self) -> tuple[Task, ...]:
        """The pictures to make."""
        return self._with(Action.MAKE)

    @cached_property
    def kept(self) -> tuple[Task, ...]:
        """The pictures whose outputs stay as they are."""
        return self._with(Action.KEEP)

    @cached_property
    def left(self) -> tuple[Task, ...]:
        """The pictures whose outputs lumen must not replace; `why` says the reason in a sentence."""
        return self._with(Action.LEAVE)

    def _with(self, action: Action) -> tuple[Task, ...]:
        return tuple(task for task in self.tasks if task.action is action)

    @property
    def places(self) -> dict[Path, Path]:
        """The file of each manifest that this plan concerns, by the folder of outputs."""
        return {root: self.manifests[root].path for root in self.roots}

    @property
    def writes(self) -> bool:
        """Whether the run writes a picture or a line of a manifest."""
        order = self.recorded and any(manifest.unordered for manifest in self.manifests.values())
        return bool(self.todo or self.confirmed or order)

    @property
    def outdated(self) -> bool:
        """Whether another run has written a line since the plan was made."""
        return any(signature(manifest.path) != manifest.seen for manifest in self.manifests.values())

    @property
    def roots(self) -> list[Path]:
        """The folders that hold a manifest."""
        return sorted({task.root for task in (*self.todo, *self.kept)})

    @property
    def folders(self) -> list[Path]:
        """Every folder that outputs are written to."""
        return sorted(set(each_once(task.job.folder for task in self.todo)) | {task.root for task in self.todo})

    def failed_before(self) -> Plan:
        """The part of the plan whose last attempt failed."""
        kept = (task for task in self.tasks if self.manifests[task.root].failure(task.output) is not None)
        return replace(self, tasks=tuple(kept))

    def only(self, wanted: Callable[[Source], bool]) -> Plan:
        """The part of the plan that concerns some pictures."""
        return replace(self, tasks=tuple(task for task in self.tasks if wanted(task.job.source)))

    def recordable(self, warn: Callable[[str], None]) -> Plan:
        """The plan, without manifests where the user's state folder cannot be written to."""
        for root, place in self.places.items():
            if place.parent == root:
                continue
            try:
                self.manifests[root].begin()
            except LumenError as error:
                warn(f"{error}; later runs know these outputs by their stamp alone")
                return replace(self, recorded=False)
        return self

    def confirm(self) -> None:
        """Record sources that were touched but not changed, so that the next run need not compare them again."""
        for root, record in self.confirmed:
            try:
                self.manifests[root].add(record)
            except LumenError:
                return

    def again(self) -> Plan:
        """The same pictures under the same names, decided by what exists now."""
        manifests = {root: known.reread() for root, known in self.manifests.items()}
        return _decide_all(self.tasks, self.rules, manifests, self.recorded)


def make_plan(
    jobs: Sequence[Job],
    fingerprint: str,
    if_exists: IfExists = IfExists.REFUSE,
    parts: Sequence[tuple[Part, ...]] | None = None,
    looked: Callable[[], None] = lambda: None,
    *,
    in_state: bool = False,
    stamp: str | None = None,
    shard: Shard | None = None,
) -> Plan:
    """Decide about each picture; see `decide`.

    Args:
        jobs: from `plan_outputs`.
        fingerprint: of the settings.
        if_exists: what happens to outputs that exist. With REFUSE none may exist.
        parts: for each job the files its picture becomes, where it becomes several, all in one folder. A picture is
            finished when all of them are.
        looked: called after each job: where pictures were touched, looking takes time.
        in_state: whether pictures named directly, whose outputs lie among photographs, get a manifest in the user's
            state folder; otherwise a picture named alone gets none.
        stamp: what the outputs will carry. It identifies outputs whose manifest is gone.
        shard: the part that `jobs` are; it writes a manifest of its own, so that parts run side by side.

    Raises:
        UsageError: outputs exist, and `if_exists` is REFUSE.
    """
    places = _places(jobs)
    roots = Counter(root for root, _ in places)
    # Pictures named directly get no manifest beside them, unless one exists there and has to stay true.
    named = _among_photographs(jobs, [root for root, _ in places])

    def place_of(root: Path) -> Path | None:
        if isinstance(root, ObjectPath):
            return None  # runs share it there
        if shard is not None:
            return part_manifest(root, shard.manifest_name)
        return state_manifest(root) if root in named and in_state else None

    manifests = {root: open_manifest(root, place_of(root)) for root in roots}
    for root, number in roots.items():
        if isinstance(root, ObjectPath):
            root.store.forget(root)
            if number > _SINGLE_REQUESTS:
                root.store.list(root)
    tasks = [
        Task(job, root, prefix + job.name, parts=files)
        for job, (root, prefix), files in zip(jobs, places, parts or repeat(()), strict=bool(parts))
    ]
    recorded = in_state or len(jobs) != 1 or not named or shard is not None
    return _decide_all(tasks, Rules(fingerprint, if_exists, stamp), manifests, recorded, looked)


def wants_pieces(sources: Sequence[Source]) -> bool:
    """Whether pictures are so many that `plan_pieces` plans them. They lie in one folder: then names do not depend on
    which of them lumen wrote.
    """
    if len(sources) <= PIECE:
        return False
    first = sources[0].root
    return first is not None and all(source.root is first or source.root == first for source in sources)


def plan_pieces(run: Run, sources: Sequence[Source], own: OwnOutputs) -> Iterator[tuple[Plan, tuple[Path, ...]]]:
    """Very many pictures in pieces, so that work begins after seconds: a plan, and lumen's outputs that it leaves out.

    All pictures get names first, because names depend on each other. What takes time and memory, looking at files and
    at earlier outputs, happens for one piece when the one before is made: then ask for the next plan.

    Args:
        run: names and decides.
        sources: in order, with lumen's outputs.
        own: tells which are lumen's outputs.

    Raises:
        UsageError: as `Run.plan`.
    """
    try:
        jobs, parts = run.name(sources)
        if any(stem_of(job.name) != stem_of(job.source.relative_name) for job in jobs):
            # Where names are changed, perhaps because two met, lumen's outputs must not take part.
            found, ours = own.without(Found(tuple(sources)))
            yield run.decide(*run.name(found.sources)), ours
            return
        start, size = 0, FIRST_PIECE
        while start < len(jobs):
            end = start + size
            while end < len(jobs) and stem_of(jobs[end].name) == stem_of(jobs[end - 1].name):
                end += 1  # their sidecars may meet
            piece = jobs[start:end]
            wanted = [not own.wrote(job.source) for job in piece]
            ours = tuple(job.source.path for job, taken in zip(piece, wanted, strict=True) if not taken)
            files = None if parts is None else list(compress(parts[start:end], wanted))
            yield run.decide(list(compress(piece, wanted)), files), ours
            start, size = end, PIECE
    except StoreError as error:
        raise UsageError(str(error)) from error


def _decide_all(
    tasks: Sequence[Task],
    rules: Rules,
    manifests: Mapping[Path, Manifest],
    recorded: bool,
    looked: Callable[[], None] = lambda: None,
) -> Plan:
    escapes, listings = functools.cache(leads_out), Listings()
    decided: list[Task] = []
    confirmed: list[tuple[Path, Record]] = []
    for task in tasks:
        decision = decide(task, manifests[task.root], rules, escapes, listings)
        if decision is not NEW or task.action is not NEW.action or task.why != NEW.why:
            task = replace(task, action=decision.action, why=decision.why, remedy=decision.remedy)
        decided.append(task)
        confirmed += [(task.root, record) for record in decision.confirmed]
        looked()
    if rules.if_exists is IfExists.REFUSE:
        asked = (task for task in decided if task.parts or listings.may_hold(task.job.folder, task.job.name))
        present = [target for task in asked for target in task.targets if exists(target)]
        if present:
            raise UsageError(_refusal(present, len(decided)), remedy="overwrite")
    return Plan(tuple(decided), rules, recorded, tuple(confirmed), manifests)


def _places(jobs: Sequence[Job]) -> list[tuple[Path, str]]:
    """For each job the folder whose manifest records it, and what its name below that begins with."""
    places: list[tuple[Path, str]] = []
    known: dict[Path, Path] = {}
    last: Job | None = None
    for job in jobs:
        if last is not None and job.folder is last.folder and job.source.below is last.source.below:
            places.append(places[-1])
        else:
            root = output_root(job)
            prefix = job.folder.relative_to(root).as_posix()
            places.append((known.setdefault(root, root), "" if prefix == "." else f"{prefix}/"))
        last = job
    return places


def _among_photographs(jobs: Sequence[Job], roots: Sequence[Path]) -> set[Path]:
    """The folders whose outputs are those of pictures named directly, beside them or of one alone; never in a store."""
    pairs = list(zip(jobs, roots, strict=True))
    others = {root for job, root in pairs if job.source.root is not None or isinstance(root, ObjectPath)}
    if len(jobs) != 1:
        others |= {root for job, root in pairs if root not in others and job.folder != job.source.folder}
    candidates = set(roots) - others
    return {root for root in candidates if not any(os.path.lexists(root / name) for name in (MANIFEST_NAME, PARTS))}


def output_root(job: Job) -> Path:
    """The folder of the output that mirrors the source's root: target without the source's relative folders."""
    folders, parent = job.source.below.parts, job.folder
    return parent.parents[len(folders) - 1] if folders and parent.parts[-len(folders) :] == folders else parent


def _refusal(present: Sequence[Path], total: int) -> str:
    if total == 1:
        return f"{present[0]} already exists"
    return f"{len(present)} of {total} outputs already exist in {os.path.commonpath([path.parent for path in present])}"
