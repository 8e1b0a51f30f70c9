"""AVIF: 8 bits a channel through Pillow, 10 and 12 through OpenCV."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from lumen_cli.imaging.decoded import Decoded, UnreadableError, first_of, full_range, narrowed, opencv, with_rgb_order
from lumen_cli.imaging.formats.isobmff import MainPicture, main_picture
from lumen_cli.imaging.formats.pillow import opened, orientation_of, without_prefix

_IDENTITY = 0
"""The matrix (ITU-T H.273) of files that store red, green and blue themselves."""


def decode_avif(data: bytes, max_pixels: int) -> Decoded:
    """Decode the main picture of an AVIF file, or the first of a sequence, with all its bits.

    Raises:
        UnreadableError: damaged, cut off, too large, or this Pillow was built without AVIF.
    """
    if not features.check("avif"):
        raise UnreadableError("AVIF needs Pillow 11.3 or newer: pip install --upgrade pillow")
    said = main_picture(data)
    with opened(data, "avif", max_pixels) as image:
        exif = without_prefix(image.info.get("exif"))
        # Pillow puts the container's turning and mirroring, which are what counts, into the EXIF it shows.
        orientation = orientation_of(image, exif)
        icc = image.info.get("icc_profile") or None
        notices = first_of(getattr(image, "n_frames", 1), "frames")
        if (said.bits or 8) > 8:
            values = _deep(data, image, said)
        else:
            image.load()
            values = np.asarray(image)
    values = values if values.ndim == 3 else values[:, :, None]
    if said.grey and values.shape[2] >= 3:
        values = values[:, :, [0, -1]] if values.shape[2] == 4 else values[:, :, :1]
    cicp = said.cicp and said.cicp[:2]
    lossless = said.cicp is not None and said.cicp[2] == _IDENTITY
    bits = said.bits if said.bits in (10, 12) else None
    return Decoded(values, orientation, icc, exif, (), notices, cicp=cicp, bits=bits, lossless=lossless)


def _deep(data: bytes, image: Image.Image, said: MainPicture) -> NDArray[np.uint16]:
    """H×W×C over the full range of 16 bits."""
    cv2 = opencv()
    try:
        values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        values = None
    if values is None or values.dtype != np.uint16 or values.shape[:2] != (image.height, image.width):
        if not cv2.haveImageWriter(".avif"):  # OpenCV has both directions or none
            raise UnreadableError("AVIF of more than 8 bits needs opencv-python 4.10 or newer")
        raise UnreadableError("the AVIF file is damaged or cut off")
    values = values if values.ndim == 3 else values[:, :, None]
    if values.shape[2] == 4 and not image.mode.endswith("A"):
        values = values[:, :, :3]
    return full_range(with_rgb_order(values), said.bits or 10)


_SPEED = 9
"""Of 10: 8 takes five times as long for files 3 % smaller."""
_LOSSLESS = 100
_SRGB = (1, 13)


def encode(
    values: NDArray[np.uint8] | NDArray[np.uint16],
    icc: bytes | None,
    *,
    quality: int,
    bits: int = 8,
    lossless: bool = False,
    cicp: tuple[int, int] | None = None,
) -> bytes:
    """A whole AVIF file.

    Args:
        values: H×W×C, C of 1 to 4 (grey, grey + alpha, RGB, RGBA), uint8, or uint16 over the full range.
        icc: the profile to embed.
        quality: 1 to 100.
        bits: 8, 10 or 12 a channel.
        lossless: whether every value comes back; grey with alpha is stored as RGB with alpha. Otherwise colours of
            more than 8 bits are stored at half the resolution (4:2:0), which is OpenCV's only way.
        cicp: primaries and transfer (ITU-T H.273) to name; None: those of sRGB, where there is no profile.

    Raises:
        ValueError: the installed libraries cannot write this.
    """
    if values.shape[2] == 2:
        values = values[:, :, [0, 0, 0, 1]]
    plain = bits == 8 and not lossless and values.shape[2] >= 3
    data = _through_pillow(values, icc, quality) if plain else _through_opencv(values, icc, quality, bits, lossless)
    named = cicp or (None if icc else _SRGB)
    return data if named is None else _naming(data, named)


def _through_pillow(values: NDArray[np.uint8] | NDArray[np.uint16], icc: bytes | None, quality: int) -> bytes:
    if not features.check("avif"):
        raise ValueError("writing AVIF needs Pillow 11.3 or newer")
    buffer = io.BytesIO()
    options = {"icc_profile": icc} if icc else {}
    # One thread: the pictures of a batch are encoded side by side.
    Image.fromarray(values).save(
        buffer, "AVIF", quality=quality, subsampling="4:4:4", speed=_SPEED, max_threads=1, **options
    )
    return buffer.getvalue()


def _through_opencv(
    values: NDArray[np.uint8] | NDArray[np.uint16], icc: bytes | None, quality: int, bits: int, lossless: bool
) -> bytes:
    cv2 = opencv()
    if not cv2.haveImageWriter(".avif") or not hasattr(cv2, "imencodeWithMetadata"):
        raise ValueError("AVIF of this kind (grey, lossless or more than 8 bits) needs opencv-python 4.13 or newer")
    stored = narrowed(values, bits) if values.dtype == np.uint16 else values
    options = [cv2.IMWRITE_AVIF_QUALITY, _LOSSLESS if lossless else min(quality, _LOSSLESS - 1)]
    options += [cv2.IMWRITE_AVIF_DEPTH, bits, cv2.IMWRITE_AVIF_SPEED, _SPEED]
    kinds, blocks = ([cv2.IMAGE_METADATA_ICCP], [np.frombuffer(icc, np.uint8)]) if icc else ([], [])
    try:
        done, data = cv2.imencodeWithMetadata(
            ".avif", np.ascontiguousarray(with_rgb_order(stored)), kinds, blocks, options
        )
    except cv2.error as error:
        raise ValueError(f"OpenCV: {str(error).strip().splitlines()[-1]}") from None
    if not done:
        raise ValueError("OpenCV cannot write it")
    return bytes(data.tobytes())


def _naming(data: bytes, cicp: tuple[int, int]) -> bytes:
    """Put primaries and transfer into the box that names them, which the encoders write but let nobody fill."""
    at = data.find(b"colrnclx")
    if at < 0:
        return data
    names = b"".join(code.to_bytes(2, "big") for code in cicp)
    return data[: at + 8] + names + data[at + 12 :]
