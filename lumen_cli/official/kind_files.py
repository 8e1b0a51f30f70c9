"""KinD's and KinD++'s networks in TensorFlow's checkpoints: their names there, and how they are taken out."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lumen_cli.errors import ModelError
from lumen_cli.official.tensorflow import Entry, data_file, read_index

_SCOPES = {
    "kind": {"decom": "DecomNet", "restoration": "Restoration_net", "adjust": "Illumination_adjust_net"},
    "kind-plus": {"decom": "DecomNet", "restoration": "Denoise_Net", "adjust": "I_enhance_Net"},
}
_LEAVES = {
    "weight": "weights",
    "bias": "biases",
    "norm.weight": "gamma",
    "norm.bias": "beta",
    "norm.running_mean": "moving_mean",
    "norm.running_var": "moving_variance",
}
_MODULES = (  # KinD++'s attention modules are a flat list of layers in TensorFlow.
    (re.compile(r"msia(\d)\.attention"), r"de_conv\1/conv"),
    (re.compile(r"msia(\d)\.fuse"), r"de_conv\1multi_scale_feature"),
    (re.compile(r"msia(\d)\.scale(\d)\.conv"), r"de_conv\1pu\2/pu_conv"),
    (re.compile(r"msia(\d)\.scale(\d)\.norm"), r"de_conv\1pu\2/batch_normalization"),
    (re.compile(r"msia(\d)\.scale(\d)\.up1"), r"de_conv\1pu\2/conv_up_1"),
    (re.compile(r"msia(\d)\.scale(\d)\.up2?"), r"de_conv\1pu\2/conv_up"),
)


def read_kind(prefix: Path, shapes: Mapping[str, Mapping[str, tuple[int, ...]]]) -> dict[str, np.ndarray]:
    """KinD's networks out of a bundle, by lumen's names and in PyTorch's layout.

    Where the index is missing the data file's size tells which network it is, for the tensors lie in the order of
    their names and nothing else is in the file.

    Args:
        prefix: the bundle, without the endings of its files.
        shapes: for kind and kind-plus, name → shape in the published network, PyTorch's layout.
    """
    data, index = data_file(prefix), prefix.with_name(f"{prefix.name}.index")
    if not data.is_file():
        raise ModelError(f"{data} is no regular file")
    content = np.fromfile(data, dtype=np.uint8)
    if index.is_file():
        entries = read_index(index)
        ours = {tensorflow_name(name, kind): name for kind in shapes for name in shapes[kind]}
    else:
        ours, entries = _by_size(data, content.size, shapes)
    total = 0
    tensors = {}
    for name, entry in entries.items():
        if entry.offset + entry.size > content.size:
            raise ModelError(f"{data} is damaged or was not downloaded completely: {name} lies beyond its end")
        total += entry.size
        if total > content.size:
            raise ModelError(f"{index}: its tensors have more bytes than {data} holds, so they repeat parts of it")
        count = math.prod(entry.shape)
        if entry.size != count * np.dtype(entry.dtype).itemsize:
            raise ModelError(f"{index}: {name} has {entry.size} bytes, which does not fit its shape {entry.shape}")
        values = content[entry.offset : entry.offset + entry.size].view(entry.dtype).reshape(entry.shape)
        tensors[ours.get(name, name)] = values.transpose(3, 2, 0, 1) if values.ndim == 4 else values
    return tensors


def tensorflow_name(name: str, architecture: str) -> str:
    """Our name of a KinD or KinD++ parameter → the authors', as `DecomNet/g_conv1_1/weights`."""
    network, _, rest = name.partition(".")
    module, _, leaf = rest.rpartition(".")
    leaf = _LEAVES.get(f"norm.{leaf}" if module.endswith("norm") else leaf, leaf)
    for pattern, theirs in _MODULES:
        if pattern.fullmatch(module):
            leaf = "kernel" if module.endswith("attention") else leaf
            module = pattern.sub(theirs, module)
            break
    if architecture == "kind-plus" and network == "adjust":
        module = module.removeprefix("en_")
    return f"{_SCOPES[architecture][network]}/{module}/{leaf}"


def _by_size(
    data: Path, size: int, shapes: Mapping[str, Mapping[str, tuple[int, ...]]]
) -> tuple[dict[str, str], dict[str, Entry]]:
    """The names and places of the published network that has just this many bytes."""
    sizes = []
    for architecture, published in shapes.items():
        for network in _SCOPES[architecture]:
            ours = {tensorflow_name(n, architecture): n for n in published if n.startswith(f"{network}.")}
            entries, offset = {}, 0
            for name in sorted(ours, key=str.encode):
                shape = published[ours[name]]
                shape = tuple(shape[axis] for axis in (2, 3, 1, 0)) if len(shape) == 4 else shape
                entries[name] = Entry("<f4", shape, offset, 4 * math.prod(shape))
                offset += entries[name].size
            if offset == size:
                return ours, entries
            sizes.append(f"{architecture} {network} {offset:,}")
    raise ModelError(
        f"{data} has {size:,} bytes, which is none of the published networks ({'; '.join(sizes)}), and the .index "
        "beside it that would tell what it holds is missing"
    )
