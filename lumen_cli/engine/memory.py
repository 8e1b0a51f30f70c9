"""The free memory, and the memory that a network needs, both known before a picture runs."""

from __future__ import annotations

import ctypes
import sys
import weakref
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

if TYPE_CHECKING:
    from lumen_cli.engine.device import DevicePolicy
    from lumen_cli.networks.base import LowLightModel

PROBE_SIDE = 256
SPARE = 1.25
"""Factor for the temporary memory of the libraries beside the tensors themselves."""
_CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat", "inactive_file"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "/sys/fs/cgroup/memory/memory.stat",
        "total_inactive_file",
    ),
)

_MEMORY_WORDS = (
    "can't allocate memory",  # torch on a CPU
    "not enough memory",  # the same on Windows
    "could not create a memory object",  # oneDNN
    "out of memory",  # MPS, and CUDA's own calls
    "ALLOC_FAILED",  # cuBLAS, cuDNN
)


def free_memory(device: str = "cpu") -> int:
    """Bytes available now: of a CUDA device, otherwise of the machine within the limits of container and process."""
    if device.startswith("cuda"):
        free, _ = torch.cuda.mem_get_info(device)
        reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free) + int(reserved)
    import psutil

    return max(0, min([int(psutil.virtual_memory().available), *_container_room(), *_process_room()]))


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory was missing: Python's, CUDA's, or that of torch's own allocator."""
    return isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or any(
        words in str(error) for words in _MEMORY_WORDS
    )


def peak_resident() -> int:
    """The most bytes that this process has held in memory.

    On Linux from the kernel's record of this program: `getrusage` starts at the size of the process that started it.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        pass
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def return_freed_memory() -> None:
    """Return freed memory to the system where the C library keeps it (glibc).

    Its heap grows to many times the size of a tile, because tensors of many sizes are allocated and freed: for a
    picture of 1.5 megapixels in tiles of 512 pixels it held 1.7 GB instead of 1.1 GB. Returning it costs no time.
    """
    trim = _heap_trim()
    if trim is not None:
        trim(0)


@cache
def _heap_trim() -> Callable[[int], int] | None:
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # musl and macOS lack it; Windows has no CDLL(None)
        return None
    trim.argtypes, trim.restype = [ctypes.c_size_t], ctypes.c_int
    return trim


def _container_room() -> list[int]:
    """The remaining memory of the control group; its file cache can be evicted and counts as free."""
    room = []
    for limit, usage, statistics, files in _CGROUPS:
        try:
            most = Path(limit).read_text("ascii").strip()
            if most == "max":
                continue
            lines = (line.split() for line in Path(statistics).read_text("ascii").splitlines())
            cached = next((int(value) for name, value in lines if name == files), 0)
            room.append(int(most) - int(Path(usage).read_text("ascii")) + cached)
        except (OSError, ValueError):
            continue
    return room


def _process_room() -> list[int]:
    """The remaining memory under `ulimit -v`."""
    try:
        import resource

        import psutil

        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        return [] if soft == resource.RLIM_INFINITY else [soft - int(psutil.Process().memory_info().vms)]
    except (ImportError, OSError, ValueError):
        return []


def bytes_per_pixel(
    network: LowLightModel, policy: DevicePolicy, precision: str, *, sample_whole: bool = False
) -> float:
    """Peak memory of a network's tensors per pixel of the picture, measured on a small one.

    sample_whole: only its `sample_whole`; of a mean, the dearest of its members', which are run one after the other.
    """
    if sample_whole and network.members:
        return max(bytes_per_pixel(member.network, policy, precision, sample_whole=True) for member in network.members)
    device = torch.device(policy.device)
    side = -(-PROBE_SIDE // network.size_multiple) * network.size_multiple
    low = torch.full((1, 3, side, side), 0.1, device=device).contiguous(memory_format=torch.channels_last)
    wanted = network.noise_shape(side, side)
    with policy.running(precision):
        noise = None if wanted is None else torch.zeros(1, *wanted, device=device)
        steps = network.steps_range()
        with _Watch() as watch:
            fewest = None if steps is None else steps[0]
            if not sample_whole:
                network(low, noise=noise, steps=fewest)
            elif noise is not None:
                network.sample_whole(low, noise, fewest)
    return SPARE * watch.most / side**2


class _Watch(TorchDispatchMode):
    """Tracks the bytes of the live tensors that were created inside; `most` is the peak."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._add(leaf.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size
