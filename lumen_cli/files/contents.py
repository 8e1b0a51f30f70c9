"""Whether a file is unchanged: quickly by what the file system says, reliably by a hash of its bytes; user folders."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lumen_cli.errors import PictureError

_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class FileState:
    """What a file system says of a file: bytes, nanoseconds, and which file it is.

    A change that keeps size and mtime still moves ctime, which no program can set (on Windows ctime is the creation).
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    device: int
    inode: int


def read_state(path: Path) -> FileState:
    """The state of the file, links followed.

    Raises:
        OSError: there is none, or it may not be seen.
    """
    status = path.stat()
    return FileState(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_dev, status.st_ino)


def hash_file(path: Path) -> str:
    """BLAKE2b of the bytes in 32 hexadecimal digits; read in pieces, at about 1 GB a second.

    Raises:
        OSError: the file cannot be read.
    """
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
