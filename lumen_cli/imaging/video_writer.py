"""Clips written through imageio's PyAV plug-in: new pictures, and everything else as the source has it.

`ENCODERS` says which of FFmpeg's encoders writes a codec, its quality and the pixel formats that it takes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import imageio.v3 as iio
import numpy as np
from av.stream import Discard, Disposition
from av.video.reformatter import ColorRange
from imageio.plugins.pyav import PyAVPlugin
from numpy.typing import NDArray

from lumen_cli.imaging.formats.format import UnreadableError
from lumen_cli.imaging.video import EXACT, ClipFacts, ClipReader, matrix_of, to_rgb


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


_PLAIN = "wrapped_avframe"
"""The codec of containers that take frames as they are."""
_NO_TEXT = b"\0\0"
_QUICKTIME = (".mov", ".mp4", ".m4v", ".3gp")


class PictureWriter(PyAVPlugin):
    """A file that gets a clip's pictures, from the encoder that fits the source."""

    _container: Any
    _video_stream: Any
    _start: Fraction | None
    _ended = False

    def _add_pictures(self, reader: ClipReader, facts: ClipFacts, quality: int | None, codecs: Iterable[str]) -> None:
        """Make the stream of pictures, with the first of these codecs that container and encoders take."""
        stream = reader.stream
        rate = facts.rate or Fraction(25)
        for codec in codecs:
            encoder = ENCODERS.get(codec)
            pixels = None if encoder is None else nearest_format(encoder.name, facts.pixels)
            if encoder is None or pixels is None:
                continue
            try:
                self.init_video_stream(encoder.name, fps=float(rate), pixel_format=pixels)
                break
            except ValueError:  # the container does not hold this codec
                continue
        else:
            raise UnreadableError(
                f"there is no encoder here for {facts.codec} with pixels of kind {facts.pixels} that this kind of file "
                "can hold; name an output that ends with .mkv",
                "output",
            )
        self.codec, self.pixels, self.alpha = codec, pixels, facts.alpha
        target, context = self._video_stream, self._video_stream.codec_context
        target.width, target.height = facts.width, facts.height
        self._ticks, self._start = stream.time_base, None
        self._step = None if encoder.ticks >= stream.time_base.denominator else 1 / rate
        target.time_base = stream.time_base
        context.time_base = self._step or stream.time_base
        context.options = encoder.options(quality)
        if stream.sample_aspect_ratio:
            context.sample_aspect_ratio = stream.sample_aspect_ratio
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = facts.colours
        context.thread_type = "AUTO"
        if codec == facts.codec and self._container.format.name in reader.container.format.name.split(","):
            context.codec_tag = stream.codec_context.codec_tag  # Apple's players want "hvc1" for HEVC
        if encoder.option == "q":
            context.qscale = True
            context.global_quality = 118 * round(float(context.options.pop("q", "2")))
        target.set_display_matrix(reader.matrix)

    def _count_steps(self, frame: Any) -> None:
        """Give a frame the number of steps since the first as its time, for a codec whose clock is the frame rate."""
        at = frame.pts * frame.time_base
        self._start = at if self._start is None else self._start
        steps, length = (at - self._start) / self._step, frame.duration * frame.time_base / self._step
        if steps.denominator != 1:
            raise UnreadableError("its frames do not come at equal steps, as its codec needs them")
        frame.pts, frame.time_base, frame.duration = steps.numerator, self._step, round(length)

    def _flush_writer(self) -> None:
        """Nothing is left in an encoder; imageio calls this at the end."""
        self._video_stream = None

    def close(self) -> None:
        """Complete and close the file, once: imageio calls this again when it forgets the file."""
        if not self._ended:
            self._ended = True
            super().close()

    def abandon(self) -> None:
        """Close the file without completing it."""
        self._ended, self._video_stream = True, None
        with suppress(av.FFmpegError, OSError):
            self._container.close()
        with suppress(OSError):
            self.request.finish()


class ClipWriter(PictureWriter):
    """A clip that is being written: `begin`, then `join`, then `close`. Its pictures come from segments.

    notices: what became different, one line each.
    """

    def begin(self, reader: ClipReader, facts: ClipFacts, quality: int | None, keep: bool = True) -> None:
        """Make a stream for each of the source's.

        Args:
            reader: the source, whose first frame is read.
            facts: of the source.
            quality: 1 to 100, None for the default.
            keep: whether names and values that describe the clip are copied.

        Raises:
            UnreadableError: the container cannot hold one of the streams.
        """
        self.notices: list[str] = []
        self._copies: dict[int, Any] = {}
        self._number = 0
        source = reader.container
        if keep:
            self._container.metadata.update(reader.container_metadata)
        for stream in source.streams:
            if stream.index == reader.stream.index:
                plain = self._container.format.name == "yuv4mpegpipe"
                codecs = [_PLAIN] if plain else list(dict.fromkeys((facts.codec, *OTHERS)))
                self._add_pictures(reader, facts, quality, codecs)
                self._note(reader, facts)
                target = self._video_stream
            else:
                target = self._add_copy(stream)
            if target is not None and keep:
                target.metadata.update({name: text for name, text in stream.metadata.items() if name != "encoder"})
            if target is not None:
                target.disposition = stream.disposition
        if source.chapters():
            self._container.set_chapters(source.chapters())

    def _note(self, reader: ClipReader, facts: ClipFacts) -> None:
        if self.pixels != facts.pixels:
            self.notices.append(
                f"its pixels of kind {facts.pixels} became {self.pixels}, the nearest that {self.codec} stores here"
            )
        if self.codec not in (facts.codec, _PLAIN):
            self.notices.append(f"there is no encoder for its {facts.codec} pictures here: they became {self.codec}")
        if reader.interlaced:
            self.notices.append("it is interlaced: its pictures are stored as whole frames")

    @property
    def flags(self) -> int:
        """Of the encoder: whether parameters stand before all packets or among them."""
        return int(self._video_stream.codec_context.flags)

    def _add_copy(self, stream: Any) -> Any:
        """A stream for copied packets; None, with a notice, for one that has nothing to copy."""
        if stream.discard == Discard.all or (stream.type == "data" and "timecode" in stream.metadata):
            return None  # names of chapters and time codes, which the container writes itself
        try:
            copy = self._container.add_stream_from_template(stream, opaque=True)
        except (ValueError, av.FFmpegError):
            if stream.type == "data":
                self.notices.append("its data stream was left out")
                return None
            raise UnreadableError(
                f"this kind of file cannot hold its {stream.type} stream ({stream.codec_context.name}); "
                "name an output of the clip's own kind, or one that ends with .mkv",
                "output",
            ) from None
        self._copies[stream.index] = copy
        return copy

    def join(self, pictures: Iterable[Any], others: Iterator[Any]) -> None:
        """Write the encoded pictures, and the source's packets of its other streams, in order of their times."""
        other = next(others, None)
        for packet in pictures:
            at = packet.dts * packet.time_base
            while other is not None and (other.dts is None or other.dts * other.time_base <= at):
                self._copy_packet(other)
                other = next(others, None)
            for encoded in self._plain(packet) if self.codec == _PLAIN else [packet]:
                encoded.stream = self._video_stream
                self._container.mux(encoded)
        while other is not None:
            self._copy_packet(other)
            other = next(others, None)

    def _plain(self, packet: Any) -> Iterator[Any]:
        """The pictures of a packet for a container of plain frames, which has a rate and no times."""
        for frame in packet.decode():
            frame.pts, frame.time_base = packet.pts, packet.time_base
            self._count_steps(frame)
            if frame.pts != self._number:
                raise UnreadableError("its frames do not come at equal steps, as this kind of file needs them")
            self._number += 1
            yield from self._video_stream.encode(frame)

    def _copy_packet(self, packet: Any) -> None:
        target = self._copies.get(packet.stream.index)
        if bytes(packet) == _NO_TEXT and packet.stream.codec_context.name == "mov_text":
            return  # fills a gap between two texts; the container writes its own
        if packet.dts is None and packet.stream.disposition & Disposition.attached_pic:
            packet.pts = packet.dts = 0
        if target is not None and packet.dts is not None:
            packet.stream = target
            self._container.mux(packet)


class SegmentWriter(PictureWriter):
    """Pictures of a part of a clip, without its other streams: a file that plays, whose packets a `ClipWriter` joins.

    times: presentation and decoding time and duration of each packet, in ticks of the source's time base.
    """

    def begin(self, clip: ClipWriter, reader: ClipReader, facts: ClipFacts, quality: int | None) -> None:
        """Encode as `clip` is going to hold it; the other arguments are as there."""
        self.times: list[tuple[int, int, int]] = []
        self._lengths: dict[Fraction, Fraction] = {}
        self._add_pictures(reader, facts, quality, ["rawvideo" if clip.codec == _PLAIN else clip.codec])
        self._video_stream.codec_context.flags = clip.flags

    @property
    def ticks(self) -> Fraction:
        """Seconds of a tick of `times`."""
        return Fraction(self._ticks)

    def add_frame(self, frame: Any, values: NDArray[Any] | None = None) -> None:
        """Encode a frame of the source, or these values in its place: H×W×3 or H×W×4 integers.

        Its colours, time stamp and duration stay as they are.
        """
        if values is not None:
            frame = _from_rgb(values, frame, self.pixels)
        elif frame.format.name != self.pixels:
            frame = _from_rgb(to_rgb(frame, self.alpha), frame, self.pixels)
        frame.pict_type = 0
        if self._step is not None:
            self._count_steps(frame)
        self._lengths[frame.pts * frame.time_base] = frame.duration * frame.time_base
        self._take(self._video_stream.encode(frame))

    def _take(self, packets: list[Any]) -> None:
        """Keep packets with the times of the source."""
        for packet in packets:
            length = self._lengths.pop(packet.pts * packet.time_base, 0)
            if length:
                packet.duration = round(length / packet.time_base)
            if self._step is not None and self._start is not None:
                times = (packet.pts, packet.dts, packet.duration)
                pts, dts, lasts = (each * packet.time_base for each in times)
                packet.pts, packet.dts = (round((each + self._start) / self._ticks) for each in (pts, dts))
                packet.duration, packet.time_base = round(lasts / self._ticks), self._ticks
            self.times.append((packet.pts, packet.dts, packet.duration))
            self._container.mux(packet)

    def _flush_writer(self) -> None:
        """Write what the encoder still holds."""
        self._take(self._video_stream.encode())
        self._video_stream = None


def create_segment(path: Path) -> SegmentWriter:
    """A segment to be written, in a container that takes every codec."""
    writer: SegmentWriter = iio.imopen(os.fspath(path), "w", plugin=SegmentWriter)
    return writer


def create_clip(path: Path, reader: ClipReader) -> ClipWriter:
    """A clip to be written, whose container follows from the ending of its name. reader: the source."""
    if path.suffix.lower() == ".y4m":
        plain: ClipWriter = iio.imopen(os.fspath(path), "w", plugin=ClipWriter, options={"strict": "-1"})
        return plain  # "-1": more than 8 bits too
    named = any("." in name for name in reader.container_metadata)  # as com.apple.quicktime.make
    flags = {"movflags": "use_metadata_tags"} if named and path.suffix.lower() in _QUICKTIME else {}
    writer: ClipWriter = iio.imopen(os.fspath(path), "w", plugin=ClipWriter, options=flags)
    return writer


def _from_rgb(values: NDArray[np.uint8] | NDArray[np.uint16], like: Any, pixels: str) -> Any:
    """H×W×3 or H×W×4 → a frame of that pixel format with the colours, rotation and time of `like`."""
    deep, channels = values.dtype == np.uint16, values.shape[2]
    kind = {(False, 3): "rgb24", (False, 4): "rgba", (True, 3): "rgb48le", (True, 4): "rgba64le"}[deep, channels]
    frame = av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(values), kind)
    frame.colorspace, frame.color_range = like.colorspace, like.color_range
    frame.color_trc, frame.color_primaries = like.color_trc, like.color_primaries
    full = like.color_range == ColorRange.JPEG or like.format.name.startswith("yuvj")
    result = frame.reformat(
        format=pixels,
        interpolation=EXACT,
        dst_colorspace=matrix_of(like),
        dst_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
    )
    result.colorspace, result.color_range = like.colorspace, like.color_range
    result.color_trc, result.color_primaries = like.color_trc, like.color_primaries
    result.pts, result.time_base, result.duration = like.pts, like.time_base, like.duration
    return result
