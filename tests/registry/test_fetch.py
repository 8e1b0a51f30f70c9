"""Files from the web: what is refused, what is bounded, and what happens where a connection breaks."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import httpx2
import pytest

from lumen_cli.errors import ModelError
from lumen_cli.registry import fetch as fetching
from lumen_cli.registry.fetch import fetch
from tests.web import Site, endless, redirect, refuse, serving

LIMIT = 1 << 22
CONTENT = os.urandom(300_000)


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "PAUSES", (0.0,) * 4)


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as site:
        site.files["/w"] = CONTENT
        yield site


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "w"


def one_line(caught: pytest.ExceptionInfo[ModelError], address: str) -> str:
    said = str(caught.value)
    assert address in said
    assert "\n" not in said
    return said


def test_a_file_is_fetched_and_every_piece_told(site: Site, path: Path) -> None:
    told: list[tuple[str, int, int | None]] = []
    assert fetch(f"{site.address}/w", path, LIMIT, progress=lambda *each: told.append(each)) == len(CONTENT)
    assert path.read_bytes() == CONTENT
    assert told[-1] == ("w", len(CONTENT), len(CONTENT))
    assert [received for _, received, _ in told] == sorted(received for _, received, _ in told)


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("sized", [True, False])
def test_a_broken_download_goes_on_where_it_broke(ranges: bool, sized: bool, site: Site, path: Path) -> None:
    site.ranges, site.sized = ranges, sized
    site.cuts["/w"] = [100_000, 50_000]
    told: list[str] = []
    fetch(f"{site.address}/w", path, LIMIT, size=len(CONTENT), progress=lambda what, *_: told.append(what))
    assert path.read_bytes() == CONTENT
    begun = [asked for _, asked in site.asked]
    assert begun == [None, "bytes=100000-", "bytes=150000-" if ranges else "bytes=50000-"]
    assert "w: connection broke, trying again" in told


def test_a_download_that_breaks_every_time_is_one_line(site: Site, path: Path) -> None:
    site.cuts["/w"] = [10] * 9
    with pytest.raises(ModelError, match="the connection broke 5 times") as caught:
        fetch(f"{site.address}/w", path, LIMIT)
    one_line(caught, f"{site.address}/w")
    assert len(site.asked) == 5


def test_a_server_that_cannot_go_on_is_asked_for_the_whole(site: Site, path: Path) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        if request.headers.get("Range"):
            request.send_error(416)
        else:
            request.send_response(200)
            request.send_header("Content-Length", str(len(CONTENT)))
            request.end_headers()
            request.wfile.write(CONTENT if len(site.asked) > 1 else CONTENT[:1000])

    site.files["/w"] = answer
    fetch(f"{site.address}/w", path, LIMIT)
    assert path.read_bytes() == CONTENT
    assert [asked for _, asked in site.asked] == [None, "bytes=1000-", None]


def test_an_error_of_the_server_in_between_is_tried_again(site: Site, path: Path) -> None:
    site.cuts["/w"] = [1000]

    def busy_once(request: BaseHTTPRequestHandler) -> None:
        request.send_error(503)
        site.files["/w"] = CONTENT

    def whole_then_busy(request: BaseHTTPRequestHandler) -> None:
        site.files["/w"] = CONTENT
        site.asked.pop()
        site.answer(request)
        site.files["/w"] = busy_once

    site.files["/w"] = whole_then_busy
    fetch(f"{site.address}/w", path, LIMIT)
    assert path.read_bytes() == CONTENT
    assert [asked for _, asked in site.asked] == [None, "bytes=1000-", "bytes=1000-"]


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (404, "404 Not Found: there is no such file"),
        (403, "403 Forbidden: it is not public"),
        (503, "503 Service Unavailable: try again later"),
    ],
)
def test_what_a_server_does_not_give(status: int, says: str, site: Site, path: Path) -> None:
    site.files["/w"] = refuse(status)
    with pytest.raises(ModelError, match=says) as caught:
        fetch(f"{site.address}/w", path, LIMIT)
    one_line(caught, f"{site.address}/w")
    assert len(site.asked) == 1
    assert not path.exists()


def test_a_server_that_is_not_there(path: Path) -> None:
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}/w"
        with pytest.raises(ModelError, match=r"cannot be reached: .*check the address and the network") as caught:
            fetch(address, path, LIMIT)
    one_line(caught, address)


def test_a_name_that_does_not_exist(path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be reached") as caught:
        fetch("https://lumen-tests.invalid/w", path, LIMIT)
    one_line(caught, "https://lumen-tests.invalid/w")


def test_a_server_that_says_nothing(site: Site, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "TIMEOUT", 0.1)
    site.files["/w"] = lambda request: site.over.wait() and None
    with pytest.raises(ModelError, match="cannot be reached: no answer within") as caught:
        fetch(f"{site.address}/w", path, LIMIT)
    one_line(caught, f"{site.address}/w")
    site.over.set()


def test_redirections_are_followed_but_not_to_plain_http_elsewhere(site: Site, path: Path) -> None:
    site.files["/here"] = redirect("/w")
    fetch(f"{site.address}/here", path, LIMIT)
    assert path.read_bytes() == CONTENT
    site.files["/away"] = redirect("http://example.org/w")
    with pytest.raises(ModelError, match=r"leads to another address: http://example\.org/w is not https") as caught:
        fetch(f"{site.address}/away", path, LIMIT)
    one_line(caught, f"{site.address}/away")
    site.files["/loop"] = redirect("/loop")
    with pytest.raises(ModelError, match="redirects without end"):
        fetch(f"{site.address}/loop", path, LIMIT)


@pytest.mark.parametrize("address", ["http://example.org/w", "http://127.0.0.1/w"])
def test_https_leads_to_no_plain_http_at_all(address: str) -> None:
    with fetching._client("https://example.org/w") as client:
        (hook,) = client.event_hooks["request"]
        hook(httpx2.Request("GET", "https://elsewhere.example.org/w"))
        with pytest.raises(ModelError, match="is not https"):
            hook(httpx2.Request("GET", address))


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("http://example.org/w", "is not https: plain http can be changed"),
        ("http://127.0.0.1.example.org/w", "is not https"),
        ("http://localhost@example.org/w", "is not https"),
        ("https://user:secret@example.org/w", "without user name and password"),
        ("https://", "not a usable address"),
        ("https://[::1/w", "not a usable address"),
        ("https://example.org:99999/w", "not a usable address"),
        ("ftp://example.org/w", "not a usable address"),
        ("file:///etc/passwd", "not a usable address"),
        (f"https://{'a' * 70}.example.org/w", "aaa"),
    ],
)
def test_addresses_that_are_not_asked(address: str, says: str, path: Path) -> None:
    with pytest.raises(ModelError, match=says) as caught:
        fetch(address, path, LIMIT)
    assert "\n" not in str(caught.value)


def test_nothing_larger_than_the_limit_is_taken(site: Site, path: Path) -> None:
    with pytest.raises(ModelError, match="larger than 98 KiB"):
        fetch(f"{site.address}/w", path, 100_000)
    assert not path.exists(), "its size was known before"
    site.files["/endless"] = endless
    with pytest.raises(ModelError, match="larger than 4 MiB"):
        fetch(f"{site.address}/endless", path, LIMIT)
    assert path.stat().st_size <= LIMIT
    with pytest.raises(ModelError, match=r"larger than the 1000 bytes that config\.json says"):
        fetch(f"{site.address}/endless", path, 1000, size=1000)


def test_a_file_of_another_size_is_not_asked_for_again_and_again(site: Site, path: Path) -> None:
    with pytest.raises(ModelError, match=r"is another file: config\.json says 400000 bytes, the server 300000"):
        fetch(f"{site.address}/w", path, 400_000, size=400_000)
    assert len(site.asked) == 1


def test_a_compressed_answer_is_refused(site: Site, path: Path) -> None:
    def packed(request: BaseHTTPRequestHandler) -> None:
        assert request.headers["Accept-Encoding"] == "identity"
        request.send_response(200)
        request.send_header("Content-Encoding", "gzip")
        request.end_headers()

    site.files["/w"] = packed
    with pytest.raises(ModelError, match="sends it compressed"):
        fetch(f"{site.address}/w", path, LIMIT)


def test_a_place_that_cannot_be_written(site: Site, path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be written to"):
        fetch(f"{site.address}/w", path / "nowhere", LIMIT)
