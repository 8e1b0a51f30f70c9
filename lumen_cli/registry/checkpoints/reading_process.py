"""Read foreign checkpoints in a helper process with limits on time and memory, and match them to networks.

A hostile file can make its reader take hours or all memory. The helper writes plain tensors as safetensors and ends. If
it fails, the user sees one line. The tensors become a network's values by name and shape.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

from lumen_cli.errors import ModelError
from lumen_cli.networks.base import LowLightModel
from lumen_cli.registry.architectures import ARCHITECTURES, import_object, network_class
from lumen_cli.registry.checkpoints import Checkpoint, Source, read_checkpoint
from lumen_cli.registry.checkpoints.layouts import Layout
from lumen_cli.registry.checkpoints.tensorflow import Networks, read_bundle
from lumen_cli.text import join_first

_WRAPPERS = ("module.", "_orig_mod.")
_PARAMETRIZED = (
    # PyTorch's newer names of the parts of weight norm and spectral norm → those of the hooks that the authors used.
    (re.compile(r"\.parametrizations\.(\w+)\.original0$"), r".\1_g"),
    (re.compile(r"\.parametrizations\.(\w+)\.original1$"), r".\1_v"),
    (re.compile(r"\.parametrizations\.(\w+)\.original$"), r".\1_orig"),
    (re.compile(r"\.parametrizations\.(\w+)\.0\._(u|v)$"), r".\1_\2"),
)
_IGNORED = {
    "parts of a loss or metric": re.compile(r"(lpips|loss_fn\w*|perceptual\w*|criterion\w*|vgg\w*)\."),
    "optimiser state": re.compile(r"(.*/)?(Adam(_\d)?|beta\d_power\w*|global_step)"),
    "noise schedule, rebuilt": re.compile(
        r"(.*\.)?(betas|alphas_cumprod\w*|sqrt_\w+|log_one_minus\w*|posterior_\w+|extra_term_coef\d)"
    ),
    "counters": re.compile(r".*\.num_batches_tracked"),
}
_NEEDED_BUFFERS = ("weight_u", "weight_v", "running_mean", "running_var")


class _SkipInitialisation(TorchFunctionMode):
    """Skips the random initialisation of layers, the slowest part of building them."""

    skipped = (init.kaiming_uniform_, init.kaiming_normal_, init.xavier_uniform_, init.uniform_, init.normal_)

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in self.skipped:
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def build_empty(architecture: str, network: Mapping[str, Any]) -> LowLightModel:
    """A network of these hyper-parameters without values; only buffers that follow from them have theirs.

    Raises:
        ModelError: the architecture cannot have them.
    """
    build = network_class(architecture)
    try:
        with _SkipInitialisation(), torch.no_grad():
            return build(**network)
    except (TypeError, ValueError, AssertionError) as error:
        raise ModelError(f"no network of {architecture} has such shapes: {error}") from None


@dataclass
class Match:
    """The result of matching a checkpoint with a network."""

    taken: dict[str, Tensor] = field(default_factory=dict)
    """The whole state of the network in float32, by name."""
    missing: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)
    misshapen: list[str] = field(default_factory=list)
    """Names with the expected and the found shape."""
    ignored: dict[str, list[str]] = field(default_factory=dict)
    """Reason → names."""
    rebuilt: list[str] = field(default_factory=list)
    """Buffers that the network computes itself."""

    @property
    def problems(self) -> str:
        """Why the tensors do not fit the network; empty where they do."""
        kinds = {"missing": self.missing, "of another shape": self.misshapen, "left over": self.left_over}
        return "; ".join(f"{len(names)} {kind}: {join_first(names)}" for kind, names in kinds.items() if names)


def match(network: LowLightModel, tensors: Mapping[str, Tensor], ignore: Sequence[str] = ()) -> Match:
    """Give every tensor of a network its values.

    Args:
        network: it is not changed; only the values of rebuilt buffers are read.
        tensors: by the network's names.
        ignore: prefixes of names that the user ignores.
    """
    expected = network.state_dict()
    rebuildable = {name for name, _ in network.named_buffers() if not name.endswith(_NEEDED_BUFFERS)}
    result = Match()
    for name, wanted in expected.items():
        found = tensors.get(name)
        if found is not None and _is_usable(found, wanted):
            result.taken[name] = found.to(torch.float32) if wanted.is_floating_point() else found.to(wanted.dtype)
        elif name in rebuildable:
            result.taken[name] = wanted
            result.rebuilt.append(name)
        elif found is None:
            result.missing.append(name)
        else:
            result.misshapen.append(f"{name} (expected {_describe(wanted)}, found {_describe(found)})")
    for name in tensors:
        if name not in expected:
            reason = _why_ignored(name, network.training_only, ignore)
            (result.ignored.setdefault(reason, []) if reason else result.left_over).append(name)
    return result


def normalise_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without the prefixes of wrappers (`module.`); parts of normalised weights as `_g`, `_v`, `_orig`, `_u`."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        while name.startswith(_WRAPPERS):
            name = name[name.index(".") + 1 :]
        for pattern, older in _PARAMETRIZED:
            name = pattern.sub(older, name)
        if name in found:
            raise ModelError(f"the checkpoint holds {name} twice, under two prefixes")
        found[name] = tensor
    return found


def check_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """ModelError where a tensor holds NaN or infinity, as a diverged or unfinished training leaves behind."""
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"{where}: it holds values that are not finite, first in {name}")


def _describe(tensor: Tensor) -> str:
    """A tensor's shape, and its dtype where that is not of floating point."""
    shape = "×".join(map(str, tensor.shape)) or "a single number"
    return shape if tensor.is_floating_point() else f"{shape} of {str(tensor.dtype).removeprefix('torch.')}"


def _is_usable(found: Tensor, wanted: Tensor) -> bool:
    kinds = found.is_floating_point() == wanted.is_floating_point()
    return kinds and found.shape == wanted.shape and found.layout == torch.strided and not found.is_complex()


def _why_ignored(name: str, unneeded: Sequence[str], ignore: Sequence[str]) -> str:
    if name.startswith(tuple(unneeded)):
        return "for training only"
    if name.startswith(tuple(ignore)):
        return "as requested"
    return next((reason for reason, pattern in _IGNORED.items() if pattern.match(name)), "")


SECONDS = 120.0
"""Time limit of a helper; each 10 MB of the file add one second."""
MEMORY = 2 << 30
"""Memory limit of a helper in bytes; the file's size adds four times itself."""
_START = (
    "import sys; sys.path[:] = sys.argv[4:]; from lumen_cli.registry.checkpoints.reading_process import main; main()"
)
_TENSORS, _ANSWER = "tensors.safetensors", "answer.json"
_LONGEST_ANSWER = 1 << 27
_PAUSE = 0.05


def read_apart(source: Source) -> Checkpoint:
    """Read a file or TensorFlow bundle in a helper process; see `read_checkpoint`.

    Raises:
        ModelError: as `read_checkpoint`; or reading takes too long or too much memory, or the reader crashes.
    """
    size = _size(source)
    seconds, memory = SECONDS + size / 1e7, MEMORY + 4 * size
    with tempfile.TemporaryDirectory(prefix="lumen-") as folder:
        place = Path(folder)
        arguments = [str(source.path.absolute()), "bundle" if source.bundle else "file", str(place)]
        command = [sys.executable, "-c", _START, *arguments, *sys.path]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            try:
                assert process.stdin is not None
                process.stdin.write(json.dumps({"seconds": seconds, "memory": memory}).encode())
                process.stdin.close()
                _wait(process, source, seconds, memory)
            except OSError:
                pass  # it has ended already; its answer says why
            finally:
                if process.poll() is None:
                    process.kill()
        return _answer(source, place)


def _size(source: Source) -> int:
    """Bytes of the file; ModelError where it is no regular file: opening a pipe could wait for ever."""
    file = source.file
    try:
        if not file.is_file():
            raise ModelError(f"{file} is no regular file")
        return file.stat().st_size
    except OSError as error:
        raise ModelError(f"{file} cannot be read: {error.strerror}") from None


def _wait(process: subprocess.Popen[bytes], source: Source, seconds: float, memory: int) -> None:
    import psutil

    deadline = time.monotonic() + seconds
    while process.poll() is None:
        if time.monotonic() > deadline:
            raise ModelError(f"{source.path} was refused: reading it takes longer than {seconds:.0f} s")
        with contextlib.suppress(psutil.Error):  # where the system sets no limit on memory itself
            if psutil.Process(process.pid).memory_info().rss > 2 * memory:
                raise ModelError(_too_large(source))
        time.sleep(_PAUSE)


def _too_large(source: Source) -> str:
    return f"{source.path} was refused: reading it takes far more memory than the size of the file"


def _answer(source: Source, place: Path) -> Checkpoint:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        with (place / _ANSWER).open("rb") as file:
            answer = json.loads(file.read(_LONGEST_ANSWER))
    except (OSError, ValueError):
        raise ModelError(f"{source.path} was refused: its reader crashed; the file is damaged or hostile") from None
    if "error" in answer:
        raise ModelError(str(answer["error"]))
    try:
        tensors = load_file(place / _TENSORS)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{source.path} cannot be read back from its helper: {error}") from None
    parts: dict[str, dict[str, Tensor]] = {"tensors": {}, "averages": {}}
    for kind, name, key in answer["names"]:
        parts[kind][name] = tensors[key]
    return Checkpoint(**parts)


def main() -> None:
    """The helper: read the file that the arguments name, under the limits on standard input, and write the answer."""
    place = Path(sys.argv[3])
    limits = json.loads(sys.stdin.buffer.read(4096))
    torch.set_num_threads(1)
    source = Source(Path(sys.argv[1]), bundle=sys.argv[2] == "bundle")
    _limit(limits["seconds"], limits["memory"])
    answer: dict[str, object]
    try:
        answer = {"names": _write_tensors(read_source(source), place / _TENSORS)}
    except ModelError as error:
        answer = {"error": str(error)}
    except (MemoryError, RecursionError):
        answer = {"error": _too_large(source)}
    (place / _ANSWER).write_text(json.dumps(answer))


def _limit(seconds: float, memory: int) -> None:
    """Set the system's limits for this process, where it has any."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[5])
        most = pages * resource.getpagesize() + memory
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
        resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 2))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, OSError, ValueError):
        pass


def read_source(source: Source) -> Checkpoint:
    """Read a file or TensorFlow bundle in this process."""
    if not source.bundle:
        return read_checkpoint(source.path)
    arrays = read_bundle(source.path, published_networks())
    return Checkpoint({name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()})


def published_networks() -> Networks:
    """The published networks whose authors use TensorFlow, by architecture and part."""
    networks: dict[str, dict[str, tuple[str, tuple[int, ...]]]] = {}
    for architecture in ARCHITECTURES.values():
        layout: Layout | None = import_object(architecture.layout) if architecture.layout else None
        if layout is None or layout.tensorflow_name is None:
            continue
        for name, value in build_empty(architecture.id, layout.variant({}).network).state_dict().items():
            if value.is_floating_point():
                part = networks.setdefault(f"{architecture.id} {name.partition('.')[0]}", {})
                part[layout.tensorflow_name(name)] = name, tuple(value.shape)
    return networks


def _write_tensors(checkpoint: Checkpoint, path: Path) -> list[tuple[str, str, str]]:
    """Write all tensors under numbers, as their names can be any text; → kind, name and number of each."""
    from safetensors.torch import save_file

    names: list[tuple[str, str, str]] = []
    stored: dict[str, Tensor] = {}
    for kind, part in (("tensors", checkpoint.tensors), ("averages", checkpoint.averages)):
        for name, tensor in part.items():
            key = str(len(stored))
            names.append((kind, name, key))
            stored[key] = tensor.detach().contiguous().clone()
    save_file(stored, path)
    return names
