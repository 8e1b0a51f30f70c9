"""PNG of 1 to 16 bits a channel without a step of fewer: through Pillow, and OpenCV for 16 bits."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lumen_cli.imaging.decode_pillow import INCOMPLETE_PROFILE, decode, orientation_of, without_prefix
from lumen_cli.imaging.decoded import Decoded, UnreadableError, check_size, first_of, opencv, with_rgb_order
from lumen_cli.imaging.png import DamagedPngError, PngHead, read_head, without_animation

_GREY_TYPES = (0, 4)


def decode_png(data: bytes, max_pixels: int) -> Decoded:
    """Decode a PNG file of any depth, after every chunk's checksum has been seen to fit; of an animation the still."""
    try:
        head = read_head(data)
    except DamagedPngError as error:
        raise UnreadableError(f"the PNG file is cut off or damaged ({error})") from None
    check_size(head.width, head.height, max_pixels)
    notices = first_of(int.from_bytes(head.chunks.get(b"acTL", b"")[:4], "big"), "frames")
    if b"iCCP" in head.chunks and head.icc is None:
        notices += (INCOMPLETE_PROFILE,)
    if b"acTL" in head.chunks:
        data = without_animation(data)
    if head.bit_depth != 16:
        return replace(decode(data, "png", max_pixels), notices=notices)
    cv2 = opencv()
    try:
        values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        values = None
    if values is None or values.dtype != np.uint16:
        raise UnreadableError("the PNG file is damaged (its picture data cannot be unpacked)")
    values = with_rgb_order(values[:, :, None] if values.ndim == 2 else values)
    if head.colour_type in _GREY_TYPES:
        values = values[:, :, [0, -1]] if head.colour_type == 4 else values[:, :, :1]
    values = _with_transparent_colour(values, head)
    with Image.open(io.BytesIO(data)) as image:  # the tags only; the pixels would lose their low bytes
        exif = without_prefix(head.chunks.get(b"eXIf") or image.info.get("exif"))
        orientation = orientation_of(image, exif)
    return Decoded(values, orientation, head.icc, exif, (), notices)


def _with_transparent_colour(values: NDArray[np.uint16], head: PngHead) -> NDArray[np.uint16]:
    """PNG can name one colour that is transparent instead of storing alpha."""
    key = np.frombuffer(head.chunks.get(b"tRNS", b""), ">u2")
    colours = 1 if head.colour_type in _GREY_TYPES else 3
    if head.colour_type not in (0, 2) or len(key) != colours:
        return values
    colour = values[:, :, :colours]
    alpha = np.where((colour == key).all(axis=2, keepdims=True), 0, 65535).astype(np.uint16)
    return np.concatenate([colour, alpha], axis=2)
