"""Chooses the device and the precision of a run, and reads the processor's name, abilities and cores.

PyTorch is imported only where something is computed, or where this machine may have an accelerator.
"""

from __future__ import annotations

import logging
import os
import platform
import re
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lumen_cli.engine.memory import out_of_memory
from lumen_cli.errors import UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lumen_cli.networks.base import LowLightModel


DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+(,\d+)*)?")
_ACCELERATORS = "nvidia* nvhost* nvmap dxg kfd"
"""Files in /dev of the drivers for PyTorch on Linux: cards by NVIDIA, Jetsons, WSL, cards by AMD."""
_log = logging.getLogger("lumen")


@dataclass(frozen=True)
class DevicePolicy:
    """Where and how the network runs.

    device: "cpu", "cuda:0", "mps"; device_name: name of the chip; precision: "fp32", "bf16" or "fp16"; deep_precision:
    the same for pictures of more than 8 bits; why: reason as a phrase; memory: bytes on the device where they limit a
    batch, else None; batch_size: requested, or None; others: further devices that share a run's pictures.
    """

    device: str
    device_name: str
    precision: str
    deep_precision: str
    why: str
    memory: int | None = None
    batch_size: int | None = None
    others: tuple[DevicePolicy, ...] = ()

    @property
    def each(self) -> tuple[DevicePolicy, ...]:
        """A policy for each device."""
        return replace(self, others=()), *self.others

    @property
    def label(self) -> str:
        """All devices as `choose_device` takes them: "cpu", "cuda:0", "cuda:0,2"."""
        return ",".join((self.device, *(other.device.partition(":")[2] for other in self.others)))

    @property
    def chips(self) -> str:
        """The names of all chips: "NVIDIA L4", "2 × NVIDIA L4"."""
        numbers = Counter(policy.device_name for policy in self.each)
        return ", ".join(f"{number} × {name}" if number > 1 else name for name, number in numbers.items())

    def precision_for(self, bit_depth: int) -> str:
        """The precision for a picture of 8 or 16 bits."""
        return self.precision if bit_depth <= 8 else self.deep_precision

    @property
    def single(self) -> bool:
        """Whether pictures run one by one: on a CPU, where batches gain no speed and change the last bits."""
        return self.device == "cpu"

    def prepare(self, network: LowLightModel) -> LowLightModel:
        """Move a network to the device, in the memory layout that its convolutions prefer.

        Weights stay float32; for half precision an accelerator also gets copies of them.
        """
        import torch

        moved = network.to(torch.device(self.device)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        half = next((name for name in (self.precision, self.deep_precision) if name != "fp32"), None)
        if half is not None and not self.single:
            from lumen_cli.engine.acceleration import hold_halves

            hold_halves(moved, dtype_of(half))
        return moved

    def stage(self, tensor: Tensor) -> Tensor:
        """A tensor on the CPU from which `upload` copies fastest: in page-locked memory for a CUDA device.

        Where the system gives none, which it also refuses after another device was lost, in ordinary memory.
        """
        if not self.device.startswith("cuda"):
            return tensor
        try:
            return tensor.pin_memory()
        except RuntimeError:
            return tensor

    @property
    def overlaps(self) -> bool:
        """Whether the device computes and copies beside the thread that launches this."""
        return self.device.startswith("cuda")

    def upload(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Tensors on the CPU → on the device; the CPU waits only where they are not from `stage`."""
        if not self.overlaps:
            return [tensor.to(self.device) for tensor in tensors]
        from lumen_cli.engine.acceleration import copies_of

        return copies_of(self.device).upload(tensors)

    def fetch(self, tensors: Sequence[Tensor]) -> Callable[[], list[Tensor]]:
        """Begin to copy tensors from the device; the function waits for the copies, on the CPU, and returns them."""
        if not self.overlaps:
            fetched = [tensor.cpu() for tensor in tensors]
            return lambda: fetched
        from lumen_cli.engine.acceleration import copies_of

        return copies_of(self.device).fetch(tensors)

    def works(self) -> bool:
        """Whether the device still computes. After some errors every further call of the process fails."""
        if self.single:
            return True
        import torch

        try:
            torch.ones(1, device=self.device).add_(1.0).item()
        except Exception as error:
            return out_of_memory(error)
        return True

    @contextmanager
    def running(self, precision: str) -> Iterator[None]:
        """Run networks inside: no gradients, mixed precision unless `precision` is fp32, deterministic kernels."""
        import torch

        kind = torch.device(self.device).type
        with (
            _exact_kernels(),
            torch.inference_mode(),
            torch.autocast(kind, dtype=dtype_of(precision), enabled=precision != "fp32"),
        ):
            yield


def dtype_of(precision: str) -> torch.dtype:
    """PyTorch's type of "fp32", "bf16" or "fp16"."""
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


_SWITCHES = threading.Lock()
_running = 0
_before: list[tuple[Any, str, Any]] = []


@contextmanager
def _exact_kernels() -> Iterator[None]:
    """Deterministic kernels without TF32, which keeps only ten bits of the mantissa.

    PyTorch has these switches once per process: the first thread to enter turns them, the last to leave restores them.
    """
    global _running
    with _SWITCHES:
        if not _running:
            switches = _switches()
            _before[:] = [(owner, name, getattr(owner, name)) for owner, name, _ in switches]
            for owner, name, value in switches:
                setattr(owner, name, value)
        _running += 1
    try:
        yield
    finally:
        with _SWITCHES:
            _running -= 1
            if not _running:
                for owner, name, value in _before:
                    setattr(owner, name, value)


def _switches() -> list[tuple[Any, str, Any]]:
    """Owner, name and value of each switch to turn."""
    import torch

    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    switches: list[tuple[Any, str, Any]] = [(cudnn, "deterministic", True), (cudnn, "benchmark", False)]
    for owner, parts in ((cudnn, ("conv", "rnn")), (matmul, ())):
        try:
            _ = owner.allow_tf32
        except RuntimeError:  # the host program uses PyTorch's newer switches, beside which the old one cannot be read
            owners = [getattr(owner, part) for part in parts] or [owner]
            switches += [(each, "fp32_precision", "ieee") for each in owners]
        else:
            switches.append((owner, "allow_tf32", False))
    return switches


def choose_device(
    device: str = "auto",
    precision: str = "auto",
    *,
    precisions: Sequence[str] = ("fp32",),
    batch_size: int | None = None,
    model: str = "this model",
    several: bool = False,
) -> DevicePolicy:
    """Choose the device and the precision for a request.

    Args:
        device: auto, cpu, cuda, cuda:N, cuda:N,N or mps. auto takes cuda, then mps, then the CPU. cuda is the first
            CUDA device, with `several` also those of its name: other chips would change the last bits of a picture,
            and the device that it runs on is chance.
        precision: auto, fp32, bf16 or fp16. auto takes bf16 for pictures of 8 bits, where the chip computes it natively
            and the model supports it; deeper pictures stay in fp32, because bf16 itself has only 8 bits.
        precisions: those that the model supports.
        batch_size: pictures per batch, None for automatic; on a CPU always one.
        model: its name, for errors.
        several: whether the caller uses the policy's `others` too.

    Raises:
        UsageError: the device does not exist here, or the model does not support the precision.
    """
    found = _devices(device, several)
    if precision != "auto" and precision not in precisions:
        raise UsageError(f"{model} does not run in {precision}; it supports {', '.join(precisions)}")
    native = set.intersection(*map(_native_precisions, found))
    if precision != "auto":
        emulated = precision != "fp32" and precision not in native
        dtype, deep = precision, precision
        why = "requested" + (", but this chip only emulates it" if emulated else "")
    else:
        dtype = next((name for name in ("bf16", "fp16") if name in native and name in precisions), "fp32")
        deep, why = "fp32", _reason(dtype, native, precisions)
    memory = min((_memory_of(each) for each in found if each.startswith("cuda")), default=None)
    first, *others = [DevicePolicy(each, _device_name(each), dtype, deep, why, memory, batch_size) for each in found]
    policy = replace(first, others=tuple(others))
    _log.info("device %s (%s) in %s, 16-bit pictures in %s: %s", policy.label, policy.chips, dtype, deep, why)
    return policy


def native_bf16_on_cpu() -> bool:
    """Whether this processor multiplies bfloat16 in hardware; emulation is slower than fp32."""
    if flags := processor_flags():
        return bool({"avx512_bf16", "amx_bf16", "bf16"} & flags)
    import torch

    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        check = getattr(torch.cpu, name, None)
        if check is not None and check():
            return True
    return False


def _may_have_accelerator() -> bool:
    """Whether PyTorch could find an accelerator here: on Linux none does without its driver's files in /dev."""
    return sys.platform != "linux" or any(next(Path("/dev").glob(name), None) for name in _ACCELERATORS.split())


def _devices(asked: str, several: bool) -> list[str]:
    if DEVICE.fullmatch(asked) is None:
        raise UsageError(f"unknown device {asked}: expected auto, cpu, cuda, cuda:N, cuda:N,N or mps")
    if asked == "cpu" or (asked == "auto" and "torch" not in sys.modules and not _may_have_accelerator()):
        return ["cpu"]
    import torch

    has_cuda, has_mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if asked == "auto":
        asked = "cuda" if has_cuda else "mps" if has_mps else "cpu"
    if not asked.startswith("cuda"):
        if asked == "mps" and not has_mps:
            raise UsageError("no Metal device here", remedy="device=cpu")
        return [asked]
    if not has_cuda:
        build = "is built without CUDA" if torch.version.cuda is None else "finds no CUDA device"
        raise UsageError(f"no CUDA device here (PyTorch {torch.__version__} {build})", remedy="device=cpu")
    here = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    if asked == "cuda":
        return [each for each in here if each == here[0] or (several and _device_name(each) == _device_name(here[0]))]
    numbers = list(dict.fromkeys(int(number) for number in asked.partition(":")[2].split(",")))
    if missing := [f"cuda:{number}" for number in numbers if number >= len(here)]:
        raise UsageError(f"no device {missing[0]} here; this machine has {', '.join(here)}")
    if len(numbers) > 1 and not several:
        raise UsageError(f"one device is used here, not {asked}", remedy=f"device=cuda:{numbers[0]}")
    return [here[number] for number in numbers]


def _memory_of(device: str) -> int:
    import torch

    return int(torch.cuda.get_device_properties(device).total_memory)


def _native_precisions(device: str) -> set[str]:
    if device == "cpu":
        return {"fp32", "bf16"} if native_bf16_on_cpu() else {"fp32"}
    if device.startswith("cuda"):
        import torch

        major, _ = torch.cuda.get_device_capability(device)
        return {"fp32"} | ({"bf16"} if major >= 8 else set()) | ({"fp16"} if major >= 7 else set())
    return {"fp32"}


def _reason(dtype: str, native: set[str], precisions: Sequence[str]) -> str:
    if dtype != "fp32":
        return f"the chip computes {dtype} natively"
    if native == {"fp32"}:
        return "the chip has no faster precision of its own"
    return "the model supports no faster precision that the chip has"


def _device_name(device: str) -> str:
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    if device == "mps":
        return "Apple GPU"
    return processor_name()


_CPUINFO = Path("/proc/cpuinfo")
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def processor_name() -> str:
    """The name of the chip, as the system gives it."""
    lines = _read_info()
    return lines.get("model name") or platform.processor() or platform.machine()


def processor_flags() -> frozenset[str]:
    """The abilities by the names that Linux gives them ("avx2", "avx512_bf16", "bf16"); empty on other systems."""
    lines = _read_info()
    return frozenset((lines.get("flags") or lines.get("Features") or "").split())


def usable_cores() -> int:
    """The logical cores that this process may use, within the limits of affinity and container; at least 1."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        quota, period = _QUOTA.read_text(encoding="ascii").split()
        cores = min(cores, -(-int(quota) // int(period)))
    except (OSError, ValueError):  # no container, or no limit ("max")
        pass
    return max(1, cores)


def _read_info() -> dict[str, str]:
    """The first processor's lines of /proc/cpuinfo; empty on other systems."""
    try:
        text = _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
