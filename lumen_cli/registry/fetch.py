"""Files from the web: https only, bounded in size, and going on where a connection broke."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import httpx2

from lumen_cli import __version__
from lumen_cli.errors import ModelError
from lumen_cli.registry.card import LOCAL_HOSTS, is_web_address

PAUSES = (1.0, 3.0, 10.0, 20.0)
"""Seconds before each further try of a download that broke off."""
TIMEOUT = 30.0
"""Seconds without a byte after which a server counts as gone."""

SLOW_SECONDS, SLOWEST = 60.0, 500
"""Seconds after which a download needs so many bytes a second: a server that drips does not stop a run."""

Progress = Callable[[str, int, int | None], None]
"""Is told what is being fetched, how many bytes are here, and of how many (None: not known)."""


class NotGivenError(ModelError):
    """The server is there but does not give this file (an answer such as 404)."""


class _BrokenError(Exception):
    """A download that did not come to its end; its text says why."""


def require_web_address(address: str) -> None:
    """ModelError, with the reason, unless an address is https, or plain http to this very machine."""
    if is_web_address(address):
        return
    if address.lower().startswith("http://"):
        raise ModelError(_plain(address))
    raise ModelError(f"{address} is no usable address: expected https://HOST/FOLDER without user name and password")


def fetch(
    address: str,
    path: Path,
    limit: int,
    *,
    size: int | None = None,
    progress: Progress | None = None,
    headers: Mapping[str, str] | None = None,
) -> int:
    """Fetch an address into a file and return its size; what the file holds is the caller's to check.

    A download that breaks off goes on after a pause, a few times, from where it broke if the server can do that.

    Args:
        address: as `require_web_address` wants it; redirections have to be https as well.
        path: the file to make; after an error a part of it may be there.
        limit: bytes after which the download is stopped.
        size: bytes that there have to be, None where this is not known.
        progress: told about every piece that arrives.
        headers: sent with the request, Authorization to the address's own host alone.

    Raises:
        NotGivenError: the server answers that there is no such file, or that it is not for everyone.
        ModelError: the server cannot be reached or does not answer, sends something else or too much, leads to plain
            http, the connection broke too often, or the file cannot be written.
    """
    require_web_address(address)
    download = _Download(address, path, limit, size, progress)
    try:
        with _client(address, headers) as client:
            for pause in PAUSES:
                try:
                    return download.run(client)
                except (httpx2.TransportError, _BrokenError):
                    if not download.began:
                        raise
                download.tell("connection broke, trying again")
                time.sleep(pause)
            return download.run(client)
    except OSError as error:
        raise ModelError(f"{address} cannot be written to {path}: {error.strerror or error}") from None
    except (httpx2.HTTPError, httpx2.InvalidURL, UnicodeError, _BrokenError) as error:
        raise ModelError(_reason(error, address, download)) from None


class _Download:
    """One file on its way; `received` bytes of it are here, `began`: whether there have ever been any."""

    def __init__(self, address: str, path: Path, limit: int, size: int | None, progress: Progress | None) -> None:
        self.address, self.path, self.limit, self.size, self.progress = address, path, limit, size, progress
        self.received = self.tries = 0
        self.began = False
        self.total = size
        self.mark = ""

    def tell(self, more: str = "") -> None:
        if self.progress is not None:
            self.progress(f"{self.path.name}: {more}" if more else self.path.name, self.received, self.total)

    def run(self, client: httpx2.Client) -> int:
        """Ask for what is missing and take it."""
        self.tries += 1
        headers = {}
        if self.received:
            headers["Range"] = f"bytes={self.received}-"
            if self.mark:  # of a file that has changed meanwhile the server then sends the whole
                headers["If-Range"] = self.mark
        with client.stream("GET", self.address, headers=headers) as response:
            self._begin(response)
            with self.path.open("ab" if self.received else "wb") as file:
                began, before = time.monotonic(), self.received
                for block in response.iter_raw():
                    self.received += len(block)
                    seconds = time.monotonic() - began
                    if seconds > SLOW_SECONDS and self.received - before < SLOWEST * seconds:
                        raise ModelError(f"{self.address}: it sends less than {SLOWEST} bytes a second: stopped")
                    self.began = True
                    self._require_room(self.received)
                    file.write(block)
                    self.tell()
        if self.size is not None and self.received < self.size:
            raise _BrokenError("it ended early")
        return self.received

    def _begin(self, response: httpx2.Response) -> None:
        """Judge an answer by its head, before anything of it is taken."""
        status = response.status_code
        continued = status == 206 and _first_byte(response) == self.received and self.received > 0
        if status != 200 and not continued:
            answer = f"{status} {response.reason_phrase}".strip()
            if self.received:
                if status in (206, 416):  # it cannot go on from there: the next try begins anew
                    self.received = 0
                    raise _BrokenError(f"the server cannot go on where it broke ({answer})")
                raise _BrokenError(f"the server then answered {answer}")
            if 400 <= status < 500 and status not in (408, 429):
                why = "there is no such file" if status in (404, 410) else "it is not given to everyone"
                raise NotGivenError(f"{self.address}: the server answers {answer}: {why}; check the address")
            raise ModelError(f"{self.address}: the server answers {answer}: try again later")
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            # Its sizes would mean something else, and a few bytes could become many.
            raise ModelError(f"{self.address}: the server sends it compressed, though asked not to: take another one")
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
            expected = f"the {self.size} bytes that config.json says" if self.size else _bound(self.limit)
            raise ModelError(f"{self.address} is larger than {expected}: it was not fetched")


def _bound(size: int) -> str:
    """A limit as people read it: 1 MiB, 16 GiB."""
    return f"{size >> 30} GiB" if size >= 1 << 30 else f"{size >> 20} MiB" if size >= 1 << 20 else f"{size} bytes"


def _first_byte(response: httpx2.Response) -> int | None:
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(found[1]) if found else None


def _client(address: str, headers: Mapping[str, str] | None = None) -> httpx2.Client:
    """A client that goes from https to https only, or from this machine's plain http to it and to https."""
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
        f"{address} is not https: what comes by plain http can be changed on its way. Use an https:// address "
        f"(http:// only to {', '.join(LOCAL_HOSTS)})"
    )


def _reason(error: Exception, address: str, download: _Download) -> str:
    """One line: what went wrong, at which address, what to do."""
    why = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, httpx2.InvalidURL | UnicodeError):
        return f"{address} is no usable address: {why}"
    if isinstance(error, httpx2.TooManyRedirects):
        return f"{address} leads from address to address without end: check the address"
    if isinstance(error, httpx2.TimeoutException):
        why = f"no answer within {TIMEOUT:g} s"
    if download.tries > 1:
        tries = download.tries
        return f"{address}: the connection broke {tries} times ({why}): run it again when the network is better"
    if isinstance(error, httpx2.ConnectError | httpx2.TimeoutException | httpx2.ProxyError):
        return f"{address} cannot be reached: {why}; check the address and the network, or try again later"
    return f"{address}: the connection broke ({why}): try again"
