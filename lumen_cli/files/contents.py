"""Whether a file is unchanged: quickly by what the file system says, reliably by a hash of its bytes; user folders.

Objects in stores count as files here, except for `read_original` and `is_write_protected`.
"""

from __future__ import annotations

import hashlib
import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lumen_cli.atomic import temporary_folder
from lumen_cli.errors import PictureError
from lumen_cli.files.places import Details, FileState, ObjectPath, StoreError

_PIECE = 1 << 20
_SINGLE_LOOKS = 16
"""Up to so many names in a folder are looked up one by one."""


def read_state(path: Path) -> FileState:
    """The state of the file, links followed.

    Raises:
        OSError: there is none, or it may not be seen.
        StoreError: its store does not say.
    """
    if isinstance(path, ObjectPath):
        return path.store.details(path).state
    status = path.stat()
    return FileState(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_dev, status.st_ino)


def known_state(path: Path) -> FileState:
    """The state of a file, or of an object as it was listed last; it raises what `read_state` raises."""
    return path.store.known_state(path) if isinstance(path, ObjectPath) else read_state(path)


def exists(path: Path) -> bool:
    """Whether anything has this name, even a link that leads nowhere; objects as they were listed last."""
    if not isinstance(path, ObjectPath):
        return os.path.lexists(path)
    try:
        known_state(path)
    except FileNotFoundError:
        return False
    return True


class Listings:
    """What folders hold; a folder is listed where many of its names are asked for.

    It is as old as the listings: for a plan, not for the moment of writing.
    """

    def __init__(self) -> None:
        self._asked = Counter[Path]()
        self._names: dict[Path, frozenset[str] | None] = {}
        self._last: Path | None = None
        self._held: frozenset[str] | None = None

    def may_hold(self, folder: Path, name: str) -> bool:
        """False where nothing in a folder has this name, however it is spelled."""
        if folder is not self._last or self._held is None:
            self._last, self._held = folder, self._list(folder)
        return self._held is None or fold_text(name) in self._held

    def _list(self, folder: Path) -> frozenset[str] | None:
        """The names in a folder as `fold_text` gives them; None where they are not known."""
        if isinstance(folder, ObjectPath):
            return None
        if folder not in self._names:
            self._asked[folder] += 1
            if self._asked[folder] <= _SINGLE_LOOKS and os.path.lexists(folder):
                return None
            try:
                self._names[folder] = frozenset(map(fold_text, os.listdir(folder)))  # noqa: PTH208
            except (FileNotFoundError, NotADirectoryError):
                self._names[folder] = frozenset()
            except OSError:
                self._names[folder] = None
        return self._names[folder]


def fold_text(text: str) -> str:
    """A name as a file system compares it that ignores case and Unicode spelling."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


@contextmanager
def local_file(path: Path) -> Iterator[Path]:
    """The file itself, or inside a copy of an object. StoreError: the object cannot be read."""
    if not isinstance(path, ObjectPath):
        yield path
        return
    with temporary_folder() as place:
        copy = place / f"object{path.suffix}"
        path.store.fetch(path, copy)
        yield copy


@contextmanager
def local_folder(path: Path) -> Iterator[Path]:
    """The folder itself, or inside a copy of a folder in a store, of the same name. StoreError: it cannot be read."""
    if not isinstance(path, ObjectPath):
        yield path
        return
    with temporary_folder() as place:
        copy = place / path.name
        path.store.fetch_folder(path, copy)
        yield copy


def hash_file(path: Path) -> str:
    """BLAKE2b of the bytes in 32 hexadecimal digits; read in pieces, at about 1 GB a second.

    Raises:
        OSError: the file cannot be read.
        StoreError: the object cannot be read.
    """
    if isinstance(path, ObjectPath):
        with local_file(path) as copy:
            return hash_file(copy)
    hashed = hashlib.blake2b(digest_size=16)
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_PIECE):
            hashed.update(piece)
    return hashed.hexdigest()


def checksum(path: Path) -> str:
    """A file's SHA-256, 64 hexadecimal digits; the file is read in pieces, whatever its size.

    Raises:
        OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def hash_bytes(content: bytes) -> str:
    """The `hash_file` of a file with these bytes."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


@dataclass(frozen=True)
class Original:
    """A source at the moment it was read. content: its `hash_file`."""

    path: Path
    state: FileState
    content: str

    def require_unchanged(self) -> None:
        """Check that the file still holds what was read; its content is only hashed where its state has changed.

        Raises:
            PictureError: it holds something else, or is gone.
        """
        try:
            if read_state(self.path) == self.state or hash_file(self.path) == self.content:
                return
        except FileNotFoundError:
            raise PictureError(self.path, "vanished while lumen worked on it") from None
        except OSError as error:
            reason = f"could not be read a second time ({error.strerror or error})"
            raise PictureError(self.path, reason) from None
        raise PictureError(self.path, "changed while lumen worked on it; run again for the new version")


def read_original(path: Path) -> Original:
    """The file's state and content, taken before it is decoded.

    Raises:
        OSError: it cannot be read.
        PictureError: it is not a regular file; opening a pipe could take forever.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise PictureError(path, "not a regular file")
    return Original(path, read_state(path), hash_file(path))


@dataclass(frozen=True)
class Arrived:
    """A source as a local file. details: of the object it is a copy of; error: why there is no copy."""

    source: Path
    path: Path
    details: Details | None = None
    error: Exception | None = None

    def original(self) -> Original:
        """The source's state and content.

        Raises:
            OSError: it cannot be read.
            PictureError: it is no regular file.
        """
        if self.details is None:
            return read_original(self.path)
        return Original(self.source, self.details.state, hash_file(self.path))

    def times(self) -> tuple[int, int] | None:
        """When the source was last read and last changed, in nanoseconds; None where that is not known."""
        return times_of(self.source)

    def discard(self) -> None:
        """Remove the local copy of an object; a file stays."""
        if self.details is not None:
            self.path.unlink(missing_ok=True)


def times_of(path: Path) -> tuple[int, int] | None:
    """When a file was last read and last changed, in nanoseconds; None where that is not known.

    An object has only the time at which it was written.
    """
    try:
        if isinstance(path, ObjectPath):
            written = known_state(path).mtime_ns
            return written, written
        status = path.stat()
    except (OSError, StoreError):
        return None
    return status.st_atime_ns, status.st_mtime_ns


def is_write_protected(path: Path) -> bool:
    """Whether no one may write the file: it is meant to stay, though its folder lets it be replaced."""
    try:
        return not path.stat().st_mode & 0o222
    except OSError:
        return False


def user_folder(kind: Literal["data", "config", "cache", "state"]) -> Path:
    """The user's folder for models, settings, downloads or manifests; it may not exist.

    A user without a home, as in some containers, gets a path below the null device: nothing is found or created there.
    """
    import platformdirs

    try:
        return Path(getattr(platformdirs, f"user_{kind}_dir")("lumen"))
    except RuntimeError:
        return Path(os.devnull) / kind
