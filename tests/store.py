"""An S3 server on this machine (moto, over HTTP) behind a proxy that drops, delays, throttles and truncates."""

from __future__ import annotations

import http.client
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lumen_cli.files.stores import store_of

MANIFEST = ".lumen-manifest.jsonl"
REFUSALS = {
    "throttle": (503, "SlowDown", "Please reduce your request rate."),
    "deny": (403, "AccessDenied", "Access Denied"),
    "reject": (403, "InvalidAccessKeyId", "The key you provided does not exist in our records."),
    "unknown": (501, "NotImplemented", "A header you provided implies functionality that is not implemented."),
    "elsewhere": (301, "PermanentRedirect", "The bucket must be addressed using another endpoint."),
}


def outputs(contents: dict[str, bytes]) -> dict[str, bytes]:
    """What a folder or a bucket has, without lumen's own files."""
    return {name: content for name, content in contents.items() if not name.startswith(".lumen")}


@dataclass(frozen=True)
class Request:
    """number: of the requests so far; path: with the query."""

    number: int
    method: str
    path: str

    @property
    def key(self) -> str:
        """The object's key, "" for a bucket."""
        return self.path.partition("?")[0].lstrip("/").partition("/")[2]


@dataclass
class Proxy:
    """What happens to requests. latency: seconds for each.

    A fault is "drop" (nothing reaches the store), "lose" (the answer is lost), "truncate" (half of the body arrives) or
    one of `REFUSALS`.
    """

    port: int = 0
    latency: float = 0.0
    fault: Callable[[Request], str | None] = lambda request: None
    seen: list[Request] = field(default_factory=list)

    def count(self, method: str, ending: str = "") -> int:
        """Requests so far of one method for keys that end so."""
        return sum(request.method == method and request.key.endswith(ending) for request in self.seen)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is no error of the server."""


@contextmanager
def proxy_of(target: int) -> Iterator[Proxy]:
    """A proxy before the server on a port of this machine."""
    proxy, lock = Proxy(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def handle_expect_100(self) -> bool:
            expected = super().handle_expect_100()
            self.wfile.flush()
            return expected

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with lock:
                request = Request(len(proxy.seen), self.command, self.path)
                proxy.seen.append(request)
            fault = proxy.fault(request)
            if proxy.latency:
                time.sleep(proxy.latency)
            if fault == "drop":
                self.close_connection = True
                return
            if fault in REFUSALS:
                status, code, text = REFUSALS[fault]
                content = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{text}</Message></Error>".encode()
                self.answer(status, {"Content-Type": "application/xml"}, content, len(content))
                return
            connection = http.client.HTTPConnection("127.0.0.1", target)
            try:
                connection.request(self.command, self.path, body, dict(self.headers))
                reply = connection.getresponse()
                content, status, headers = reply.read(), reply.status, dict(reply.getheaders())
            finally:
                connection.close()
            if fault == "lose":
                self.close_connection = True
                return
            length = int(headers.get("Content-Length") or len(content))
            if fault == "truncate" and content:
                content = content[: len(content) // 2]
                self.close_connection = True
            self.answer(status, headers, content, length)

        def answer(self, status: int, headers: dict[str, str], content: bytes, length: int) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = forward  # noqa: N815

    server = _Server(("127.0.0.1", 0), Handler)
    proxy.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class Bucket:
    """A new bucket: what a test puts in, and what it finds there."""

    name: str
    client: Any
    proxy: Proxy

    def url(self, key: str = "") -> str:
        """The address of a key."""
        return f"s3://{self.name}/{key}".rstrip("/")

    def put(self, key: str, content: bytes | Path, **more: Any) -> None:
        """Store an object; more: ContentType, Metadata."""
        content = content.read_bytes() if isinstance(content, Path) else content
        self.client.put_object(Bucket=self.name, Key=key, Body=content, **more)

    def put_folder(self, folder: Path, prefix: str) -> None:
        """Store every file below a folder."""
        for path in folder.rglob("*"):
            if path.is_file():
                self.put(f"{prefix}/{path.relative_to(folder).as_posix()}", path)

    def get(self, key: str) -> bytes:
        """An object's bytes."""
        content: bytes = self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return content

    def head(self, key: str) -> dict[str, Any]:
        """What the store says of an object."""
        return dict(self.client.head_object(Bucket=self.name, Key=key))

    def contents(self, prefix: str) -> dict[str, bytes]:
        """Every object below a folder, hidden ones too, as `folder_bytes` gives files."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=f"{prefix}/")
        keys = [each["Key"] for page in pages for each in page.get("Contents", ())]
        return {key.removeprefix(f"{prefix}/"): self.get(key) for key in keys}

    def uploads(self) -> list[Any]:
        """Multipart uploads that were begun and not ended."""
        return list(self.client.list_multipart_uploads(Bucket=self.name).get("Uploads", ()))


@pytest.fixture(scope="session")
def s3_port() -> Iterator[int]:
    """The port of an S3 server."""
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    server = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    yield running.get_host_and_port()[1]
    running.stop()


@pytest.fixture
def bucket(s3_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """An empty bucket; lumen reaches it through the proxy, the test itself does not."""
    with proxy_of(s3_port) as proxy:
        yield from new_bucket(s3_port, proxy, monkeypatch)


def set_up_store(monkeypatch: pytest.MonkeyPatch, proxy: Proxy) -> None:
    """Credentials, and the proxy as the server, for processes that start from now on."""
    settings = {"AWS_ACCESS_KEY_ID": "key-of-the-test", "AWS_SECRET_ACCESS_KEY": "secret-of-the-test"}
    settings |= {"AWS_DEFAULT_REGION": "us-east-1", "AWS_CONFIG_FILE": "/dev/null"}
    for name, value in {**settings, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}"}.items():
        monkeypatch.setenv(name, value)


def new_bucket(s3_port: int, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """An empty bucket behind a proxy; afterwards this process has forgotten the store."""
    import boto3

    set_up_store(monkeypatch, proxy)
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{s3_port}")
    name = f"lumen-{secrets.token_hex(4)}"
    client.create_bucket(Bucket=name)
    store_of.cache_clear()
    yield Bucket(name, client, proxy)
    store_of.cache_clear()
