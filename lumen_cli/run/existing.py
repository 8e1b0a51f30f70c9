"""Outputs that exist: which stay, which are made again and why, which lumen must not replace; and the same for inputs.

A file is lumen's by a manifest that holds its hash, or by the stamp in its EXIF.
"""

from __future__ import annotations

import enum
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path

from lumen_cli.atomic import open_untouched
from lumen_cli.errors import LumenError
from lumen_cli.files import Source, is_tar_name
from lumen_cli.files.contents import (
    FileState,
    Listings,
    exists,
    hash_file,
    is_write_protected,
    known_state,
    local_file,
    read_state,
)
from lumen_cli.files.find import Found
from lumen_cli.files.places import ObjectPath, StoreError
from lumen_cli.run import Action, Task
from lumen_cli.run.manifest import MANIFEST_NAME, PARTS, Manifest, Record, open_manifest, state_manifest

OVERWRITTEN = "overwritten"
STAMPED = "finished, as its stamp says"
EDITED = "changed since lumen wrote it"
SOME_FAILED = "some of its pictures failed"
_CHOICES = "overwrite, skip_existing"
_STAMP = re.compile(
    rb"(?<![^;\0 ])lumen \d[\w.+-]*, model [^;\0\r\n]{1,300}, (?:seed \d+, |decomposed, )[^;\0\r\n]{1,200}(?=[;\0])"
)
_STAMP_BYTES = 1 << 18
"""Bytes at a file's beginning and end in which its EXIF is searched."""


class IfExists(enum.Enum):
    """What happens to outputs that exist."""

    REFUSE = "refuse"
    RESUME = "resume"
    OVERWRITE = "overwrite"
    SKIP = "skip"


@dataclass(frozen=True)
class Rules:
    """What decides about outputs that exist. fingerprint: of the settings; stamp: of this run."""

    fingerprint: str
    if_exists: IfExists = IfExists.REFUSE
    stamp: str | None = None


@dataclass(frozen=True)
class Decision:
    """why: in a few words, or, for LEAVE, a sentence; confirmed: manifest lines for a source that was only touched."""

    action: Action
    why: str
    confirmed: tuple[Record, ...] = ()
    remedy: str = ""


NEW, _MISSING = Decision(Action.MAKE, "new"), Decision(Action.MAKE, "missing")


def decide(
    task: Task,
    manifest: Manifest,
    rules: Rules,
    escapes: Callable[[Path, Path], bool] | None = None,
    listings: Listings | None = None,
) -> Decision:
    """Decide about one picture. Asks the file system for states, and reads files only where those leave a doubt.

    Nothing is written through a link that leads out of the output folder. A source is unchanged where size,
    modification and change time match the record, or else where its content does: copying or touching pictures costs
    one reading of them, and every edit that the file system noticed is seen. An output is replaced only if its content
    is what the manifest says that lumen wrote, or with OVERWRITE. An output that no manifest names is kept where it
    carries the stamp and is not older than its source.

    escapes: `leads_out`, where its answers are kept for many pictures; listings: of the outputs' folders.
    """
    folder = task.job.folder
    if (escapes or leads_out)(folder, task.root):
        return _leave(f"{folder} leads out of {task.root} by a link; name another folder")
    if listings is not None and not task.parts and not listings.may_hold(folder, task.job.name):
        return _MISSING if manifest.history(task.output) else NEW
    present = [path for path in task.targets if exists(path)]
    for path in present:
        if path.is_dir():
            return _leave(f"a folder is in the way of its output {path}")
        if path.exists() and not path.is_file():
            return _leave(f"{path} is a device or a pipe; name another output", "output")
    history = {path: manifest.history(name) for path, name in zip(task.targets, task.outputs, strict=True)}
    complete = len(present) == len(task.targets)
    if not present:
        return _MISSING if any(history.values()) else NEW
    if rules.if_exists is IfExists.OVERWRITE:
        return _make_unless_protected(present, OVERWRITTEN)
    if rules.if_exists is IfExists.SKIP and complete:
        return Decision(Action.KEEP, "exists")
    unknown = [path for path in present if not history[path]]
    if not unknown:
        why = SOME_FAILED if task.is_tar and manifest.failure(task.output) else ""
        return _decide_known(task, present, history, rules.fingerprint, why)
    if complete and all(_carries(path, rules.stamp, task.job.source.path) for path in unknown):
        return Decision(Action.KEEP, STAMPED)
    return _leave(f"{unknown[0]} exists and was not created by lumen", _CHOICES)


def _decide_known(
    task: Task, present: Sequence[Path], history: Mapping[Path, tuple[Record, ...]], fingerprint: str, why: str
) -> Decision:
    """Decide about outputs that the manifest names, all of them. why: the reason to make them in any case, or ""."""
    written = {path: _record_of(path, history[path]) for path in present}
    edited = [path for path, record in written.items() if record is None]
    confirmed: list[Record] = []
    why = why if len(present) == len(task.targets) else "a file of it is missing"
    for path, known in written.items():
        if why:
            break
        why, current = _stale(known or history[path][-1], task, fingerprint)
        if history[path][-1].damaged and not why:
            current = current or known
        confirmed += [current] if current is not None else []
    if not why:
        return Decision(Action.KEEP, EDITED) if edited else Decision(Action.KEEP, "finished", tuple(confirmed))
    for path, known in written.items():
        if known_state(path).size == 0:
            continue  # a killed run may leave an empty file; nothing is lost with it
        if known is None and history[path][-1].damaged:
            return _leave(f"the manifest's line of {path} is damaged, and no other tells that lumen wrote it", _CHOICES)
        if known is None or (known.output_hash and _hash(path) != known.output_hash):
            return _leave(f"{why}, but {path} was {EDITED}", _CHOICES)
        if known.output_hash is None:  # any line can name a file: only its content proves who wrote it
            return _leave(f"{why}, but no manifest holds the hash of {path}", _CHOICES)
    return _make_unless_protected(present, why)


def _leave(why: str, remedy: str = "") -> Decision:
    return Decision(Action.LEAVE, why, remedy=remedy)


def _make_unless_protected(present: Sequence[Path], why: str) -> Decision:
    for path in present:
        if is_write_protected(path):
            return _leave(f"{path} is write-protected; make it writable, or name another output", "output")
    return Decision(Action.MAKE, why)


def _carries(path: Path, stamp: str | None, source: Path) -> bool:
    """Whether a file carries this stamp, and is not older than its source."""
    if stamp is None or is_tar_name(path.name):  # a tar file may hold any pictures
        return False
    try:
        return stamp_in(path) == stamp and known_state(path).mtime_ns >= known_state(source).mtime_ns
    except (OSError, StoreError):
        return False


def leads_out(folder: Path, root: Path) -> bool:
    """Whether a folder of outputs below `root` is, by links, a place outside it."""
    return not Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(root))


def _record_of(path: Path, history: Sequence[Record]) -> Record | None:
    """The record that describes the file as it is; None where somebody changed it.

    The size alone identifies the record, unless another record of the same size has another hash, perhaps because a
    run was ended between recording and renaming, or a damaged line may have been another record: then the file's
    content decides.
    """
    try:
        size = known_state(path).size
    except OSError:  # a link that leads nowhere: lumen did not write it
        return None
    last = history[-1]
    if last.damaged:
        found = _hash(path)
        return next((record for record in reversed(history) if record.output_hash == found is not None), None)
    if not last.finished or (size == 0 and last.output_size):
        return replace(last, output_size=None)
    fitting = [record for record in history if record.output_size == size]
    if len({record.output_hash for record in fitting}) < 2:
        return fitting[-1] if fitting else None
    found = _hash(path)
    fitting = [record for record in fitting if record.output_hash in (None, found)]
    return max(fitting, key=lambda record: record.output_hash is not None, default=None)


def _stale(record: Record, task: Task, fingerprint: str) -> tuple[str, Record | None]:
    """Why an output is made again ("": it is current), and the corrected record where its source was only touched."""
    if not record.finished:
        return "unfinished", None
    if record.settings != fingerprint:
        return "settings changed", None
    try:
        state = known_state(task.job.source.path)
        named = record.source == task.source_name
        if named and is_unchanged(record, state):
            return "", None
        changed = "source changed" if named else "made from another picture"
        if record.source_hash is None or record.source_size != state.size:
            return changed, None
        if hash_file(task.job.source.path) != record.source_hash:
            return changed, None
    except (OSError, StoreError):
        return "source cannot be read", None
    touched = replace(record, source_mtime_ns=state.mtime_ns, source_ctime_ns=state.ctime_ns, source_etag=state.etag)
    return "", replace(touched, source=task.source_name)


def is_unchanged(record: Record, state: FileState) -> bool:
    """Whether a source has the state that a record describes; one that was touched or copied has another."""
    if record.source_etag is not None and state.etag is not None:
        return (record.source_size, record.source_etag) == (state.size, state.etag)
    if (record.source_size, record.source_mtime_ns) != (state.size, state.mtime_ns):
        return False
    return record.source_ctime_ns in (None, state.ctime_ns)


def _hash(path: Path) -> str | None:
    try:
        return hash_file(path)
    except (OSError, StoreError):
        return None


class OwnOutputs:
    """Tells lumen's outputs from other pictures.

    remember: for a folder that is watched: a file is read once while its state stays the same.
    """

    def __init__(self, remember: bool = True) -> None:
        self._remember = remember
        self._known: dict[Path, tuple[FileState, bool]] = {}
        self._manifests: dict[Path, Manifest | None] = {}
        self._above: dict[Path, list[tuple[Path, Manifest]]] = {}
        self._last: tuple[Path, list[tuple[Path, Manifest]]] | None = None

    def without(self, found: Found) -> tuple[Found, tuple[Path, ...]]:
        """What was found without lumen's outputs, and the outputs."""
        self._manifests.clear()  # they grow while a folder is watched
        self._above.clear()
        self._last = None
        own = [self.wrote(source) for source in found.sources]
        if not any(own):
            return found, ()
        sources = tuple(source for source, ours in zip(found.sources, own, strict=True) if not ours)
        return replace(found, sources=sources), tuple(source.path for source in compress(found.sources, own))

    def wrote(self, source: Source) -> bool:
        """Whether a file is lumen's output."""
        if isinstance(source.folder, ObjectPath):  # reading every object for its stamp would take as long as the run
            return bool(self._manifests_above(source)) and self._is_recorded(source, known_state(source.path).size)
        try:
            if not self._remember:
                if not is_tar_name(source.name) and stamp_in(source.path) is not None:
                    return True
                return bool(self._manifests_above(source)) and self._is_recorded(source, read_state(source.path).size)
            path = source.path
            state = read_state(path)
            known = self._known.get(path)
            if known is None or known[0] != state:
                known = state, stamp_in(path) is not None or self._is_recorded(source, state.size)
                self._known[path] = known
            return known[1]
        except OSError:  # reading it reports the error
            return False

    def _manifests_above(self, source: Source) -> list[tuple[Path, Manifest]]:
        folder = source.folder
        if self._last is None or self._last[0] is not folder:
            if folder not in self._above:
                manifests = ((place, self._manifest(place)) for place in (folder, *folder.parents))
                self._above[folder] = [(place, manifest) for place, manifest in manifests if manifest]
            self._last = folder, self._above[folder]
        return self._last[1]

    def _is_recorded(self, source: Source, size: int) -> bool:
        """Whether a manifest of a folder above names a file of this content."""
        content: str | None = None
        path = source.path
        for folder, manifest in self._manifests_above(source):
            for record in manifest.history(path.relative_to(folder).as_posix()):
                if record.output_size == size and record.output_hash:
                    if isinstance(path, ObjectPath):
                        return True
                    content = content or hash_file(path)
                    if content == record.output_hash:
                        return True
        return False

    def _manifest(self, folder: Path) -> Manifest | None:
        if folder not in self._manifests:
            try:
                if isinstance(folder, ObjectPath):
                    present = len(folder.parts) > 1 and exists(folder / MANIFEST_NAME)
                else:
                    places = (folder / MANIFEST_NAME, state_manifest(folder))
                    present = any(place.is_file() for place in places) or (folder / PARTS).is_dir()
                self._manifests[folder] = open_manifest(folder) if present else None
            except LumenError:  # an unsafe one; planning reports it where it matters
                self._manifests[folder] = None
        return self._manifests[folder]


def stamp_in(path: Path) -> str | None:
    """The last stamp of lumen in a picture file; None where there is none near its beginning and end.

    Raises:
        OSError: the file cannot be read.
        StoreError: the object cannot be read.
    """
    with local_file(path) as local:
        descriptor = open_untouched(local)
        try:
            data = os.read(descriptor, _STAMP_BYTES)
            if len(data) == _STAMP_BYTES:
                end = os.lseek(descriptor, 0, os.SEEK_END)
                os.lseek(descriptor, max(len(data), end - _STAMP_BYTES), os.SEEK_SET)
                data += os.read(descriptor, _STAMP_BYTES)
        finally:
            os.close(descriptor)
    if b"lumen " not in data:
        return None
    found = _STAMP.findall(data)
    return found[-1].decode("utf-8", "replace") if found else None
