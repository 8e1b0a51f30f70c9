"""The record of a run in its output folder: what lumen wrote, from which source, under which settings.

One JSON line per output, on the disk before the output gets its final name. A file is lumen's work exactly where its
name and hash match a line, even after a run was killed at any moment. The last line of an output counts; a line cut
short by a kill is ignored. A run that ends normally rewrites the file sorted, and no line holds anything that differs
from run to run: an interrupted and resumed run leaves the same bytes as an unbroken one.

A folder may come from a stranger: only a regular file of bounded size with this one name is read or written.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from lumen_cli.atomic import atomic_file, hold_free_locks
from lumen_cli.errors import LumenError
from lumen_cli.files.contents import hash_bytes, user_folder
from lumen_cli.files.places import ObjectPath

MANIFEST_NAME = ".lumen-manifest.jsonl"
LARGEST_MANIFEST = 256 << 20
"""Bytes that a manifest may have, about half a million outputs."""
PARTS = ".lumen-manifests"
"""The folder of the manifests that parts of a run write (`--shard`), beside each other."""
_NOT_OWN = "the manifest is {}, which lumen neither reads nor writes; remove it"


_LONGEST_NAME = 40


@dataclass(frozen=True)
class Record:
    """One output. What an older lumen did not record is None; a sidecar has only names, size and hash.

    output: its name below the manifest's folder, with "/"; source: the source's path relative to the folder it was
    found under; source_mtime_ns, source_ctime_ns: nanoseconds; content: hash of the decoded source; settings:
    fingerprint of everything that decides about pixels and container; output_size: bytes; source_hash, output_hash:
    `hash_file` of the files; source_etag: the version of a source in a store; failure: why there is no output, or why
    an older one stays, in one line.
    """

    output: str
    source: str
    source_size: int | None = None
    source_mtime_ns: int | None = None
    content: str | None = None
    settings: str | None = None
    output_size: int | None = None
    source_ctime_ns: int | None = None
    source_hash: str | None = None
    output_hash: str | None = None
    source_etag: str | None = None
    failure: str | None = None

    @property
    def finished(self) -> bool:
        """Whether the output was complete; older manifests named outputs before they were written."""
        return self.output_size is not None

    @property
    def damaged(self) -> bool:
        """Whether the line is damaged: it tells that lumen wrote this output, but not what."""
        return not self.source


class Manifest:
    """The manifest of one output folder. Thread-safe."""

    def __init__(self, root: Path, place: Path | None = None) -> None:
        """Read the manifest of a folder, if it has one, and what the user's state folder knows of its files.

        Args:
            root: the folder of outputs.
            place: the file that is written; None: the one in the folder.

        Raises:
            LumenError: it is a link, has a second name, is no regular file, or is larger than a manifest can be.
        """
        self.root, self.path = root, place or root / MANIFEST_NAME
        self.seen = signature(self.path)
        self._records: Records = {}
        for known in (state_manifest(root), root / MANIFEST_NAME, *_parts_of(root)):
            note_lines(self._records, _content(known))
        self._lock = threading.Lock()

    def reread(self) -> Manifest:
        """The manifest as it is now."""
        return Manifest(self.root, self.path)

    def get(self, output: str) -> Record | None:
        """The last record of an output that was written."""
        return next((record for record in reversed(self.history(output)) if not record.damaged), None)

    def history(self, output: str) -> tuple[Record, ...]:
        """All records of an output that was written, the last one last; several where a run was ended."""
        return tuple(record for record in self._records.get(output, ()) if not record.failure)

    def failure(self, output: str) -> str | None:
        """Why the last attempt failed; None where it did not."""
        return _last(self._records[output]).failure if output in self._records else None

    def begin(self) -> None:
        """Make sure that the file exists.

        Raises:
            LumenError: it cannot be written, or is a link, which could make lumen write anywhere.
        """
        if self.path.parent != self.root:
            try:
                self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise LumenError(f"{self.path}: the manifest cannot be written ({error.strerror or error})") from error
        self.add()

    def add(self, *records: Record) -> None:
        """Append records; they are on the disk when this returns.

        Raises:
            LumenError: it cannot be written.
        """
        lines = b"".join(write_line(record) for record in records)
        with self._lock:
            try:
                with os.fdopen(_open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT), "a+b") as file:
                    if lines:
                        file.write(_mend(file) + lines)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise LumenError(f"{self.path}: the manifest cannot be written ({error.strerror or error})") from error
            for record in records:
                note(self._records, record)

    @contextmanager
    def writing(self, *records: Record) -> Iterator[None]:
        """Inside, these outputs get their final names; where that fails, their earlier records count again.

        Raises:
            LumenError: the manifest cannot be written; then nothing inside was done.
        """
        before = [known for record in records if (known := self.get(record.output)) is not None]
        self.add(*records)
        try:
            yield
        except BaseException:
            with suppress(LumenError):
                self.add(*before)
            raise

    def finish(self) -> None:
        """Rewrite the file sorted, a line for each output that exists and for each failure; lines of another run stay.

        A file that is sorted already is not touched. The manifest of whole runs takes over those of parts that no run
        writes now.

        Raises:
            LumenError: as `begin`.
        """
        with self._lock, hold_free_locks(_parts_of(self.root) if self._whole else ()) as parts:
            held, last, wanted = self._in_order(parts)
            self._records = last
            if wanted != held:
                self._rewrite(wanted)
            for part in parts:
                part.unlink(missing_ok=True)
        if self._whole:
            with suppress(OSError):
                (self.root / PARTS).rmdir()

    @property
    def unordered(self) -> bool:
        """Whether `finish` would change the file, as after a run that was ended."""
        held, _, wanted = self._in_order()
        return wanted != held or bool(self._whole and _parts_of(self.root))

    @property
    def _whole(self) -> bool:
        """Whether whole runs write it, not parts, and it lies in its folder."""
        return self.path == self.root / MANIFEST_NAME

    def _in_order(self, parts: Sequence[Path] = ()) -> tuple[bytes, Records, bytes]:
        """What the file holds, the last records of each output that exists or failed, and what the file should hold.

        parts: manifests whose records belong to it too.
        """
        held = _content(self.path)
        records: Records = {}
        for content in (held, *map(_content, parts)):
            note_lines(records, content)
        last = {
            name: kept for name, known in records.items() if (kept := worth_keeping(known, _exists(self.root / name)))
        }
        return held, last, b"".join(write_line(record) for name in sorted(last) for record in last[name])

    def _rewrite(self, content: bytes) -> None:
        try:
            with atomic_file(self.path) as temporary, temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise LumenError(f"{self.path}: the manifest cannot be written ({error.strerror or error})") from error


def last_records(root: Path) -> list[tuple[str, Record]]:
    """The last record of each output in each manifest of a folder, with the manifest's name.

    Manifests are those of parts, of whole runs and of the user's state folder; in a store all are read as one.

    Raises:
        LumenError: one cannot be read.
    """
    if isinstance(root, ObjectPath):
        return [(MANIFEST_NAME, _last(known)) for known in open_manifest(root)._records.values()]
    found = []
    for place in (*_parts_of(root), root / MANIFEST_NAME, state_manifest(root)):
        if not place.is_file():
            continue
        records: Records = {}
        note_lines(records, _content(place))
        found += [(place.name, _last(known)) for known in records.values()]
    return found


def part_manifest(root: Path, name: str) -> Path:
    """The manifest that a part of a run writes; name: from `Shard.manifest_name`."""
    return root / PARTS / name


def _parts_of(root: Path) -> list[Path]:
    """The manifests of parts, the one that was written last at the end; none where a link stands for their folder."""
    folder = root / PARTS
    if folder.is_symlink():
        return []
    try:
        found = [place for place in folder.iterdir() if place.suffix == ".jsonl"]
    except OSError:
        return []
    return sorted(found, key=lambda place: (signature(place) or (0, 0, 0))[::-1])


def _last(known: dict[Record, None]) -> Record:
    return next(reversed(known))


def worth_keeping(known: dict[Record, None], exists: bool) -> dict[Record, None]:
    """Of an output's records the last one of a file that exists, and a failure after it. exists: whether it does.

    Where the last one is damaged, earlier ones may describe the file.
    """
    written = [record for record in known if not record.failure] if exists else []
    kept = dict.fromkeys(written if written and written[-1].damaged else written[-1:])
    if (last := _last(known)).failure:
        kept[last] = None
    return kept


def put_in_order(manifests: Iterable[Manifest]) -> None:
    """Finish manifests, even one of a run that was killed after its last picture."""
    for manifest in manifests:
        with suppress(LumenError):  # only the order is missing then: every line was written with its picture
            manifest.reread().finish()


def open_manifest(root: Path, place: Path | None = None) -> Manifest:
    """The manifest of a folder of outputs, on the disk or in a store; see `Manifest`."""
    if isinstance(root, ObjectPath):
        from lumen_cli.run.stores import StoreManifest

        return StoreManifest(root)
    return Manifest(root, place)


def state_manifest(root: Path) -> Path:
    """The manifest for outputs in a folder of photographs, where lumen writes no file of its own.

    It lies in the user's state folder; its name is the folder's name and a hash of its path.
    """
    real = os.path.realpath(root)
    name = re.sub(r"[^A-Za-z0-9._-]", "_", Path(real).name)[:_LONGEST_NAME]
    return user_folder("state") / "outputs" / f"{name}-{hash_bytes(os.fsencode(real))[:16]}.jsonl"


def signature(place: Path) -> tuple[int, int, int] | None:
    """A value that changes with every line of a manifest; None where there is no manifest."""
    try:
        status = place.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _open(path: Path, flags: int) -> int:
    """Open the manifest itself, never a link, a file with a second name, a pipe or a device.

    Raises:
        LumenError: it is one of these, or too large.
        OSError: it cannot be opened.
    """
    for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_BINARY"):
        flags |= getattr(os, name, 0)
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        if path.is_symlink():
            raise LumenError(f"{path}: {_NOT_OWN.format('a link')}") from error
        if error.errno == errno.ENXIO:  # a pipe without a reader
            raise LumenError(f"{path}: {_NOT_OWN.format('no regular file')}") from error
        raise
    status = os.fstat(descriptor)
    what = ""
    if not stat.S_ISREG(status.st_mode):
        what = "no regular file"
    elif status.st_nlink > 1:
        what = "a file with a second name (a hard link)"
    elif status.st_size > LARGEST_MANIFEST:
        what = f"larger than {LARGEST_MANIFEST >> 20} MiB"
    if what:
        os.close(descriptor)
        raise LumenError(f"{path}: {_NOT_OWN.format(what)}")
    return descriptor


def _mend(file: BinaryIO) -> bytes:
    """What the next line needs before it: a line end where the last line was cut short."""
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        return b""
    file.seek(size - 1)
    return b"" if file.read(1) == b"\n" else b"\n"


def _exists(path: Path) -> bool:
    """Works for any name: a manifest may hold too long ones as well."""
    return os.path.exists(path)  # noqa: PTH110


def write_line(record: Record) -> bytes:
    """A record as a line."""
    fields = {name: value for name, value in asdict(record).items() if value is not None}
    return json.dumps(fields, separators=(",", ":")).encode("ascii") + b"\n"


def _content(path: Path) -> bytes:
    """The file's bytes, none where it cannot be read; LumenError as in `_open`."""
    try:
        with os.fdopen(_open(path, os.O_RDONLY), "rb") as file:
            return file.read(LARGEST_MANIFEST)
    except OSError:
        return b""


_NAMED = re.compile(rb'\{"output":("(?:[^"\\]|\\.)+")')
"""How a line begins: with its output's name."""
Records = dict[str, dict[Record, None]]
"""The records of each output, the last one last; a dict, as it keeps an order and finds a record at once."""


def note(records: Records, record: Record) -> None:
    """Make a record the last one of its output."""
    known = records.setdefault(record.output, {})
    known.pop(record, None)
    known[record] = None


def note_lines(records: Records, content: bytes) -> None:
    """Note the records of a manifest's lines, in their order; of a damaged line, as a full disk leaves, its output.

    Other lines are ignored.
    """
    for line in content.split(b"\n"):
        try:
            note(records, _record(json.loads(line)))
        except (ValueError, RecursionError):
            if match := _NAMED.match(line):
                with suppress(ValueError):
                    note(records, Record(json.loads(match[1]), source=""))


def _record(fields: Any) -> Record:
    if not isinstance(fields, Mapping):
        raise ValueError("not an object")
    texts = ("output", "source", "content", "settings", "source_hash", "output_hash", "source_etag", "failure")
    numbers = ("source_size", "source_mtime_ns", "source_ctime_ns", "output_size")
    known: dict[str, Any] = {name: fields[name] for name in texts if isinstance(fields.get(name), str)}
    known |= {name: fields[name] for name in numbers if isinstance(fields.get(name), int)}
    if "output" not in known or "source" not in known:
        raise ValueError("not a record")
    return Record(**known)
