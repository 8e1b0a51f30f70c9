"""Runs on Ray clusters: the bytes of a local run, whatever ends meanwhile, and bad input in one line."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest
from PIL import Image

from lumen_cli.files.find import find_pictures
from lumen_cli.registry import find_model
from lumen_cli.run.cluster import connect, driver
from lumen_cli.run.cluster.driver import ClusterRun
from lumen_cli.run.cluster.worker import Worker, pack
from lumen_cli.run.operation import Enhance, Settings
from lumen_cli.run.run import RunOptions
from tests.cluster.conftest import Nodes, meanwhile, wait_for
from tests.conftest import Finished, MakeModel, folder_bytes, write_dark
from tests.store import MANIFEST, Bucket, Request, outputs

pytestmark = pytest.mark.ray
Lumen = Callable[..., Finished]


NUMBER = int(os.environ.get("LUMEN_RAY_PICTURES", "40"))
"""Of pictures in each test."""
KILLS = int(os.environ.get("LUMEN_RAY_KILLS", "0"))
"""Of the long test of kills, which takes about half a minute for each."""


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Pictures in two folders."""
    for index in range(NUMBER):
        folder = "in/night" if index % 3 == 0 else "in"
        write_dark(tmp_path / folder / f"{index:03}.{('png', 'jpg')[index % 2]}", 24 + index % 60, 80, seed=index)
    return tmp_path / "in"


@pytest.fixture
def local(many: Path, tmp_path: Path, make_model: MakeModel, lumen: Lumen) -> dict[str, bytes]:
    """What a local run leaves, its manifest included. The model takes its time, so that there are moments to end."""
    make_model("tiny", network={"seconds": 0.1})
    finished = lumen("enhance", many, "-o", tmp_path / "local", "--model", "tiny")
    assert finished.code == 0, finished.err
    return folder_bytes(tmp_path / "local")


def by_ray(nodes: Nodes, *more: str | Path) -> tuple[str | Path, ...]:
    model = () if "--model" in more else ("--model", "tiny")
    return *model, "--engine", "ray", "--ray-address", nodes.address, "--json", *more


def lines_of(finished: Finished) -> list[dict[str, object]]:
    return [json.loads(line) for line in finished.out.splitlines()]


@pytest.mark.parametrize("number", [1, 3])
def test_a_cluster_gives_the_bytes_of_a_local_run(
    number: int, nodes: Nodes, many: Path, local: dict[str, bytes], tmp_path: Path, lumen: Lumen
) -> None:
    nodes.resize(number)
    finished = lumen("enhance", many, "-o", tmp_path / "out", *by_ray(nodes))
    assert finished.code == 0, finished.err
    assert folder_bytes(tmp_path / "out") == local
    lines = lines_of(finished)
    assert {line["status"] for line in lines} == {"done"}
    assert len(lines) == len(local) - 1
    assert f"{number} worker" in finished.err
    if number == 1:
        again = lumen("enhance", many, "-o", tmp_path / "out", *by_ray(nodes, "--page"))
        assert {line["status"] for line in lines_of(again)} == {"kept", "written"}
        assert (tmp_path / "out.html").is_file()


def test_decompose_and_a_broken_picture(
    nodes: Nodes, photos: Path, tmp_path: Path, make_model: MakeModel, lumen: Lumen
) -> None:
    nodes.resize(1)
    make_model("tiny", abilities=["enhance", "decompose"])
    (photos / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n of no use")
    command = ("decompose", photos, "--reconstruct", "--format", "npy")
    expected = lumen(*command, "-o", tmp_path / "local", "--model", "tiny", "--json")
    finished = lumen(*command, "-o", tmp_path / "out", *by_ray(nodes))
    assert expected.code == finished.code == 1
    assert folder_bytes(tmp_path / "out") == folder_bytes(tmp_path / "local")
    reasons = [[line["reason"] for line in lines_of(run) if line["status"] == "failed"] for run in (expected, finished)]
    assert reasons[0] == reasons[1] != []
    told = [{str(line["input"]): line["reconstruction"] for line in lines_of(run)} for run in (expected, finished)]
    assert told[0] == told[1]


def test_store_with_faults_and_a_node_that_dies(
    nodes: Nodes, shared_bucket: Bucket, many: Path, local: dict[str, bytes], lumen: Lumen
) -> None:
    nodes.resize(3)
    shared_bucket.put_folder(many, "in")
    chance = random.Random(19)
    kinds = ("drop", "lose", "throttle", "truncate")

    def fault(request: Request) -> str | None:
        return chance.choice(kinds) if chance.random() < 0.02 else None

    shared_bucket.proxy.fault = fault

    def end_a_node() -> None:
        wait_for(lambda: len(shared_bucket.contents("out")) > NUMBER // 4, 600.0)
        nodes.end_one()

    command = ("enhance", shared_bucket.url("in"), "-o", shared_bucket.url("out"), *by_ray(nodes))
    with meanwhile(end_a_node):
        finished = lumen(*command)
    shared_bucket.proxy.fault = lambda request: None
    assert finished.code == 0, finished.err
    assert sorted(str(line["status"]) for line in lines_of(finished)) == ["done"] * NUMBER
    found = shared_bucket.contents("out")
    assert outputs(found) == outputs(local)
    assert set(found) == {*outputs(local), MANIFEST}
    assert not shared_bucket.uploads()
    status = lumen("status", shared_bucket.url("out"), "--json")
    assert status.code == 0, status.out
    assert lines_of(status)[-1]["states"]["done"] == NUMBER  # type: ignore[index]


def test_workers_of_two_nodes_that_are_killed_lose_nothing(
    nodes: Nodes, many: Path, local: dict[str, bytes], tmp_path: Path, lumen: Lumen
) -> None:
    nodes.resize(2)
    moments = random.Random()

    def kill() -> None:
        for least in (1, 12):
            wait_for(lambda least=least: len(list((tmp_path / "out").rglob("[0-9]*.*"))) > least)
            nodes.signal_workers(signal.SIGKILL, moments)

    with meanwhile(kill):
        finished = lumen("enhance", many, "-o", tmp_path / "out", *by_ray(nodes))
    assert finished.code == 0, finished.err
    assert len(lines_of(finished)) == NUMBER
    assert folder_bytes(tmp_path / "out") == local


def start(nodes: Nodes, *command: str | Path, stdout: IO[str] | int = subprocess.PIPE) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "lumen_cli", *map(str, command), *map(str, by_ray(nodes))],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_killed_driver_and_ctrl_c_leave_whole_files_and_the_same_command_goes_on(
    nodes: Nodes, many: Path, local: dict[str, bytes], tmp_path: Path, lumen: Lumen
) -> None:
    nodes.resize(2)
    moments = random.Random()
    for number in (signal.SIGKILL, signal.SIGINT):
        process = start(nodes, "enhance", many, "-o", tmp_path / "out")
        assert process.stdout is not None
        for _ in range(moments.randrange(1, 6)):
            process.stdout.readline()
        process.send_signal(number)
        _, err = process.communicate(timeout=120)
        assert process.returncode == (130 if number == signal.SIGINT else -number), err
        wait_for(lambda: not nodes.workers())
        found = outputs(folder_bytes(tmp_path / "out"))
        assert found == {name: local[name] for name in found}
        assert 0 < len(found) < NUMBER
    assert err.splitlines()[0] == "lumen: interrupted; run the same command to resume"
    finished = lumen("enhance", many, "-o", tmp_path / "out", *by_ray(nodes))
    assert finished.code == 0, finished.err
    statuses = [line["status"] for line in lines_of(finished)]
    assert set(statuses) == {"done", "kept"}
    assert len(statuses) == NUMBER
    assert folder_bytes(tmp_path / "out") == local


@pytest.mark.skipif(not KILLS, reason="takes minutes; LUMEN_RAY_KILLS=20 runs it")
def test_whatever_is_killed_the_same_command_leaves_every_object_whole(
    nodes: Nodes, shared_bucket: Bucket, many: Path, local: dict[str, bytes], tmp_path: Path, lumen: Lumen
) -> None:
    """Kills a worker, a node or the driver, in turn, at random moments. A complete run is followed by a new one."""
    shared_bucket.put_folder(many, "in")
    moments, out, finished_before = random.Random(), 0, set[str]()
    for number in range(KILLS):
        nodes.resize(3)
        command = ("enhance", shared_bucket.url("in"), "-o", shared_bucket.url(f"out{out}"))
        least = moments.randrange(1, NUMBER // 2)
        with (tmp_path / "lines").open("w+") as lines:
            process = start(nodes, *command, stdout=lines)
            wait_for(lambda least=least: len((tmp_path / "lines").read_text().splitlines()) >= least)
        what = ("worker", "node", "driver")[number % 3]
        if what == "worker":
            nodes.signal_workers(signal.SIGKILL, moments)
        elif what == "node":
            nodes.end_one()
        else:
            process.send_signal(signal.SIGKILL)
        _, err = process.communicate(timeout=300)
        whole = (tmp_path / "lines").read_text().rpartition("\n")[0].splitlines()
        told = {line["input"]: line["status"] for line in map(json.loads, whole)}
        assert {told[name] for name in finished_before & told.keys()} <= {"kept"}, "made twice"
        found = outputs(shared_bucket.contents(f"out{out}"))
        assert found == {name: local[name] for name in found}, what
        if what == "driver":
            finished_before |= {str(name) for name, status in told.items() if status in ("done", "kept")}
            wait_for(lambda: not nodes.workers())
        else:
            assert process.returncode == 0, err
            assert found == outputs(local), what
            out, finished_before = out + 1, set()
    last = lumen("enhance", shared_bucket.url("in"), "-o", shared_bucket.url(f"out{out}"), *by_ray(nodes))
    assert last.code == 0, last.err
    assert outputs(shared_bucket.contents(f"out{out}")) == outputs(local)
    assert not shared_bucket.uploads()


def test_a_picture_that_ends_its_workers_fails_and_the_others_are_made(
    nodes: Nodes, photos: Path, tmp_path: Path, make_model: MakeModel, lumen: Lumen
) -> None:
    nodes.resize(1)
    make_model("tiny")
    assert lumen("enhance", photos, "-o", tmp_path / "local", "--model", "tiny", "--no-stamp").code == 0
    expected = outputs(folder_bytes(tmp_path / "local"))
    Image.new("RGB", (30, 30), "white").save(photos / "bright.png")
    make_model("deadly", network={"deadly_above": 0.9})
    finished = lumen("enhance", photos, "-o", tmp_path / "out", *by_ray(nodes, "--no-stamp", "--model", "deadly"))
    assert finished.code == 1
    failed = [line for line in lines_of(finished) if line["status"] == "failed"]
    assert [Path(str(line["input"])).name for line in failed] == ["bright.png"]
    assert "its worker ended each time" in str(failed[0]["reason"])
    assert outputs(folder_bytes(tmp_path / "out")) == expected


def test_workers_that_stop_answering_are_replaced(
    nodes: Nodes, many: Path, local: dict[str, bytes], tmp_path: Path, lumen: Lumen, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes.resize(1)
    monkeypatch.setattr(driver, "SILENCE_SECONDS", 10.0)

    def freeze() -> None:
        wait_for(lambda: len(list((tmp_path / "out").rglob("[0-9]*.*"))) > 3)
        assert nodes.signal_workers(signal.SIGSTOP) == 1

    with meanwhile(freeze):
        finished = lumen("enhance", many, "-o", tmp_path / "out", *by_ray(nodes))
    assert finished.code == 0, finished.err
    assert len(lines_of(finished)) == NUMBER
    assert folder_bytes(tmp_path / "out") == local


def test_outputs_whose_results_were_lost_are_recognised(
    nodes: Nodes, photos: Path, tmp_path: Path, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker may end between saving a picture and telling of it."""
    nodes.resize(1)
    monkeypatch.setattr(Worker, "_beat", lambda self: None)  # its thread would outlive the test in this process
    make_model("tiny")
    with connect(nodes.address, 1, None, "auto") as cluster:
        card = find_model("tiny")
        policy = cluster.choose_device(precisions=card.precisions)
        operation = Enhance(Settings.with_model(card, policy, steps=2))
        run = ClusterRun(card, policy, operation, RunOptions(str(tmp_path / "out")), cluster=cluster)
        plan = run.plan(find_pictures([photos]))
        (tmp_path / "out/night").mkdir(parents=True)
        workers = driver.WorkerPool(cluster, run._worker_settings(plan), run.network(), dict(plan.places))
        batch = {"tasks": [pack(dict(enumerate(plan.todo)))]}
        lost, worker = (Worker(workers.recorder, [workers.network], workers.settings) for _ in range(2))
        monkeypatch.setattr(lost, "_done", lambda index, result: None)
        lost(batch)
        assert workers.call("take").results == []
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.*")}
        assert len(outputs(folder_bytes(tmp_path / "out"))) == len(plan.todo)
        worker(batch)
        for each in (lost, worker):
            each._run.__exit__(None, None, None)
        progress = workers.call("take")
        assert sorted((index, result.status) for index, result in progress.results) == [(i, "done") for i in range(5)]
        assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.*")} == before
