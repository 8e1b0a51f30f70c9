"""Versions of the same pictures with awkward names, and the page that compares them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SCRIPT = "<script>alert(1)</script>"
QUOTE = '"><img src=x onerror=alert(1)>'
NAMES = (f"{SCRIPT}.png", f"{QUOTE}.png", "night/b.png", "z10.png", "z9.png")
MODEL = "</script><b>Camera</b>"
WIDTH, HEIGHT = 96, 64


def scene(seed: int, gain: float = 1.0, noise: float = 0.0) -> np.ndarray:
    """A picture with structure, the same for the same seed, darker by `gain` and noisier by `noise`."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH] / 16.0
    base = 0.5 + 0.4 * np.sin(x[..., None] * (1 + seed % 3) + generator.uniform(0, 3, 3)) * np.cos(y[..., None])
    values = base * gain + np.random.default_rng(100 + seed).normal(0, 1, base.shape) * noise
    return (np.clip(values, 0, 1) * 255).astype(np.uint8)


def save(path: Path, values: np.ndarray, tagged: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if tagged:
        exif[0x010F], exif[0x0110] = "Maker", MODEL
        exif.get_ifd(0x8769).update({0x829A: 0.004, 0x8827: 3200, 0x9003: "2024:01:31 21:15:00"})
    Image.fromarray(values).save(path, exif=exif)
    return path


@dataclass(frozen=True)
class Site:
    """Three versions, and a page of them."""

    low: Path
    enhanced: Path
    high: Path
    page: Path
    single: Path
    """The same as one file."""


def run_compare(*arguments: str | Path) -> int:
    """The command, in this process; its exit code."""
    from lumen_cli.__main__ import main

    try:
        main(["compare", *map(str, arguments)])
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return 0


def make_versions(root: Path) -> tuple[Path, Path, Path]:
    low, enhanced, high = root / "low", root / "enhanced & <i>", root / "high"
    for seed, name in enumerate(NAMES):
        save(low / name, scene(seed, 0.1, 0.01), tagged=seed == 0)
        save(enhanced / name, scene(seed, 0.8 + 0.05 * seed, 0.02 * (seed + 1)))
        save(high / name, scene(seed))
    return low, enhanced, high


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    root = tmp_path_factory.mktemp("site")
    low, enhanced, high = make_versions(root)
    page = root / "page.html"
    single = root / "single.html"
    arguments = (low, enhanced, high, "--reference", high, "--metrics", "psnr,brightness", "-o")
    assert run_compare(*arguments, page) == 0
    assert run_compare(*arguments, single, "--single-file") == 0
    return Site(low, enhanced, high, page, single)
