"""The built-in paired set: well-exposed photographs darkened on the fly, the same way each time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lumen_cli.benchmark.quality_samples import Sample, Samples, Scene
from lumen_cli.imaging.codec import Picture, read_picture

FOLDER = Path(__file__).parent / "originals"
NAME = "built-in"


@dataclass(frozen=True)
class Darkened:
    """A photograph and how it is darkened. exposure: in EV; shot: variance of the noise per unit of signal."""

    name: str
    exposure: float
    shot: float


PICTURES = (
    Darkened("astronaut", -4.0, 4e-4),
    Darkened("coffee", -5.0, 2e-4),
    Darkened("cat", -3.5, 4e-4),
    Darkened("launch", -2.5, 1e-4),
    Darkened("palace", -4.5, 3e-4),
    Darkened("flower", -3.0, 2e-4),
)


def builtin_samples() -> Samples:
    """The set; every picture is darkened with noise of its own seed, so that all runs see the same pixels."""
    items = tuple(
        Sample(picture.name, None, lambda seed=seed, picture=picture: darkened(picture, seed))  # type: ignore[misc]
        for seed, picture in enumerate(PICTURES)
    )
    title = f"the {NAME} set (synthetic: {len(items)} photographs darkened by lumen)"
    return Samples(title, NAME, "", items, paired=True, synthetic=True, root=FOLDER)


def darkened(picture: Darkened, seed: int) -> Scene:
    """The photograph, and what a camera would have made of it with less light (see `datasets/darken.py`), in 8 bits."""
    import torch

    from lumen_cli.datasets.darken import Camera, darken

    def value(number: float) -> torch.Tensor:
        return torch.tensor([number])

    bright = read_picture(FOLDER / f"{picture.name}.webp").pixels
    camera = Camera(
        exposure=value(picture.exposure),
        shot=value(picture.shot),
        read=value(2.0 * picture.shot),
        row=value(0.3 * picture.shot),
        red=value(2.0),
        blue=value(1.7),
        red_error=value(0.97),
        blue_error=value(1.04),
        black=value(0.0),
        smoothing=value(0.0),
        tone=value(0.4),
        bits=value(14.0),
        quality=value(101.0),
    )
    generator = torch.Generator().manual_seed(seed)
    dark = darken(torch.from_numpy(bright).permute(2, 0, 1)[None], camera, generator)[0].permute(1, 2, 0)
    pixels = np.ascontiguousarray(dark.numpy(), np.float32)
    return Scene(Picture(pixels, None, 8, False, "png", None, None), bright)
