"""A picture beside its reflectance, its illumination and their product: one picture to look at."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from lumen_cli.imaging.colour.convert import to_integers, to_unit
from lumen_cli.imaging.picture import Picture

if TYPE_CHECKING:
    from PIL import Image

    from lumen_cli.pipeline.decomposition import Maps

LARGEST_PANEL = 1024
"""Pixels of a panel's longer side; larger pictures are reduced to that."""
_NARROWEST_PANEL = 288
_GAP = 12
_BACKGROUND, _INK = (24, 24, 24), (232, 232, 232)


def sheet(picture: Picture, maps: Maps) -> Picture:
    """Input, R, L and R ∘ L with captions: four in a row where the picture is upright, else two by two.

    Eight bits, in the picture's own profile. `maps` holds its reconstruction.
    """
    from PIL import Image, ImageDraw, ImageFont

    panels = [(caption, _panel(values)) for caption, values in _captioned(picture, maps)]
    width = max(_NARROWEST_PANEL, panels[0][1].width)
    height = panels[0][1].height
    size = max(14, width // 32)
    font, caption_height = ImageFont.load_default(size), 2 * size
    columns = 4 if picture.height > picture.width else 2
    rows = len(panels) // columns
    whole = (columns * (width + _GAP) + _GAP, rows * (caption_height + height + _GAP) + _GAP)
    canvas = Image.new("RGB", whole, _BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    for number, (caption, panel) in enumerate(panels):
        left = _GAP + number % columns * (width + _GAP)
        top = _GAP + number // columns * (caption_height + height + _GAP)
        draw.text((left, top + size // 4), caption, _INK, font)
        canvas.paste(panel, (left + (width - panel.width) // 2, top + caption_height))
    colour_profile = picture.icc if picture.icc and picture.icc[16:20] == b"RGB " else None
    return dataclasses.replace(
        picture,
        values=to_unit(np.asarray(canvas)),
        alpha=None,
        bit_depth=8,
        grey=False,
        format="png",
        icc=colour_profile,
        lost=(),
        own=None,
    )


def _captioned(picture: Picture, maps: Maps) -> Iterator[tuple[str, np.ndarray]]:
    assert maps.reconstruction is not None
    assert maps.prepared is not None
    decoded, enlarged = (", decoded", ", a latent enlarged") if maps.latents else ("", "")
    stretched = "" if np.array_equal(maps.prepared, picture.pixels) else " (of the stretched input)"
    yield "input", picture.pixels
    yield f"R: reflectance{decoded}", maps.reflectance
    yield f"L: illumination{enlarged}", np.broadcast_to(maps.illumination[:, :, None], maps.reflectance.shape)
    yield f"R * L{decoded}{stretched}", maps.reconstruction


def _panel(values: np.ndarray) -> Image.Image:
    from PIL import Image

    panel = Image.fromarray(to_integers(values, 8))
    scale = min(1.0, LARGEST_PANEL / max(panel.size))
    if scale == 1.0:
        return panel
    reduced = max(1, round(panel.width * scale)), max(1, round(panel.height * scale))
    return panel.resize(reduced, Image.Resampling.LANCZOS, reducing_gap=3.0)
