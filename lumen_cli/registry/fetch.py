"""Download files: https only, bounded in size, resumed after a broken connection; from any address or Hugging Face.

Of a repository on Hugging Face, config.json comes first and names the weights files; lumen takes those and no others.
The hub's client library knows addresses, tokens and its own cache; files come through `fetch`, so that nothing a server
sends decides about a name or a size here.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx2

from lumen_cli import __version__
from lumen_cli.atomic import atomic_file
from lumen_cli.errors import ModelError
from lumen_cli.files.contents import user_folder
from lumen_cli.registry import CARD_FILE, CONFIG_FILE, HUGGING_FACE, LARGEST_TEXT, atomic_folder
from lumen_cli.registry.card import LOCAL_HOSTS, is_web_address, read_card
from lumen_cli.text import memory

PAUSES = (1.0, 3.0, 10.0, 20.0)
"""Seconds before each further attempt of an interrupted download."""
TIMEOUT = 30.0
"""Seconds without a byte after which lumen gives up on a server."""

SLOW_SECONDS, SLOWEST = 60.0, 500
"""After so many seconds a download needs so many bytes per second, so that a slow server cannot block a run."""

Progress = Callable[[str, int, int | None], None]
"""Receives the file's name, the bytes received, and the total (None: unknown)."""


OFFLINE = "LUMEN_OFFLINE"
"""The variable that forbids downloads; the option --offline sets it."""


def is_offline() -> bool:
    """Whether downloads are forbidden."""
    return os.environ.get(OFFLINE, "").lower() not in ("", "0", "false", "no", "off")


class NotGivenError(ModelError):
    """The server answers but does not serve this file (404 and the like)."""


_log = logging.getLogger("lumen")


class _BrokenError(Exception):
    """An incomplete download; the message has the reason."""


def require_web_address(address: str) -> None:
    """ModelError with the reason, unless an address is https, or plain http to this machine."""
    if is_web_address(address):
        return
    if address.lower().startswith("http://"):
        raise ModelError(_plain(address))
    raise ModelError(f"{address} is not a usable address: expected https://HOST/FOLDER without user name and password")


def fetch(
    address: str,
    path: Path,
    limit: int,
    *,
    size: int | None = None,
    progress: Progress | None = None,
    headers: Mapping[str, str] | None = None,
) -> int:
    """Download an address to a file and return its size; the caller checks the content.

    An interrupted download is tried again a few times after a pause; it resumes if the server supports that.

    Args:
        address: an address that `require_web_address` accepts; redirects must be https too.
        path: the file to write; after an error it may be incomplete.
        limit: the most bytes to accept.
        size: the expected number of bytes, None if unknown.
        progress: is called for every piece that arrives.
        headers: sent with the request; Authorization goes to the address's own host only.

    Raises:
        NotGivenError: the server answers that the file does not exist or is not public.
        ModelError: the server cannot be reached or does not answer, sends something else or too much, or redirects to
            plain http; the connection breaks too often; or the file cannot be written.
    """
    require_web_address(address)
    if is_offline():
        raise ModelError(f"{address} is not downloaded: lumen is offline (--offline or {OFFLINE})")
    _log.info("downloading %s", address)
    download = _Download(address, path, limit, size, progress)
    try:
        with _client(address, headers) as client:
            for pause in PAUSES:
                try:
                    return download.run(client)
                except (httpx2.TransportError, _BrokenError):
                    if not download.began:
                        raise
                download.report("connection broke, trying again")
                time.sleep(pause)
            return download.run(client)
    except OSError as error:
        raise ModelError(f"{address} cannot be written to {path}: {error.strerror or error}") from None
    except (httpx2.HTTPError, httpx2.InvalidURL, UnicodeError, _BrokenError) as error:
        raise ModelError(_reason(error, address, download)) from None


class _Download:
    """A download in progress. `received`: bytes so far; `began`: whether any byte ever arrived."""

    def __init__(self, address: str, path: Path, limit: int, size: int | None, progress: Progress | None) -> None:
        self.address, self.path, self.limit, self.size, self.progress = address, path, limit, size, progress
        self.received = self.tries = 0
        self.began = False
        self.total = size
        self.mark = ""

    def report(self, more: str = "") -> None:
        if self.progress is not None:
            self.progress(f"{self.path.name}: {more}" if more else self.path.name, self.received, self.total)

    def run(self, client: httpx2.Client) -> int:
        """Request the missing bytes and write them."""
        self.tries += 1
        headers = {}
        if self.received:
            headers["Range"] = f"bytes={self.received}-"
            if self.mark:  # if the file has changed since, the server sends all of it
                headers["If-Range"] = self.mark
        with client.stream("GET", self.address, headers=headers) as response:
            self._begin(response)
            with self.path.open("ab" if self.received else "wb") as file:
                began, before = time.monotonic(), self.received
                for block in response.iter_raw():
                    self.received += len(block)
                    seconds = time.monotonic() - began
                    if seconds > SLOW_SECONDS and self.received - before < SLOWEST * seconds:
                        raise ModelError(f"{self.address}: it sends less than {SLOWEST} bytes per second: stopped")
                    self.began = True
                    self._require_room(self.received)
                    file.write(block)
                    self.report()
        if self.size is not None and self.received < self.size:
            raise _BrokenError("it ended early")
        return self.received

    def _begin(self, response: httpx2.Response) -> None:
        """Check the response's headers before reading its body."""
        status = response.status_code
        continued = status == 206 and _first_byte(response) == self.received and self.received > 0
        if status != 200 and not continued:
            answer = f"{status} {response.reason_phrase}".strip()
            if self.received:
                if status in (206, 416):  # it cannot resume: the next attempt starts over
                    self.received = 0
                    raise _BrokenError(f"the server cannot resume ({answer})")
                raise _BrokenError(f"the server then answered {answer}")
            if 400 <= status < 500 and status not in (408, 429):
                why = "there is no such file" if status in (404, 410) else "it is not public"
                raise NotGivenError(f"{self.address}: the server answers {answer}: {why}; check the address")
            raise ModelError(f"{self.address}: the server answers {answer}: try again later")
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            # Sizes would be those of the compressed data, and a few bytes could become many.
            raise ModelError(f"{self.address}: the server sends it compressed, against the request: use another server")
        if not continued:
            self.received = 0
        length = response.headers.get("Content-Length", "")
        self.total = self.received + int(length) if length.isdecimal() else self.size
        self._require_room(self.total or 0)
        if self.size is not None and self.total is not None and self.total < self.size:
            raise ModelError(
                f"{self.address} is another file: config.json says {self.size} bytes, the server {self.total}"
            )
        tag = response.headers.get("ETag", "")
        self.mark = tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")

    def _require_room(self, size: int) -> None:
        if size > self.limit:
            expected = f"the {self.size} bytes that config.json says" if self.size else memory(self.limit)
            raise ModelError(f"{self.address} is larger than {expected}: it was not downloaded")


def _first_byte(response: httpx2.Response) -> int | None:
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(found[1]) if found else None


def _client(address: str, headers: Mapping[str, str] | None = None) -> httpx2.Client:
    """A client that follows redirects to https only; from plain http on this machine, also to plain http there."""
    plain = urlsplit(address).scheme == "http"

    def require_secure(request: httpx2.Request) -> None:
        if request.url.scheme != "https" and not (plain and request.url.host in LOCAL_HOSTS):
            raise ModelError(f"{address} leads to another address: {_plain(str(request.url))}")

    return httpx2.Client(
        headers={**(headers or {}), "Accept-Encoding": "identity", "User-Agent": f"lumen/{__version__}"},
        timeout=TIMEOUT,
        follow_redirects=True,
        event_hooks={"request": [require_secure]},
        mounts={"http://": None},  # plain http stays on this machine, so no proxy can serve it
    )


def _plain(address: str) -> str:
    return (
        f"{address} is not https: plain http can be changed in transit. Use an https:// address "
        f"(http:// only to {', '.join(LOCAL_HOSTS)})"
    )


def _reason(error: Exception, address: str, download: _Download) -> str:
    """One line: the fault, the address, what to do."""
    why = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, httpx2.InvalidURL | UnicodeError):
        return f"{address} is not a usable address: {why}"
    if isinstance(error, httpx2.TooManyRedirects):
        return f"{address} redirects without end: check the address"
    if isinstance(error, httpx2.TimeoutException):
        why = f"no answer within {TIMEOUT:g} s"
    if download.tries > 1:
        tries = download.tries
        return f"{address}: the connection broke {tries} times ({why}): try again later"
    if isinstance(error, httpx2.ConnectError | httpx2.TimeoutException | httpx2.ProxyError):
        return f"{address} cannot be reached: {why}; check the address and the network, or try again later"
    return f"{address}: the connection broke ({why}): try again"


LARGEST_WEIGHTS = 16 << 30
"""Limit in bytes of a weights file whose size the card does not state."""
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_]|[.-](?![.-])){0,95}")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,99}(?:/[A-Za-z0-9_][A-Za-z0-9._+-]{0,99}){0,5}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SECONDS = 20.0


def parse_address(address: str) -> tuple[str, str]:
    """`hf://organisation/name[@revision]` → "organisation/name" and the revision, "main" if none is given.

    Raises:
        ModelError: it has another form; neither part can lead out of a folder.
    """
    repository, at, revision = address.removeprefix(HUGGING_FACE).partition("@")
    names = repository.split("/")
    if len(names) != 2 or not all(map(_NAME.fullmatch, names)):
        raise ModelError(
            f"{address} is no model address: expected hf://organisation/name or hf://organisation/name@revision"
        )
    if at and (not _REVISION.fullmatch(revision) or ".." in revision or revision.endswith((".lock", "."))):
        raise ModelError(f"{address}: a revision is the name of a branch or tag, or 40 hexadecimal digits")
    return repository, revision or "main"


def download_model(address: str) -> Path:
    """The folder of a model on Hugging Face, downloaded if it is not here yet.

    Raises:
        ModelError: the address has another form, the hub does not give the model, or a file is larger than its limit.
    """
    repository, revision = parse_address(address)
    from huggingface_hub import constants, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.utils import build_hf_headers

    cached = try_to_load_from_cache(repository, CONFIG_FILE, revision=revision)
    if is_offline() or constants.HF_HUB_OFFLINE:
        return _in_cache(address, repository, revision, cached)
    commit = revision if _COMMIT.fullmatch(revision) else _commit_of(address, repository, revision, cached)
    if commit is None:
        return Path(str(cached)).parent
    folder = cache_folder() / repository.replace("/", "--") / commit
    if (folder / CONFIG_FILE).is_file():
        _log.info("%s is in the cache: %s", address, folder)
        _remember(folder, revision)
        return folder
    token = {name: text for name, text in build_hf_headers().items() if name.lower() == "authorization"}

    def bring(name: str, limit: int, place: Path, size: int | None = None) -> None:
        fetch(hf_hub_url(repository, name, revision=commit), place / name, limit, size=size, headers=token)

    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder) as temporary:
        bring(CONFIG_FILE, LARGEST_TEXT, temporary)
        try:
            card = read_card(temporary)
        except ModelError as error:
            raise ModelError(str(error).replace(str(temporary), address)) from None
        try:
            bring(CARD_FILE, LARGEST_TEXT, temporary)
        except NotGivenError:
            (temporary / CARD_FILE).unlink(missing_ok=True)
        for file in card.files.values():
            try:
                bring(file.file, file.bytes or LARGEST_WEIGHTS, temporary, file.bytes)
            except NotGivenError:
                card.path(file).unlink(missing_ok=True)
                if not file.url:
                    raise
    _remember(folder, revision)
    return folder


def _remember(folder: Path, revision: str) -> None:
    """Record which commit a branch or tag was, for runs that are offline."""
    if revision != folder.name:
        with suppress(OSError), atomic_file(_note(folder.parent, revision)) as temporary:
            temporary.write_text(folder.name, encoding="ascii")


def _note(repository: Path, revision: str) -> Path:
    return repository / f"{revision.replace('/', '--')}.commit"


def _in_cache(address: str, repository: str, revision: str, cached: object) -> Path:
    """The folder of a model that was downloaded before; ModelError if there is none."""
    place = cache_folder() / repository.replace("/", "--")
    commit = revision
    if not _COMMIT.fullmatch(revision):
        with suppress(OSError, ValueError):
            commit = _note(place, revision).read_text(encoding="ascii")
    if _COMMIT.fullmatch(commit) and (place / commit / CONFIG_FILE).is_file():
        _log.info("%s is in the cache: %s", address, place / commit)
        return place / commit
    if isinstance(cached, str):
        return Path(cached).parent
    raise ModelError(
        f"{address} is not in the cache and lumen is offline (--offline, {OFFLINE} or HF_HUB_OFFLINE); download it once"
    )


def cache_folder() -> Path:
    """The folder of downloaded models, with a folder for each repository and commit."""
    return user_folder("cache") / "hub"


def _commit_of(address: str, repository: str, revision: str, cached: object) -> str | None:
    """The current commit of a branch or tag; None if the hub cannot be reached but its cache has the model."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    try:
        found = get_hf_file_metadata(hf_hub_url(repository, CONFIG_FILE, revision=revision), timeout=_SECONDS)
    except Exception as error:  # the client raises its own, its web library's and the operating system's errors
        if isinstance(cached, str):
            return None
        raise ModelError(f"{address} cannot be downloaded: {_hub_reason(error, revision)}") from error
    if not _COMMIT.fullmatch(found.commit_hash or ""):
        raise ModelError(f"{address}: the server names no commit of 40 hexadecimal digits: nothing was downloaded")
    return found.commit_hash


def _hub_reason(error: Exception, revision: str) -> str:
    """Translate an error of the hub's client, its web library or the system into a sentence with what to do."""
    names = {kind.__name__ for kind in type(error).__mro__}
    status = getattr(getattr(error, "response", None), "status_code", None)
    if "GatedRepoError" in names or status == 403:
        return "its owners give it to those who ask them; ask on its page, then log in with `hf auth login`"
    if "RevisionNotFoundError" in names:
        return f"it has no revision {revision}"
    if names & {"EntryNotFoundError", "RemoteEntryNotFoundError"}:
        return f"it has no {CONFIG_FILE}, so it is no model of lumen's kind"
    if "RepositoryNotFoundError" in names or status in (401, 404):
        return "there is no such repository, or it is private; check the name, or log in with `hf auth login`"
    if status is not None:
        return f"the server answers {status}; try again later"
    return "the server cannot be reached; check the network and try again"
