"""What a user can get wrong with --engine ray: one line each."""

from __future__ import annotations

import http.server
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.conftest import Nodes
from tests.conftest import Finished, MakeModel

pytestmark = pytest.mark.ray
Lumen = Callable[..., Finished]


class Quiet(http.server.BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


def refusal(finished: Finished) -> str:
    assert finished.code == 2, finished.err
    assert finished.out == ""
    assert len(finished.err.splitlines()) == 1, finished.err
    return finished.err.removeprefix("lumen: ").rstrip()


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (("--engine", "ray", "--watch"), "--engine ray and --watch cannot be combined"),
        (("--engine", "ray", "-o", "-"), "--engine ray and -o - cannot be combined"),
        (("--workers", "2"), "--ray-address, --workers and --gpus-per-worker need --engine ray"),
        (("--engine", "ray", "--workers", "0"), "--workers: input should be greater than or equal to 1"),
        (("--engine", "ray", "--gpus-per-worker", "-1"), "--gpus-per-worker: input should be greater than or equal"),
        (("--engine", "spark"), "'spark' is not one of"),
    ],
)
def test_options_that_do_not_fit(more: tuple[str, ...], expected: str, photos: Path, lumen: Lumen) -> None:
    assert expected in refusal(lumen("enhance", photos / "a.png", *more))


def test_ray_is_not_installed(
    photos: Path, make_model: MakeModel, lumen: Lumen, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model("tiny")
    monkeypatch.setitem(sys.modules, "ray", None)
    line = refusal(lumen("enhance", photos, "--model", "tiny", "--engine", "ray"))
    assert line == "the engine ray needs the package ray[data]: pip install 'lumen-cli[ray]'"


def test_nobody_answers(photos: Path, make_model: MakeModel, lumen: Lumen) -> None:
    pytest.importorskip("ray.data", reason="Ray is missing: pip install 'lumen-cli[ray]'")
    make_model("tiny")
    command = ("enhance", photos, "--model", "tiny", "--engine", "ray", "--ray-address")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        assert refusal(lumen(*command, address)).startswith(f"{address}: no Ray cluster answers there (")
    with http.server.HTTPServer(("127.0.0.1", 0), Quiet) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{other.server_address[1]}"
        assert refusal(lumen(*command, address)).startswith(f"{address}: no Ray cluster answers there")
        other.shutdown()
    assert "expected auto, or host:port" in refusal(lumen(*command, "somewhere"))
    assert "use ray job submit" in refusal(lumen(*command, "ray://127.0.0.1:10001"))


def test_what_the_cluster_does_not_have(
    nodes: Nodes, photos: Path, make_model: MakeModel, lumen: Lumen, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    make_model("tiny")
    command = ("enhance", photos, "--model", "tiny", "--engine", "ray", "--ray-address", nodes.address)
    line = refusal(lumen(*command, "--gpus-per-worker", "1"))
    assert line == "no node of the cluster has 1 GPUs for a worker: none has any"
    assert "Ray chooses the GPU of each worker" in refusal(lumen(*command, "--device", "cuda:1"))
    monkeypatch.setattr(ray, "__version__", "2.61.7")
    line = refusal(lumen(*command))
    assert "the cluster and this machine must have the same Ray and Python" in line
    assert "2.61.7" in line
    monkeypatch.setattr(ray, "__version__", "2.9.3")
    assert "Ray 2.9.3 is installed, and lumen needs" in refusal(lumen(*command))
