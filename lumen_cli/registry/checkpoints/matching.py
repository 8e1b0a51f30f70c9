"""A network of given hyper-parameters, and a checkpoint's tensors as its values, matched by name and shape."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

from lumen_cli.errors import ModelError
from lumen_cli.networks.base import LowLightModel
from lumen_cli.registry.architectures import network_class
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
