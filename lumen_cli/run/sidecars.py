"""Sidecar files: the XMP that a catalogue program keeps beside a picture is copied to the name of its output."""

from __future__ import annotations

import functools
import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from lumen_cli.files.contents import hash_bytes
from lumen_cli.files.outputs import fold_case
from lumen_cli.imaging.picture import Picture
from lumen_cli.imaging.tags.xmp import update_xmp
from lumen_cli.run.existing import OVERWRITTEN
from lumen_cli.run.manifest import Manifest
from lumen_cli.run.plan import Plan
from lumen_cli.run.task import Action, Sidecar, Task

_ENDINGS = (".xmp", ".XMP")
_MOST_BYTES = 64 << 20


def with_sidecars(plan: Plan) -> Plan:
    """The plan with the sidecars of the pictures to make; a picture that becomes several files has none.

    `a.xmp` becomes `b.xmp` beside the output `b.png`, `a.jpg.xmp` becomes `b.png.xmp`. Where two pictures' sidecars
    would get one name (those of `a.jpg` and `a.png` in one folder, even where it is one file), both take the long
    form, and so does one that would replace an input's own (`a.jpg` to `a.png` beside it).
    """
    listed = functools.cache(_has_sidecars)
    with_some = (task for task in plan.tasks if not task.parts and listed(task.job.source.path.parent))
    found = {task.job.target: _beside(task) for task in with_some}
    if not found:
        return plan
    owners: dict[str, set[Path]] = defaultdict(set)
    for owner, sidecars in found.items():
        for sidecar in sidecars:
            owners[fold_case(sidecar.target)].add(owner)
    inputs = {os.path.realpath(sidecar.source) for sidecars in found.values() for sidecar in sidecars}

    def placed(sidecar: Sidecar, target: Path, root: Path) -> Sidecar:
        if len(owners[fold_case(sidecar.target)]) > 1 or os.path.realpath(sidecar.target) in inputs:
            sidecar = replace(sidecar, target=target.with_name(target.name + sidecar.source.suffix))
        if os.path.realpath(sidecar.target) in inputs:  # never replace an input's own, whatever a manifest says
            return replace(sidecar, ours=False)
        return replace(sidecar, written=_written(sidecar.target, root, manifests))

    manifests: dict[Path, Manifest] = {}
    tasks = []
    for task in plan.tasks:
        if task.action is Action.MAKE and found.get(task.job.target):
            followers = (placed(sidecar, task.job.target, task.root) for sidecar in found[task.job.target])
            task = replace(task, sidecars=tuple(followers))
        tasks.append(task)
    return replace(plan, tasks=tuple(tasks))


def _written(target: Path, root: Path, manifests: dict[Path, Manifest]) -> frozenset[str]:
    """Hashes of what lumen wrote under that name; any other content may hold ratings and edits of the user."""
    if not os.path.lexists(target):
        return frozenset()
    if root not in manifests:
        manifests[root] = Manifest(root)
    history = manifests[root].history(target.relative_to(root).as_posix())
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
            if sidecar.source.stat().st_size > _MOST_BYTES:
                raise OSError(0, "it is too large")
            content = update_xmp(sidecar.source.read_bytes(), picture.width, picture.height, keep_all=True)
            present = _present(sidecar.target)
        except OSError as error:
            warnings.append(f"its sidecar could not be copied ({error.strerror or error})")
            continue
        if present is None or sidecar.ours or hash_bytes(present) in sidecar.written:
            written.append((sidecar, content))
        elif present != content:
            warnings.append("its sidecar was not copied: another file of that name exists")
    return written, warnings


def _present(target: Path) -> bytes | None:
    """The file in a sidecar's place, None where there is none; OSError for what cannot be a copy by lumen."""
    if not os.path.lexists(target):
        return None
    if not target.is_file() or target.stat().st_size > _MOST_BYTES:
        raise OSError(0, f"{target} is no regular file, or too large")
    return target.read_bytes()


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
    found: dict[tuple[int, int], Sidecar] = {}
    for ending in _ENDINGS:
        for path, place in (
            (source.with_name(source.name + ending), target.with_name(target.name + ending)),
            (source.with_name(source.stem + ending), target.with_name(target.stem + ending)),
        ):
            try:
                status = path.stat()
            except OSError:
                continue
            if path.is_file():
                found.setdefault((status.st_dev, status.st_ino), Sidecar(path, place, ours))
    return list(found.values())
