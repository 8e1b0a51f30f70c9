"""Sidecar files: XMP that a catalogue program keeps beside a picture follows it to its output's name."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from lumen_cli.files.contents import hash_of
from lumen_cli.files.outputs import folded
from lumen_cli.imaging.picture import Picture
from lumen_cli.imaging.tags.xmp import update_xmp
from lumen_cli.run.existing import OVERWRITTEN
from lumen_cli.run.manifest import Manifest
from lumen_cli.run.plan import Plan, Sidecar, Task

_ENDINGS = (".xmp", ".XMP")
_MOST_BYTES = 64 << 20


def with_sidecars(plan: Plan) -> Plan:
    """The plan with the sidecars of the pictures that are to be made.

    `a.xmp` becomes `b.xmp` beside the output `b.png`, `a.jpg.xmp` becomes `b.png.xmp`. Where two pictures' sidecars
    would meet (those of `a.jpg` and `a.png` in one folder, be it one file), both take the long form, and so does one
    that would fall on an input's own (`a.jpg` to `a.png` beside it).
    """
    found = {task.job.target: _beside(task) for task in plan.tasks}
    owners: dict[str, set[Path]] = defaultdict(set)
    for owner, sidecars in found.items():
        for sidecar in sidecars:
            owners[folded(sidecar.target)].add(owner)
    inputs = {os.path.realpath(sidecar.source) for sidecars in found.values() for sidecar in sidecars}

    def placed(sidecar: Sidecar, target: Path, root: Path) -> Sidecar:
        if len(owners[folded(sidecar.target)]) > 1 or os.path.realpath(sidecar.target) in inputs:
            sidecar = replace(sidecar, target=target.with_name(target.name + sidecar.source.suffix))
        if os.path.realpath(sidecar.target) in inputs:  # never over an input's own, whatever a manifest says
            return replace(sidecar, ours=False)
        return replace(sidecar, written=_written(sidecar.target, root, manifests))

    manifests: dict[Path, Manifest] = {}
    todo = []
    for task in plan.todo:
        followers = (placed(sidecar, task.job.target, task.root) for sidecar in found[task.job.target])
        todo.append(replace(task, sidecars=tuple(followers)))
    return replace(plan, todo=tuple(todo))


def _written(target: Path, root: Path, manifests: dict[Path, Manifest]) -> frozenset[str]:
    """Hashes of what lumen wrote under that name, so that nobody else's ratings and edits are lost."""
    if not os.path.lexists(target):
        return frozenset()
    if root not in manifests:
        manifests[root] = Manifest(root)
    history = manifests[root].history(target.relative_to(root).as_posix())
    return frozenset(record.output_hash for record in history if record.output_hash)


def copies(sidecars: Iterable[Sidecar], picture: Picture, keep: bool) -> tuple[list[tuple[Sidecar, bytes]], list[str]]:
    """What is to be written where, and a line for each sidecar that is left out.

    Its bytes stay as they are but for orientation and size, which become the upright picture's: else the next program
    would turn the picture once more. With private tags or none asked for (`keep` false) no sidecar is copied.
    """
    written, warnings = [], []
    for sidecar in sidecars:
        if not keep:
            warnings.append("its sidecar was left out: it may hold what --metadata is to keep out")
            continue
        try:
            if sidecar.source.stat().st_size > _MOST_BYTES:
                raise OSError(0, "it is too large")
            content = update_xmp(sidecar.source.read_bytes(), picture.width, picture.height, keep_all=True)
            present = _present(sidecar.target)
        except OSError as error:
            warnings.append(f"its sidecar could not be copied ({error.strerror or error})")
            continue
        if present is None or sidecar.ours or hash_of(present) in sidecar.written:
            written.append((sidecar, content))
        elif present != content:
            warnings.append("its sidecar was not copied: another file of that name is there, and was left alone")
    return written, warnings


def _present(target: Path) -> bytes | None:
    """What is in a sidecar's place, None for nothing; OSError for what cannot be one of lumen's copies."""
    if not os.path.lexists(target):
        return None
    if not target.is_file() or target.stat().st_size > _MOST_BYTES:
        raise OSError(0, f"{target} is no regular file, or too large")
    return target.read_bytes()


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
