"""Tests of this folder need a CUDA device: `make gpu`. Elsewhere all of them skip, for this one reason."""

from __future__ import annotations

import pytest
import torch

from lumen_cli.engine.device import DevicePolicy, choose_device


@pytest.fixture(autouse=True)
def device() -> torch.device:
    """The CUDA device, with no memory held from the test before."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    torch.cuda.empty_cache()
    return torch.device("cuda", 0)


@pytest.fixture
def gpu(device: torch.device) -> DevicePolicy:
    """The policy of a run in single precision."""
    return choose_device(str(device), "fp32")
