"""A checkpoint's tensors → the network's, by name and shape."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lumen_cli.errors import ModelError
from lumen_cli.networks.base import LowLightModel

_NAMED_IN_ERRORS = 3
_WRAPPERS = ("module.", "_orig_mod.")
_PARAMETRIZED = (
    # PyTorch's newer names of weight norm's and spectral norm's parts → those of the hooks the authors used.
    (re.compile(r"\.parametrizations\.(\w+)\.original0$"), r".\1_g"),
    (re.compile(r"\.parametrizations\.(\w+)\.original1$"), r".\1_v"),
    (re.compile(r"\.parametrizations\.(\w+)\.original$"), r".\1_orig"),
    (re.compile(r"\.parametrizations\.(\w+)\.0\._(u|v)$"), r".\1_\2"),
)
_IGNORED = {
    "parts of a loss or metric": re.compile(r"(lpips|loss_fn\w*|perceptual\w*|criterion\w*|vgg\w*)\."),
    "the optimiser's": re.compile(r"(.*/)?(Adam(_\d)?|beta\d_power\w*|global_step)"),
    "noise schedule, rebuilt": re.compile(
        r"(.*\.)?(betas|alphas_cumprod\w*|sqrt_\w+|log_one_minus\w*|posterior_\w+|extra_term_coef\d)"
    ),
    "counters": re.compile(r".*\.num_batches_tracked"),
}
_NEEDED_BUFFERS = ("weight_u", "weight_v", "running_mean", "running_var")


@dataclass
class Match:
    """What became of a checkpoint's tensors; `taken` is all the network has, in float32, by name.

    missing, left_over and misshapen are names, the last with both shapes; ignored: reason → names; rebuilt: names of
    buffers that the network makes itself.
    """

    taken: dict[str, Tensor] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)
    misshapen: list[str] = field(default_factory=list)
    ignored: dict[str, list[str]] = field(default_factory=dict)
    rebuilt: list[str] = field(default_factory=list)

    @property
    def problems(self) -> str:
        """What keeps the tensors from being the network's, empty where nothing does."""
        kinds = {"missing": self.missing, "of another shape": self.misshapen, "left over": self.left_over}
        return "; ".join(f"{len(names)} {kind}: {first(names)}" for kind, names in kinds.items() if names)


def plain_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without the prefixes of wrappers (`module.`), parts of normalised weights as `_g`, `_v`, `_orig`, `_u`."""
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        while name.startswith(_WRAPPERS):
            name = name[name.index(".") + 1 :]
        for pattern, older in _PARAMETRIZED:
            name = pattern.sub(older, name)
        if name in plain:
            raise ModelError(f"the checkpoint holds {name} twice, under two prefixes")
        plain[name] = tensor
    return plain


def with_averages(
    tensors: Mapping[str, Tensor], averages: Mapping[str, Tensor], prefixes: tuple[str, ...]
) -> dict[str, Tensor]:
    """The tensors with those replaced that have an average, are named with one of `prefixes` and can be averaged."""
    averaged = {name: value for name, value in averages.items() if name.startswith(prefixes)}
    return dict(tensors) | averaged


def match(network: LowLightModel, tensors: Mapping[str, Tensor], ignore: Sequence[str] = ()) -> Match:
    """Give every tensor of a network its values.

    Args:
        network: what to fill; it is not changed, and of its values only those buffers are read that are rebuilt.
        tensors: by the network's names.
        ignore: beginnings of names that the user leaves aside.
    """
    expected = network.state_dict()
    rebuildable = {name for name, _ in network.named_buffers() if not name.endswith(_NEEDED_BUFFERS)}
    result = Match()
    for name, wanted in expected.items():
        found = tensors.get(name)
        if found is not None and _usable(found, wanted):
            result.taken[name] = found.to(torch.float32) if wanted.is_floating_point() else found.to(wanted.dtype)
        elif name in rebuildable:
            result.taken[name] = wanted
            result.rebuilt.append(name)
        elif found is None:
            result.missing.append(name)
        else:
            result.misshapen.append(f"{name} (expected {described(wanted)}, found {described(found)})")
    for name in tensors:
        if name not in expected:
            reason = _reason(name, network.training_only, ignore)
            (result.ignored.setdefault(reason, []) if reason else result.left_over).append(name)
    return result


def check_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """ModelError where a tensor holds what is no number, as an unfinished or burst training leaves behind."""
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"{where}: it holds values that are not finite, first in {name}")


def first(names: Sequence[str]) -> str:
    """The first few names."""
    return ", ".join(names[:_NAMED_IN_ERRORS]) + (", …" if len(names) > _NAMED_IN_ERRORS else "")


def described(tensor: Tensor) -> str:
    """A tensor's shape, and its type where that is not of floating point."""
    shape = "×".join(map(str, tensor.shape)) or "a single number"
    return shape if tensor.is_floating_point() else f"{shape} of {str(tensor.dtype).removeprefix('torch.')}"


def _usable(found: Tensor, wanted: Tensor) -> bool:
    kinds = found.is_floating_point() == wanted.is_floating_point()
    return kinds and found.shape == wanted.shape and found.layout == torch.strided and not found.is_complex()


def _reason(name: str, unneeded: Sequence[str], ignore: Sequence[str]) -> str:
    if name.startswith(tuple(unneeded)):
        return "for training only"
    if name.startswith(tuple(ignore)):
        return "as asked for"
    return next((reason for reason, pattern in _IGNORED.items() if pattern.match(name)), "")
