from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lumen_cli.networks.base import LowLightModel
from lumen_cli.registry.checkpoints.reading_process import read_source
from tests.conftest import dark_pixels


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def in_this_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read checkpoints here, without the seconds that a helper takes to start; `test_limits.py` reads in helpers."""
    if request.path.name != "test_limits.py":
        monkeypatch.setattr("lumen_cli.registry.checkpoints.importing.read_apart", read_source)


@pytest.fixture
def same_picture(models_root: Path) -> Callable[..., None]:
    """Assert that a model folder, or a model by name, gives a picture what the network alone makes of it."""

    def check(model: Path | str, network: LowLightModel, height: int = 40, width: int = 56, **knobs: float) -> None:
        import lumen_cli
        from lumen_cli.api import picture_from_array
        from lumen_cli.diffusion import picture_noise
        from lumen_cli.networks.base import pad_to_multiple

        pixels = (dark_pixels(height, width) / np.float32(255)).astype(np.float32)
        low = torch.from_numpy(pixels).permute(2, 0, 1)[None]
        shape = network.noise_shape(height, width)
        noise = None if shape is None else picture_noise(0, picture_from_array(pixels).digest(), shape)[None]
        with torch.inference_mode():
            padded = pad_to_multiple(low, network.size_multiple)
            alone = network.enhance(padded, noise=noise, **knobs)[0, :, :height, :width].permute(1, 2, 0).numpy()
        through = lumen_cli.enhance(pixels, model, device="cpu", **knobs)
        assert alone.std() > 0.01, "a flat result shows nothing"
        np.testing.assert_allclose(through, alone, rtol=0, atol=1e-4)

    return check
