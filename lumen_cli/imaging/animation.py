"""Animated GIF, APNG, WebP and AVIF, read and written through imageio and its Pillow plug-in, with all frames."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from lumen_cli.atomic import open_untouched
from lumen_cli.imaging.formats.format import UnreadableError, check_size, in_megapixels

_WEBP_HEADER, _WEBP_ANIMATED = 21, 0x02
_PNG_DEPTH = 24
"""Where a PNG says how many bits a channel has."""
_KINDS = ("GIF", "PNG", "WEBP", "AVIF")
_AVIF_COLOURS = {None, (1, 13), (2, 2)}
"""Primaries and transfer (ITU-T H.273) that Pillow keeps: none named, those of sRGB, and "unspecified"."""


def has_frames(path: Path) -> bool:
    """Whether a GIF, PNG, WebP or AVIF file has several frames that lumen can keep; False where it cannot be read."""
    try:
        with os.fdopen(open_untouched(path), "rb") as file:
            start = file.read(_PNG_DEPTH + 1)
            if start[:4] == b"RIFF" and not (start[12:16] == b"VP8X" and start[_WEBP_HEADER - 1] & _WEBP_ANIMATED):
                return False
            if start[:4] == b"\x89PNG" and start[_PNG_DEPTH] == 16:
                return False  # Pillow reads frames with 8 bits
            if start[4:8] == b"ftyp" and not _is_plain_sequence(file):
                return False
            with Image.open(file, formats=_KINDS) as image:
                return bool(getattr(image, "is_animated", False)) and not image.info.get("default_image")
    except (OSError, SyntaxError, ValueError, IndexError, EOFError):
        return False


def _is_plain_sequence(file: BinaryIO) -> bool:
    """Whether Pillow keeps what an AVIF file has: it reads 8 bits, and names no colours."""
    from lumen_cli.imaging.formats.avif import read_main_picture

    file.seek(0)
    main = read_main_picture(file)
    file.seek(0)
    return bool(features.check("avif")) and main.bits == 8 and (main.cicp and main.cicp[:2]) in _AVIF_COLOURS


@dataclass(frozen=True)
class Facts:
    """What an animation's file says. more: profile, tags and texts, by the names that Pillow's encoders know."""

    width: int
    height: int
    frames: int
    loop: int | None
    lossless: bool
    more: dict[str, Any] = field(default_factory=dict)


def read_facts(path: Path, max_pixels: int) -> Facts:
    """The facts about an animation, before its frames are decoded.

    Args:
        path: the file.
        max_pixels: as in `read_picture`, for all frames together, because they are written together.

    Raises:
        UnreadableError: it is damaged or has too many pixels.
    """
    import imageio.v3 as iio

    try:
        with iio.imopen(os.fspath(path), "r", plugin="pillow") as file:
            facts = file.metadata(index=0, exclude_applied=False)
            shape = file.properties(index=...).shape
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise UnreadableError(f"the animation is damaged ({' '.join(str(error).split())})") from None
    count, height, width = shape[:3]
    check_size(width, height, max_pixels)
    if max_pixels and count * width * height > max_pixels:
        whole, limit = in_megapixels(count * width * height), in_megapixels(max_pixels)
        raise UnreadableError(
            f"its {count} frames are {whole} megapixels, more than the limit of {limit}", "max_pixels"
        )
    more = {name: facts[name] for name in ("icc_profile", "exif", "xmp", "comment") if facts.get(name)}
    with path.open("rb") as raw:
        lossless = b"VP8L" in raw.read(1 << 16)
    return Facts(width, height, count, facts.get("loop"), lossless, more)


def read_frames(path: Path) -> Iterator[tuple[NDArray[np.uint8], float]]:
    """Each frame as it is shown, H×W×3 or H×W×4, and how many milliseconds it lasts.

    Raises:
        UnreadableError: a frame is damaged or missing.
    """
    import imageio.v3 as iio

    try:
        with iio.imopen(os.fspath(path), "r", plugin="pillow") as file:
            for index in range(file.properties(index=...).shape[0]):
                values = file.read(index=index, mode="RGBA")
                yield values, float(file.metadata(index=index).get("duration", 0))
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise UnreadableError(f"a frame of the animation is damaged ({' '.join(str(error).split())})") from None


class AnimationWriter:
    """An animation that is being written: the container follows from the ending of its name.

    Args:
        path: the file.
        facts: of the source.
        quality: of WebP and AVIF, 1 to 100; None: lossless where a WebP is, else 95.
        keep: whether tags and texts are copied too; the profile always is.
    """

    def __init__(self, path: Path, facts: Facts, quality: int | None, keep: bool) -> None:
        import imageio.v3 as iio

        self._file = iio.imopen(os.fspath(path), "w", plugin="pillow")
        self._lengths: list[float] = []
        wanted = facts.more if keep else {name: each for name, each in facts.more.items() if name == "icc_profile"}
        self._whole = path.suffix.lower() == ".avif"
        self._options: dict[str, Any] = dict(wanted)
        if facts.loop is not None:
            self._options["loop"] = facts.loop
        if path.suffix.lower() == ".webp":
            exact = facts.lossless and quality is None
            self._options |= {"lossless": True, "exact": True} if exact else {"quality": quality or 95}
        elif self._whole:
            self._options |= {"quality": quality or 95, "subsampling": "4:4:4", "speed": 9}
        elif path.suffix.lower() == ".gif":
            self._options["disposal"] = 2  # a frame with holes shows nothing of the one before

    def add(self, values: NDArray[np.uint8], milliseconds: float) -> None:
        """Take a frame, H×W×3 or H×W×4."""
        self._lengths.append(round(milliseconds) if self._whole else milliseconds)
        opaque = values.shape[2] == 4 and bool((values[:, :, 3] == 255).all())
        self._file.write(
            values[:, :, :3] if opaque else values, is_batch=False, duration=self._lengths, **self._options
        )

    def close(self) -> None:
        """Encode all frames and close the file."""
        self._file.close()
