"""The record of a run in its output folder: what lumen wrote, from which source, under which settings.

One JSON line per output, appended and on the disk before the output gets its final name. So whatever carries a name
and the hash of one of its lines is lumen's work, and nothing else is: a run killed at any moment leaves no output of
doubtful origin, and a file that somebody changed or put there is told from lumen's own. The last line of an output
counts; a line cut short by a kill counts for nothing. A run that ends normally rewrites the file sorted, and no line
holds anything that differs from run to run: an interrupted and resumed run leaves the same bytes as an unbroken one.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lumen_cli.errors import LumenError

MANIFEST_NAME = ".lumen-manifest.jsonl"


@dataclass(frozen=True)
class Record:
    """One output. What an older lumen did not record is None; of sidecars there are only names, size and hash.

    output: its name below the manifest's folder, with "/"; source: the source's path relative to the folder it was
    found under; source_mtime_ns, source_ctime_ns: nanoseconds; content: hash of the decoded source; settings:
    fingerprint of everything that decides about pixels and container; output_size: bytes; source_hash, output_hash:
    `content_hash` of the files.
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

    @property
    def finished(self) -> bool:
        """Whether it tells of a whole output; older manifests announced outputs before."""
        return self.output_size is not None


class Manifest:
    """The manifest of one output folder. Thread-safe."""

    def __init__(self, root: Path) -> None:
        self.path = root / MANIFEST_NAME
        self._records = _parsed(_content(self.path))
        self._lock = threading.Lock()

    def get(self, output: str) -> Record | None:
        """What was recorded of an output last."""
        records = self._records.get(output)
        return records[-1] if records else None

    def history(self, output: str) -> tuple[Record, ...]:
        """All that stands there of an output, the last record last; several where a run was ended."""
        return tuple(self._records.get(output, ()))

    def begin(self) -> None:
        """Have the file there.

        Raises:
            LumenError: it cannot be written, or is a link, which could make lumen write anywhere.
        """
        self._refuse_link()
        self.add()

    def _refuse_link(self) -> None:
        if self.path.is_symlink():
            raise LumenError(f"{self.path}: the manifest is a link, and lumen does not write through it; remove it")

    def add(self, *records: Record) -> None:
        """Append what is known of outputs; it stands on the disk when this returns.

        Raises:
            LumenError: it cannot be written.
        """
        lines = b"".join(_line(record) for record in records)
        with self._lock:
            try:
                with self.path.open("a+b") as file:
                    if lines:
                        file.write(_mend(file.seek(0, os.SEEK_END), self.path) + lines)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise LumenError(f"{self.path}: the manifest cannot be written ({error.strerror or error})") from error
            for record in records:
                self._records.setdefault(record.output, []).append(record)

    @contextmanager
    def writing(self, *records: Record) -> Iterator[None]:
        """Inside, these outputs get their final names; where that fails, what was known of them before counts again.

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
        """Rewrite the file sorted, a line for each output that exists; what another run added meanwhile stays.

        A file that is so already is left alone.

        Raises:
            LumenError: as `begin`.
        """
        self._refuse_link()
        root = self.path.parent
        with self._lock:
            held = _content(self.path)
            self._records = {name: [known[-1]] for name, known in _parsed(held).items() if _exists(root / name)}
            wanted = b"".join(_line(self._records[name][-1]) for name in sorted(self._records))
            if wanted != held:
                self._rewrite(wanted)

    def _rewrite(self, content: bytes) -> None:
        from lumen_cli.imaging.files import replacing

        try:
            with replacing(self.path) as temporary, temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise LumenError(f"{self.path}: the manifest cannot be written ({error.strerror or error})") from error


def put_in_order(roots: Iterable[Path]) -> None:
    """Finish the manifests of these folders, also one that a run left which was killed after its last picture."""
    for root in roots:
        with suppress(LumenError):  # only its order is missing then: every line was written with its picture
            Manifest(root).finish()


def _mend(size: int, path: Path) -> bytes:
    """What has to come before the next line: an end for one that was cut short."""
    if size == 0:
        return b""
    with path.open("rb") as file:
        file.seek(size - 1)
        return b"" if file.read(1) == b"\n" else b"\n"


def _exists(path: Path) -> bool:
    """Whatever the name: a manifest may hold any, too long ones as well."""
    return os.path.exists(path)  # noqa: PTH110


def _line(record: Record) -> bytes:
    fields = {name: value for name, value in asdict(record).items() if value is not None}
    return json.dumps(fields, separators=(",", ":")).encode("ascii") + b"\n"


def _content(path: Path) -> bytes:
    """Nothing where nothing can be read."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _parsed(content: bytes) -> dict[str, list[Record]]:
    """The records of each output in the order they were written; lines that are none are passed over."""
    records: dict[str, list[Record]] = {}
    for line in content.split(b"\n"):
        try:
            record = _record(json.loads(line))
        except (ValueError, RecursionError):
            continue
        known = records.setdefault(record.output, [])
        if record in known:
            known.remove(record)
        known.append(record)
    return records


def _record(fields: Any) -> Record:
    if not isinstance(fields, Mapping):
        raise ValueError("not an object")
    texts = ("output", "source", "content", "settings", "source_hash", "output_hash")
    numbers = ("source_size", "source_mtime_ns", "source_ctime_ns", "output_size")
    known: dict[str, Any] = {name: fields[name] for name in texts if isinstance(fields.get(name), str)}
    known |= {name: fields[name] for name in numbers if isinstance(fields.get(name), int)}
    if "output" not in known or "source" not in known:
        raise ValueError("not a record")
    return Record(**known)
