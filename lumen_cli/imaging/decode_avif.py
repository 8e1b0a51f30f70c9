"""AVIF: 8 bits a channel through Pillow, 10 and 12 through OpenCV."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from lumen_cli.imaging.decode_pillow import opened, orientation_of, without_prefix
from lumen_cli.imaging.decoded import Decoded, UnreadableError, first_of, full_range, opencv, with_rgb_order
from lumen_cli.imaging.isobmff import MainPicture, main_picture

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
