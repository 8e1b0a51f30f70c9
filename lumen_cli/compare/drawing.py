"""Drawings for the page: reduced copies of pictures, differences from the reference, histograms; and where they lie."""

from __future__ import annotations

import base64
import io
import math
import shutil
import urllib.parse
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lumen_cli.atomic import temporary_beside
from lumen_cli.errors import LumenError, UsageError
from lumen_cli.files.find import PAGE_FOLDER, PAGE_MARK
from lumen_cli.imaging.colour.convert import luma, to_integers
from lumen_cli.imaging.formats.format import load_opencv
from lumen_cli.imaging.picture import Picture

if TYPE_CHECKING:
    from PIL import Image


LARGEST_SIDE = 16383
"""WebP's limit."""
BINS = 64
_SCALES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_HEAT_QUALITY = 80
_THUMBNAIL_QUALITY = 75
_SAMPLES = 2_000_000


@dataclass(frozen=True)
class Shown:
    """A picture on the page: width and height in pixels; content: a WebP file."""

    width: int
    height: int
    content: bytes

    @property
    def data(self) -> str:
        """The file as a data URI."""
        return f"data:image/webp;base64,{base64.b64encode(self.content).decode('ascii')}"


@dataclass(frozen=True)
class Histogram:
    """Shares of the pixels in `BINS` bins over [0, 1], by curve; mean: of the luminance."""

    curves: dict[str, NDArray[np.float64]]
    mean: float


def reduce(picture: Picture, max_side: int) -> Image.Image:
    """An 8-bit copy whose longer side has at most `max_side` pixels."""
    from PIL import Image

    own = picture.values
    image = Image.fromarray(own if own is not None and own.dtype == np.uint8 else to_integers(picture.pixels, 8))
    scale = min(1.0, max_side / max(image.size))
    if scale == 1.0:
        return image
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def encode(image: Image.Image, quality: int, icc: bytes | None = None) -> Shown:
    """The image with its profile as a WebP file; quality 1 to 100 (lossless)."""
    options = {"icc_profile": icc} if icc and icc[16:20] == b"RGB " else {}
    buffer, lossless = io.BytesIO(), quality == 100
    image.save(buffer, "WEBP", quality=75 if lossless else quality, lossless=lossless, method=4, **options)
    return Shown(image.width, image.height, buffer.getvalue())


def difference(picture: Picture, reference: Picture, size: tuple[int, int]) -> NDArray[np.float32]:
    """Mean over R, G and B of |picture − reference|, H×W float32 in [0, 1], averaged over areas to width × height."""
    from PIL import Image

    height, width = picture.height, picture.width
    error = np.empty((height, width), np.float32)
    rows = max(1, (1 << 20) // max(1, width))
    for top in range(0, height, rows):
        strip = slice(top, top + rows)
        error[strip] = np.abs(picture.rows(strip) - reference.rows(strip)).mean(axis=2)
    image = Image.fromarray(error)
    return np.asarray(image if image.size == size else image.resize(size, Image.Resampling.BOX))


def heat_scale(errors: list[NDArray[np.float32]]) -> float:
    """The upper end of a common colour scale: a round number above 99 % of each map's values."""
    highest = max((float(np.quantile(error, 0.99)) for error in errors), default=0.0)
    return next((scale for scale in _SCALES if highest <= scale), _SCALES[-1])


def heat_map(error: NDArray[np.float32], scale: float) -> Shown:
    """An error map in colours from black (0) to pale yellow (`scale` and above)."""
    from PIL import Image

    indices = to_integers(np.clip(error / np.float32(scale), 0.0, 1.0), 8)
    return encode(Image.fromarray(colours()[indices]), _HEAT_QUALITY)


def colours() -> NDArray[np.uint8]:
    """256×3 RGB: the colour map Inferno (Smith, van der Walt, 2015), whose lightness grows evenly."""
    cv2 = load_opencv()
    steps = np.arange(256, dtype=np.uint8)[:, None]
    return np.ascontiguousarray(cv2.applyColorMap(steps, cv2.COLORMAP_INFERNO)[:, 0, ::-1])


def histogram(picture: Picture) -> Histogram:
    """Luminance (ITU-R BT.601 luma of the encoded values), red, green and blue.

    Of large pictures every n-th pixel of every n-th row counts, two million or more in all.
    """
    step = max(1, math.isqrt(picture.width * picture.height // _SAMPLES))
    pixels = picture.rows(slice(None, None, step), step)
    light = luma(pixels)
    planes = {"luminance": light} | {
        name: pixels[:, :, channel] for channel, name in enumerate(("red", "green", "blue"))
    }
    curves = {}
    for name, plane in planes.items():
        counts = np.bincount(np.minimum(to_integers(plane, 8) // (256 // BINS), BINS - 1).ravel(), minlength=BINS)
        curves[name] = counts / plane.size
    return Histogram(curves, float(light.mean(dtype=np.float64)))


def encode_curves(found: Histogram) -> str:
    """The curves as base64 of a byte a bin, in their order: the height of each, 0 to 255, below the highest of all.

    Heights are square roots, which make small shares visible.
    """
    curves = np.stack(list(found.curves.values()))
    heights = np.sqrt(np.clip(curves / max(float(curves.max()), 1e-9), 0.0, 1.0))
    return base64.b64encode(np.rint(255 * heights).astype(np.uint8).tobytes()).decode("ascii")


def thumbnail(first: Image.Image, last: Image.Image, height: int = 180) -> Shown:
    """A thumbnail: its left half from one version, its right half from another."""
    from PIL import Image, ImageOps

    height = min(height, first.height)
    width = min(2 * height, max(height * 2 // 3, round(first.width * height / first.height)))
    left, right = (ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS) for image in (first, last))
    right.paste(left.crop((0, 0, width // 2, height)), (0, 0))
    return encode(right, _THUMBNAIL_QUALITY)


_ABOUT = "The pictures of {page}, made by lumen: copies for the browser. lumen takes none of them as an input.\n"


def pictures_folder(page: Path) -> Path:
    """The folder of a page's pictures: a/compare.html → a/compare-pictures."""
    return page.with_name(page.stem + PAGE_FOLDER)


def require_free(page: Path) -> None:
    """UsageError where something that is not lumen's has the name of the folder of the page's pictures."""
    folder = pictures_folder(page)
    if (folder.exists() or folder.is_symlink()) and not (folder / PAGE_MARK).is_file():
        raise UsageError(f"{folder} exists and does not hold the pictures of a page; choose another name for the page")


class InPage:
    """Pictures become part of the page."""

    def keep(self, name: str, shown: Shown) -> str:
        """The picture as a data URI."""
        return shown.data

    def open(self) -> None:
        """Nothing to prepare."""

    def commit(self) -> int:
        """Bytes beside the page: none."""
        return 0

    def close(self) -> None:
        """Nothing to remove."""


class Beside:
    """Pictures become files of a folder beside the page."""

    def __init__(self, page: Path) -> None:
        self.page, self.folder = page, pictures_folder(page)
        self._temporary = temporary_beside(self.folder)
        self._bytes = 0

    def open(self) -> None:
        """Make the temporary folder.

        Raises:
            LumenError: it cannot be written.
        """
        try:
            self._temporary.mkdir()
            (self._temporary / PAGE_MARK).write_text(_ABOUT.format(page=self.page.name), encoding="utf-8")
        except OSError as error:
            raise self._unwritable(error) from None

    def keep(self, name: str, shown: Shown) -> str:
        """Write the picture; its address, relative to the page.

        Raises:
            LumenError: it cannot be written.
        """
        try:
            (self._temporary / f"{name}.webp").write_bytes(shown.content)
        except OSError as error:
            raise self._unwritable(error) from None
        self._bytes += len(shown.content)
        return f"{urllib.parse.quote(self.folder.name)}/{name}.webp"

    def commit(self) -> int:
        """Give the folder its name, in place of an earlier one; its size in bytes.

        Raises:
            LumenError: that fails; the earlier one is still there.
        """
        earlier = temporary_beside(self.folder)
        try:
            if self.folder.exists():
                self.folder.rename(earlier)
            try:
                self._temporary.rename(self.folder)
            except OSError:
                with suppress(OSError):
                    earlier.rename(self.folder)
                raise
        except OSError as error:
            raise self._unwritable(error) from None
        shutil.rmtree(earlier, ignore_errors=True)
        return self._bytes

    def close(self) -> None:
        """Remove what was not given its name."""
        shutil.rmtree(self._temporary, ignore_errors=True)

    def _unwritable(self, error: OSError) -> LumenError:
        return LumenError(f"{self.folder}: cannot be written ({error.strerror or error})")
