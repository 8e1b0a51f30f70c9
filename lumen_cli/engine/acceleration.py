"""What makes a network faster: weights in half precision and copies on an accelerator, OpenVINO on the CPU.

Weights in half precision are cast once; autocast under inference mode would cast them in each call. Copies to and from
a CUDA device run on streams of their own while the network computes. OpenVINO gives the same results within 1/255;
grading and everything else stay PyTorch's.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lumen_cli.atomic import temporary_folder
from lumen_cli.errors import ModelError, UsageError
from lumen_cli.networks.base import LowLightModel, Mean
from lumen_cli.text import duration

if TYPE_CHECKING:
    from lumen_cli.engine.device import DevicePolicy

_log = logging.getLogger("lumen")


def hold_halves(network: nn.Module, dtype: torch.dtype) -> None:
    """Give the convolutions and linear layers of a network copies of their weights, which autocast of this type takes.

    The numbers are autocast's. Outside autocast, and where it computes in another type, the weights themselves count.
    """
    for layer in list(network.modules()):
        kind = _KINDS.get(type(layer), type(layer))
        if kind in _KINDS.values() and getattr(getattr(layer, "half_weight", None), "dtype", None) != dtype:
            layer.__class__ = kind
            for name in ("weight", "bias"):
                full = getattr(layer, name)
                half = None if full is None else full.detach().to(dtype)
                layer.register_buffer(f"half_{name}", half, persistent=False)


class _Halved(nn.Module):
    half_weight: Tensor
    half_bias: Tensor | None

    def _takes_half(self, input: Tensor) -> bool:
        kind = input.device.type
        return torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == self.half_weight.dtype


class _Conv2d(_Halved, nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        half = self._takes_half(input)
        return self._conv_forward(input, self.half_weight, self.half_bias) if half else super().forward(input)


class _Linear(_Halved, nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        half = self._takes_half(input)
        return nn.functional.linear(input, self.half_weight, self.half_bias) if half else super().forward(input)


_KINDS: dict[type[nn.Module], type[nn.Module]] = {nn.Conv2d: _Conv2d, nn.Linear: _Linear}


@cache
def copies_of(device: str) -> Copies:
    """The copies of a device, one object for each."""
    return Copies(device)


class Copies:
    """Two streams beside the current one, on which the network computes. Nothing here waits for the device.

    Memory that one stream allocates and another one uses is recorded there, or it could be given away too early.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._up, self._down = torch.cuda.Stream(device), torch.cuda.Stream(device)

    def upload(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Tensors on the CPU → on the device; copies from page-locked memory overlap with computing."""
        computing = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._up):
            moved = [tensor.to(self._device, non_blocking=True) for tensor in tensors]
        computing.wait_stream(self._up)
        for tensor in moved:
            tensor.record_stream(computing)
        return moved

    def fetch(self, tensors: Sequence[Tensor]) -> Callable[[], list[Tensor]]:
        """Begin to copy tensors from the device; the function waits for the copies, on the CPU, and returns them."""
        self._down.wait_stream(torch.cuda.current_stream(self._device))
        copied = torch.cuda.Event(blocking=True)
        with torch.cuda.stream(self._down):
            hosts = [_page_locked(tensor) for tensor in tensors]
            for host, tensor in zip(hosts, tensors, strict=True):
                host.copy_(tensor, non_blocking=True)
                tensor.record_stream(self._down)
            copied.record(self._down)

        def wait() -> list[Tensor]:
            copied.synchronize()
            return hosts

        return wait


def _page_locked(like: Tensor) -> Tensor:
    """Room on the CPU for a tensor: page-locked, where the system gives such memory."""
    try:
        return torch.empty_like(like, device="cpu", pin_memory=True)
    except RuntimeError:
        return torch.empty_like(like, device="cpu")


def check_runtime(policy: DevicePolicy) -> None:
    """UsageError where OpenVINO is not installed, or the run is not one on a CPU in fp32."""
    from lumen_cli.registry import export  # copies do without it

    export.require_packages("openvino")
    if not policy.single:
        raise UsageError(f"OpenVINO runs on the CPU here, not on {policy.device}", remedy="device=cpu")
    if policy.precision != "fp32":
        raise UsageError(f"OpenVINO runs in fp32 here, not in {policy.precision}", remedy="precision=fp32")


def accelerate(network: LowLightModel, steps: int | None, name: str) -> LowLightModel:
    """The network, run by OpenVINO at these steps (None: its own); a mean of networks that are.

    Raises:
        ModelError: it has no graph for all sizes, see `registry.export`.
    """
    started = time.perf_counter()
    try:
        fast = _accelerate(network, steps).eval()
    except ModelError as error:
        raise ModelError(f"{name} does not run in OpenVINO: {error}", remedy="runtime=torch") from error
    _log.info("%s compiled for OpenVINO in %s", name, duration(time.perf_counter() - started))
    return fast


def _accelerate(network: LowLightModel, steps: int | None) -> LowLightModel:
    if not network.members:
        return Accelerated(network, steps)
    parts = [_accelerate(member.network, member.steps) for member in network.members]
    mean = Mean(parts, [member.share for member in network.members], [member.steps for member in network.members])
    mean.grading = network.grading
    return mean


class Accelerated(LowLightModel):
    """Runs `enhance` of another network by OpenVINO, in fp32 and for single pictures of any size.

    It does not run in tiles: their arguments are not part of the graph.
    """

    def __init__(self, network: LowLightModel, steps: int | None) -> None:
        from lumen_cli.registry import export

        super().__init__()
        self.grading = network.grading
        self.size_multiple = network.size_multiple
        self.steps = steps
        self._noise_shape = network.noise_shape
        if obstacle := network.obstacle_to_export:
            raise ModelError(obstacle)
        sides = export.noise_sides(network)
        self._sides = sides if network.is_random else None
        graph = export.Graph(network, steps, None if self._sides else sides, graded=False).eval()
        with temporary_folder() as folder:
            file = Path(folder) / "model.onnx"
            export.write_onnx(graph, file, self._sides, {})
            self._run = export.openvino_runner(file)
        export.check(graph, self._run, self._sides)

    @property
    def tiles(self) -> bool:
        """False; see the class."""
        return False

    def noise_shape(self, height: int, width: int) -> tuple[int, int, int] | None:
        """See `LowLightModel.noise_shape`."""
        return self._noise_shape(height, width)

    def enhance(self, low: Tensor, *, noise: Tensor | None = None, steps: int | None = None) -> Tensor:
        """See `LowLightModel.enhance`; one picture, at the steps that it was built for."""
        if len(low) != 1 or steps not in (None, self.steps):
            raise ValueError(f"it is built for one picture at {self.steps} steps, not {len(low)} at {steps}")
        inputs = {"picture": low.float()}
        if self._sides is not None:
            assert noise is not None
            inputs["noise"] = noise
        return self._run(inputs)
