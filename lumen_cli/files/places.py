"""Where pictures lie: files by their paths, objects in stores by their addresses.

A request to a store is sent again where that may help; the reason of a failure is one line, from its exceptions.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path, PosixPath
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from lumen_cli.errors import PictureError, UsageError

if TYPE_CHECKING:
    from lumen_cli.files.stores import Store


UNKNOWN_TYPE = "application/octet-stream"
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_SECRET = re.compile(r"(?<=://)[^/\s@]*@")
_QUERY = re.compile(r"(://[^\s'\"?]*)\?[^\s'\"]+")


@dataclass(frozen=True)
class Kind:
    """A kind of store. title: its name for people; package: what reads it; extra: of lumen's optional dependencies."""

    title: str
    package: str
    extra: str


_S3, _GCS, _AZURE = Kind("S3", "s3fs", "s3"), Kind("Google Cloud", "gcsfs", "gcs"), Kind("Azure", "adlfs", "azure")
KINDS: dict[str, Kind] = {
    "s3": _S3,
    "s3a": _S3,
    "gs": _GCS,
    "gcs": _GCS,
    "az": _AZURE,
    "abfs": _AZURE,
    "abfss": _AZURE,
    "memory": Kind("memory", "fsspec", "s3"),
}
"""Kinds of stores by the scheme of their addresses; memory:// lives in this process, for tests and experiments."""


class StoreError(PictureError):
    """A store refuses something, or does not answer."""


class OvertakenError(StoreError):
    """Somebody else wrote the object meanwhile."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "somebody else wrote it meanwhile; run again to decide about it")


@dataclass(frozen=True, slots=True)
class FileState:
    """What a file system or a store says of a file: bytes, nanoseconds, and which file or version it is.

    A change that keeps size and mtime still moves ctime, which no program can set (on Windows ctime is the creation). A
    store has no ctime; where it has an ETag, that tells versions apart.
    """

    size: int
    mtime_ns: int
    ctime_ns: int | None
    device: int = 0
    inode: int = 0
    etag: str | None = None


def state_of(info: Mapping[str, Any]) -> FileState:
    """The state in an entry of fsspec; with an ETag the time counts in seconds, as S3's two answers differ in more."""
    version = info.get("ETag") or info.get("generation") or info.get("etag")
    names = ("LastModified", "last_modified", "mtime", "updated", "created")
    moment = next((info[name] for name in names if info.get(name)), None)
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment.replace("Z", "+00:00"))
    elif isinstance(moment, float):
        moment = datetime.fromtimestamp(moment, timezone.utc)
    nanoseconds = 0
    if isinstance(moment, datetime):
        moment = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
        nanoseconds = int(moment.timestamp()) * 10**9 + (0 if version else moment.microsecond * 1000)
    return FileState(info["size"], nanoseconds, None, etag=str(version).strip('"') if version else None)


@dataclass(frozen=True)
class Details:
    """An object's state, its content type and the metadata that its user gave it."""

    state: FileState
    content_type: str = UNKNOWN_TYPE
    metadata: Mapping[str, str] = field(default_factory=dict)


class ObjectPath(PosixPath):
    """The address of an object or a folder in a store: s3://bucket/key, with the names and parents of a path.

    It is no file: what asks the disk for it finds nothing. Its first part is the scheme ("s3:"), its second the bucket;
    it begins with no separator, so it equals no absolute path.
    """

    def __str__(self) -> str:
        return super().__str__().replace(":/", "://", 1)

    def __fspath__(self) -> str:
        return str(self)

    @property
    def scheme(self) -> str:
        """The key of `KINDS`."""
        return self.parts[0][:-1]

    @property
    def store(self) -> Store:
        """What reads and writes it.

        Raises:
            UsageError: a package is not installed, or the store cannot be opened.
        """
        from lumen_cli.files.stores import store_of

        return store_of(self.scheme)

    @property
    def inner(self) -> str:
        """Bucket and key, as fsspec's file systems take them."""
        return "/".join(self.parts[1:])

    @property
    def is_bucket(self) -> bool:
        """Whether it has no key."""
        return len(self.parts) < 3

    def relative_to(self, *other: Any, **options: Any) -> Path:  # type: ignore[override]
        """A plain path: what remains is no address."""
        return Path(*super().relative_to(*other, **options).parts)

    def stat(self, **options: Any) -> NoReturn:
        """There is no such file."""
        raise FileNotFoundError(errno.ENOENT, "an object in a store, not a file", str(self))

    def lstat(self) -> NoReturn:
        """There is no such file."""
        self.stat()

    def open(self, *arguments: Any, **options: Any) -> NoReturn:
        """There is no such file."""
        self.stat()


def is_address(text: str | os.PathLike[str]) -> bool:
    """Whether a name is an address in a store rather than a path: s3://…"""
    return _ADDRESS.fullmatch(os.fspath(text)) is not None


def parse_address(text: str) -> ObjectPath:
    """The object or folder that an address names.

    Raises:
        UsageError: no store has such addresses, no bucket is named, a password is in it, or its parts are no names.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise UsageError(f"{mask(text)}: not the address of an object")
    scheme, rest = match[1].lower(), match[2]
    shown = mask(text)
    if scheme not in KINDS:
        raise UsageError(
            f"{shown}: lumen knows no such store, only s3://, gs:// and az://; copy the pictures to a folder"
        )
    if os.name == "nt":
        raise UsageError(f"{shown}: stores are read and written on Linux and macOS only; copy the pictures first")
    if "@" in rest.partition("/")[0]:
        title = KINDS[scheme].title
        raise UsageError(
            f"{shown}: an address has no user, password or account; {title} takes them from its own settings"
        )
    parts = rest.rstrip("/").split("/")
    if not parts[0]:
        raise UsageError(f"{shown}: names no bucket")
    reason = explain_name("/".join(parts[1:])) if parts[1:] else ""
    if reason:
        raise UsageError(f"{shown}: {reason}")
    return ObjectPath(f"{scheme}:", *parts)


def is_store(text: str) -> bool:
    """Whether a name is an address in one of the stores that lumen knows."""
    return is_address(text) and text.partition(":")[0].lower() in KINDS


def as_place(path: Path) -> Path:
    """A path of an option as what it names: of an address two separators have become one.

    Raises:
        UsageError: as `parse_address`.
    """
    scheme, *rest = (str(path).partition("/")[0], *path.parts[1:])
    return parse_address(f"{scheme}//{'/'.join(rest)}") if scheme[:-1] in KINDS and scheme[-1:] == ":" else path


def explain_name(key: str) -> str:
    """Why a key is no path below a folder; "" where it is one."""
    parts = key.split("/")
    if "" in parts:
        return f"the key {key!r} has an empty part, which no path can have"
    if "." in parts or ".." in parts:
        return f"the key {key!r} has a part . or .., which means something else in a path"
    return f"the key {key!r} has a NUL character" if "\0" in key else ""


def mask(text: str) -> str:
    """Text without what may be secret in addresses: users with passwords, and queries with signatures."""
    return _QUERY.sub(r"\1?…", _SECRET.sub("…@", text))


Answer = TypeVar("Answer")
ROUNDS = 4
"""Times a request is sent; in each, the store's own package tries again as well."""

_NO_CREDENTIALS = {
    "NoCredentialsError",
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "ProfileNotFound",
    "DefaultCredentialsError",
    "RefreshError",
    "ClientAuthenticationError",
}
_REJECTED = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired"}
_OTHER_REGION = {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301"}
_NO_ANSWER = ("Endpoint", "Connect", "Timeout", "ConnectionClosed", "ServerDisconnected", "ProxyConnection")
_FINAL = {errno.EINVAL, errno.ENAMETOOLONG, errno.EMSGSIZE, errno.ENOSYS, errno.EPERM, errno.EACCES, errno.ENOSPC}


def request(path: ObjectPath, doing: str, call: Callable[[], Answer], rounds: int = ROUNDS) -> Answer:
    """Make a request, again where that may help.

    Raises:
        FileNotFoundError: there is no such object.
        FileExistsError: the request is for a new object, and there is one.
        StoreError: anything else.
    """
    for number in range(1, rounds + 1):
        try:
            return call()
        except (FileNotFoundError, FileExistsError):
            raise
        except Exception as error:
            if code_of(error) in ("PreconditionFailed", "412"):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from error
            if number == rounds or is_final(error):
                raise StoreError(path, explain_failure(error, doing)) from error
        time.sleep(0.5 * 2**number)
    raise AssertionError


def code_of(error: BaseException) -> str:
    """What the store calls an error: S3's code, else the HTTP status; "" where there is none."""
    for each in (error, error.__cause__):
        response = getattr(each, "response", None)
        if isinstance(response, Mapping) and "Error" in response:
            return str(response["Error"].get("Code", ""))
        for name in ("status_code", "code", "status"):
            if isinstance(getattr(each, name, None), int):
                return str(getattr(each, name))
    return ""


def is_final(error: Exception) -> bool:
    """Whether the same request would fail again."""
    if type(error).__name__ in _NO_CREDENTIALS or code_of(error) in _REJECTED | _OTHER_REGION | {"401", "403"}:
        return True
    return isinstance(error, PermissionError | ValueError | TypeError) or getattr(error, "errno", None) in _FINAL


def explain_failure(error: Exception, doing: str) -> str:
    """Why a request failed, in a line without secrets."""
    name, code = type(error).__name__, code_of(error)
    text = " ".join(mask(str(error)).split())
    if name in _NO_CREDENTIALS or "credentials" in text.lower():
        return "there are no credentials for this store; set them up as its own tools take them"
    if code in _REJECTED:
        return f"the store does not accept the credentials ({code})"
    if isinstance(error, PermissionError) or code in ("401", "403"):
        return f"no permission to {doing}"
    if code in _OTHER_REGION:
        return "the bucket is in another region; set the region as the store's own tools take it"
    if code == "KeyTooLongError" or getattr(error, "errno", None) == errno.ENAMETOOLONG:
        return "its key is too long for the store"
    if code in ("SlowDown", "503", "429"):
        return "the store asks for fewer requests at a time; run again later"
    if isinstance(error, TimeoutError | ConnectionError) or any(part in name for part in _NO_ANSWER):
        return f"the store does not answer ({text or name})"
    return f"the store cannot {doing} ({text or name})"
