"""Camera raw files, developed by LibRaw through rawpy."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from lumen_cli.imaging.colour.curves import SRGB
from lumen_cli.imaging.colour.icc import make_profile, matrix_of
from lumen_cli.imaging.colour.spaces import D65, SRGB_PRIMARIES
from lumen_cli.imaging.decoded import Decoded, MissingExtraError, UnreadableError, check_size, extra

_NUMBERED = Path("/dev/fd")


def decode_raw(file: BinaryIO, max_pixels: int, exif: bytes | None = None) -> Decoded:
    """Develop a raw file: the camera's white balance, no automatic brightening, sRGB, 16 bits.

    LibRaw gives 16-bit linear light; the transfer function of sRGB is applied to that here, exactly. It turns the
    pixels upright itself.

    Raises:
        MissingExtraError: rawpy is not installed.
        UnreadableError: damaged, cut off, too large, or from a camera that LibRaw does not know.
    """
    rawpy = extra("rawpy", "rawpy", "raw", "a camera raw file")
    try:
        with rawpy.RawPy() as raw:
            # By name, as LibRaw would read a file object whole; by number, as names may be none that it takes.
            raw.open_file(f"/dev/fd/{file.fileno()}" if _NUMBERED.is_dir() else file.name)
            sizes = raw.sizes
            check_size(max(sizes.raw_width, sizes.width), max(sizes.raw_height, sizes.height), max_pixels)
            raw.unpack()
            linear = raw.postprocess(
                use_camera_wb=True,
                no_auto_bright=True,
                output_bps=16,
                gamma=(1, 1),
                output_color=rawpy.ColorSpace.sRGB,
            )
    except MissingExtraError:
        raise
    except (MemoryError, rawpy.LibRawUnsufficientMemoryError):
        raise UnreadableError("the picture does not fit into memory") from None
    except rawpy.LibRawFileUnsupportedError:
        raise UnreadableError("a camera raw file of a kind that this LibRaw does not know, or damaged") from None
    except (rawpy.LibRawError, rawpy.NotSupportedError, OSError, ValueError, RuntimeError) as error:
        said = error.args[0] if error.args else error
        text = said.decode("ascii", "replace") if isinstance(said, bytes) else str(said)
        raise UnreadableError(f"the camera raw file is damaged or cut off ({text})") from None
    # Said by a profile: the camera's own tags may call what they describe Adobe RGB.
    profile = make_profile("sRGB", matrix_of(SRGB_PRIMARIES, D65), SRGB)
    return Decoded(_encoded(linear), 1, profile, exif)


def _encoded(linear: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Linear light under sRGB's transfer function (IEC 61966-2-1), each of the 65536 values rounded once."""
    curve = SRGB.encoded(np.arange(65536) / 65535)
    return np.rint(np.clip(curve, 0, 1) * 65535).astype(np.uint16)[linear]
