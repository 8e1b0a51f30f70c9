"""Training data that fit into a test: four pairs and four bright pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lumen_cli.datasets import find_training_files
from lumen_cli.training.data import Batches, Mix


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`pairs/` with low/ and high/, and `bright/`; 64×56 pixels each."""
    root = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    for folder in ("pairs/low", "pairs/high", "bright"):
        (root / folder).mkdir(parents=True)
    for i in range(4):
        coarse = generator.integers(40, 250, (5, 6, 3), dtype=np.uint8)
        bright = Image.fromarray(coarse).resize((64, 56), Image.Resampling.BICUBIC)
        bright.save(root / f"pairs/high/{i}.png")
        Image.fromarray(np.asarray(bright) // 8).save(root / f"pairs/low/{i}.png")
        bright.save(root / f"bright/b{i}.png")
    return root


@pytest.fixture
def batches(data: Path) -> Batches:
    """Half pairs, half darkened pictures."""
    return Batches(find_training_files([data / "pairs", data / "bright"]), torch.device("cpu"), Mix(), seed=0)
