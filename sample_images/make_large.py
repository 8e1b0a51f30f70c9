"""Makes a dark picture of 12 megapixels from the photographs of the built-in benchmark, for `make demo`.

python sample_images/make_large.py FILE.jpg
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from lumen_cli.benchmark.samples import FOLDER, darken_as_taken
from lumen_cli.imaging.picture import Picture, read_picture, write_picture

SIDES = 3000, 4000
GAP = 12


def main(path: Path) -> None:
    """Lay the photographs out like prints on a table, each at its own size and in a light of its own, and write them."""
    dark = [
        darken_as_taken(read_picture(file).pixels, -2.5 - number % 3 * 0.5, 2e-4, seed=number).low.pixels
        for number, file in enumerate(sorted(FOLDER.glob("*.webp")))
    ]
    noise = np.random.default_rng(0).normal(0.02, 0.005, (*SIDES, 3))
    sheet = np.clip(noise, 0, 1).astype(np.float32)
    top, number = GAP, 0
    while top < SIDES[0]:
        left, tallest = GAP, 0
        while left < SIDES[1]:
            photograph = dark[number % len(dark)]
            height, width = photograph.shape[:2]
            part = sheet[top : top + height, left : left + width]
            part[...] = photograph[: part.shape[0], : part.shape[1]]
            left, tallest, number = left + width + GAP, max(tallest, height), number + 1
        top += tallest + GAP
    path.parent.mkdir(parents=True, exist_ok=True)
    write_picture(Picture(sheet, None, 8, False, "png", None, None), path, format="jpeg", quality=92)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
