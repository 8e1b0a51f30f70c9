"""What this machine has and what of it lumen can use: processor, memory, PyTorch, devices, the user's folders."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lumen_cli import __version__
from lumen_cli.text import count, memory, printable

Status = Literal["ok", "limited", "broken"]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    area: str
    name: str
    status: Status
    """limited: lumen works, but slower or with less; broken: something that should work does not."""
    found: str
    advice: str = ""
    """What to do about it."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """The same in numbers and names."""


Checks = Iterator[Check]
_ABILITIES = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_bf16": "AVX-512 BF16",
    "amx_bf16": "AMX BF16",
    "asimd": "NEON",
    "sve": "SVE",
    "bf16": "BF16",
}
"""Abilities of processors that networks use, by Linux's names."""
_LEAST_MEMORY = 1288490188
"""Peak memory for a picture of 24 megapixels, in bytes."""
_LEAST_SPACE = 1 << 28
_FOLDERS: dict[Literal["data", "config", "cache", "state"], tuple[str, str]] = {
    "data": ("XDG_DATA_HOME", "`lumen models pull` and `import` need --output"),
    "config": ("XDG_CONFIG_HOME", "a config.toml of your own cannot be written"),
    "cache": ("XDG_CACHE_HOME", "models of hf:// cannot be downloaded"),
    "state": ("XDG_STATE_HOME", "outputs of pictures named alone are only known by their stamp"),
}
"""The user's folders: the variable that moves each, and what does not work where it cannot be written."""


def check_python() -> Checks:
    """Versions of lumen and Python."""
    facts = {"version": platform.python_version(), "executable": sys.executable, "system": platform.platform()}
    found = f"lumen {__version__}, Python {facts['version']} on {facts['system']}"
    yield Check("python", "python", "ok", found, facts=facts | {"lumen": __version__})


def check_processor() -> Checks:
    """The processor, what it can do, and what that means for speed."""
    import psutil

    from lumen_cli.engine.device import processor_flags, processor_name, usable_cores

    flags = processor_flags()
    abilities = [title for flag, title in _ABILITIES.items() if flag in flags]
    bf16 = bool({"avx512_bf16", "amx_bf16", "bf16"} & flags)
    name, cores, physical = processor_name(), usable_cores(), psutil.cpu_count(logical=False)
    found = f"{name}: {count(cores, 'usable core')}" + (f"; {', '.join(abilities)}" if abilities else "")
    status: Status = "ok"
    advice = ""
    if bf16:
        found += ". 8-bit pictures run in bf16, which it computes natively; 16-bit pictures in fp32"
    elif flags:
        found += ". All pictures run in fp32: it has no bf16 of its own"
    if platform.machine().lower() in ("x86_64", "amd64") and flags and "avx2" not in flags:
        status, found = "limited", f"{found}; without AVX2 networks are several times slower"
        advice = "in a virtual machine, give it the host's processor type; otherwise use a newer computer"
    facts = {"name": name, "abilities": abilities, "usable_cores": cores, "physical_cores": physical, "bf16": bf16}
    yield Check("processor", "processor", status, found, advice, facts)


def check_torch() -> Checks:
    """PyTorch's version and threads."""
    import torch

    from lumen_cli.engine.device import usable_cores

    threads, cores = torch.get_num_threads(), usable_cores()
    uses = torch.backends.cpu.get_cpu_capability()
    facts = {"version": torch.__version__, "cuda": torch.version.cuda, "threads": threads, "instructions": uses}
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
    found = f"{torch.__version__} ({build}), {uses}, {count(threads, 'thread')}"
    if threads == cores:
        yield Check("torch", "torch", "ok", found, facts=facts)
        return
    variable = os.environ.get("OMP_NUM_THREADS")
    reason = f" (OMP_NUM_THREADS={variable})" if variable else ""
    slow = "cores stay idle" if threads < cores else "threads wait for each other"
    advice = f"set OMP_NUM_THREADS={cores}" if threads > cores or not variable else "unset OMP_NUM_THREADS"
    status: Status = "limited" if variable or threads > cores else "ok"  # one thread a core is torch's own choice
    text = f"{found} for {count(cores, 'core')}{reason}" + (f": {slow}" if status == "limited" else "")
    yield Check("torch", "torch", status, text, advice if status == "limited" else "", facts)


def check_memory() -> Checks:
    """Free memory, within the limits of the container."""
    import psutil

    from lumen_cli.engine.memory import free_memory

    total, free = psutil.virtual_memory().total, free_memory()
    found, facts = f"{memory(free)} free of {memory(total)}", {"free_bytes": free, "total_bytes": total}
    if free >= _LEAST_MEMORY:
        yield Check("memory", "memory", "ok", found, facts=facts)
    else:
        what = f"{found}; a picture of 24 megapixels needs {memory(_LEAST_MEMORY)}"
        yield Check("memory", "memory", "limited", what, "close other programs, or allow the container more", facts)


def check_devices() -> Checks:
    """The devices that PyTorch can use, and a driver whose device it cannot."""
    import torch

    from lumen_cli.engine.device import choose_device

    names = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    names += ["mps"] if torch.backends.mps.is_available() else []
    first = choose_device().device
    for name in [*names, "cpu"]:
        policy = choose_device(name, precisions=("fp32", "bf16", "fp16"))
        torch.ones(8, device=name).sum().item()  # a build without kernels for this chip fails here
        size = "" if policy.memory is None else f", {memory(policy.memory)}"
        chosen = " (the default)" if name == first else ""
        facts = {"device": name, "name": policy.device_name, "precision": policy.precision, "default": name == first}
        yield Check("device", name, "ok", f"{policy.device_name}{size}, {policy.precision}{chosen}", facts=facts)
    driver = Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None
    if driver and not torch.cuda.is_available():
        why = "is built without CUDA" if torch.version.cuda is None else "finds no usable device"
        found = f"there is an NVIDIA driver, but PyTorch {torch.__version__} {why}"
        yield Check("device", "cuda", "limited", found, "install PyTorch for CUDA: pytorch.org/get-started/locally")


def check_folders() -> Checks:
    """The user's folders and the one for temporary files."""
    from lumen_cli.files.contents import user_folder

    for kind, (variable, loss) in _FOLDERS.items():
        yield _check_folder(kind, user_folder(kind), variable, loss)
    yield _check_folder("temporary", Path(tempfile.gettempdir()), "TMPDIR", "few formats and downloads work")


def _check_folder(kind: str, path: Path, variable: str, loss: str) -> Check:
    """Whether files can be made in a folder, or in the folder that it would be made in, and how much space is left."""
    facts: dict[str, Any] = {"path": str(path)}
    if path.is_relative_to(os.devnull):
        return Check("folder", kind, "limited", f"this user has none; {loss}", f"set {variable} to a folder", facts)
    exists = path.is_dir()
    place = path if exists else next(parent for parent in path.parents if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
        free = shutil.disk_usage(place).free
    except OSError as error:
        found = f"{printable(path)} cannot be written ({error.strerror or error}); {loss}"
        advice = f"set {variable} to a folder that can be written"
        return Check("folder", kind, "limited", found, advice, facts | {"writable": False})
    facts |= {"writable": True, "free_bytes": free}
    found = f"{printable(path)}, {memory(free)} free" + ("" if exists else "; made when it is needed")
    if free < _LEAST_SPACE:
        return Check("folder", kind, "limited", found, "make room: there is less than 256 MiB", facts)
    return Check("folder", kind, "ok", found, facts=facts)
