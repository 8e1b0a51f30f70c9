"""The free memory and the memory that a network needs decide, before a picture runs, whether it runs in tiles."""

from __future__ import annotations

import ctypes
import math
import sys
import time
from collections.abc import Callable
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol
from weakref import WeakKeyDictionary

from lumen_cli.engine import SMALLEST_TILE

if TYPE_CHECKING:
    from lumen_cli.engine.device import DevicePolicy
    from lumen_cli.engine.parts import Shape
    from lumen_cli.networks.base import LowLightModel

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
    "unable to find an engine",  # cuDNN, where no algorithm finds room to work
)


def free_memory(device: str = "cpu") -> int:
    """Bytes available now: of a CUDA device, otherwise of the machine within the limits of container and process."""
    if device.startswith("cuda"):
        import torch

        free, _ = torch.cuda.mem_get_info(device)
        reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free) + int(reserved)
    import psutil

    return max(0, min([int(psutil.virtual_memory().available), *_container_room(), *_process_room()]))


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory was missing: Python's, CUDA's, or that of torch's own allocator."""
    torch = sys.modules.get("torch")
    kinds = (MemoryError,) if torch is None else (MemoryError, torch.cuda.OutOfMemoryError)
    return isinstance(error, kinds) or any(words in str(error) for words in _MEMORY_WORDS)


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


Tiling = Literal["auto", "off"] | int
LARGEST_TILE = 4096
_STEP = 32
_WORST_BYTES_PER_PIXEL = 4096
"""More than any network needs: a picture that fits with this needs no measurement."""
_SHARE = 0.6
"""Share of the free memory for the network and a whole picture; other pictures are read and written meanwhile."""
_ROOM_SECONDS = 0.2
"""How long an answer about the free memory counts."""
_TILE_SHARE = 0.5
"""Share of that for a tile: where memory is short, the next large picture is already being decoded."""
_PICTURE_BYTES_PER_PIXEL = 36
"""The whole picture, its noise and its result, three float32 channels each."""


def tiling_of(text: str) -> Tiling:
    """From "auto", "off" or a number as text."""
    if text == "auto":
        return "auto"
    return "off" if text == "off" else int(text)


class Sized(Protocol):
    """Height and width in pixels."""

    @property
    def height(self) -> int:
        """Rows."""

    @property
    def width(self) -> int:
        """Columns."""


class TilePlan:
    """Decides for each shape. One object per run: it remembers which sizes did not fit.

    Args:
        tile: "auto" (tiles where memory is short), "off", or the side of a tile in pixels, for all larger pictures.
        memory: bytes for the network, None for the free memory.
    """

    def __init__(self, tile: Tiling = "auto", memory: int | None = None) -> None:
        self.tile = tile
        self._memory = memory
        self._free: dict[str, tuple[float, float]] = {}
        self._too_many: int | None = None

    @property
    def why(self) -> str:
        """The reason for tiles, as the end of a sentence."""
        return "there is too little memory for the whole picture" if self.tile == "auto" else "requested"

    def side_for(self, network: LowLightModel, policy: DevicePolicy, shape: Sized, precision: str) -> int | None:
        """The side of the tiles for a picture of this shape, None where it runs whole."""
        pixels = shape.height * shape.width
        if not network.tiles or self.tile == "off":
            return None
        if isinstance(self.tile, int):
            return self.tile if max(shape.height, shape.width) > self.tile else None
        if self._too_many is not None and pixels >= self._too_many:
            return self._side(network, pixels)
        room = self._room(policy.device)
        if pixels * _WORST_BYTES_PER_PIXEL <= room:
            return None
        cost = _cost(network, policy, precision)
        if pixels * cost <= room:
            return None
        fitting = max(0.0, _TILE_SHARE * room - pixels * _PICTURE_BYTES_PER_PIXEL) / cost
        side = int(math.sqrt(fitting)) // _STEP * _STEP
        return min(max(side, SMALLEST_TILE), LARGEST_TILE)

    def whole_sample_fits(self, network: LowLightModel, policy: DevicePolicy, shape: Sized, precision: str) -> bool:
        """Whether the network's `sample_whole` of a whole picture of this shape finds room."""
        pixels, room = shape.height * shape.width, self._room(policy.device)
        if pixels * _WORST_BYTES_PER_PIXEL <= room:
            return True
        return pixels * _cost(network, policy, precision, sample_whole=True) <= room

    def after_failure(self, network: LowLightModel, shape: Sized) -> int | None:
        """The side to try after a picture of this shape did not fit; equally large pictures now run in tiles."""
        pixels = shape.height * shape.width
        if not network.tiles or self.tile == "off":
            return None
        self._too_many = min(pixels, self._too_many or pixels)
        return self._side(network, pixels)

    def _side(self, network: LowLightModel, pixels: int) -> int:
        half = int(math.sqrt(pixels / 4)) // _STEP * _STEP
        return min(max(half, SMALLEST_TILE), LARGEST_TILE)

    def _room(self, device: str) -> float:
        if self._memory is not None:
            return self._memory
        now = time.monotonic()
        free, asked = self._free.get(device, (0.0, -math.inf))
        if now - asked > _ROOM_SECONDS:  # the system's answer costs as much as preparing a small picture
            free = _SHARE * free_memory(device)
            self._free[device] = free, now
        return free


_COSTS: WeakKeyDictionary[LowLightModel, dict[tuple[str, bool], float]] = WeakKeyDictionary()


def _cost(network: LowLightModel, policy: DevicePolicy, precision: str, *, sample_whole: bool = False) -> float:
    """See `bytes_per_pixel`; measured once."""
    costs, key = _COSTS.setdefault(network, {}), (precision, sample_whole)
    if key not in costs:
        from lumen_cli.engine.parts import bytes_per_pixel

        costs[key] = bytes_per_pixel(network, policy, precision, sample_whole=sample_whole)
    return costs[key]


LARGEST_BATCH = 64
"""Pictures that run together at most, unless more are requested; devices gain little beyond."""
_BATCH_SHARE = 0.5
"""Share of a device's memory for a batch."""
_FREE_SHARE = 0.8
"""The same of its free memory; it counts where something else holds a part, so that batches are mostly the same."""


class BatchSizes:
    """How many pictures run together. One object per run: it measures once.

    Args:
        network: on the policy's first device.
        policy: from `choose_device`.
    """

    def __init__(self, network: LowLightModel, policy: DevicePolicy) -> None:
        self._network, self._policy = network, policy

    def at(self, shape: Shape) -> int:
        """For pictures of this shape: as requested, else the largest power of two that fits up to `LARGEST_BATCH`."""
        policy = self._policy
        if policy.single:
            return 1
        if policy.batch_size is not None:
            return policy.batch_size
        if policy.memory is None:
            return 1
        try:
            cost = _cost(self._network, policy, shape.precision)
        except RuntimeError:  # too little memory even for the measurement, or a fault that the pictures meet too
            return 1
        fitting = min(LARGEST_BATCH, int(self._room / (shape.height * shape.width * cost)))
        return 1 << max(0, fitting.bit_length() - 1)

    @cached_property
    def _room(self) -> float:
        """Bytes for a batch, on the device that has the fewest."""
        assert self._policy.memory is not None
        free = min(free_memory(each.device) for each in self._policy.each)
        return min(_BATCH_SHARE * self._policy.memory, _FREE_SHARE * free)


def smaller(side: int) -> int:
    """The next smaller side, 0 where there is none."""
    return 0 if side <= SMALLEST_TILE else max(SMALLEST_TILE, side // 2 // _STEP * _STEP)
