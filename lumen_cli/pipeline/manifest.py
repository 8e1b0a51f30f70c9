"""The record of a run in its output folder: what is finished, from which source, under which settings.

One JSON line per output. A line is appended when an output is complete under its final name, so a killed run loses at
most the record of the picture in hand. A run that ends normally rewrites the file sorted, and no line holds anything
that differs from run to run: an interrupted and resumed run leaves the same bytes as an unbroken one.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lumen_cli.errors import LumenError

MANIFEST_NAME = ".lumen-manifest.jsonl"


@dataclass(frozen=True)
class Record:
    """One output. `source_size` and the rest are None as long as it is only announced, not finished.

    output: its name below the manifest's folder, with "/"; source: the source's path relative to the folder it was
    found under; source_mtime_ns: nanoseconds; content: hash of the decoded source; settings: fingerprint of everything
    that decides about pixels and container; output_size: bytes.
    """

    output: str
    source: str
    source_size: int | None = None
    source_mtime_ns: int | None = None
    content: str | None = None
    settings: str | None = None
    output_size: int | None = None

    @property
    def finished(self) -> bool:
        """Whether the output was complete when this was written."""
        return self.output_size is not None


class Manifest:
    """The manifest of one output folder. Thread-safe."""

    def __init__(self, root: Path) -> None:
        self.path = root / MANIFEST_NAME
        self._records = _read(self.path)
        self._lock = threading.Lock()

    def get(self, output: str) -> Record | None:
        """What is known of an output."""
        return self._records.get(output)

    def begin(self, announced: Iterable[Record]) -> None:
        """Forget what is known of these outputs and announce them: from now on they are this run's to replace."""
        with self._lock:
            self._records.update((record.output, record) for record in announced)
            self._rewrite()

    def add(self, record: Record) -> None:
        """Append a finished output; it stands on the disk when this returns."""
        line = _line(record).encode("ascii")
        with self._lock:
            self._records[record.output] = record
            with self.path.open("ab") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())

    def finish(self) -> None:
        """Rewrite the file sorted, without the outputs that do not exist; what another run added meanwhile stays."""
        root = self.path.parent
        with self._lock:
            self._records = {name: record for name, record in _read(self.path).items() if (root / name).exists()}
            self._rewrite()

    def _rewrite(self) -> None:
        from lumen_cli.imaging.files import replacing

        try:
            with replacing(self.path) as temporary, temporary.open("wb") as file:
                file.writelines(_line(self._records[name]).encode("ascii") for name in sorted(self._records))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise LumenError(f"{self.path}: the manifest cannot be written ({error.strerror or error})") from error


def _line(record: Record) -> str:
    fields = {name: value for name, value in asdict(record).items() if value is not None}
    return json.dumps(fields, separators=(",", ":")) + "\n"


def _read(path: Path) -> dict[str, Record]:
    """The records, the last line of an output winning; lines cut short by a kill count for nothing."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    records = {}
    for line in lines:
        try:
            record = _record(json.loads(line))
        except ValueError:
            continue
        records[record.output] = record
    return records


def _record(fields: Any) -> Record:
    if not isinstance(fields, Mapping):
        raise ValueError("not an object")
    texts = ("output", "source", "content", "settings")
    numbers = ("source_size", "source_mtime_ns", "output_size")
    known: dict[str, Any] = {name: fields[name] for name in texts if isinstance(fields.get(name), str)}
    known |= {name: fields[name] for name in numbers if isinstance(fields.get(name), int)}
    if "output" not in known or "source" not in known:
        raise ValueError("not a record")
    return Record(**known)
