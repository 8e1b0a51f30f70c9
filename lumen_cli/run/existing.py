"""Outputs that are there already: which stay, which are made again and why, which are not lumen's to replace."""

from __future__ import annotations

import enum
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lumen_cli.files.contents import FileState, content_hash, is_write_protected, state_of
from lumen_cli.run.manifest import Manifest, Record
from lumen_cli.run.stamp import stamp_in

if TYPE_CHECKING:
    from lumen_cli.run.plan import Task

OVERWRITTEN = "overwritten"
STAMPED = "finished, as its stamp says"
EDITED = "changed since lumen wrote it"
WAYS_ON = "--overwrite replaces it, --skip-existing keeps it"


class Existing(enum.Enum):
    """What happens to outputs that are already there."""

    REFUSE = "refuse"
    RESUME = "resume"
    OVERWRITE = "overwrite"
    SKIP = "skip"


class Fate(enum.Enum):
    """What becomes of one picture."""

    MAKE = "make"
    KEEP = "keep"
    LEAVE = "leave"
    """An output exists that is not lumen's to replace. It is left untouched and reported."""


@dataclass(frozen=True)
class Verdict:
    """why: in a few words, or, for LEAVE, a sentence; confirmed: the manifest's lines for a source that was touched."""

    fate: Fate
    why: str
    confirmed: tuple[Record, ...] = ()


def judge(task: Task, manifest: Manifest, fingerprint: str, existing: Existing, stamp: str | None = None) -> Verdict:
    """Decide about one picture. Asks the file system for states, and reads files only where those leave a doubt.

    No link below the output folder leads anywhere else, whatever is asked for. A source counts as unchanged where
    size, modification and change time are those of the record, and else where its content is; so copying or touching
    pictures costs one reading of them, and no edit goes unseen that the file system noticed. What is in an output's
    place is replaced only if its content is what the manifest says that lumen wrote there, or if all is to be written
    anew. An output that no manifest knows is kept where it carries `stamp` and is not older than its source.
    """
    if leads_out(task.job.target.parent, task.root):
        return Verdict(Fate.LEAVE, f"{task.job.target.parent} leads out of {task.root} by a link; name another folder")
    there = [path for path in task.targets if os.path.lexists(path)]
    for path in there:
        if path.is_dir():
            return Verdict(Fate.LEAVE, f"a folder is in the way of its output {path}")
        if path.exists() and not path.is_file():
            return Verdict(Fate.LEAVE, f"{path} is a device or a pipe; name another place with -o")
    history = {path: manifest.history(name) for path, name in zip(task.targets, task.outputs, strict=True)}
    if not there:
        return Verdict(Fate.MAKE, "missing" if any(history.values()) else "new")
    if existing is Existing.OVERWRITE:
        return _unless_protected(there, OVERWRITTEN)
    if existing is Existing.SKIP and len(there) == len(task.targets):
        return Verdict(Fate.KEEP, "exists")
    unknown = [path for path in there if not history[path]]
    if unknown:
        if len(there) == len(task.targets) and all(_is_stamped(path, stamp, task.job.source.path) for path in unknown):
            return Verdict(Fate.KEEP, STAMPED)
        return Verdict(Fate.LEAVE, f"{unknown[0]} exists and was not created by lumen as it is; {WAYS_ON}")
    return _known(task, there, history, fingerprint)


def _known(task: Task, there: Sequence[Path], history: dict[Path, tuple[Record, ...]], fingerprint: str) -> Verdict:
    written = {path: _as_written(path, history[path]) for path in there}
    edited = [path for path, record in written.items() if record is None]
    records = [record or history[path][-1] for path, record in written.items()]
    confirmed: list[Record] = []
    why = "" if len(there) == len(task.targets) else "a file of it is missing"
    for record in records:
        if why:
            break
        why, current = _stale(record, task, fingerprint)
        if current is not None:
            confirmed.append(current)
    if not why:
        if edited:
            return Verdict(Fate.KEEP, EDITED)
        return Verdict(Fate.KEEP, "finished", tuple(confirmed))
    for path, known in written.items():
        if path.stat().st_size == 0:
            continue  # what a killed run may leave; nothing is lost with it
        if known is None or (known.output_hash and _hash(path) != known.output_hash):
            return Verdict(Fate.LEAVE, f"{why}, but {path} was {EDITED}; {WAYS_ON}")
        if known.output_hash is None:  # any line can name a file: only its content shows whose work it is
            return Verdict(Fate.LEAVE, f"{why}, but no manifest says by hash that {path} is lumen's; {WAYS_ON}")
    return _unless_protected(there, why)


def _is_stamped(path: Path, stamp: str | None, source: Path) -> bool:
    """Whether a file carries this stamp, and is not older than the picture that it would be made from."""
    if stamp is None:
        return False
    try:
        return stamp_in(path) == stamp and path.stat().st_mtime_ns >= source.stat().st_mtime_ns
    except OSError:
        return False


def leads_out(folder: Path, root: Path) -> bool:
    """Whether a folder of outputs below `root` is, by links, a place outside it."""
    return not Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(root))


def _as_written(path: Path, history: Sequence[Record]) -> Record | None:
    """The record of what the file is; None where it is none of what lumen wrote there.

    A record is believed by the size alone, unless another of the same size has other content: a run was ended between
    the record and the renaming, perhaps, and the file's own content tells which is true.
    """
    try:
        size = path.stat().st_size
    except OSError:  # a link that leads nowhere: lumen wrote none
        return None
    last = history[-1]
    if not last.finished or (size == 0 and last.output_size):
        return replace(last, output_size=None)
    fitting = [record for record in history if record.output_size == size]
    if len({record.output_hash for record in fitting}) < 2:
        return fitting[-1] if fitting else None
    found = _hash(path)
    fitting = [record for record in fitting if record.output_hash in (None, found)]
    return max(fitting, key=lambda record: record.output_hash is not None, default=None)


def _stale(record: Record, task: Task, fingerprint: str) -> tuple[str, Record | None]:
    """Why an output has to be made again ("": it is current), and the record made true where the source was touched."""
    if not record.finished:
        return "unfinished", None
    if record.settings != fingerprint:
        return "settings changed", None
    try:
        state = state_of(task.job.source.path)
        named = record.source == task.source_name
        if named and _same_times(record, state):
            return "", None
        changed = "source changed" if named else "made from another picture"
        if record.source_hash is None or record.source_size != state.size:
            return changed, None
        if content_hash(task.job.source.path) != record.source_hash:
            return changed, None
    except OSError:
        return "source cannot be read", None
    touched = replace(record, source_mtime_ns=state.mtime_ns, source_ctime_ns=state.ctime_ns)
    return "", replace(touched, source=task.source_name)


def _same_times(record: Record, state: FileState) -> bool:
    if (record.source_size, record.source_mtime_ns) != (state.size, state.mtime_ns):
        return False
    return record.source_ctime_ns in (None, state.ctime_ns)


def _hash(path: Path) -> str | None:
    try:
        return content_hash(path)
    except OSError:
        return None


def _unless_protected(there: Sequence[Path], why: str) -> Verdict:
    for path in there:
        if is_write_protected(path):
            return Verdict(Fate.LEAVE, f"{path} is write-protected; make it writable, or name another place with -o")
    return Verdict(Fate.MAKE, why)
