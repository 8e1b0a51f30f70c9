"""What a user can get wrong with --engine ray: one line each."""

from __future__ import annotations

import http.server
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from lumen_cli.run.cluster import divide
from tests.cluster.conftest import Nodes
from tests.conftest import Finished, MakeModel, folder_bytes
from tests.store import outputs

pytestmark = pytest.mark.ray
Lumen = Callable[..., Finished]
DEPLOY = Path(__file__).parents[2] / "deploy"


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


@pytest.mark.parametrize(
    ("nodes", "workers", "gpus", "expected"),
    [
        ([{"CPU": 8, "GPU": 2}, {"CPU": 16, "GPU": 4}, {"CPU": 4}], None, None, ("cuda", 6, 4, 1, 4)),
        ([{"CPU": 8, "GPU": 2}], None, 0.5, ("cuda", 4, 2, 0.5, 4)),
        ([{"CPU": 8, "GPU": 2}], 1, 2, ("cuda", 1, 8, 2, 1)),
        ([{"CPU": 8, "GPU": 2}], 3, 0, ("cpu", 3, 2, 0, 4)),
        ([{"CPU": 4}, {"CPU": 3}], None, None, ("cpu", 3, 2, 0, 2)),
        ([{"CPU": 4}, {"CPU": 3}], 5, None, ("cpu", 5, 1, 0, 4)),
        ([{"CPU": 4}, {}], 9, None, ("cpu", 4, 1, 0, 4)),
    ],
)
def test_workers_divide_the_nodes(
    nodes: list[dict[str, float]],
    workers: int | None,
    gpus: float | None,
    expected: tuple[object, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two PyTorch threads: device, workers, processors and GPUs of each, and workers of the largest node."""
    import torch

    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    device, share = divide(nodes, workers, gpus, "auto")
    assert (device, share.workers, share.processors, share.gpus, share.each) == expected
    assert share.threads == 2


def test_the_job_script_runs_on_the_cluster_of_its_job(
    nodes: Nodes, photos: Path, tmp_path: Path, make_model: MakeModel
) -> None:
    """`ray job submit` needs Ray's dashboard; a stand-in runs its command with the variable that Ray would set."""
    nodes.resize(1)
    make_model("tiny")
    (tmp_path / "bin").mkdir()
    stand_ins = {
        "lumen": f'exec "{sys.executable}" -m lumen_cli "$@"',
        "ray": '[ "$1 $2 $3 $4 $5" = "job submit --address http://head:8265 --" ] && shift 5 && exec "$@"',
    }
    for name, line in stand_ins.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "RAY_ADDRESS": nodes.address}
    command = [DEPLOY / "ray-job.sh", "http://head:8265", photos, tmp_path / "out", "--model", "tiny", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert {json.loads(line)["status"] for line in done.stdout.splitlines()} == {"done"}
    assert len(outputs(folder_bytes(tmp_path / "out"))) == 5
    told = subprocess.run([DEPLOY / "ray-job.sh"], capture_output=True, text=True)
    assert told.returncode == 2
    assert "usage:" in told.stderr
