"""Sidecar files: the XMP that a catalogue program keeps beside a picture is copied to the name of its output."""

from __future__ import annotations

import functools
import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from lumen_cli.files.collisions import fold_case
from lumen_cli.files.contents import exists, hash_bytes, known_state, local_file
from lumen_cli.files.places import ObjectPath, StoreError
from lumen_cli.imaging.picture import Picture
from lumen_cli.imaging.tags.xmp import update_xmp
from lumen_cli.run import Action, Sidecar, Task
from lumen_cli.run.existing import OVERWRITTEN
from lumen_cli.run.manifest import Manifest
from lumen_cli.run.plan import Plan

_ENDINGS = (".xmp", ".XMP")
_MOST_BYTES = 64 << 20


def with_sidecars(plan: Plan) -> Plan:
    """The plan with the sidecars of the pictures to make; a picture that becomes several files has none.

    `a.xmp` becomes `b.xmp` beside the output `b.png`, `a.jpg.xmp` becomes `b.png.xmp`. Where two pictures' sidecars
    would get one name (those of `a.jpg` and `a.png` in one folder, even where it is one file), both take the long
    form, and so does one that would replace an input's own (`a.jpg` to `a.png` beside it).
    """
    listed = functools.cache(_has_sidecars)
    with_some = (task for task in plan.tasks if not task.parts and listed(task.job.source.folder))
    found = {task.job.target: _beside(task) for task in with_some}
    if not found:
        return plan
    owners: dict[str, set[Path]] = defaultdict(set)
    for owner, sidecars in found.items():
        for sidecar in sidecars:
            owners[fold_case(sidecar.target)].add(owner)
    inputs = {os.path.realpath(sidecar.source) for sidecars in found.values() for sidecar in sidecars}

    def place(sidecar: Sidecar, target: Path, root: Path) -> Sidecar:
        if len(owners[fold_case(sidecar.target)]) > 1 or os.path.realpath(sidecar.target) in inputs:
            sidecar = replace(sidecar, target=target.with_name(target.name + sidecar.source.suffix))
        if os.path.realpath(sidecar.target) in inputs:  # never replace an input's own, whatever a manifest says
            return replace(sidecar, ours=False)
        return replace(sidecar, written=_written(sidecar.target, plan.manifests[root], root))

    tasks = []
    for task in plan.tasks:
        if task.action is Action.MAKE and found.get(task.job.target):
            followers = (place(sidecar, task.job.target, task.root) for sidecar in found[task.job.target])
            task = replace(task, sidecars=tuple(followers))
        tasks.append(task)
    return replace(plan, tasks=tuple(tasks))


def _written(target: Path, manifest: Manifest, root: Path) -> frozenset[str]:
    """Hashes of what lumen wrote under that name; any other content may hold ratings and edits of the user."""
    if not exists(target):
        return frozenset()
    history = manifest.history(target.relative_to(root).as_posix())
    return frozenset(record.output_hash for record in history if record.output_hash)


def copies(sidecars: Iterable[Sidecar], picture: Picture, keep: bool) -> tuple[list[tuple[Sidecar, bytes]], list[str]]:
    """The sidecars to write with their bytes, and a line for each one that is not copied.

    The bytes change only in orientation and size, which become the upright picture's: otherwise the next program would
    rotate the picture again. Without `keep` (private tags, or none) no sidecar is copied.
    """
    written, warnings = [], []
    for sidecar in sidecars:
        if not keep:
            warnings.append("its sidecar was not copied: it may hold tags that the choice of metadata removes")
            continue
        try:
            if known_state(sidecar.source).size > _MOST_BYTES:
                raise OSError(0, "it is too large")
            content = update_xmp(_read(sidecar.source), picture.width, picture.height, keep_all=True)
            present = _present(sidecar.target)
        except (OSError, StoreError) as error:
            reason = error.reason if isinstance(error, StoreError) else error.strerror or error
            warnings.append(f"its sidecar could not be copied ({reason})")
            continue
        if present is None or sidecar.ours or hash_bytes(present) in sidecar.written:
            written.append((sidecar, content))
        elif present != content:
            warnings.append("its sidecar was not copied: another file of that name exists")
    return written, warnings


def _present(target: Path) -> bytes | None:
    """The file in a sidecar's place, None where there is none; OSError for what cannot be a copy by lumen."""
    if not exists(target):
        return None
    is_file = isinstance(target, ObjectPath) or target.is_file()
    if not is_file or known_state(target).size > _MOST_BYTES:
        raise OSError(0, f"{target} is no regular file, or too large")
    return _read(target)


def _read(path: Path) -> bytes:
    with local_file(path) as local:
        return local.read_bytes()


def _has_sidecars(folder: Path) -> bool:
    """Whether a folder has a file with a sidecar's ending; also where it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return any(entry.name.lower().endswith(_ENDINGS) for entry in entries)
    except OSError:
        return True


def _beside(task: Task) -> list[Sidecar]:
    """The sidecars of one picture; a file system that ignores case shows one file under both endings."""
    source, target, ours = task.job.source.path, task.job.target, task.why == OVERWRITTEN
    found: dict[object, Sidecar] = {}
    for ending in _ENDINGS:
        for path, place in (
            (source.with_name(source.name + ending), target.with_name(target.name + ending)),
            (source.with_name(source.stem + ending), target.with_name(target.stem + ending)),
        ):
            try:
                state = known_state(path)
            except OSError:
                continue
            if isinstance(path, ObjectPath):
                found[path] = Sidecar(path, place, ours)
            elif path.is_file():
                found.setdefault((state.device, state.inode), Sidecar(path, place, ours))
    return list(found.values())
