"""No two results in one file, and no result over an input: checked by names before any work starts.

Most pictures of a run lie in few folders, so folders are looked at once, and single files only where names may meet.
"""

from __future__ import annotations

import functools
import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from lumen_cli.errors import UsageError
from lumen_cli.files import Job, suffix_of
from lumen_cli.files.contents import Listings, fold_text
from lumen_cli.files.places import ObjectPath


def avoid_collisions(jobs: Sequence[Job]) -> list[Job]:
    """Rename where two results would share a file: first by the old ending (`a_jpg.png`), then by number."""
    jobs = list(jobs)
    if not _may_collide(jobs):
        return jobs
    for indices in find_collisions(jobs):
        for i in indices:
            old = suffix_of(jobs[i].source.relative_name)
            if old != suffix_of(jobs[i].name):
                jobs[i] = Job(jobs[i].source, _append(jobs[i].target, f"_{old[1:]}" if old else "_"))
    taken = {fold_case(job.target) for job in jobs}
    for indices in find_collisions(jobs):
        places = {os.fsencode(jobs[i].source.relative) for i in indices}
        if len(places) < len(indices):
            first, second = sorted(os.fsdecode(jobs[i].source.path) for i in indices)[:2]
            raise UsageError(
                f"{first} and {second} would both be written to {jobs[indices[0]].target}; "
                "run them separately, or name the folder that has both",
                remedy="name_template={parent}-{stem}{suffix}",
            )
        for i in sorted(indices, key=lambda i: _claim(jobs[i]))[1:]:
            number = 2
            while fold_case(_append(jobs[i].target, f"_{number}")) in taken:
                number += 1
            jobs[i] = Job(jobs[i].source, _append(jobs[i].target, f"_{number}"))
            taken.add(fold_case(jobs[i].target))
    return jobs


def _may_collide(jobs: Sequence[Job]) -> bool:
    """False where no two results share a file. Holds a number for each, not its name."""
    hashes = set()
    folder, folded = None, ""
    for job in jobs:
        if job.folder is not folder:
            folder, folded = job.folder, fold_case(job.folder)
        hashes.add(hash((folded, fold_text(job.name))))
    return len(hashes) < len(jobs)


def _claim(job: Job) -> tuple[bool, bytes, bytes]:
    """Who gets a name: first the picture that bears it; the rest differ only in case or Unicode spelling."""
    is_renamed = job.source.relative_name != job.name
    return is_renamed, os.fsencode(job.target), os.fsencode(job.source.relative)


def find_collisions(jobs: Sequence[Job]) -> list[list[int]]:
    """The groups of jobs that share a file, by their indices."""
    groups: dict[str, list[int]] = defaultdict(list)
    for i, job in enumerate(jobs):
        groups[fold_case(job.target)].append(i)
    return [group for _, group in sorted(groups.items()) if len(group) > 1]


def protect_inputs(jobs: Sequence[Job]) -> None:
    """Refuse to write into an input folder, over an input file, or a file where a folder is needed.

    Raises:
        UsageError: which output it is.
    """
    folders = set(each_once(job.folder for job in jobs))
    _keep_out_of_inputs(folders, jobs)
    blocked: dict[str, set[str]] = defaultdict(set)
    """Names that have to be folders, by the folder above them."""
    for path in {above for folder in folders for above in (folder, *folder.parents)}:
        blocked[fold_case(path.parent)].add(fold_text(path.name))
    inputs, listings = _Inputs(jobs), Listings()
    folder, needed, near = None, set[str](), False
    for job in jobs:
        if job.folder is not folder:
            folder, near = job.folder, inputs.share(job.folder)
            needed = blocked.get(fold_case(folder), set())
        if near or (not isinstance(folder, ObjectPath) and listings.may_hold(job.folder, job.name)):
            overwritten = inputs.find(job.target, near)
            if overwritten is not None:
                text = f"{job.target}: the result of {job.source.path} would overwrite the input {overwritten}"
                raise UsageError(f"{text}; name another output", remedy="output")
        if needed and fold_text(job.name) in needed:
            text = f"{job.target}: would have to be both a picture and a folder"
            raise UsageError(f"{text}; name another output", remedy="output")


def _keep_out_of_inputs(folders: Iterable[Path], jobs: Sequence[Job]) -> None:
    searched = each_once(job.source.root for job in jobs if job.source.root is not None)
    roots = {Path(os.path.realpath(root)): root for root in searched}
    for folder in folders:
        real = Path(os.path.realpath(folder))
        for place in (real, *real.parents):
            if place in roots:
                where = "is" if place == real else "is inside"
                raise UsageError(
                    f"{folder}: the output folder {where} the input folder {roots[place]}", remedy="output"
                )


class _Inputs:
    """The inputs of a plan, as far as outputs may fall on them."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._jobs = jobs
        self._real_folder = functools.cache(os.path.realpath)
        folders = list(each_once(job.source.folder for job in jobs))
        self._folders = {os.path.realpath(folder) for folder in folders}
        self._identities = {found for folder in folders if (found := _identify(folder))}

    def share(self, folder: Path) -> bool:
        """Whether inputs lie in a folder of outputs, whatever its names."""
        return os.path.realpath(folder) in self._folders or _identify(folder) in self._identities

    def find(self, target: Path, near: bool) -> Path | None:
        """The input that is the file of an output. near: whether inputs lie in its folder."""
        try:
            status = target.lstat()
        except OSError:
            return self._by_name.get(self._real_path(target)) if near else None
        identity = _identify(target)
        if near or stat.S_ISLNK(status.st_mode) or status.st_nlink > 1:
            found = self._by_name.get(self._real_path(target))
            return found if found is not None or identity is None else self._by_identity.get(identity)
        return None if identity is None else self._links.get(identity)

    def _real_path(self, path: Path) -> str:
        """`os.path.realpath` of a file, which need not exist."""
        folder, name = os.path.split(path)
        real = os.path.join(self._real_folder(folder), name)  # noqa: PTH118
        return os.path.realpath(real) if os.path.islink(real) else real  # noqa: PTH114

    @functools.cached_property
    def _by_name(self) -> dict[str, Path]:
        return {self._real_path(job.source.path): job.source.path for job in self._jobs}

    @functools.cached_property
    def _by_identity(self) -> dict[tuple[int, int], Path]:
        return {found: path for path in self._by_name.values() if (found := _identify(path))}

    @functools.cached_property
    def _links(self) -> dict[tuple[int, int], Path]:
        """The inputs that are links, by the files that they lead to."""
        paths = (job.source.path for job in self._jobs)
        return {found: path for path in paths if path.is_symlink() and (found := _identify(path))}


def _identify(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def each_once(folders: Iterable[Path]) -> Iterator[Path]:
    """Folders without repetition, fast where pictures of one folder follow each other."""
    seen: set[Path] = set()
    last = None
    for folder in folders:
        if folder is not last:
            last = folder
            if folder not in seen:
                seen.add(folder)
                yield folder


def _append(target: Path, addition: str) -> Path:
    return target.with_name(f"{target.stem}{addition}{target.suffix}")


def fold_case(path: Path) -> str:
    """The path as a file system compares it that ignores case and Unicode spelling."""
    return fold_text(str(path))
