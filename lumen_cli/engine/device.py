"""Chooses the device and the precision of a run.

PyTorch is imported only where something is computed, or where this machine may have an accelerator.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lumen_cli.engine.memory import out_of_memory
from lumen_cli.engine.processor import processor_flags, processor_name
from lumen_cli.errors import UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lumen_cli.networks.base import LowLightModel

_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")
_BATCH_MEMORY_SHARE = 0.5
_BYTES_PER_PIXEL = 4096
"""A generous estimate of a network's memory per pixel; only the automatic batch size uses it."""
_LARGEST_AUTOMATIC_BATCH = 16
_ACCELERATORS = "nvidia* nvhost* nvmap dxg kfd"
"""Files in /dev of the drivers for PyTorch on Linux: cards by NVIDIA, Jetsons, WSL, cards by AMD."""
_log = logging.getLogger("lumen")


@dataclass(frozen=True)
class DevicePolicy:
    """Where and how the network runs.

    device: "cpu", "cuda:0", "mps"; device_name: name of the chip; precision: "fp32", "bf16" or "fp16"; deep_precision:
    the same for pictures of more than 8 bits; why: reason as a phrase; memory: bytes on the device where they limit a
    batch, else None; batch_size: requested, or None.
    """

    device: str
    device_name: str
    precision: str
    deep_precision: str
    why: str
    memory: int | None = None
    batch_size: int | None = None

    def precision_for(self, bit_depth: int) -> str:
        """The precision for a picture of 8 or 16 bits."""
        return self.precision if bit_depth <= 8 else self.deep_precision

    @property
    def single(self) -> bool:
        """Whether pictures run one by one: on a CPU, where batches gain no speed and change the last bits."""
        return self.device == "cpu"

    def batch_for(self, height: int, width: int) -> int:
        """Batch size for pictures of `height` × `width`."""
        if self.single:
            return 1
        if self.batch_size is not None:
            return self.batch_size
        if self.memory is None:
            return 1
        fitting = int(self.memory * _BATCH_MEMORY_SHARE) // (height * width * _BYTES_PER_PIXEL)
        return max(1, min(_LARGEST_AUTOMATIC_BATCH, fitting))

    def prepare(self, network: LowLightModel) -> LowLightModel:
        """Move a network to the device, in the memory layout that its convolutions prefer. Weights stay float32."""
        import torch

        return network.to(torch.device(self.device)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def stage(self, tensor: Tensor) -> Tensor:
        """A tensor on the CPU from which `upload` copies fastest: in page-locked memory for a CUDA device."""
        return tensor.pin_memory() if self.device.startswith("cuda") else tensor

    def upload(self, tensor: Tensor) -> Tensor:
        """A tensor on the CPU → on the device; the CPU waits only where the tensor is not from `stage`."""
        return tensor.to(self.device, non_blocking=self.device.startswith("cuda"))

    def fetch(self, tensor: Tensor) -> Tensor:
        """A tensor on the device → on the CPU, complete."""
        if not self.device.startswith("cuda"):
            return tensor.cpu()
        import torch

        host = torch.empty_like(tensor, device="cpu", pin_memory=True)
        host.copy_(tensor, non_blocking=True)
        torch.cuda.synchronize(self.device)
        return host

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
) -> DevicePolicy:
    """Choose the device and the precision for a request.

    Args:
        device: auto, cpu, cuda, cuda:N or mps. auto takes the first CUDA device, then mps, then the CPU.
        precision: auto, fp32, bf16 or fp16. auto takes bf16 for pictures of 8 bits, where the chip computes it natively
            and the model supports it; deeper pictures stay in fp32, because bf16 itself has only 8 bits.
        precisions: those that the model supports.
        batch_size: pictures per batch, None for automatic; on a CPU always one.
        model: its name, for errors.

    Raises:
        UsageError: the device does not exist here, or the model does not support the precision.
    """
    chosen = _device(device)
    if precision != "auto" and precision not in precisions:
        raise UsageError(f"{model} does not run in {precision}; it supports {', '.join(precisions)}")
    native = _native_precisions(chosen)
    if precision != "auto":
        emulated = precision != "fp32" and precision not in native
        dtype, deep = precision, precision
        why = "requested" + (", but this chip only emulates it" if emulated else "")
    else:
        dtype = next((name for name in ("bf16", "fp16") if name in native and name in precisions), "fp32")
        deep, why = "fp32", _reason(dtype, native, precisions)
    memory = _memory_of(chosen)
    policy = DevicePolicy(chosen, _device_name(chosen), dtype, deep, why, memory, batch_size)
    _log.info("device %s (%s) in %s, 16-bit pictures in %s: %s", chosen, policy.device_name, dtype, deep, why)
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


def _device(asked: str) -> str:
    if _DEVICE.fullmatch(asked) is None:
        raise UsageError(f"unknown device {asked}: expected auto, cpu, cuda, cuda:N or mps")
    if asked == "cpu" or (asked == "auto" and "torch" not in sys.modules and not _may_have_accelerator()):
        return "cpu"
    import torch

    has_cuda, has_mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if asked == "auto":
        asked = "cuda" if has_cuda else "mps" if has_mps else "cpu"
    if asked.startswith("cuda"):
        if not has_cuda:
            build = "is built without CUDA" if torch.version.cuda is None else "finds no CUDA device"
            raise UsageError(f"no CUDA device here (PyTorch {torch.__version__} {build})", remedy="device=cpu")
        index, count = int(asked.partition(":")[2] or 0), torch.cuda.device_count()
        if index >= count:
            known = ", ".join(f"cuda:{number}" for number in range(count))
            raise UsageError(f"no device {asked} here; this machine has {known}")
        return f"cuda:{index}"
    if asked == "mps" and not has_mps:
        raise UsageError("no Metal device here", remedy="device=cpu")
    return asked


def _memory_of(device: str) -> int | None:
    if not device.startswith("cuda"):
        return None
    import torch

    return torch.cuda.get_device_properties(device).total_memory


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
