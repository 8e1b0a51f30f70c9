"""A stand-in for accelerators, for machines without one: their tensors are computed on the CPU, but belong to a device.

As on a real device, an operator refuses a mixture of its tensors with those of the CPU, random numbers come from a
generator of the device, and numpy reads no tensor before `cpu()`. Unlike PyTorch's fake tensors these have values, so
whole pictures run, and their results can be compared with the CPU's. "mps" also refuses what Apple's chips lack. There
may be several devices, each with a memory of its own, and each can be lost.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from lumen_cli.engine.acceleration import copies_of
from lumen_cli.engine.carrier import carrier_of
from lumen_cli.engine.device import DevicePolicy
from tests.streams import Event, Mark, Stream, current_stream, on_stream

CPU = torch.device("cpu")
MEMORY = 16 << 30
"""Bytes of the stand-in."""
ATEN = torch.ops.aten
MIXING = {ATEN.copy_.default, ATEN.index.Tensor, ATEN.set_.source_Tensor}
"""Operators that take tensors of two devices: copies, and indices on the CPU."""
WITHOUT_KERNEL = {"CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional", "CompositeImplicitAutograd"}
"""Dispatch keys of operators that PyTorch makes of others, on every device."""
GUARDING = {"__getitem__", "__setitem__", "contiguous", "float", "double", "half", "bfloat16", "type"}
"""Methods whose C++ code calls the device's library."""


class OnDevice(Tensor):
    """A tensor of the stand-in; `held` has its values, on the CPU."""

    held: Tensor
    place: torch.device
    mark: Mark

    @staticmethod
    def __new__(cls, held: Tensor, place: torch.device) -> OnDevice:
        with torch.inference_mode(held.is_inference()):  # a view of weights in inference mode is an ordinary tensor
            shell = torch.empty_strided(held.shape, held.stride(), dtype=held.dtype, device="meta")
            made = torch.Tensor._make_subclass(cls, shell, False, dispatch_device=True, device_for_backend_keys=place)
        made.held, made.place, made.mark = held, place, Mark(place)
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self.place

    def record_stream(self, stream: Any) -> None:
        self.mark.recorded.add(stream)

    def item(self) -> Any:
        return self.held.item()

    def tolist(self) -> Any:
        return self.held.tolist()

    def __float__(self) -> float:
        return float(self.held)

    def __int__(self) -> int:
        return int(self.held)

    def __bool__(self) -> bool:
        return bool(self.held)

    def __repr__(self) -> str:  # type: ignore[override]
        return f"<{self.place} {tuple(self.shape)} {self.dtype}>"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return OnDevice, (self.held, self.place)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        place = next(leaf.place for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, OnDevice))
        return StandIn(place).call(func, args, kwargs or {})

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        with torch._C.DisableTorchFunctionSubclass():
            if name == "numpy":
                raise TypeError(f"can't convert {args[0].place} device type tensor to numpy")
            if name in ("to", "cpu"):
                return _move(*args, **kwargs) if name == "to" else _move(args[0], CPU)
            if name not in GUARDING:
                return func(*args, **kwargs)
            with _Quiet():
                return func(*args, **kwargs)


class _Quiet:
    """Within it PyTorch's C++ code finds the tensors on the CPU, or it would call the device's library.

    It also does so without autocast, which has to find them on the device. leaving: whether they are copied to the CPU.
    """

    def __init__(self, leaving: bool = False) -> None:
        self.before, self.wanted = HERE.leaving, leaving

    def __enter__(self) -> None:
        HERE.quiet, HERE.leaving = HERE.quiet + 1, self.wanted

    def __exit__(self, *error: object) -> None:
        HERE.quiet, HERE.leaving = HERE.quiet - 1, self.before


class _Thread(threading.local):
    """What belongs to one thread. quiet, leaving: of `_Quiet`; autocasting, backward: of `Calls`."""

    quiet = 0
    leaving = False
    autocasting = False
    backward = False


HERE = _Thread()


@dataclass
class Machine:
    """The devices of a stand-in. called: operators that ran there; lost: devices that compute nothing more; full: those
    without memory for a convolution; largest: bytes of the largest tensor that an operator made.
    """

    kind: str
    count: int
    called: set[Any] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)
    full: set[str] = field(default_factory=set)
    marks: set[Mark] = field(default_factory=set)
    synchronized: int = 0
    largest: int = 0

    @property
    def unrecorded(self) -> list[Mark]:
        """Tensors whose memory could be given away while another stream still uses it."""
        return [mark for mark in self.marks if mark.used - mark.recorded]

    def synchronize(self, device: Any) -> None:
        """Wait for all of a device, which no run should."""
        self.synchronized += 1

    def check(self, func: Any, place: torch.device) -> None:
        """What a device says that is lost or full."""
        if str(place) in self.lost:
            raise RuntimeError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be …")
        if str(place) in self.full and func is ATEN.convolution.default:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


MACHINE = Machine("cuda", 1)


def _move(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """`tensor.to(…)`, where the tensor or another one that names the device is the stand-in's."""
    if args and isinstance(args[0], Tensor):
        args = (args[0].device, args[0].dtype, *args[1:])
    device, dtype, _, layout = torch._C._nn._parse_to(*args, **kwargs)
    device, dtype = tensor.device if device is None else device, tensor.dtype if dtype is None else dtype
    moved: Tensor
    with _Quiet(leaving=isinstance(tensor, OnDevice) and device.type == "cpu"):
        if device.type == tensor.device.type != "cpu" and (device.index or 0) != tensor.device.index:
            assert isinstance(tensor, OnDevice)
            moved = OnDevice(tensor.held.clone(), device)
        elif device.type == tensor.device.type:
            moved = Tensor.to(tensor, dtype=dtype, memory_format=layout or torch.preserve_format)
        else:
            moved = ATEN._to_copy.default(tensor, dtype=dtype, device=device, memory_format=layout)
    return moved


class DeviceGenerator(torch.Generator):
    """Random numbers for one device: of the stand-in, or of the CPU."""

    def __new__(cls, device: Any = "cpu") -> DeviceGenerator:
        made = super().__new__(cls)
        made.place = torch.device(device)
        return made

    def __init__(self, device: Any = "cpu") -> None:
        super().__init__()

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self.place


class StandIn(TorchDispatchMode):
    """Within it tensors can be moved to the devices of a machine; `place` is where they go by themselves."""

    def __init__(self, place: torch.device, machine: Machine | None = None) -> None:
        super().__init__()
        self.place = place
        self.machine = machine or MACHINE

    @property
    def called(self) -> set[Any]:
        """The operators that ran on the devices."""
        return self.machine.called

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.call(func, args, kwargs or {})

    def call(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Run an operator on the values of the stand-in's tensors."""
        if func is torch.ops.prim.device.default:
            asks = HERE.autocasting and not torch.is_grad_enabled() and not HERE.quiet
            return self.place if asks else CPU
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
            with self, _Quiet(HERE.leaving):  # inference mode does not take these apart
                return func.decompose(*args, **kwargs)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        places = [each.place for each in tensors if isinstance(each, OnDevice)]
        here = bool(places)
        asked = kwargs.get("device")
        stays = HERE.backward or (here and func is ATEN._to_copy.default)
        place = places[0] if here else self.place
        if asked is not None and stays and not HERE.leaving:
            asked = place  # C++ asks for the device of a tensor, which it sees on the CPU
        there = here if asked is None else torch.device(asked).type == self.place.type
        if there and asked is not None:
            place = torch.device(self.place.type, torch.device(asked).index or 0)
        for each in {place, *places} if here or there else ():
            self.machine.check(func, each)
        if here or there:
            self._check(func, tensors, here and there)
        if self.place.type == "cuda":
            for each in tensors:
                if isinstance(each, OnDevice):
                    each.mark.use(func)
                    if each.mark.stream is not current_stream(each.place):
                        self.machine.marks.add(each.mark)
            if func is ATEN.copy_.default and args[2:] and args[2] and not isinstance(args[0], OnDevice):
                return current_stream(place).copy(args[0], args[1].held)
        given = {id(each.held if isinstance(each, OnDevice) else each): each for each in tensors}
        args, kwargs = tree_map(lambda leaf: leaf.held if isinstance(leaf, OnDevice) else leaf, (args, kwargs))
        results = func(*args, **(kwargs if asked is None else kwargs | {"device": CPU}))

        def back(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor) or id(leaf) in given:  # operators in place return what they were given
                return given.get(id(leaf), leaf)
            return self._place(func, leaf, place) if there else leaf

        return tree_map(back, results)

    def _check(self, func: Any, tensors: list[Tensor], stays: bool) -> None:
        self.called.add(func)
        found = sorted({str(each.place) if isinstance(each, OnDevice) else "cpu" for each in tensors if each.ndim})
        if stays and len(found) > 1 and func not in MIXING:
            raise RuntimeError(f"{func}: expected all tensors on one device, but found {' and '.join(found)}")
        if stays and self.place.type == "mps" and not runs_on_apple(func):
            raise NotImplementedError(f"{func.name()} is not currently implemented for the MPS device")

    def _place(self, func: Any, held: Tensor, place: torch.device) -> OnDevice:
        if self.place.type == "mps" and held.dtype in (torch.float64, torch.complex128):
            raise TypeError(f"{func}: cannot convert a MPS Tensor to float64 dtype")
        self.machine.largest = max(self.machine.largest, held.nbytes)
        return OnDevice(held, place)


def _pin(tensor: Tensor) -> Tensor:
    assert tensor.device.type == "cpu"
    Calls.pinned += 1
    return tensor.clone(memory_format=torch.preserve_format)


class Calls(TorchFunctionMode):
    """Checks what only Python's side of a call shows: generators, and the sizes of poolings."""

    pinned = 0
    """Tensors on the CPU in page-locked memory so far."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.adaptive_avg_pool2d and args[0].device.type == "mps":
            _check_pooling(*args, **kwargs)
        if func is Tensor.to and len(args) > 1 and isinstance(args[1], OnDevice):
            return _move(*args, **kwargs)
        if getattr(func, "__name__", "") == "backward":
            return self._go_backward(func, args, kwargs)
        if kwargs.pop("pin_memory", False):
            Calls.pinned += 1
        HERE.autocasting = torch.is_autocast_enabled("cuda")  # an operator that autocast calls finds it off
        result = func(*args, **kwargs)
        generator = kwargs.get("generator")
        if generator is not None and generator.device.type != result.device.type:
            raise RuntimeError(f"expected a generator of {result.device}, found one of {generator.device}")
        return result

    @staticmethod
    def _go_backward(func: Any, args: Any, kwargs: Any) -> Any:
        HERE.backward = isinstance(args[0], OnDevice)
        try:
            return func(*args, **kwargs)
        finally:
            HERE.backward = False


def _check_pooling(picture: Tensor, output_size: Any) -> None:
    sizes = (output_size, output_size) if isinstance(output_size, int) else output_size
    for length, wanted in zip(picture.shape[-2:], sizes, strict=True):
        if max(length, wanted) % min(length, wanted):
            raise RuntimeError("Adaptive pool MPS: input sizes must be divisible by output sizes.")


@cache
def _kernels() -> dict[str, dict[str, Any]]:
    """Every operator of the installed PyTorch, as its own table describes it."""
    import torchgen
    import yaml

    table = Path(torchgen.__file__).parent / "packaged/ATen/native/native_functions.yaml"
    entries = yaml.load(table.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return {entry["func"].partition("(")[0]: entry for entry in entries}


def runs_on_apple(func: Any) -> bool:
    """Whether PyTorch's table of operators names a kernel for Apple's chips, or the same one for all devices."""
    entry = _kernels().get(func.name().removeprefix("aten::"))
    if func.namespace != "aten" or entry is None:  # made by PyTorch's code generator from another operator
        return True
    if "_for_cpu" in func.name():  # attention is chosen by the device of the values
        return True
    entry = _kernels()[entry["structured_delegate"]] if "structured_delegate" in entry else entry
    kernels = {key.strip() for keys in entry.get("dispatch", {}) for key in keys.split(",")}
    return not kernels or "MPS" in kernels or not kernels.isdisjoint(WITHOUT_KERNEL)


@contextmanager
def accelerator(kind: str = "cuda", count: int = 1) -> Iterator[StandIn]:
    """A machine with devices of a kind, "cuda" or "mps", within the block, and in the threads that start there."""
    overwriting = torch.__future__.get_overwrite_module_params_on_conversion()
    lifting = torch._C._only_lift_cpu_tensors()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    torch._C._set_only_lift_cpu_tensors(True)
    machine, run = Machine(kind, count), threading.Thread.run
    copies_of.cache_clear()
    carrier_of.cache_clear()

    def run_with(thread: threading.Thread) -> None:
        with Calls(), StandIn(torch.device(kind, 0), machine):
            run(thread)

    cuda: dict[str, Callable[..., Any]] = {
        "_lazy_init": lambda: None,
        "is_available": lambda: kind == "cuda",
        "device_count": lambda: count,
        "get_device_name": lambda device: "a stand-in",
        "get_device_capability": lambda device: (8, 0),
        "get_device_properties": lambda device: SimpleNamespace(total_memory=MEMORY),
        "is_bf16_supported": lambda: True,
        "empty_cache": lambda: None,
        "synchronize": machine.synchronize,
        "Stream": Stream,
        "Event": Event,
        "stream": on_stream,
        "current_stream": current_stream,
        "mem_get_info": lambda device: (MEMORY, MEMORY),
        "memory_reserved": lambda device: 0,
        "memory_allocated": lambda device: 0,
        "max_memory_allocated": lambda device: 0,
    }
    with (
        patch.object(torch, "Generator", DeviceGenerator),
        patch.multiple(torch.cuda, **cuda),
        patch.object(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
        patch.object(Tensor, "pin_memory", _pin),
        patch.object(threading.Thread, "run", run_with),
        patch(f"{__name__}.MACHINE", machine),
        Calls(),
        StandIn(torch.device(kind, 0), machine) as stand_in,
    ):
        try:
            yield stand_in
        finally:
            torch._C._set_only_lift_cpu_tensors(lifting)
            torch.__future__.set_overwrite_module_params_on_conversion(overwriting)


def policy_on(kind: str = "cuda", precision: str = "fp32", batch_size: int | None = None) -> DevicePolicy:
    """The policy of a run on the stand-in."""
    return DevicePolicy(f"{kind}:0", "a stand-in", precision, "fp32", "requested", batch_size=batch_size)
