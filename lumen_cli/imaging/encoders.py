"""FFmpeg's encoders for clips: which one writes a codec, its quality, and the pixel formats it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import av


@dataclass(frozen=True)
class Encoder:
    """An encoder and its quality: option: the name of the setting; best, worst: its values at 95 and at 1.

    ticks: into how many a second may be divided; 0: its clock is the frame rate.
    """

    name: str
    option: str = ""
    best: float = 0.0
    worst: float = 0.0
    more: tuple[tuple[str, str], ...] = ()
    ticks: int = 1 << 31

    def options(self, quality: int | None) -> dict[str, str]:
        """The encoder's options for a quality of 1 to 100, None for the default, which is 95."""
        if not self.option:
            return dict(self.more)
        value = self.best + (95 - (95 if quality is None else quality)) * (self.worst - self.best) / 94
        return {self.option: f"{max(0.0, value):.3g}", **dict(self.more)}


ENCODERS: dict[str, Encoder] = {
    "h264": Encoder("libx264", "crf", 18, 45, (("preset", "veryfast"),)),
    "hevc": Encoder("libx265", "crf", 20, 45, (("preset", "fast"), ("x265-params", "log-level=none"))),
    "vp9": Encoder("libvpx-vp9", "crf", 24, 60, (("deadline", "realtime"), ("cpu-used", "5"), ("row-mt", "1"))),
    "vp8": Encoder("libvpx", "crf", 8, 60, (("deadline", "realtime"), ("cpu-used", "4"), ("b", "50M"))),
    "av1": Encoder("libsvtav1", "crf", 24, 60, (("preset", "8"),)),
    "mpeg4": Encoder("mpeg4", "q", 2, 31, ticks=65535),
    "mpeg2video": Encoder("mpeg2video", "q", 2, 31, ticks=0),
    "mpeg1video": Encoder("mpeg1video", "q", 2, 31, ticks=0),
    "mjpeg": Encoder("mjpeg", "q", 2, 31),
    "prores": Encoder("prores_ks"),
    "ffv1": Encoder("ffv1"),
    "huffyuv": Encoder("huffyuv"),
    "ffvhuff": Encoder("ffvhuff"),
    "utvideo": Encoder("utvideo"),
    "qtrle": Encoder("qtrle"),
    "png": Encoder("png"),
    "rawvideo": Encoder("rawvideo"),
    "wrapped_avframe": Encoder("wrapped_avframe", ticks=0),
}
"""By the name of the codec. `best` is a quality at which losses are hard to see."""
OTHERS = ("h264", "hevc", "av1", "ffv1")
"""Tried in this order where a clip's own codec has no encoder here."""


def nearest_format(encoder: str, wanted: str) -> str | None:
    """The pixel format that an encoder takes for another: the same, or one of the same channels with at least its bits.

    More than 10 bits may become fewer, but not less than 10. None where there is none, or no such encoder.
    """
    try:
        listed = av.codec.Codec(encoder, "w").video_formats
    except (ValueError, av.FFmpegError):
        return None
    formats = {each.name: each for each in listed or []}
    if listed is None or wanted in formats:  # None: it takes all
        return wanted
    bits, layout = _layout(av.VideoFormat(wanted))
    alike = {name: _layout(each)[0] for name, each in formats.items() if _layout(each)[1] == layout}
    enough = {name: depth for name, depth in alike.items() if depth >= bits}
    if enough:
        return min(enough, key=lambda name: enough[name])
    few = {name: depth for name, depth in alike.items() if depth >= min(bits, 10)}
    return max(few, key=lambda name: few[name]) if few else None


def _layout(format: Any) -> tuple[int, tuple[Any, ...]]:
    """Bits of a pixel format, and how its channels lie: number, RGB or not, size of the planes of colour, range."""
    components = format.components
    sizes = format.chroma_width(64), format.chroma_height(64)
    return max(each.bits for each in components), (
        len(components),
        format.is_rgb,
        sizes,
        format.name.startswith("yuvj"),
    )
