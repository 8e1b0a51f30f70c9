"""Photoshop's image resources: IPTC, print settings, paths, a thumbnail; what a JPEG holds in APP13.

Source: Adobe Photoshop File Formats Specification, "Image Resources Section".
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from lumen_cli.imaging.jpeg_segments import size_of

_NEWER = 0x040C
_THUMBNAILS = (0x0409, _NEWER)
_JPEG_RGB = 1
_KEY = b"8BIM"


def with_thumbnail_if_any(resources: bytes, make: Callable[[], bytes]) -> bytes:
    """The resources with a new thumbnail, where they hold one; all others stay as they are.

    Args:
        resources: all of them, one behind the other.
        make: gives the new thumbnail, a JPEG.
    """
    parts, at, made = [], 0, False
    while resources[at : at + 4] == _KEY and at + 8 <= len(resources):
        (kind,) = struct.unpack_from(">H", resources, at + 4)
        name = resources[at + 6]
        content = at + 6 + 1 + name + (1 - name % 2)
        if content + 4 > len(resources):
            break
        (length,) = struct.unpack_from(">I", resources, content)
        end = content + 4 + length + length % 2
        if kind not in _THUMBNAILS:
            parts.append(resources[at:end])
        elif not made:
            made = True
            parts.append(_thumbnail(make()))
        at = end
    return b"".join(parts) + resources[at:] if made else resources


def _thumbnail(jpeg: bytes) -> bytes:
    width, height = size_of(jpeg, 0) or (0, 0)
    row = (width * 24 + 31) // 32 * 4
    head = struct.pack(">6I2H", _JPEG_RGB, width, height, row, row * height, len(jpeg), 24, 1)
    body = head + jpeg
    return _KEY + struct.pack(">HHI", _NEWER, 0, len(body)) + body + b"\0" * (len(body) % 2)
