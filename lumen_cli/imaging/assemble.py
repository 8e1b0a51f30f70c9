"""From what a decoder hands on to a `Picture`: upright, in [0, 1], with its colours understood."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from lumen_cli.imaging.colour.convert import to_unit
from lumen_cli.imaging.colour.curves import SRGB
from lumen_cli.imaging.colour.icc import Shaper, matrix_of
from lumen_cli.imaging.colour.interpretation import colours_meant
from lumen_cli.imaging.colour.native import OwnColours
from lumen_cli.imaging.colour.spaces import D65, SRGB_PRIMARIES, ShaperSpace
from lumen_cli.imaging.decoded import Decoded, UnreadableError, upright
from lumen_cli.imaging.picture import Picture
from lumen_cli.imaging.storage import COLOUR_CHUNKS, storage_of, with_decoder_facts


def assembled(decoded: Decoded, kind: str, data: bytes | BinaryIO) -> Picture:
    """The picture that a decoder found in `data`, the content of a file of format `kind` or the open file.

    Raises:
        UnreadableError: no values at all, or none that is a number.
    """
    values: NDArray[Any] = upright(decoded.values, decoded.orientation)
    if values.size == 0:
        raise UnreadableError("the file is damaged: it holds no pixels")
    floating = values.dtype.kind == "f"
    values, replaced = _only_numbers(values) if floating else (values, ())
    channels = values.shape[2] - (4 if decoded.cmyk else 3 if values.shape[2] >= 3 else 1)
    alpha = None
    if channels:
        alpha = to_unit(values[:, :, -1])
        values = values[:, :, :-1]
    grey = values.shape[2] == 1
    model = "cmyk" if decoded.cmyk else "grey" if grey else "rgb"
    stored = with_decoder_facts(storage_of(data, kind), decoded.bits, decoded.lossless)
    meant = colours_meant(model, decoded.icc, chunks=stored.chunks, cicp=decoded.cicp, exif=decoded.exif)
    space = meant.space
    notices = (*decoded.notices, *replaced, *meant.notices)
    if floating and space is None and (values.min() < 0 or values.max() > 1):
        # What no other format can hold is kept beside the pixels, like colours outside sRGB.
        space = ShaperSpace(Shaper((SRGB,) * 3, matrix_of(SRGB_PRIMARIES, D65)), grey)
        meant = replace(meant, said_by="profile" if meant.icc else "nothing")
    if space is not None and not space.exact and values.dtype != np.uint8:
        notices += ("its colour profile is one of tables, so colours that changed were computed with 8 bits a channel",)
    own = pixels = None
    if space is None:
        pixels = np.ascontiguousarray(np.broadcast_to(values, (*values.shape[:2], 3)))
    else:
        chunks = {name: body for name, body in stored.chunks.items() if name in COLOUR_CHUNKS}
        stored = replace(stored, chunks={name: body for name, body in stored.chunks.items() if name not in chunks})
        own = OwnColours(np.ascontiguousarray(values), space, meant.icc, meant.said_by, meant.cicp, chunks)
    depth = values.dtype.itemsize * 8
    icc = None if own else meant.icc
    return Picture(pixels, alpha, depth, grey, kind, icc, decoded.exif, decoded.lost, notices, own, stored)


def _only_numbers(values: NDArray[np.float32]) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Floating-point values H×W×C with 0 in place of NaN and the outermost numbers in place of infinities.

    The second value is the notice about it, none where all are numbers.
    """
    if np.isfinite([values.min(), values.max()]).all():
        return values, ()
    numbers = np.isfinite(values)
    if not numbers.any():
        raise UnreadableError("the picture holds no numbers, only NaN or infinity")
    count = int((~numbers).any(axis=2).sum())
    least, greatest = values[numbers].min(), values[numbers].max()
    what = f"{count} pixel{'s' * (count > 1)} held NaN or infinity, which became 0 or the outermost value"
    return np.nan_to_num(values, nan=0.0, posinf=greatest, neginf=least), (what,)
