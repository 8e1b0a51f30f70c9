"""Networks of a given architecture, without the values that a checkpoint is about to bring."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch.nn import init
from torch.overrides import TorchFunctionMode

from lumen_cli.errors import ModelError
from lumen_cli.networks.base import LowLightModel
from lumen_cli.registry.catalog import network_class


class _WithoutRandomValues(TorchFunctionMode):
    """Skips the random initialisation of layers, which takes longer than all else about building them."""

    skipped = (init.kaiming_uniform_, init.kaiming_normal_, init.xavier_uniform_, init.uniform_, init.normal_)

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in self.skipped:
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def build_empty(architecture: str, network: Mapping[str, Any]) -> LowLightModel:
    """A network of these hyper-parameters: names and shapes; values only of buffers that follow from them.

    Raises:
        ModelError: the architecture cannot have them.
    """
    build = network_class(architecture)
    try:
        with _WithoutRandomValues(), torch.no_grad():
            return build(**network)
    except (TypeError, ValueError, AssertionError) as error:
        raise ModelError(f"this is of a network that {architecture} cannot be: {error}") from None
