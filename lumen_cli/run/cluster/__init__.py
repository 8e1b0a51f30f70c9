"""A run on a Ray cluster: this process plans, records and reports, workers on the nodes make the pictures.

Here it joins a cluster, or starts one on this machine, checks that its nodes fit, and divides them among workers.
"""

from __future__ import annotations

import importlib
import logging
import os
import platform
import socket
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from lumen_cli import __version__
from lumen_cli.errors import UsageError
from lumen_cli.run.cluster.worker import choose_here
from lumen_cli.text import count

if TYPE_CHECKING:
    from lumen_cli.engine.device import DevicePolicy

OLDEST = (2, 60)
"""The first version of Ray that lumen works with."""
INSTALL = "pip install 'lumen-cli[ray]'"
_CONNECT_SECONDS = 5.0
_JOIN_SECONDS = 90.0
NODE_SECONDS = 60.0
MOST_PROCESSORS = 8
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # a Ray that lumen starts reports nothing to anybody
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # what concerns the user becomes a line of lumen's
    "RAY_ENABLE_AUTO_CONNECT": "0",  # a thread that is late would start a Ray
}
_OBJECT_BYTES = 256 << 20
"""Of the object store of a Ray that lumen starts: it holds a network and small records."""
_log = logging.getLogger("lumen")


@dataclass(frozen=True)
class Share:
    """How workers divide the nodes. threads: of PyTorch in each; each: workers of the largest node."""

    workers: int
    processors: float
    gpus: float
    threads: int
    each: int


@dataclass
class Cluster:
    """A Ray cluster that this process has joined. notes: what a user should know, one line each."""

    ray: Any
    share: Share
    device: str
    nodes: int
    notes: list[str] = field(default_factory=list)

    @property
    def about(self) -> str:
        """What computes, for people."""
        return f"Ray {self.ray.__version__}, {count(self.share.workers, 'worker')} on {count(self.nodes, 'node')}"

    def choose_device(self, precision: str = "auto", **arguments: Any) -> DevicePolicy:
        """As `engine.device.choose_device`: here, as for a run on this machine, or for GPUs in a worker's process.

        Raises:
            UsageError: as there, or no node answers.
        """
        arguments |= {"device": self.device, "precision": precision}
        if self.share.gpus:
            choose = self.ray.remote(choose_here).options(num_cpus=0, num_gpus=self.share.gpus)
            policy, error = ask(self.ray, choose.remote(arguments), "no worker could start")
        else:
            policy, error = choose_here(arguments)
        if policy is None:
            raise error
        return replace(policy, why=f"{policy.why}; {self.about}")


@contextmanager
def connect(address: str | None, workers: int | None, gpus: float | None, device: str) -> Iterator[Cluster]:
    """Join a cluster inside, or start one on this machine.

    Args:
        address: host:port, or "auto" for the cluster that this machine belongs to. None: that of RAY_ADDRESS, which
            Ray sets in its jobs, else one is started on this machine.
        workers: None for as many as fit.
        gpus: of each worker; None for one where the cluster has any.
        device: auto, cpu, cuda or mps.

    Raises:
        UsageError: Ray is missing or too old, no cluster answers at the address, versions differ, or no node fits.
    """
    ray = _import_ray()
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    settings: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        settings |= {"include_dashboard": False, "object_store_memory": _OBJECT_BYTES}
    elif address != "auto":
        _require_answer(address)
    _init(ray, settings)
    try:
        listed = [node for node in ray.nodes() if node["Alive"]]
        nodes = _check_nodes(ray, listed)
        chosen, share = divide([node["Resources"] for node in nodes], workers, gpus, device)
        cluster = Cluster(ray, share, chosen, len(nodes))
        if len(nodes) < len(listed):
            cluster.notes.append(f"{len(listed) - len(nodes)} of {len(listed)} nodes of the cluster did not answer")
        if workers is not None and share.workers < workers:
            cluster.notes.append(f"only {share.workers} of {workers} workers fit into the cluster")
            cluster.share = replace(share, workers=workers)
        yield cluster
    finally:
        ray.shutdown()


def _import_ray() -> Any:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ray = importlib.import_module("ray")
            importlib.import_module("ray.data")
            worker: Any = importlib.import_module("ray._private.worker")
    except ImportError:
        raise UsageError(f"the engine ray needs the package ray[data]: {INSTALL}") from None
    if tuple(int(part) for part in ray.__version__.split(".")[:2]) < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        raise UsageError(f"Ray {ray.__version__} is installed, and lumen needs {wanted} or later: {INSTALL}")
    # Ray prints what happens to nodes on standard output, among JSON lines; there is no setting for it.
    worker.print_to_stdstream = lambda data, *_, **__: _log.debug("ray: %s", " ".join(data.get("lines", ())))
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    return ray


def _require_answer(address: str) -> None:
    """UsageError where no server of the kind that Ray's are answers; Ray itself would try for minutes."""
    if address.startswith("ray://"):
        raise UsageError(f"{address}: lumen runs on a node of the cluster, not behind Ray's client: use ray job submit")
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UsageError(f"{address}: expected auto, or host:port of a Ray cluster")
    try:
        with socket.create_connection((host, int(port)), _CONNECT_SECONDS) as connection:
            connection.settimeout(_CONNECT_SECONDS)
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
            answer = connection.recv(9)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error) or "no answer"
        raise UsageError(f"{address}: no Ray cluster answers there ({reason})") from None
    if len(answer) < 4 or answer[3] != 4:  # the SETTINGS with which HTTP/2 begins
        raise UsageError(f"{address}: no Ray cluster answers there")


@contextmanager
def _silent() -> Iterator[None]:
    """Inside, nothing reaches standard error: Ray's C++ part writes there whatever its settings say."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)


def _init(ray: Any, settings: dict[str, Any]) -> None:
    """`ray.init` with a time limit: it can wait for ever."""
    failed: list[BaseException] = []

    def start() -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ray.init(**settings)
        except BaseException as error:
            failed.append(error)
            with suppress(Exception):
                ray.shutdown()

    address = settings["address"]
    thread = threading.Thread(target=start, name="lumen-ray", daemon=True)
    with _silent():
        if address == "local":
            start()  # Ray's processes end with the thread that started them
        else:
            thread.start()
            thread.join(_JOIN_SECONDS)
    if thread.is_alive():
        raise UsageError(f"{address}: the Ray cluster does not take this machine in; run lumen on one of its nodes")
    if failed:
        if isinstance(failed[0], KeyboardInterrupt):
            raise failed[0]
        text = " ".join(str(failed[0]).split())
        if "ersion mismatch" in text:
            text = f"the cluster and this machine must have the same Ray and Python: {text}"
        if address == "auto" and isinstance(failed[0], ConnectionError):
            text = "no Ray cluster runs on this machine; start one with ray start --head, or name its address"
        raise UsageError(f"Ray {address}: {text}") from failed[0]


def ask(ray: Any, references: Any, otherwise: str) -> Any:
    """The values of references; UsageError where they take too long."""
    try:
        return ray.get(references, timeout=NODE_SECONDS)
    except ray.exceptions.GetTimeoutError:
        raise UsageError(f"{otherwise} within {NODE_SECONDS:g} seconds; is the cluster busy?") from None
    except ray.exceptions.RayError as error:
        raise UsageError(f"{otherwise} ({shorten(error)})") from None


def shorten(error: BaseException) -> str:
    """The last line of an error of Ray: the others are a stack."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__


def on_node(name: str) -> Any:
    """What makes Ray run something on one node."""
    strategies = importlib.import_module("ray.util.scheduling_strategies")
    return strategies.NodeAffinitySchedulingStrategy(name, soft=False)


def _check_nodes(ray: Any, nodes: Sequence[Any]) -> list[Any]:
    """The nodes that answer; a cluster may list some that have ended.

    Raises:
        UsageError: none answers, or one lacks lumen or has another version.
    """

    def look() -> tuple[str, str]:  # inside, so that it travels itself: a node may not have this module
        import platform

        try:
            import lumen_cli
        except ImportError as error:
            return platform.node(), f"lacks lumen ({error})"
        return platform.node(), f"has lumen {lumen_cli.__version__}"

    there = ray.remote(look)
    asked = {there.options(num_cpus=0, scheduling_strategy=on_node(node["NodeID"])).remote(): node for node in nodes}
    ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=NODE_SECONDS)
    answered, why = [], "no answer"
    for reference in ready:
        try:
            name, found = ray.get(reference)
        except ray.exceptions.RayError as error:
            why = shorten(error)
            continue
        if found != f"has lumen {__version__}":
            raise UsageError(f"the node {name} {found}; install lumen {__version__} there, as on {platform.node()}")
        answered.append(asked[reference])
    if not answered:
        raise UsageError(f"none of the {len(nodes)} nodes of the cluster answers ({why})")
    return answered


def divide(
    nodes: Sequence[dict[str, float]], workers: int | None, gpus: float | None, device: str
) -> tuple[str, Share]:
    """The device of the workers, and how they divide the nodes.

    Args:
        nodes: Ray's resources of each.
        workers: as in `connect`.
        gpus: the same.
        device: the same.

    Raises:
        UsageError: no node fits.
    """
    import torch

    if ":" in device:
        raise UsageError(f"Ray chooses the GPU of each worker, not {device}", remedy="device=cuda")
    most = max((node.get("GPU", 0.0) for node in nodes), default=0.0)
    if gpus is None:
        gpus = 1.0 if most and device in ("auto", "cuda") else 0.0
    if gpus > most:
        has = f"the largest has {most:g}" if most else "none has any"
        raise UsageError(f"no node of the cluster has {gpus:g} GPUs for a worker: {has}")
    if gpus and device not in ("auto", "cuda"):
        raise UsageError(f"workers with GPUs do not run on {device}", remedy="gpus_per_worker=0")
    if not gpus and device == "cuda":
        raise UsageError("workers without GPUs do not run on cuda; no node of the cluster has a GPU")
    threads = torch.get_num_threads()
    sizes = [node.get("CPU", 0.0) for node in nodes]
    if gpus:
        fit = [int(node.get("GPU", 0.0) / gpus) for node in nodes]
        processors = min(MOST_PROCESSORS, *(int(size / n) for size, n in zip(sizes, fit, strict=True) if n))
        share = Share(workers or sum(fit), float(max(processors, 0)), gpus, threads, max(fit))
        return "cuda", replace(share, workers=min(share.workers, sum(fit)))
    if max(sizes, default=0.0) < 1:
        raise UsageError("no node of the cluster has a processor for workers")
    for processors in range(max(1, min(threads, int(max(sizes)))), 0, -1):
        fit = [int(size // processors) for size in sizes]
        if sum(fit) >= (workers or 1):
            break
    number = min(workers or sum(fit), sum(fit))
    return "cpu" if device == "auto" else device, Share(number, float(processors), 0.0, threads, max(fit))
