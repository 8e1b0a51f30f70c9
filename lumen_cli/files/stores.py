"""Objects in stores, by fsspec: what lies there, reading and writing whole objects.

fsspec and the packages of the stores are imported when the first address is used.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import importlib
import logging
import mimetypes
import os
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lumen_cli.atomic import temporary_folder
from lumen_cli.errors import UsageError
from lumen_cli.files.places import (
    KINDS,
    ROUNDS,
    UNKNOWN_TYPE,
    Details,
    FileState,
    ObjectPath,
    OvertakenError,
    StoreError,
    code_of,
    explain_failure,
    explain_name,
    request,
    state_of,
)

_AT_ONCE = 16
_CONNECT_SECONDS, _READ_SECONDS = 5, 15
_ONE_REQUEST = 5 << 30
"""Bytes that S3 takes in one request; a larger object comes in parts and appears with the last of them."""
_CONTENT_TYPES = {".xmp": "application/rdf+xml", ".jsonl": "application/jsonl", ".jxl": "image/jxl"}


class Store:
    """The store of one scheme, opened with the user's own credentials and settings. Thread-safe."""

    checks = False
    """Whether it can check, as it writes, which version of an object it replaces."""

    def __init__(self, scheme: str) -> None:
        self._scheme = scheme
        self._files = self._open()
        self._known: dict[str, FileState | None] = {}
        self._listed: dict[str, set[str]] = {"/": set(), ".": set()}

    def _open(self, **options: Any) -> Any:
        """The file system of fsspec.

        Raises:
            UsageError: a package is missing, or the store's settings name no account.
        """
        kind = KINDS[self._scheme]
        try:
            logger = logging.getLogger(kind.package)
            if logger.level == logging.NOTSET:  # it would print each attempt; what fails in the end is an error of ours
                logger.setLevel(logging.CRITICAL)
            importlib.import_module(kind.package)
            fsspec = importlib.import_module("fsspec")
        except ImportError:
            raise UsageError(
                f"{self._scheme}:// needs the package {kind.package}: pip install 'lumen-cli[{kind.extra}]'"
            ) from None
        try:
            return fsspec.filesystem(self._scheme, skip_instance_cache=True, use_listings_cache=False, **options)
        except Exception as error:
            raise UsageError(f"{self._scheme}://: {explain_failure(error, 'open it')}") from error

    def list(self, folder: ObjectPath, stem: str = "") -> dict[str, FileState]:
        """Every object below a folder whose key there begins with `stem`, by that key. `known_state` learns from it.

        Raises:
            StoreError: it cannot be listed.
        """
        start = f"{folder.inner}/"
        if not stem:
            self.forget(folder)
        try:
            found = request(folder, "list it", lambda: self._find(folder, stem), rounds=1)
        except FileNotFoundError as error:
            if folder.is_bucket or code_of(error) == "NoSuchBucket":
                raise StoreError(folder, "there is no such bucket") from error
            found = {}
        listing: dict[str, FileState] = {}
        for name, info in found.items():
            whole = name.lstrip("/")
            if info["type"] == "file" and whole.startswith(start + stem) and not whole.endswith("/"):
                listing[whole[len(start) :]] = self._known[whole] = state_of(info)
        if stem:
            self._listed["."].add(start + stem)
        else:
            self._listed["/"].add(folder.inner)
        return listing

    def _find(self, folder: ObjectPath, stem: str) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = self._files.find(folder.inner, detail=True, prefix=stem)
        return found

    def forget(self, folder: ObjectPath) -> None:
        """Forget what was listed below a folder: others may have changed it since."""
        start = f"{folder.inner}/"
        for name in list(self._known):
            if name.startswith(start):
                self._known.pop(name, None)
        for kind, places in self._listed.items():
            self._listed[kind] = {place for place in places if not _overlap(place, start, kind)}

    def known_state(self, path: ObjectPath) -> FileState:
        """The state of an object as it was listed or written last, else as the store says.

        Raises:
            FileNotFoundError: there is none.
            StoreError: the store does not say.
        """
        inner = path.inner
        if inner in self._known:
            known = self._known[inner]
            if known is None:
                raise _missing(path)
            return known
        folders = {inner[:i] for i, letter in enumerate(inner) if letter == "/"}
        stems = {inner[:i] for i, letter in enumerate(inner) if letter in "./"}
        if folders & self._listed["/"] or stems & self._listed["."]:
            raise _missing(path)
        state = self._known[inner] = self.details(path).state
        return state

    def learn(self, path: ObjectPath, state: FileState | None) -> None:
        """Note the state of an object that another process has read; None: the object does not exist."""
        self._known[path.inner] = state

    def details(self, path: ObjectPath) -> Details:
        """What the store says now.

        Raises:
            FileNotFoundError: there is no such object.
            StoreError: the store does not say.
        """
        info = request(path, "read it", lambda: self._info(path))
        if info["type"] != "file":
            raise _missing(path)
        return self._details(info)

    def _info(self, path: ObjectPath) -> dict[str, Any]:
        info: dict[str, Any] = self._files.info(path.inner)
        return info

    def _details(self, info: Mapping[str, Any]) -> Details:
        return Details(state_of(info))

    def fetch(self, path: ObjectPath, local: Path, listed: FileState | None = None) -> Details:
        """Copy one version of an object, whole, to a file. listed: its state in a listing, where it was listed.

        Raises:
            FileNotFoundError: there is no such object.
            StoreError: it cannot be read, or changes each time it is read.
        """
        before = listed or self.details(path).state
        for _ in range(ROUNDS):
            request(path, "read it", lambda: self._files.get_file(path.inner, str(local)))
            details = self.details(path)
            # A connection may end early without an error, and parts may come from two versions.
            if details.state == before and local.stat().st_size == before.size:
                return details
            before = details.state
        raise StoreError(path, "changed while lumen read it; run again for the new version")

    def fetch_folder(self, folder: ObjectPath, local: Path) -> None:
        """Copy all objects below a folder whose keys are paths, without hidden ones, to a new folder.

        Raises:
            StoreError: there are none, or one cannot be read.
        """
        listing = {key: state for key, state in self.list(folder).items() if not explain_name(key)}
        visible = [key for key in listing if not any(part.startswith(".") for part in key.split("/"))]
        if not visible:
            raise StoreError(folder, "no such folder")

        def fetch(key: str) -> None:
            target = local / key
            target.parent.mkdir(parents=True, exist_ok=True)
            self.fetch(folder / key, target, listing[key])

        with ThreadPoolExecutor(_AT_ONCE, "lumen-fetch") as pool:
            for _ in pool.map(fetch, visible):
                pass

    def read(self, path: ObjectPath, most: int) -> tuple[bytes, str | None]:
        """The bytes of a small object, and its ETag; None where the store has none.

        Raises:
            FileNotFoundError: there is no such object.
            StoreError: it cannot be read, or has more than `most` bytes.
        """
        state = self.known_state(path)
        if state.size > most:
            raise StoreError(path, f"is larger than {most >> 20} MiB")
        with temporary_folder() as place:
            local = place / "object"
            version = self.fetch(path, local, state).state.etag
            return local.read_bytes(), version

    def send(
        self, local: Path, path: ObjectPath, original: Details | None = None, *, version: str | None = None
    ) -> None:
        """Make a file an object, which appears whole or not at all.

        Args:
            local: the file.
            path: the object.
            original: whose metadata it gets.
            version: the ETag of what it replaces, "" where there must be no such object, for stores that can check
                this while they write; None: whatever is there.

        Raises:
            OvertakenError: another version is there.
            StoreError: it cannot be written.
        """
        metadata = original.metadata if original is not None else {}
        try:
            request(path, "write it", lambda: self._put(local, path, content_type(path), metadata, version))
        except FileExistsError as error:
            if not self._holds(path, local):
                raise OvertakenError(path) from error
        except FileNotFoundError as error:
            if version:
                raise OvertakenError(path) from error
            raise StoreError(path, "there is no such bucket") from error
        self._known[path.inner] = FileState(local.stat().st_size, time.time_ns(), None)

    def _put(self, local: Path, path: ObjectPath, kind: str, metadata: Mapping[str, str], version: str | None) -> None:
        self._files.put_file(str(local), path.inner)

    def write(self, path: ObjectPath, content: bytes, version: str | None = None) -> None:
        """Make bytes an object; see `send`."""
        with temporary_folder() as place:
            local = place / "object"
            local.write_bytes(content)
            self.send(local, path, version=version)

    def remove(self, paths: Iterable[ObjectPath]) -> None:
        """Remove objects; those that are gone do not count. StoreError: they cannot be removed."""
        paths = list(paths)
        if not paths:
            return
        names = [path.inner for path in paths]
        with contextlib.suppress(FileNotFoundError):
            request(paths[0], "remove it", lambda: self._files.rm(names))
        for name in names:
            self._known.pop(name, None)

    def _holds(self, path: ObjectPath, local: Path) -> bool:
        """Whether an object is what was sent: the answer to an earlier attempt may have been lost."""
        if self.details(path).state.size != local.stat().st_size:
            return False
        with temporary_folder() as place:
            there = place / "object"
            self.fetch(path, there)
            return there.read_bytes() == local.read_bytes()


class MemoryStore(Store):
    """fsspec's store in this process."""

    def _find(self, folder: ObjectPath, stem: str) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = self._files.find(folder.inner, detail=True)
        return found


class S3Store(Store):
    """Amazon's S3 and servers like it."""

    checks = True

    def _open(self, **options: Any) -> Any:
        fsspec_config = importlib.import_module("fsspec.config")

        chosen = fsspec_config.conf.get("s3", {}).get("config_kwargs", {})
        timeouts = {"connect_timeout": _CONNECT_SECONDS, "read_timeout": _READ_SECONDS}
        retries = {"mode": "standard", "total_max_attempts": 2}
        own = chosen if isinstance(chosen, dict) else {}
        files = super()._open(config_kwargs={**timeouts, "retries": retries, **own})
        files.retries = 3
        return files

    def _info(self, path: ObjectPath) -> dict[str, Any]:
        bucket, _, key = path.inner.partition("/")
        info = self._files.call_s3("head_object", Bucket=bucket, Key=key)
        return {**info, "type": "file", "size": info["ContentLength"]}

    def _details(self, info: Mapping[str, Any]) -> Details:
        return Details(state_of(info), info.get("ContentType") or UNKNOWN_TYPE, info.get("Metadata") or {})

    def _put(self, local: Path, path: ObjectPath, kind: str, metadata: Mapping[str, str], version: str | None) -> None:
        try:
            self._put_object(local, path, kind, metadata, version if self.checks else None)
        except Exception as error:
            if not (version is not None and self.checks and code_of(error) in ("NotImplemented", "501")):
                raise
            self.checks = False  # a server like S3 that cannot
            self._put_object(local, path, kind, metadata, None)

    def _put_object(
        self, local: Path, path: ObjectPath, kind: str, metadata: Mapping[str, str], version: str | None
    ) -> None:
        condition = {"IfMatch": f'"{version}"'} if version else {}
        self._files.put_file(
            str(local),
            path.inner,
            mode="create" if version == "" else "overwrite",
            chunksize=_ONE_REQUEST,
            **condition,
            ContentType=kind,
            Metadata={name: value if value.isascii() else quote(value) for name, value in metadata.items()},
        )


class GoogleStore(Store):
    """Google Cloud Storage."""

    def _details(self, info: Mapping[str, Any]) -> Details:
        return Details(state_of(info), info.get("contentType") or UNKNOWN_TYPE, info.get("metadata") or {})

    def _put(self, local: Path, path: ObjectPath, kind: str, metadata: Mapping[str, str], version: str | None) -> None:
        mode = "create" if version == "" else "overwrite"
        self._files.put_file(str(local), path.inner, metadata=dict(metadata), content_type=kind, mode=mode)


class AzureStore(Store):
    """Azure Blob Storage."""

    def _details(self, info: Mapping[str, Any]) -> Details:
        kind = (info.get("content_settings") or {}).get("content_type")
        metadata = {name: value for name, value in (info.get("metadata") or {}).items() if name != "is_directory"}
        return Details(state_of(info), kind or UNKNOWN_TYPE, metadata)

    def _put(self, local: Path, path: ObjectPath, kind: str, metadata: Mapping[str, str], version: str | None) -> None:
        mode = "create" if version == "" else "overwrite"
        self._files.put_file(str(local), path.inner, content_settings={"content_type": kind}, mode=mode)
        if metadata:  # adlfs writes no metadata together with the content; Azure's names are identifiers
            self._files.setxattrs(path.inner, **{name.replace("-", "_"): value for name, value in metadata.items()})


_CLASSES: dict[str, type[Store]] = {"S3": S3Store, "Google Cloud": GoogleStore, "Azure": AzureStore}


@functools.lru_cache
def store_of(scheme: str) -> Store:
    """The store of a scheme, opened once.

    Raises:
        UsageError: its package is not installed, or it cannot be opened.
    """
    return _CLASSES.get(KINDS[scheme].title, MemoryStore)(scheme)


def content_type(path: Path) -> str:
    """What an object holds, by its ending."""
    known = _CONTENT_TYPES.get(path.suffix.lower()) or mimetypes.guess_type(path.name)[0]
    return known or UNKNOWN_TYPE


def _overlap(place: str, start: str, kind: str) -> bool:
    """Whether a listed folder ("/") or stem (".") has names that begin with `start`."""
    listed = f"{place}/" if kind == "/" else place
    return listed.startswith(start) or start.startswith(listed)


def _missing(path: ObjectPath) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
