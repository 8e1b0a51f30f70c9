"""A picture as a value: upright, with its colours interpreted. Read from a file, or one line that says why not, and
written to a file in any format that lumen writes, with what such a file cannot hold.
"""

from __future__ import annotations

import contextlib
import hashlib
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from lumen_cli.errors import PictureError
from lumen_cli.imaging.colour import COLOUR_CHUNKS, interpret_colours, read_model
from lumen_cli.imaging.colour.convert import SRGB, convert_depth, from_unit, luma, to_integers, to_unit, turn_upright
from lumen_cli.imaging.colour.spaces import D65, SRGB_PRIMARIES, NativeColours, Shaper, ShaperSpace, compute_matrix
from lumen_cli.imaging.formats import MAXIMUM_PIXELS, find_format, list_titles, recognise
from lumen_cli.imaging.formats.format import UNKNOWN, ColourLabel, Decoded, Format, Raster, Storage, UnreadableError


@dataclass(frozen=True, eq=False)
class Picture:
    """Pixels, and everything that is needed to write them back as they came.

    A copy that shows something else than the same picture in other light must drop `native`.
    """

    values: NDArray[Any] | None
    """H×W×3, sRGB (or `icc`), upright (orientation tag applied): uint8, uint16, or float32 in [0, 1]. None: only
    `native` has values."""
    alpha: NDArray[np.float32] | None
    """H×W float32 in [0, 1], upright, not multiplied into the pixels; None where the file has none."""
    bit_depth: int
    """8, 16 or 32 (floats): bits a channel in the file."""
    grey: bool
    """Whether the file has one colour channel; outputs get one too."""
    format: str
    """Name of the file's format by its content, whatever the file's name says."""
    icc: bytes | None
    """The embedded profile where it is one of sRGB, or cannot be interpreted; outputs get it unchanged."""
    exif: bytes | None
    """The EXIF block from its TIFF header on; None where there is none."""
    notices: tuple[str, ...] = ()
    """What reading left out or changed, a phrase each."""
    native: NativeColours | None = None
    """The file's values where its colours are not sRGB. Writing applies the change of `pixels` to them."""
    storage: Storage = UNKNOWN
    """How the file stored the picture."""

    def __post_init__(self) -> None:
        if self.values is None and self.native is None:
            raise ValueError("a picture needs values in sRGB or in the colours of its file")

    @property
    def samples(self) -> NDArray[Any]:
        """`values`, or where there are none those of `native`."""
        if self.values is not None:
            return self.values
        assert self.native is not None
        return self.native.values

    @property
    def height(self) -> int:
        """Rows, of the upright picture."""
        return int(self.samples.shape[0])

    @property
    def width(self) -> int:
        """Columns, of the upright picture."""
        return int(self.samples.shape[1])

    @property
    def pixels(self) -> NDArray[np.float32]:
        """H×W×3 float32 in [0, 1], C-contiguous; computed from the values at each call, unless these are float32."""
        return self.rows(slice(None))

    def rows(self, rows: slice, step: int = 1) -> NDArray[np.float32]:
        """A part of `pixels`: of these rows, which may have a step too, every `step`-th column."""
        values = self.samples[rows, ::step]
        if self.values is None:
            assert self.native is not None
            return self.native.to_srgb(values)
        return to_unit(values)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        arrays = self.values, self.alpha, None if self.native is None else self.native.values
        return sum(array.nbytes for array in arrays if array is not None)

    @property
    def profile(self) -> bytes | None:
        """The profile of the file's own colours."""
        return self.icc if self.native is None else self.native.icc

    def digest(self) -> bytes:
        """16 bytes (BLAKE2b) of size, depth and decoded values, alpha included, and their colour space.

        Equal for equal content, whatever the file's name, tags, compression or lossless format.
        """
        alpha = b"" if self.alpha is None else b"alpha"
        hashed = hashlib.blake2b(b"%d %d %d " % (self.height, self.width, self.bit_depth) + alpha, digest_size=16)
        if self.native is not None:
            hashed.update(self.native.mark)
        rows = max(1, (1 << 20) // max(1, self.width))
        for plane in (self.values if self.native is None else self.native.values, self.alpha):
            for top in range(0, self.height if plane is not None else 0, rows):
                assert plane is not None
                values = plane[top : top + rows]
                if values.dtype == np.float32 and self.bit_depth < 32:
                    values = to_integers(values.astype(np.float32, copy=False), self.bit_depth)
                hashed.update(np.ascontiguousarray(values, values.dtype.newbyteorder("<")).data)
        return hashed.digest()


def make_picture(decoded: Decoded, format: str) -> Picture:
    """The picture that a decoder found in a file of the format of this name.

    Raises:
        UnreadableError: no values at all, or none that is a number.
    """
    values: NDArray[Any] = turn_upright(decoded.values, decoded.orientation)
    if values.size == 0:
        raise UnreadableError("the file is damaged: it holds no pixels")
    floating = values.dtype.kind == "f"
    values, replaced = _replace_non_numbers(values) if floating else (values, ())
    channels = values.shape[2] - (4 if decoded.cmyk else 3 if values.shape[2] >= 3 else 1)
    alpha = None
    if channels:
        alpha = to_unit(values[:, :, -1])
        values = values[:, :, :-1]
    grey = values.shape[2] == 1
    model = "cmyk" if decoded.cmyk else "grey" if grey else "rgb"
    storage = decoded.storage
    colours = interpret_colours(model, decoded.icc, chunks=storage.chunks, cicp=decoded.cicp, exif=decoded.exif)
    space = colours.space
    notices = (*decoded.notices, *replaced, *colours.notices)
    if floating and space is None and (values.min() < 0 or values.max() > 1):
        # What no other format can hold is kept beside the pixels, like colours outside sRGB.
        space = ShaperSpace(Shaper((SRGB,) * 3, compute_matrix(SRGB_PRIMARIES, D65)), grey)
        colours = replace(colours, source="profile" if colours.icc else "nothing")
    if space is not None and not space.exact and values.dtype != np.uint8:
        notices += ("its colour profile is one of tables, so colours that changed were computed with 8 bits a channel",)
    native = pixels = None
    if space is None:
        pixels = np.ascontiguousarray(np.broadcast_to(values, (*values.shape[:2], 3)))
    else:
        # The colours' chunks are true of values in these colours only.
        chunks = {name: body for name, body in storage.chunks.items() if name in COLOUR_CHUNKS}
        storage = replace(storage, chunks={name: body for name, body in storage.chunks.items() if name not in chunks})
        native = NativeColours(np.ascontiguousarray(values), space, colours.icc, colours.source, colours.cicp, chunks)
    icc = None if native else colours.icc
    depth = values.dtype.itemsize * 8
    return Picture(pixels, alpha, depth, grey, format, icc, decoded.exif, notices, native, storage)


def _replace_non_numbers(values: NDArray[np.float32]) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """H×W×C floats with 0 in place of NaN and the outermost numbers in place of infinities; and the notice about it."""
    if np.isfinite([values.min(), values.max()]).all():
        return values, ()
    numbers = np.isfinite(values)
    if not numbers.any():
        raise UnreadableError("the picture holds no numbers, only NaN or infinity")
    count = int((~numbers).any(axis=2).sum())
    least, greatest = values[numbers].min(), values[numbers].max()
    what = f"{count} pixel{'s' * (count > 1)} held NaN or infinity, which became 0 or the outermost value"
    return np.nan_to_num(values, nan=0.0, posinf=greatest, neginf=least), (what,)


_OTHER_KINDS = (
    (0, b"%PDF", "a PDF"),
    (0, b"8BPS", "a Photoshop document"),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 picture"),
    (0, b"\x76\x2f\x31\x01", "an OpenEXR picture"),
    (4, b"ftyp", "a video"),
    (0, b"\x1aE\xdf\xa3", "a video"),
)
"""What lumen does not read: where its mark stands, the mark, and its name."""


def read_picture(path: Path, *, max_pixels: int = MAXIMUM_PIXELS) -> Picture:
    """Read a picture file of any format that lumen reads, whatever its name says it is. Thread-safe.

    All bits are kept; palettes become RGB; the orientation tag is applied. Of several pages, frames or pictures the
    first is read, and `notices` of the result name the others, as they name everything that is left out. A pure
    function of the file: it may run in another process, and its result can be pickled.

    Args:
        path: the file.
        max_pixels: a larger picture is refused from its header, before it is decoded; 0 for no limit.

    Raises:
        PictureError: the file is missing, may not be read, is empty, cut off, damaged, too large, not a picture or of a
            kind that lumen does not read, or an optional package is not installed; one line.
    """
    with _open(path) as file:
        try:
            format = _recognise(path, file)
            return make_picture(format.decode(file, max_pixels), format.name)
        except UnreadableError as error:
            raise PictureError(path, " ".join(str(error).split()), remedy=error.remedy) from None
        except OSError as error:
            raise PictureError(path, f"cannot be read ({error.strerror or error})") from None
        except MemoryError:
            raise PictureError(path, "the picture does not fit into memory") from None


def measure_picture(path: Path) -> tuple[int, int] | None:
    """Columns and rows as stored, from the header; None where that does not say, or needs a missing package to be read.

    Never raises: `read_picture` reports the faults of a file.
    """
    try:
        with path.open("rb") as file:
            format = recognise(file)
            return None if format is None else format.measure(file)
    except Exception:
        return None


def _open(path: Path) -> BinaryIO:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise PictureError(path, "a folder, not a picture")
        if not stat.S_ISREG(mode):
            raise PictureError(path, "not a regular file")
        return path.open("rb")
    except FileNotFoundError:
        reason = "a link that leads nowhere" if path.is_symlink() else "no such file"
        raise PictureError(path, reason) from None
    except PermissionError:
        raise PictureError(path, "may not be read (permission denied)") from None
    except (OSError, ValueError) as error:
        raise PictureError(path, f"cannot be read ({getattr(error, 'strerror', None) or error})") from None


def _recognise(path: Path, file: BinaryIO) -> Format:
    format = recognise(file)
    if format is not None:
        return format
    file.seek(0)
    start = file.read(16)
    if not start:
        raise PictureError(path, "the file is empty")
    other = next((name for at, mark, name in _OTHER_KINDS if start[at:].startswith(mark)), None)
    if other == "a video":
        raise PictureError(path, "a video; only enhance takes videos, and their names have to end like one's, as .mp4")
    what = f"{other}, which lumen does not read" if other else "not a picture"
    raise PictureError(path, f"{what} (lumen reads {list_titles()})")


def write_picture(picture: Picture, path: Path, *, format: str, quality: int | None = None) -> None:
    """Write a picture; equal pictures give equal bytes. Thread-safe.

    Bits, a single channel of grey and alpha are kept where the format has them; colours go back into the original's
    own space where the format can name it, and become sRGB otherwise. A JPEG of a JPEG keeps its quantisation, its
    sampling of colour and its passes; a TIFF of a TIFF keeps its compression; WebP, AVIF, HEIF and JPEG XL without loss
    stay without loss. Tags are another step, `TagWriter.copy`.

    Args:
        picture: pixels in [0, 1]; others are clamped.
        path: the file, replaced if it exists; a failed write leaves none. Write beside the target and rename.
        format: a format's name or file name ending; the ending of `path` does not matter.
        quality: 1 to 100 for lossy formats. None: as the original was stored where it is of the same format, else 95
            (JPEG: 4:4:4).

    Raises:
        PictureError: the pixels are not finite, too many for the format, or the file cannot be written.
    """
    target = find_format(format)
    samples = picture.samples
    if samples.dtype.kind == "f" and not np.isfinite([samples.min(), samples.max()]).all():
        raise PictureError(path, "the result holds NaN or infinity; nothing was written")
    if max(picture.width, picture.height) > target.largest_side:
        size, most = f"{picture.width}×{picture.height}", target.largest_side
        raise PictureError(path, f"{size} pixels are too many for {target.title} (at most {most} a side)")
    try:
        assert target.encode is not None
        data = target.encode(render(picture, target, quality))
    except (OSError, ValueError, MemoryError) as error:
        raise PictureError(path, f"cannot be encoded as {target.title} ({error})") from None
    try:
        path.write_bytes(data)
    except OSError as error:
        with contextlib.suppress(OSError):
            path.unlink()
        raise PictureError(path, f"cannot be written ({error.strerror or error})") from None


def find_losses(picture: Picture, format: str) -> list[str]:
    """What a file of this format cannot hold of the picture, a few words each; usually nothing."""
    target = find_format(format)
    lost = ["alpha"] if picture.alpha is not None and not target.alpha else []
    bits, written = _read_bits(picture), _choose_bits(picture, target)
    if written < bits:
        what = "floating-point values" if bits == 32 else f"{bits} bits"
        lost.append(what if written == 8 else f"{what} ({written} bits are written)")
    if picture.native is not None and _label_native(picture, target) is None:
        what = {4: "CMYK", 1: "a profile for grey"}.get(picture.native.space.channels, "its colour space")
        lost.append(f"{what} (colours became sRGB)")
    elif picture.icc and picture.native is None and not _holds_profile(target, picture.icc, picture.grey):
        lost.append("colour profile")
    if picture.exif and not target.tags:
        lost.append("tags")
    return lost


def find_changes(picture: Picture, format: str) -> list[str]:
    """What a file of this format stores in another way than an original of the same format; usually nothing."""
    return list(picture.storage.changes) if find_format(format).name == picture.format else []


def render(picture: Picture, format: Format, quality: int | None = None) -> Raster:
    """The picture as a file of this format stores it."""
    bits = _choose_bits(picture, format)
    depth = bits if bits in (8, 32) else 16
    native, label = picture.native, _label_native(picture, format)
    grey = picture.grey and format.grey
    values: NDArray[Any]
    if native is not None and label is not None:
        if picture.values is None:
            values = convert_depth(native.values, depth)
        else:
            values = native.apply_change(picture.pixels, depth)
    else:
        if grey:
            values = from_unit(luma(picture.pixels)[:, :, None], depth)
        elif picture.values is None:
            values = from_unit(picture.pixels, depth)
        else:
            values = convert_depth(picture.values, depth)
        label = ColourLabel(picture.icc if _holds_profile(format, picture.icc, picture.grey) else None)
    cmyk = native is not None and native.space.channels == 4 and values.shape[2] == 4
    if picture.alpha is not None and format.alpha:
        values = np.concatenate([values, from_unit(picture.alpha[:, :, None], depth)], axis=2)
    # The storage of the original serves a file of the same format only.
    storage = picture.storage if format.name == picture.format else UNKNOWN
    return Raster(values, bits, label, cmyk, quality, storage)


def _label_native(picture: Picture, format: Format) -> ColourLabel | None:
    """How a file of this format names the original's own space; None where it cannot, or where that is sRGB."""
    native = picture.native
    if native is None:
        return None
    channels = native.space.channels
    if (channels == 4 and not format.cmyk) or (channels == 1 and not format.grey):
        return None
    if native.source == "nothing":
        return ColourLabel()
    if native.chunks and format.name == picture.format:
        return ColourLabel(native.icc if native.source == "profile" else None, None, native.chunks)
    if native.cicp is not None and format.code_points:
        return ColourLabel(None, native.cicp, {b"cICP": bytes((*native.cicp, 0, 1))})
    if native.icc is not None:
        return ColourLabel(native.icc) if _holds_profile(format, native.icc, channels == 1) else None
    return ColourLabel() if channels == 4 else None


def _read_bits(picture: Picture) -> int:
    """The bits of the original's values: 10 or 12 where it was read into 16."""
    return picture.storage.bits if picture.storage.bits and picture.bit_depth == 16 else picture.bit_depth


def _choose_bits(picture: Picture, format: Format) -> int:
    """The fewest bits of the format that hold the original's, else its most."""
    bits = _read_bits(picture)
    return next((depth for depth in format.depths if depth >= bits), format.depths[-1])


def _holds_profile(format: Format, icc: bytes | None, grey: bool) -> bool:
    """Whether a profile can be embedded; one for grey fits no RGB file."""
    fits = icc is not None and (read_model(icc) != "GRAY" or (grey and format.grey))
    return icc is not None and fits and format.holds_profile(icc)
