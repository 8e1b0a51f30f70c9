"""Clips, read and written through imageio and its PyAV plug-in.

imageio opens the files, chooses containers and decoders, and ends the encoders. `ClipReader` and `ClipWriter` add what
it leaves out: time stamps, all streams that are not pictures (copied packet by packet), rotation, colour tags,
chapters, and conversions that keep the bits of dark pictures.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import imageio.v3 as iio
import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Discard, Disposition
from av.video.reformatter import ColorRange, Colorspace, ColorTrc, Interpolation
from imageio.plugins.pyav import PyAVPlugin
from numpy.typing import NDArray

from lumen_cli.imaging.encoders import ENCODERS, OTHERS, nearest_format
from lumen_cli.imaging.formats import MAXIMUM_PIXELS
from lumen_cli.imaging.formats.format import UnreadableError, check_size

av.logging.set_level(av.logging.PANIC)  # faults arrive as exceptions; its own lines would go to standard error

_EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
"""Without these flags values lose up to three levels of 255, which a gain makes visible."""
_REDUCING = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
_HDR = {ColorTrc.SMPTE2084: "PQ", ColorTrc.ARIB_STD_B67: "HLG"}
_UNSPECIFIED = 2
"""The matrix (ITU-T H.273) of clips that name none; players take that of high definition from 720 rows on."""
_HIGH_DEFINITION = 720
_LEAST_TIME = Fraction(1, 10**9)


class ClipReader(PyAVPlugin):
    """An open clip. `open_clip` makes one; it is a context manager.

    matrix: how its pictures are turned, nine numbers, or None; interlaced: both are known once `content` gave a frame.
    """

    _container: Any
    _video_stream: Any
    matrix: list[int] | None = None
    interlaced = False

    @property
    def container(self) -> Any:
        """PyAV's container."""
        return self._container

    @property
    def stream(self) -> Any:
        """The pictures' stream: the first that is not a cover."""
        return self._video_stream

    def choose_stream(self) -> None:
        """Take the first stream that moves instead of a cover picture."""
        moving = [each for each in self._container.streams.video if not each.disposition & Disposition.attached_pic]
        if moving:
            self._video_stream = moving[0]
            self._video_stream.thread_type = "AUTO"

    def content(self, every: bool = True) -> Iterator[Any]:
        """Frames in the order they are shown, and the packets of all other streams as the file has them.

        every: whether other streams are wanted; else the packets of the pictures' stream come before their frames.

        Raises:
            UnreadableError: damaged data, frames without time stamps or of another size than the first.
        """
        size, last = (self.stream.width, self.stream.height), None
        try:
            for packet in self._container.demux() if every else self._container.demux(self.stream):
                if packet.stream.index != self.stream.index:
                    if packet.size:
                        yield packet
                    continue
                if not every and packet.size:
                    yield packet
                for frame in packet.decode():
                    if frame.pts is None:
                        raise UnreadableError("its frames have no time stamps")
                    if (frame.width, frame.height) != size:
                        shape = f"{size[0]}×{size[1]} to {frame.width}×{frame.height}"
                        raise UnreadableError(f"its pictures change their size from {shape}")
                    if last is not None and frame.pts <= last:
                        raise UnreadableError(f"its time stamps do not rise (at {float(frame.time):.2f} s)")
                    if last is None:
                        matrix = frame.side_data.get(SideDataType.DISPLAYMATRIX)
                        self.matrix = None if matrix is None else np.frombuffer(matrix, np.int32).tolist()
                        self.interlaced = frame.interlaced_frame
                    last = frame.pts
                    yield frame
        except av.FFmpegError as error:
            raise UnreadableError(_explain(error)) from None


@dataclass(frozen=True)
class ClipFacts:
    """What a clip's header says.

    turns: quarter turns to the left that make a frame upright; alpha: whether its pixels have it; bits: of a value.
    """

    width: int
    height: int
    codec: str
    pixels: str
    bits: int
    alpha: bool
    rate: Fraction | None
    duration: float | None

    @property
    def depth(self) -> int:
        """Bits a channel of the pictures that lumen computes with, 8 or 16."""
        return 8 if self.bits <= 8 else 16

    @property
    def frame_bytes(self) -> int:
        """Of a decoded frame, roughly."""
        return self.width * self.height * 3 * (2 if self.bits > 8 else 1)


def open_clip(path: Path, max_pixels: int = MAXIMUM_PIXELS) -> tuple[ClipReader, ClipFacts]:
    """Open a clip and check that lumen can brighten it.

    Args:
        path: the file.
        max_pixels: as in `read_picture`, for one frame.

    Raises:
        UnreadableError: it has no pictures, is cut off, too large, in HDR, or has alpha that cannot be decoded.
    """
    try:
        reader = iio.imopen(os.fspath(path), "r", plugin=ClipReader)
    except OSError as error:
        raise UnreadableError(_why_closed(error)) from None
    try:
        reader.choose_stream()
        return reader, _check(reader, path, max_pixels)
    except BaseException:
        reader.close()
        raise


def _check(reader: ClipReader, path: Path, max_pixels: int) -> ClipFacts:
    stream = reader.stream
    context = stream.codec_context
    if context is None or stream.format is None:
        raise UnreadableError("its pictures are of a kind that cannot be decoded here")
    check_size(context.width, context.height, max_pixels)
    if context.color_trc in _HDR:
        curve = _HDR[ColorTrc(context.color_trc)]
        raise UnreadableError(f"it is in HDR ({curve}), which lumen does not brighten; convert it to SDR first")
    if stream.metadata.get("alpha_mode") == "1":
        raise UnreadableError("its transparency cannot be decoded here; convert it to ProRes 4444 or remove it")
    end = max((entry.pos + entry.size for entry in stream.index_entries), default=0)
    if end > path.stat().st_size:
        raise UnreadableError("the file is cut off: its index names pictures behind its end")
    return ClipFacts(
        context.width,
        context.height,
        context.name,
        stream.format.name,
        max(component.bits for component in stream.format.components),
        any(component.is_alpha for component in stream.format.components),
        stream.average_rate or stream.guessed_rate or None,
        None if stream.duration is None else float(stream.duration * stream.time_base),
    )


def _why_closed(error: OSError) -> str:
    """Why imageio could not open a file as a clip: the first cause, which it wraps."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, av.FFmpegError):
            return _explain(cause)
        if isinstance(cause, IndexError):
            return "it has no pictures, only sound or text"
        cause = cause.__cause__ or cause.__context__
    return f"cannot be read ({error})"


def _explain(error: av.FFmpegError) -> str:
    log = error.log[2] if error.log and len(error.log) > 2 else ""
    what = " ".join(f"{error.strerror or error}".split())
    return f"the file is damaged, cut off or not a clip ({f'{log.strip()}: ' if log else ''}{what})"


def quarter_turns(frame: Any) -> int:
    """How many quarter turns to the left make a frame upright, by its display matrix, 0 to 3."""
    return round(frame.rotation / 90) % 4


def reduce_frame(frame: Any, width: int, height: int) -> NDArray[np.float32]:
    """A frame reduced by averaging areas, height×width×3 float32 in [0, 1], RGB."""
    values = _reformat(frame, "rgb48le", _REDUCING, width=width, height=height).to_ndarray()
    return np.ascontiguousarray(values, np.float32) / np.float32(65535)


def to_rgb(frame: Any, alpha: bool = False) -> NDArray[np.uint16]:
    """A frame at its own size, H×W×3 or, with alpha, H×W×4 uint16."""
    values: NDArray[np.uint16] = _reformat(frame, "rgba64le" if alpha else "rgb48le", _EXACT).to_ndarray()
    return values


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
        interpolation=_EXACT,
        dst_colorspace=_matrix(like),
        dst_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
    )
    result.colorspace, result.color_range = like.colorspace, like.color_range
    result.pts, result.time_base, result.duration = like.pts, like.time_base, like.duration
    return result


def _reformat(frame: Any, kind: str, flags: int, **size: int) -> Any:
    return frame.reformat(format=kind, interpolation=flags, src_colorspace=_matrix(frame), **size)


def _matrix(frame: Any) -> Colorspace | None:
    """The matrix of a frame that names none; None where it does."""
    if frame.colorspace != _UNSPECIFIED or frame.format.is_rgb:
        return None
    return Colorspace.ITU709 if frame.height >= _HIGH_DEFINITION else Colorspace.ITU601


class ClipWriter(PyAVPlugin):
    """A clip that is being written. `begin` comes first, then frames and packets in any order, then `close`."""

    _container: Any
    _video_stream: Any

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
        self._lengths: dict[int, int] = {}
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
        target.time_base = context.time_base = stream.time_base
        context.options = encoder.options(quality)
        if stream.sample_aspect_ratio:
            context.sample_aspect_ratio = stream.sample_aspect_ratio
        own = stream.codec_context
        context.color_primaries, context.color_trc = own.color_primaries, own.color_trc
        context.colorspace, context.color_range = own.colorspace, own.color_range
        context.thread_type = "AUTO"
        if encoder.option == "q":
            context.qscale = True
            context.global_quality = 118 * round(float(context.options.pop("q", "2")))
        target.set_display_matrix(reader.matrix)
        if reader.interlaced:
            self.notices.append("it is interlaced: its pictures are stored as whole frames")

    def _add_copy(self, stream: Any) -> Any:
        """A stream for copied packets; None, with a notice, for one that has nothing to copy."""
        if stream.discard == Discard.all:
            return None  # the names of chapters, which the container writes itself
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
        self._lengths[frame.pts] = frame.duration
        self._mux(self._video_stream.encode(frame))

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            length = self._lengths.pop(packet.pts, 0)
            if length:
                packet.duration = length
            self._container.mux(packet)

    def _flush_writer(self) -> None:
        """Write what the encoder still holds."""
        self._mux(self._video_stream.encode())
        self._video_stream = None

    def abandon(self) -> None:
        """Close the file without completing it."""
        self._video_stream = None
        self._container.close()
        self.request.finish()


def create_clip(path: Path) -> ClipWriter:
    """A clip to be written, whose container follows from the ending of its name."""
    writer: ClipWriter = iio.imopen(os.fspath(path), "w", plugin=ClipWriter)
    return writer
