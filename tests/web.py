"""A web server on this machine that serves what a test tells it to, and breaks off where it is told to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[[BaseHTTPRequestHandler], None]


class Site:
    """What the server has: paths to contents, or to functions that answer.

    cuts: after how many bytes the connection breaks, by path, one number a request; ranges: whether it can go on in the
    middle; sized: whether it says how long a file is. `asked` are the requests: path and Range header.
    """

    def __init__(self) -> None:
        self.address = ""
        self.files: dict[str, bytes | Answer] = {}
        self.cuts: dict[str, list[int]] = {}
        self.ranges = self.sized = True
        self.asked: list[tuple[str, str | None]] = []
        self.over = threading.Event()

    def paths(self) -> list[str]:
        """The paths that were asked for, in order."""
        return [path for path, _ in self.asked]

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path, asked = request.path.partition("?")[0], request.headers.get("Range")
        self.asked.append((path, asked))
        content = self.files.get(path)
        if content is None:
            request.send_error(404)
        elif callable(content):
            content(request)
        else:
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.ranges else 0
            request.send_response(206 if start else 200)
            if start:
                request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            if self.sized:
                request.send_header("Content-Length", str(len(content) - start))
            request.send_header("ETag", f'"{hash(content)}"')
            request.end_headers()
            cuts = self.cuts.get(path)
            request.wfile.write(content[start : start + cuts.pop(0)] if cuts else content[start:])


def redirect(address: str) -> Answer:
    """An answer that sends whoever asks elsewhere."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(302)
        request.send_header("Location", address)
        request.end_headers()

    return answer


def refuse(status: int) -> Answer:
    """An answer that gives nothing."""
    return lambda request: request.send_error(status)


def endless(request: BaseHTTPRequestHandler) -> None:
    """An answer that does not end."""
    request.send_response(200)
    request.end_headers()
    try:
        while True:
            request.wfile.write(bytes(1 << 16))
    except OSError:
        return


@contextmanager
def serving() -> Iterator[Site]:
    """The server, running inside."""
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.answer(self)

        def do_HEAD(self) -> None:
            site.answer(self)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield site
    finally:
        site.over.set()
        server.shutdown()
        server.server_close()
        thread.join()
