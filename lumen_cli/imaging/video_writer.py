"""Clips written through imageio's PyAV plug-in: new pictures, and everything else as the source has it."""

from __future__ import annotations

import os
from contextlib import suppress
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

from lumen_cli.imaging.encoders import ENCODERS, OTHERS, nearest_format
from lumen_cli.imaging.formats.format import UnreadableError
from lumen_cli.imaging.video import EXACT, ClipFacts, ClipReader, matrix_of, to_rgb

_NO_TEXT = b"\0\0"
_QUICKTIME = (".mov", ".mp4", ".m4v", ".3gp")


class ClipWriter(PyAVPlugin):
    """A clip that is being written. `begin` comes first, then frames and packets in any order, then `close`."""

    _container: Any
    _video_stream: Any
    _start: Fraction | None
    _ended = False

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
        self._lengths: dict[Fraction, Fraction] = {}
        self._copies: dict[int, Any] = {}
        source = reader.container
        if keep:
            self._container.metadata.update(reader.container_metadata)
        for stream in source.streams:
            if stream.index == reader.stream.index:
                self._add_pictures(reader, facts, quality)
                target = self._video_stream
            else:
                target = self._add_copy(stream)
            if target is not None and keep:
                target.metadata.update({name: text for name, text in stream.metadata.items() if name != "encoder"})
            if target is not None:
                target.disposition = stream.disposition
        if source.chapters():
            self._container.set_chapters(source.chapters())

    def _add_pictures(self, reader: ClipReader, facts: ClipFacts, quality: int | None) -> None:
        stream = reader.stream
        rate = facts.rate or Fraction(25)
        for codec in dict.fromkeys((facts.codec, *OTHERS)):
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
        self.pixels, self.alpha = pixels, facts.alpha
        if pixels != facts.pixels:
            self.notices.append(
                f"its pixels of kind {facts.pixels} became {pixels}, the nearest that {codec} stores here"
            )
        if codec != facts.codec:
            self.notices.append(f"there is no encoder for its {facts.codec} pictures here: they became {codec}")
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
        if reader.interlaced:
            self.notices.append("it is interlaced: its pictures are stored as whole frames")

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

    def copy_packet(self, packet: Any) -> None:
        """Write a packet of another stream."""
        target = self._copies.get(packet.stream.index)
        if bytes(packet) == _NO_TEXT and packet.stream.codec_context.name == "mov_text":
            return  # fills a gap between two texts; the container writes its own
        if packet.dts is None and packet.stream.disposition & Disposition.attached_pic:
            packet.pts = packet.dts = 0
        if target is not None and packet.dts is not None:
            packet.stream = target
            self._container.mux(packet)

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
        self._mux(self._video_stream.encode(frame))

    def _count_steps(self, frame: Any) -> None:
        """Give a frame the number of steps since the first as its time, for a codec whose clock is the frame rate."""
        at = frame.pts * frame.time_base
        self._start = at if self._start is None else self._start
        steps, length = (at - self._start) / self._step, frame.duration * frame.time_base / self._step
        if steps.denominator != 1:
            raise UnreadableError("its frames do not come at equal steps, as its codec needs them")
        frame.pts, frame.time_base, frame.duration = steps.numerator, self._step, round(length)

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            length = self._lengths.pop(packet.pts * packet.time_base, 0)
            if length:
                packet.duration = round(length / packet.time_base)
            if self._step is not None and self._start is not None:
                times = (packet.pts, packet.dts, packet.duration)
                pts, dts, lasts = (each * packet.time_base for each in times)
                packet.pts, packet.dts = (round((each + self._start) / self._ticks) for each in (pts, dts))
                packet.duration, packet.time_base = round(lasts / self._ticks), self._ticks
            self._container.mux(packet)

    def _flush_writer(self) -> None:
        """Write what the encoder still holds."""
        self._mux(self._video_stream.encode())
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


def create_clip(path: Path, reader: ClipReader) -> ClipWriter:
    """A clip to be written, whose container follows from the ending of its name. reader: the source."""
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
