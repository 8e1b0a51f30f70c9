"""The values that a format's module is made of: what a format is, what decoding gives, what encoding takes."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from lumen_cli.errors import UsageError
from lumen_cli.imaging.colour.convert import swap_red_and_blue
from lumen_cli.imaging.formats import FORMATS, load_format

if TYPE_CHECKING:
    from lumen_cli.imaging.formats.jpeg import JpegStorage


@dataclass(frozen=True)
class Format:
    """A picture format: how its files are recognised, what they can hold, and how they are read and written."""

    name: str
    title: str
    """The name in messages."""
    accepts: Callable[[bytes], bool]
    """Whether a file that begins with these bytes is of this format; gets at most 512 bytes."""
    decode: Callable[[BinaryIO, int], Decoded]
    """Reads an open file of at most that many pixels (0: any number); raises UnreadableError, OSError, MemoryError."""
    measure: Callable[[BinaryIO], tuple[int, int]]
    """Columns and rows as stored, from the header of an open file; may raise any exception."""
    confirms: Callable[[BinaryIO], bool] | None = None
    """Looks deeper into a file that is accepted, where another format begins with the same bytes."""
    find_end: Callable[[BinaryIO], int] = lambda file: file.seek(0, os.SEEK_END)
    """Where the picture ends in an open file, and a trailer may begin."""
    encode: Callable[[Raster], bytes] | None = None
    """Makes a whole file, the same bytes for the same values; None where lumen does not write the format."""
    depths: tuple[int, ...] = ()
    """Bits a channel that can be written, in rising order; 32 stands for floating point."""
    grey: bool = True
    """Whether a file can have a single channel of light."""
    alpha: bool = True
    cmyk: bool = False
    code_points: bool = False
    """Whether a file can name its colours by primaries and transfer (ITU-T H.273)."""
    tags: bool = True
    holds_profile: Callable[[bytes], bool] = lambda icc: True
    """Whether this ICC profile can be embedded."""
    largest_side: int = 1 << 31
    """Pixels a side, where the format or its encoder ends before memory does."""
    package: Package | None = None
    """The optional package that reads and writes it."""
    is_isolated: bool = True
    """Whether its decoders are known to hang or crash, so that runs decode it in a process of its own."""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """File name endings in lower case, of which outputs get the first."""
        return FORMATS[self.name].suffixes

    @property
    def suffix(self) -> str:
        """The file name ending of outputs."""
        return self.suffixes[0]

    @property
    def output(self) -> Format:
        """The format of outputs that keep this one: another one where lumen does not write it."""
        return load_format(FORMATS[self.name].kept_as or self.name)

    def require_package(self) -> None:
        """UsageError where the format needs a package that is not installed."""
        if self.package is not None and importlib.util.find_spec(self.package.module) is None:
            raise UsageError(self.package.explanation(self.title))


@dataclass(frozen=True)
class Package:
    """module: what is imported; name: of the package; extra: of lumen's optional dependencies it belongs to."""

    module: str
    name: str
    extra: str

    def load(self, title: str) -> ModuleType:
        """Import the module.

        Raises:
            MissingPackageError: it cannot be imported; one line that says what to install.
        """
        try:
            return importlib.import_module(self.module)
        except ImportError as error:
            broken = "" if isinstance(error, ModuleNotFoundError) else f" ({str(error).splitlines()[0]})"
            raise MissingPackageError(self.explanation(title, broken)) from None

    def explanation(self, title: str, broken: str = "") -> str:
        """What is needed for files of the format with this title, and how to install it."""
        return f"{title} files need {self.name}{broken}: pip install 'lumen-cli[{self.extra}]'"


@dataclass(frozen=True)
class Storage:
    """How the original's file stored the picture, so that a file of the same format can store it alike."""

    jpeg: JpegStorage | None = None
    lossless: bool | None = None
    """Whether the values are stored exactly; None for formats that offer no choice."""
    bits: int | None = None
    """10 or 12 where the file has fewer bits than the values that were decoded."""
    compression: str | None = None
    """Of a TIFF: "none", "lzw" or "deflate"."""
    chunks: Mapping[bytes, bytes] = field(default_factory=dict)
    """Of a PNG, by name: those that a copy needs."""
    changes: tuple[str, ...] = ()
    """What a copy in the same format stores in another way, a phrase each."""


UNKNOWN = Storage()


@dataclass(frozen=True, eq=False)
class Decoded:
    """The values of a file as it holds them, and everything that the file says about them."""

    values: NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.float32]
    """H×W×C: integers over their full range, or floats as stored; C is 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB,
    alpha); with `cmyk` 4 (amounts of ink, 0 for paper) or 5 (and alpha)."""
    orientation: int = 1
    """1 to 8, not applied yet."""
    icc: bytes | None = None
    exif: bytes | None = None
    """The EXIF block from its TIFF header on."""
    notices: tuple[str, ...] = ()
    """What is left out or was changed, a phrase each."""
    cmyk: bool = False
    cicp: tuple[int, int] | None = None
    """Colour primaries and transfer (ITU-T H.273), where the file names them."""
    storage: Storage = UNKNOWN

    def extend(self, notices: tuple[str, ...], storage: Storage = UNKNOWN) -> Decoded:
        """The same with further notices and the storage."""
        return replace(self, notices=self.notices + notices, storage=storage)


@dataclass(frozen=True)
class ColourLabel:
    """How a file says what its colours mean: a profile, primaries and transfer (ITU-T H.273), chunks of a PNG."""

    icc: bytes | None = None
    cicp: tuple[int, int] | None = None
    chunks: Mapping[bytes, bytes] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Raster:
    """What a file is made of: values as they are stored, and how."""

    values: NDArray[Any]
    """H×W×C uint8, uint16 or float32; C is 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha); with `cmyk` 4 or 5."""
    bits: int
    """8, 10, 12, 16 or 32: how many bits of the values are stored; 10 and 12 lie over the full range of 16."""
    label: ColourLabel = ColourLabel()
    cmyk: bool = False
    quality: int | None = None
    """1 to 100 of lossy formats; None: as the original was stored, else 95."""
    storage: Storage = UNKNOWN
    """How an original of the same format was stored."""

    @property
    def lossless(self) -> bool:
        """Whether every value has to come back."""
        return bool(self.storage.lossless) and self.quality is None

    @property
    def lossy_quality(self) -> int:
        """The quality to encode with, where nothing of the original decides it."""
        return 95 if self.quality is None else self.quality


class UnreadableError(Exception):
    """Why a picture cannot be decoded, as the end of a sentence that begins with its name."""

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(reason)
        self.remedy = remedy


class MissingPackageError(UnreadableError, ValueError):
    """An optional package is not installed; only files of its format fail."""


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Refuse what a header announces before anything is decoded: no pixels at all, or too many (0: no limit).

    Raises:
        UnreadableError: its remedy is "max_pixels" where there are too many.
    """
    if width < 1 or height < 1:
        raise UnreadableError(f"the picture is {width}×{height} pixels")
    if max_pixels and width * height > max_pixels:
        limit = f"more than the limit of {in_megapixels(max_pixels)}; raise it, or set 0 for none"
        what = f"{width}×{height} pixels are {in_megapixels(width * height)} megapixels, {limit}"
        raise UnreadableError(what, "max_pixels")


def in_megapixels(pixels: int) -> str:
    """Millions of pixels with the digits that matter: "250", "0.3"."""
    millions = pixels / 1_000_000
    return f"{millions:.0f}" if millions >= 10 else f"{millions:.2g}"


def note_first_of(count: int, what: str) -> tuple[str, ...]:
    """The notice about a file of several pages, frames or pictures, of which only the first is read."""
    return (f"only the first of {count} {what} was read",) if count > 1 else ()


def load_opencv() -> ModuleType:
    """OpenCV, silenced. Only the few kinds of file that need it fail where it cannot be imported."""
    try:
        import cv2
    except ImportError as error:
        raise UnreadableError(
            f"this kind of file needs OpenCV, which cannot be imported here ({str(error).splitlines()[0]}); "
            "`pip install opencv-python-headless` needs no system libraries"
        ) from None
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2


def decode_by_opencv(data: bytes) -> NDArray[np.uint16] | None:
    """A file of more than 8 bits a channel as H×W×C in RGB order; None where OpenCV cannot decode it as such."""
    cv2 = load_opencv()
    try:
        values: NDArray[np.uint16] | None = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    if values is None or values.dtype != np.uint16:
        return None
    return swap_red_and_blue(values[:, :, None] if values.ndim == 2 else values)
