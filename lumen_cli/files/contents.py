"""Whether a file is still the one it was: cheaply by what the file system says, surely by a hash of its bytes."""

from __future__ import annotations

import hashlib
import stat
from dataclasses import dataclass
from pathlib import Path

from lumen_cli.errors import PictureError

_PIECE = 1 << 20


@dataclass(frozen=True)
class FileState:
    """What a file system says of a file. size: bytes; mtime_ns, ctime_ns: nanoseconds, of its last change and of the
    last change to it or its attributes (Windows: its creation); device, inode: which file it is.

    A change that keeps size and mtime still moves ctime, which no program can set.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    device: int
    inode: int


def state_of(path: Path) -> FileState:
    """The state of the file, links followed.

    Raises:
        OSError: there is none, or it may not be seen.
    """
    status = path.stat()
    return FileState(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_dev, status.st_ino)


def content_hash(path: Path) -> str:
    """BLAKE2b of the bytes in 32 hexadecimal digits; read in pieces, at about 1 GB a second.

    Raises:
        OSError: the file cannot be read.
    """
    hashed = hashlib.blake2b(digest_size=16)
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_PIECE):
            hashed.update(piece)
    return hashed.hexdigest()


def hash_of(content: bytes) -> str:
    """The `content_hash` of a file that holds these bytes."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


@dataclass(frozen=True)
class Original:
    """A source at the moment it was read. content: its `content_hash`."""

    path: Path
    state: FileState
    content: str

    def require_unchanged(self) -> None:
        """Make sure that the file still holds what was read; asks for its state alone while that is the same.

        Raises:
            PictureError: it holds something else by now, or is gone.
        """
        try:
            if state_of(self.path) == self.state or content_hash(self.path) == self.content:
                return
        except FileNotFoundError:
            raise PictureError(self.path, "vanished while lumen worked on it") from None
        except OSError as error:
            reason = f"could not be read a second time ({error.strerror or error})"
            raise PictureError(self.path, reason) from None
        raise PictureError(self.path, "changed while lumen worked on it; run again for the new version")


def original_of(path: Path) -> Original:
    """The file's state and content, to be taken before it is decoded.

    Raises:
        OSError: it cannot be read.
        PictureError: it is no regular file; opening a pipe could take forever.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise PictureError(path, "not a regular file")
    return Original(path, state_of(path), content_hash(path))


def is_write_protected(path: Path) -> bool:
    """Whether nobody may write the file: somebody wants it left as it is, though its folder lets it be replaced."""
    try:
        return not path.stat().st_mode & 0o222
    except OSError:
        return False
