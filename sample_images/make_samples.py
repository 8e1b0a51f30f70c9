"""Makes the pictures of this folder again: bright photographs, darkened by lumen's own camera model.

Needs scikit-image and scikit-learn (their sample photographs), exiftool, and lumen:

    python sample_images/make_samples.py
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lumen_cli.datasets.darken import Camera, darken, draw_camera
from lumen_cli.imaging.picture import Picture, write_picture

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Sample:
    """What one file is made of. `exposure` in EV; `shot` noise per unit of signal; `turn` an EXIF orientation."""

    name: str
    origin: str
    file: str
    width: int
    exposure: float
    shot: float
    tags: tuple[str, ...]
    format: str = "jpeg"
    bits: int = 8
    alpha: bool = False
    grey: bool = False
    turn: int = 1


def tags(date: str, seconds: str, iso: int, title: str, *more: str) -> tuple[str, ...]:
    return (
        "-Make=lumen",
        "-Model=camera model",
        f"-DateTimeOriginal={date}",
        f"-ExposureTime={seconds}",
        "-FNumber=2.8",
        f"-ISO={iso}",
        f"-ImageDescription={title}",
        f"-XMP-dc:Title={title}",
        *more,
    )


GPS = ("-GPSLatitude=28.6", "-GPSLatitudeRef=N", "-GPSLongitude=80.6", "-GPSLongitudeRef=W")
SAMPLES = (
    Sample("astronaut.jpg", "skimage", "astronaut.png", 512, -4.0, 4e-4, tags("2026:01:10 21:04:00", "1/60", 1600, "Portrait")),
    Sample("coffee-16bit.png", "skimage", "coffee.png", 420, -5.0, 2e-4, tags("2026:01:11 06:40:00", "1/50", 800, "Coffee"), "png", bits=16),
    Sample("cat-turned.jpg", "skimage", "chelsea.png", 451, -3.5, 4e-4, tags("2026:01:12 22:15:00", "1/30", 1600, "Cat"), turn=6),
    Sample("launch.webp", "skimage", "rocket.jpg", 640, -2.5, 1e-4, tags("2026:01:13 18:03:00", "1/250", 200, "Launch", *GPS), "webp"),
    Sample("palace.jpg", "sklearn", "china.jpg", 640, -4.5, 3e-4, tags("2026:01:14 20:00:00", "1/25", 1600, "Palace")),
    Sample("flower-alpha.png", "sklearn", "flower.jpg", 400, -3.0, 2e-4, tags("2026:01:15 19:30:00", "1/60", 400, "Flower"), "png", alpha=True),
    Sample("camera-grey.png", "skimage", "camera.png", 400, -4.0, 3e-4, tags("2026:01:16 23:00:00", "1/40", 1600, "Photographer"), "png", grey=True),
    Sample("palace-well-exposed.jpg", "sklearn", "china.jpg", 480, -0.3, 2e-5, tags("2026:01:17 12:00:00", "1/500", 100, "Palace by day")),
)  # fmt: skip


def main() -> None:
    for seed, sample in enumerate(SAMPLES):
        folder = files("skimage.data") if sample.origin == "skimage" else files("sklearn.datasets.images")
        with Image.open(str(folder / sample.file)) as opened:
            original = opened.convert("RGB")
        height = round(original.height * sample.width / original.width)
        resized = np.asarray(original.resize((sample.width, height), Image.Resampling.LANCZOS), dtype=np.float32) / 255
        generator = torch.Generator().manual_seed(seed)
        bright = torch.from_numpy(resized).permute(2, 0, 1)[None]
        levels = 255 if sample.bits == 8 else 65535
        dark = darken(bright, camera(sample, generator), generator, levels=levels)[0].permute(1, 2, 0).numpy()
        if sample.grey:
            dark = np.repeat(dark.mean(axis=2, keepdims=True), 3, axis=2)
        alpha = None
        if sample.alpha:
            y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : sample.width * 1j]
            alpha = np.clip((1.2 - np.hypot(x, y)) * 4, 0, 1).astype(np.float32)
        if sample.turn == 6:  # to be turned a quarter clockwise by who shows it
            dark = np.ascontiguousarray(np.rot90(dark))
        picture = Picture(dark, alpha, sample.bits, sample.grey, sample.format, None, None)
        target = FOLDER / sample.name
        write_picture(picture, target, format=sample.format, quality=92)
        orientation = f"-Orientation#={sample.turn}"
        subprocess.run(["exiftool", "-q", "-overwrite_original", *sample.tags, orientation, str(target)], check=True)
        print(f"{sample.name:26} {target.stat().st_size / 1e3:7.0f} kB")


def camera(sample: Sample, generator: torch.Generator) -> Camera:
    drawn = draw_camera(1, generator)
    values = {
        **vars(drawn),
        "exposure": torch.tensor([sample.exposure]),
        "shot": torch.tensor([sample.shot]),
        "read": torch.tensor([sample.shot * 2.0]),
        "row": torch.tensor([sample.shot * 0.3]),
        "red_error": torch.tensor([0.97]),
        "blue_error": torch.tensor([1.04]),
        "tone": torch.tensor([0.4]),
        "quality": torch.tensor([101.0]),
    }
    return Camera(**values)


if __name__ == "__main__":
    main()
