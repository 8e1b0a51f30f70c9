"""The manifest of a folder of outputs in a store: one object beside the outputs, and parts while runs write.

Objects cannot grow, so a run does not append lines: it writes each group of lines as a small object of its own, before
the outputs that they name. A killed run therefore leaves no output that no line names. At its end a run merges all
parts into the one object. Two runs into one folder write different parts; the merge keeps the lines of both. Where two
merge at a moment, the store refuses the one that replaces another version than it read, and that one merges again.
"""

from __future__ import annotations

import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

from lumen_cli.errors import UsageError
from lumen_cli.files.contents import exists
from lumen_cli.files.places import ObjectPath, OvertakenError, StoreError
from lumen_cli.run.manifest import (
    LARGEST_MANIFEST,
    MANIFEST_NAME,
    Manifest,
    Record,
    Records,
    note,
    note_lines,
    worth_keeping,
    write_line,
)

_STEM = MANIFEST_NAME.removesuffix(".jsonl")
_PARTS = f"{_STEM}-parts"
_MOST_PARTS = 100
"""Parts of this run, after which they become one."""
_AT_ONCE = 16
_ROUNDS = 5
_BUSY = "another run writes it all the time; run again when that has ended"


@dataclass
class _Group:
    """Lines that become one part. written: whether they are in the store."""

    lines: list[bytes] = field(default_factory=list)
    written: bool = False


class StoreManifest(Manifest):
    """The manifest of a folder of outputs in a store. Thread-safe."""

    root: ObjectPath
    path: ObjectPath

    def __init__(self, root: ObjectPath) -> None:
        """Read the manifest and the parts of runs that were ended, if there are any.

        Raises:
            LumenError: the store does not answer, or an object is larger than a manifest can be.
        """
        self.root, self.path, self.seen = root, root / MANIFEST_NAME, None
        self._store = root.store
        self._run = f"{time.time_ns():020}-{secrets.token_hex(4)}"  # the order of names is the order of lines
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._group = _Group()
        self._own: list[tuple[ObjectPath, bytes]] = []
        self._number = 0
        self._records = {}
        _, _, self._parts = self._read()

    def _read(self) -> tuple[bytes, str | None, list[ObjectPath]]:
        """The merged lines with their version, and the parts that are there; all their records are noted."""
        for _ in range(_ROUNDS):
            with suppress(FileNotFoundError):  # another run has merged a part just now
                return self._read_once()
        raise StoreError(self.path, _BUSY)

    def _read_once(self) -> tuple[bytes, str | None, list[ObjectPath]]:
        names = [name for name in self._store.list(self.root, _STEM) if name.endswith(".jsonl")]
        parts = [self.root / name for name in sorted(names) if name.startswith(f"{_PARTS}/")]
        wanted = [self.path, *parts] if MANIFEST_NAME in names else parts

        own = dict(self._own)

        def read(path: ObjectPath) -> tuple[bytes, str | None]:
            return (own[path], None) if path in own else self._store.read(path, LARGEST_MANIFEST)

        with ThreadPoolExecutor(_AT_ONCE, "lumen-manifest") as pool:
            contents = list(pool.map(read, wanted))
        for content, _ in contents:
            note_lines(self._records, content)
        held, version = contents[0] if MANIFEST_NAME in names else (b"", "")
        return held, version, parts

    def reread(self) -> StoreManifest:
        """Itself: what others wrote since joins it when the run ends."""
        return self

    def begin(self) -> None:
        """Write an empty part, once.

        Raises:
            UsageError: nothing can be written there; nothing was started.
        """
        if self._own:
            return
        try:
            self._write(b"")
        except StoreError as error:
            raise UsageError(f"{self.root}: {error.reason}") from error

    def add(self, *records: Record) -> None:
        """Record lines; they are in the store when this returns. Lines of several threads go into one part.

        Raises:
            LumenError: they cannot be written.
        """
        with self._lock:
            group = self._group
            group.lines += [write_line(record) for record in records]
        with self._writing:
            if not group.written:
                with self._lock:  # lines that come from now on wait for the next part
                    if self._group is group:
                        self._group = _Group()
                self._write(b"".join(group.lines))
                group.written = True
        with self._lock:
            for record in records:
                note(self._records, record)

    def _write(self, lines: bytes) -> None:
        """Write a part, and where there are many, one instead of them."""
        if len(self._own) >= _MOST_PARTS:
            before = self._own
            merged = b"".join(content for _, content in before)
            self._own = [self._new_part(merged)]
            with suppress(StoreError):  # the merge at the end removes what stays
                self._store.remove(path for path, _ in before)
        self._own.append(self._new_part(lines))

    def _new_part(self, content: bytes) -> tuple[ObjectPath, bytes]:
        self._number += 1
        path = self.root / _PARTS / f"{self._run}-{self._number:08}.jsonl"
        self._store.write(path, content)
        return path, content

    def finish(self) -> None:
        """Merge: the last line of each output that exists, sorted; then remove the parts.

        Raises:
            LumenError: it cannot be written; the parts stay then, and hold every line.
        """
        with self._writing, self._lock:
            known = set(self._records)
            for _ in range(_ROUNDS):
                with suppress(OvertakenError):
                    self._merge(known)
                    return
            raise StoreError(self.path, _BUSY)

    def _merge(self, known: set[str]) -> None:
        """One attempt. known: outputs whose existence was listed. OvertakenError: another run merged meanwhile."""
        self._records = {}
        held, version, parts = self._read()
        last: Records = {}
        for name in sorted(self._records):
            there = name not in known or exists(self.root / name)  # others' outputs are newer than the listing
            if kept := worth_keeping(self._records[name], there):
                last[name] = kept
        wanted = b"".join(write_line(record) for kept in last.values() for record in kept)
        if wanted != held:
            self._store.write(self.path, wanted, version)
            if not self._store.checks and self._store.read(self.path, LARGEST_MANIFEST)[0] != wanted:
                raise OvertakenError(self.path)
        self._store.remove({*parts, *(path for path, _ in self._own)})
        self._own, self._parts = [], []
        self._records = last

    @property
    def unordered(self) -> bool:
        """Whether a run that was ended left parts."""
        return bool(self._parts)
