"""The last moment before outputs get their names: the source is still what was read, and the manifest knows of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from lumen_cli.files.contents import Original
from lumen_cli.run.manifest import Manifest, Record
from lumen_cli.run.plan import Task
from lumen_cli.run.save import Written


def record_of(task: Task, original: Original, content: str, settings: str) -> Record:
    """What the manifest will say of the picture; of one that becomes several files, of the first of them.

    Args:
        task: the picture.
        original: its source as it was read.
        content: hash of the decoded source.
        settings: their fingerprint.
    """
    state = original.state
    return Record(
        output=task.output,
        source=task.source_name,
        source_size=state.size,
        source_mtime_ns=state.mtime_ns,
        source_ctime_ns=state.ctime_ns,
        source_hash=original.content,
        content=content,
        settings=settings,
    )


@contextmanager
def recorded(
    task: Task, record: Record, original: Original, manifest: Manifest | None, files: Sequence[Written]
) -> Iterator[None]:
    """Inside, `files` (the picture's and its sidecars') get their final names.

    Raises:
        PictureError: the source has changed or vanished since it was read.
        LumenError: the manifest cannot be written.
    """
    original.require_unchanged()
    if manifest is None:
        yield
        return
    names = dict(zip(task.targets, task.outputs, strict=True))
    followed = {sidecar.target: sidecar.source.name for sidecar in task.sidecars}
    records = []
    for file in files:
        if file.target in names:
            line = dataclasses.replace(record, output=names[file.target])
        else:
            line = Record(file.target.relative_to(task.root).as_posix(), followed[file.target])
        records.append(dataclasses.replace(line, output_size=file.size, output_hash=file.content))
    with manifest.writing(*records):
        yield
