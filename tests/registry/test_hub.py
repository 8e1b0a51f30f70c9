"""Models of Hugging Face from a hub on this machine, an honest and a hostile one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from lumen_cli.errors import ModelError
from lumen_cli.registry import fetch as fetching
from lumen_cli.registry import find_model
from lumen_cli.registry.fetch import download_model, parse_address
from lumen_cli.registry.load import load
from tests.conftest import MakeModel
from tests.registry.test_graded_models import add_grading
from tests.web import Site, endless, serving

COMMIT = "0123456789abcdef" * 2 + "01234567"
BASE = f"/organisation/night/resolve/{COMMIT}"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Site]:
    monkeypatch.setattr("lumen_cli.registry.fetch.cache_folder", lambda: tmp_path / "cache" / "lumen")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache" / "hf"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(fetching, "PAUSES", (0.0,))
    with serving() as site:
        template = site.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", site.address)
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.file_download.HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
        yield site


@pytest.fixture
def publish(hub: Site, make_model: MakeModel, tmp_path: Path) -> Callable[..., None]:
    """Put a model on the hub at a commit, and at "main", where the answer names the commit."""

    def at(commit: str = COMMIT) -> None:
        folder = make_model("night", root=tmp_path / "made")
        add_grading(folder)

        def head(request: BaseHTTPRequestHandler) -> None:
            request.send_response(200)
            request.send_header("X-Repo-Commit", commit)
            request.send_header("ETag", '"../../../../etag"')
            request.send_header("Content-Length", "0")
            request.end_headers()

        hub.files["/organisation/night/resolve/main/config.json"] = head
        for name in ("config.json", "network.safetensors", "grading.safetensors"):
            hub.files[f"{BASE}/{name}"] = (folder / name).read_bytes()

    return at


def written(tmp_path: Path) -> list[str]:
    cache = tmp_path / "cache"
    return sorted(path.relative_to(cache).as_posix() for path in cache.rglob("*") if path.is_file())


def test_a_models_files_and_nothing_else_are_fetched_once(
    publish: Callable[..., None], hub: Site, tmp_path: Path
) -> None:
    publish()
    for name in ("pytorch_model.bin", "other.safetensors", "sub/network.safetensors", "modeling.py"):
        hub.files[f"{BASE}/{name}"] = b"x"
    card = find_model("hf://organisation/night")
    load(card)
    place = f"lumen/organisation--night/{COMMIT}"
    names = ("config.json", "grading.safetensors", "network.safetensors")
    assert written(tmp_path) == [*(f"{place}/{name}" for name in names), "lumen/organisation--night/main.commit"]
    asked = len(hub.asked)
    assert find_model(f"hf://organisation/night@{COMMIT}") == card
    assert len(hub.asked) == asked


@pytest.mark.parametrize("commit", ["../../../../out", "..", "/tmp/out", "0" * 39, "main", "", "0" * 40 + "/.."])
def test_a_commit_of_another_form_is_refused(publish: Callable[..., None], tmp_path: Path, commit: str) -> None:
    publish(commit)
    with pytest.raises(ModelError, match="names no commit"):
        download_model("hf://organisation/night")
    assert written(tmp_path) == []


@pytest.mark.parametrize("name", ["network.safetensors", "grading.safetensors", "config.json"])
def test_files_larger_than_their_limit_are_not_taken(
    publish: Callable[..., None], hub: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    publish()
    monkeypatch.setattr("lumen_cli.registry.fetch.LARGEST_WEIGHTS", 1 << 20)
    hub.files[f"{BASE}/{name}"] = endless
    with pytest.raises(ModelError, match="larger than"):
        download_model("hf://organisation/night")
    assert written(tmp_path) == []


@pytest.mark.parametrize(
    "address",
    [
        *("hf://a/b@..", "hf://a/b@../../../x", "hf://a/b@x/../../y", "hf://a/b@/etc/x", "hf://a/b@", "hf://a/b@-x"),
        *("hf://a/b@x\\y", "hf://a/b@x\n", "hf://a/b@" + "x" * 500, "hf://../..", "hf://a/..", "hf://a/b/c", "hf://a"),
        *("hf://a/b--c", "hf://.a/b", "hf://a b/c", "hf://a/b@x y", "hf://a/b@x.lock", "hf://" + "a" * 200 + "/b"),
    ],
)
def test_addresses_of_other_forms_are_refused_before_anything_is_asked(hub: Site, address: str) -> None:
    with pytest.raises(ModelError):
        find_model(address)
    assert hub.asked == []


@pytest.mark.parametrize("revision", ["main", "v1.0", "refs/pr/3", "feature/x_y-1", COMMIT])
def test_usual_revisions_are_taken(revision: str) -> None:
    assert parse_address(f"hf://organisation/night@{revision}") == ("organisation/night", revision)


def test_a_server_that_drips_is_given_up(hub: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def drip(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        while not hub.over.wait(0.05):
            try:
                request.wfile.write(b"x")
            except OSError:
                return

    monkeypatch.setattr(fetching, "SLOW_SECONDS", 0.5)
    hub.files["/drip"] = drip
    with pytest.raises(ModelError, match="bytes per second"):
        fetching.fetch(f"{hub.address}/drip", tmp_path / "x", 1 << 20)


@pytest.mark.parametrize(
    ("code", "headers", "reason"),
    [
        (404, {"X-Error-Code": "RepoNotFound"}, "there is no such repository, or it is private"),
        (401, {}, "there is no such repository, or it is private"),
        (404, {"X-Error-Code": "RevisionNotFound"}, "it has no revision main"),
        (404, {"X-Error-Code": "EntryNotFound"}, "it has no config.json"),
        (403, {"X-Error-Code": "GatedRepo"}, "its owners give it to those who ask them"),
        (500, {}, "the server answers 500; try again later"),
    ],
)
def test_what_the_hub_answers_is_said_in_plain_words(
    code: int, headers: dict[str, str], reason: str, hub: Site
) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(code)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", "0")
        request.end_headers()

    hub.files["/organisation/night/resolve/main/config.json"] = answer
    with pytest.raises(ModelError) as refused:
        download_model("hf://organisation/night")
    assert str(refused.value).startswith(f"hf://organisation/night cannot be downloaded: {reason}")
    assert "Error:" not in str(refused.value)


def test_a_hub_that_cannot_be_reached_is_said_in_plain_words(hub: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", nowhere)
    monkeypatch.setattr("huggingface_hub.file_download.HUGGINGFACE_CO_URL_TEMPLATE", nowhere, raising=False)
    with pytest.raises(ModelError, match="the server cannot be reached; check the network"):
        download_model("hf://organisation/night")
