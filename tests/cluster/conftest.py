"""A Ray cluster of one to three nodes on this machine, and an S3 server that its workers reach through a proxy."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import PLUGIN
from tests.store import Bucket, Proxy, new_bucket, proxy_of, set_up_store

_STORE = 80 << 20


@dataclass
class Nodes:
    """The cluster. The first node, which the driver belongs to, is never ended."""

    cluster: Any
    others: list[Any] = field(default_factory=list)

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def resize(self, number: int) -> None:
        """Have so many nodes, each with one processor."""
        while len(self.others) + 1 > number:
            self.end_one()
        while len(self.others) + 1 < number:
            self.others.append(self.cluster.add_node(num_cpus=1, object_store_memory=_STORE))

    def end_one(self) -> None:
        """Kill a node with everything on it."""
        self.cluster.remove_node(self.others.pop(), allow_graceful=False)

    def workers(self) -> list[psutil.Process]:
        """The processes of workers; all are children of this one's children."""
        found = []
        for process in psutil.Process().children(recursive=True):
            try:
                if any(name in " ".join(process.cmdline()) for name in ("MapWorker", "score_part")):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def signal_workers(self, number: int, some: random.Random | None = None) -> int:
        """Send a signal to all workers, or to one; how many got it."""
        chosen = self.workers()
        chosen = [some.choice(chosen)] if some and chosen else chosen
        for process in chosen:
            process.send_signal(number)
        return len(chosen)


@contextmanager
def meanwhile(act: Callable[[], object]) -> Iterator[threading.Thread]:
    """Do something in a thread while the block runs; what it raises is raised after it."""
    errors: list[BaseException] = []

    def work() -> None:
        try:
            act()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield thread
    thread.join(120)
    assert not thread.is_alive()
    if errors:
        raise errors[0]


def wait_for(condition: Callable[[], Any], seconds: float = 120.0) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


@pytest.fixture(scope="package")
def store_proxy(s3_port: int) -> Iterator[Proxy]:
    """The proxy that the cluster's processes know from their start."""
    with proxy_of(s3_port) as proxy:
        yield proxy


@pytest.fixture(scope="package")
def running_nodes(store_proxy: Proxy) -> Iterator[Nodes]:
    """One cluster for all tests here; it ends after them, because its processes take time even at rest."""
    if sys.platform == "win32":
        pytest.skip("Ray's clusters on Windows are an experiment")
    pytest.importorskip("ray.data", reason="Ray is missing: pip install 'lumen-cli[ray]'")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        set_up_store(patch, store_proxy)
        root = Path(__file__).parents[2]
        patch.setenv("PYTHONPATH", os.pathsep.join([str(root), str(PLUGIN), os.environ.get("PYTHONPATH", "")]))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        settings = {"num_cpus": 1, "object_store_memory": _STORE, "include_dashboard": False}
        # Ray takes over SIGTERM in this process, and would kill it in a later test that sends itself one.
        handler = signal.getsignal(signal.SIGTERM)
        cluster = Cluster(initialize_head=True, head_node_args=settings)
        yield Nodes(cluster)
        cluster.shutdown()
        signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def nodes(running_nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    """The cluster; afterwards no worker of the test is left."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield running_nodes
    running_nodes.signal_workers(signal.SIGKILL)


@pytest.fixture
def shared_bucket(s3_port: int, store_proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """An empty bucket that the cluster's workers reach too."""
    yield from new_bucket(s3_port, store_proxy, monkeypatch)
    store_proxy.fault, store_proxy.latency = (lambda request: None), 0.0
