"""Clips, read through imageio and its PyAV plug-in; `video_writer.py` writes them.

imageio opens the files and chooses containers and decoders. `ClipReader` adds what it leaves out: time stamps, the
packets of all streams that are not pictures, rotation, and conversions that keep the bits of dark pictures.
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
from av.stream import Disposition
from av.video.reformatter import Colorspace, ColorTrc, Interpolation
from imageio.plugins.pyav import PyAVPlugin
from numpy.typing import NDArray

from lumen_cli.imaging.formats import MAXIMUM_PIXELS
from lumen_cli.imaging.formats.format import UnreadableError, check_size

av.logging.set_level(av.logging.PANIC)  # faults arrive as exceptions; its own lines would go to standard error

EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
"""Without these flags values lose up to three levels of 255, which a gain makes visible."""
_REDUCING = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
_HDR = {ColorTrc.SMPTE2084: "PQ", ColorTrc.ARIB_STD_B67: "HLG"}
_UNSPECIFIED = 2
"""The matrix (ITU-T H.273) of clips that name none; players take that of high definition from 720 rows on."""
_HIGH_DEFINITION = 720


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

    def others(self) -> Iterator[Any]:
        """The packets of all streams but the pictures', as the file has them; UnreadableError where it is damaged."""
        try:
            for packet in self._container.demux():
                if packet.size and packet.stream.index != self.stream.index:
                    yield packet
        except av.FFmpegError as error:
            raise UnreadableError(_explain(error)) from None

    def content(self) -> Iterator[Any]:
        """Frames in the order they are shown, and the packets of their stream before them.

        Raises:
            UnreadableError: damaged data, frames without time stamps or of another size than the first.
        """
        size, last = (self.stream.width, self.stream.height), None
        try:
            for packet in self._container.demux(self.stream):
                if packet.size:
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

    bits: of a value; alpha: whether its pixels have it; colours: primaries, transfer, matrix and range (ITU-T H.273).
    """

    width: int
    height: int
    codec: str
    pixels: str
    bits: int
    alpha: bool
    colours: tuple[int, int, int, int]
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
        context.codec.canonical_name,
        stream.format.name,
        max(component.bits for component in stream.format.components),
        any(component.is_alpha for component in stream.format.components),
        # Now: some decoders replace what the container says by their codec's habit.
        (context.color_primaries, context.color_trc, context.colorspace, context.color_range),
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
    values: NDArray[np.uint16] = _reformat(frame, "rgba64le" if alpha else "rgb48le", EXACT).to_ndarray()
    return values


def _reformat(frame: Any, kind: str, flags: int, **size: int) -> Any:
    return frame.reformat(format=kind, interpolation=flags, src_colorspace=matrix_of(frame), **size)


def matrix_of(frame: Any) -> Colorspace | None:
    """The matrix of a frame that names none; None where it does."""
    if frame.colorspace != _UNSPECIFIED or frame.format.is_rgb:
        return None
    return Colorspace.ITU709 if frame.height >= _HIGH_DEFINITION else Colorspace.ITU601
