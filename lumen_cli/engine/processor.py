"""The processor's name, abilities and cores, without PyTorch."""

from __future__ import annotations

import os
import platform
from pathlib import Path

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
