"""One clip of a run: a first pass chooses key frames, a second brightens."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from lumen_cli.engine.scene import scene_size
from lumen_cli.engine.video import THUMBNAIL, Surveyor, Timeline
from lumen_cli.errors import PictureError
from lumen_cli.imaging.formats.format import UnreadableError
from lumen_cli.imaging.segments import Segment, Segments, segments_beside
from lumen_cli.imaging.video import ClipReader, open_clip, quarter_turns, reduce_frame, to_rgb
from lumen_cli.imaging.video_writer import ClipWriter, create_clip, create_segment
from lumen_cli.run.moving import KeyFrameRunner, frame_picture
from lumen_cli.run.operation import Settings

_FIRST_PASS = 0.05
"""Part of the progress that the first pass counts as."""
SEGMENT = 240
"""Frames of a segment, at least: about as many as x264 puts between two frames that need no others."""
_CHANGED = "changed while lumen worked on it; run again for the new version"


class Video:
    """A clip, as `run.moving` makes it.

    Args:
        path: the source.
        settings: of the run.
        max_pixels: as in `open_clip`.
        proceed: called with the part that is done.
        segments: the folder for finished segments, where the next run looks for them; None: beside the temporary file.
    """

    def __init__(
        self,
        path: Path,
        settings: Settings,
        max_pixels: int,
        proceed: Callable[[float], None],
        segments: Path | None = None,
    ) -> None:
        self._segments = segments
        self._path, self._settings, self._max_pixels, self._proceed = path, settings, max_pixels, proceed
        reader, self._facts = open_clip(path, max_pixels)
        reader.close()
        self.width, self.height, self.depth = self._facts.width, self._facts.height, self._facts.depth
        self.fps = None if self._facts.rate is None else round(float(self._facts.rate), 6)
        self.notices: tuple[str, ...] = ()

    def survey(self) -> tuple[Timeline, bytes]:
        """As in `Moving`."""
        reader, facts = open_clip(self._path, self._max_pixels)
        with closing(reader):
            surveyor = Surveyor(facts.frame_bytes)
            hashed = hashlib.blake2b(digest_size=16)
            estimate = max(1, reader.stream.frames or round((facts.duration or 0) * float(facts.rate or 25)))
            for item in reader.content():
                self._proceed(_FIRST_PASS * min(1.0, surveyor.count / estimate))
                if isinstance(item, av.Packet):
                    hashed.update(item)
                else:
                    surveyor.add(reduce_frame(item, *THUMBNAIL))
        return surveyor.timeline(), hashed.digest()

    def write(self, timeline: Timeline, runner: KeyFrameRunner, target: Path) -> None:
        """As in `Moving`: segment by segment, which stay where this ends early, then all of them into one file."""
        folder = self._segments or segments_beside(target)
        segments = Segments(folder, f"{runner.key}-{target.suffix.lower()}-{av.__version__}")
        reader, _ = open_clip(self._path, self._max_pixels)
        with closing(reader):
            writer = create_clip(target, reader)
            try:
                number = self._encode(reader, writer, timeline, runner, segments)
                again, _ = open_clip(self._path, self._max_pixels)
                with closing(again):
                    writer.join(segments.packets(number), again.others())
                writer.close()
            except BaseException as error:
                writer.abandon()
                segments.discard(unless_finished=not isinstance(error, UnreadableError | PictureError))
                if isinstance(error, OSError) and segments.number():
                    kept = f"{segments.number()} of {len(timeline.segments(SEGMENT))} segments are finished and stay"
                    reason = f"cannot be written: {error.strerror or error}; {kept}, the same command continues there"
                    raise PictureError(self._path, reason) from error
                if isinstance(error, av.FFmpegError) and not isinstance(error, OSError):
                    raise UnreadableError(f"cannot be encoded ({error})") from None
                raise
        segments.discard()
        self.notices = (*self.notices, *dict.fromkeys(writer.notices))

    def _encode(
        self, reader: ClipReader, writer: ClipWriter, timeline: Timeline, runner: KeyFrameRunner, segments: Segments
    ) -> int:
        """Make the segments that are missing; how many there are. The writer gets its streams."""
        frames = (item for item in reader.content() if not isinstance(item, av.Packet))
        first = next(frames, None)
        if first is None:
            raise PictureError(self._path, _CHANGED)
        quality = self._settings.quality
        writer.begin(reader, self._facts, quality, self._settings.tags.metadata == "keep")
        wanted = timeline.segments(SEGMENT)
        done = segments.finished(wanted)
        if len(done) == len(wanted):
            return len(wanted)
        if done:
            self.notices = (f"continued at frame {done[-1].stop} of {timeline.frames}",)
        made = self._brighten(enumerate(chain([first], frames)), timeline, runner, done[-1] if done else None)
        for number, (start, stop) in enumerate(wanted[len(done) :], start=len(done)):
            path = segments.path(number, writer.codec)
            segment = create_segment(path)
            try:
                segment.begin(writer, reader, self._facts, quality)
                for frame, values in islice(made, stop - start):
                    segment.add_frame(frame, values)
                segment.close()
            except BaseException:
                segment.abandon()
                path.unlink(missing_ok=True)
                raise
            segments.keep(number, Segment(start, stop, asdict(runner.origin(stop))), path, segment)
        for _ in made:  # nothing is left, unless the clip has changed
            pass
        return len(wanted)

    def _brighten(
        self, frames: Iterator[tuple[int, Any]], timeline: Timeline, runner: KeyFrameRunner, before: Segment | None
    ) -> Iterator[tuple[Any, NDArray[Any] | None]]:
        """Each frame in order with its new values, None where it stays. before: leave the frames up to its end out."""
        waiting: deque[tuple[int, Any]] = deque()
        start = before.stop if before else 0
        origin = runner.resume(before.state) if before else 0
        number = -1
        for number, item in frames:
            if number < start:
                self._proceed(_FIRST_PASS)
            if number == start != origin:
                runner.copy(origin, start)
            if number == origin or (number >= start and number in timeline.keys and number not in runner.keys):
                self._run(number, item, runner)
            if number < start:
                continue
            waiting.append((number, item))
            for frame, ends in runner.ready(waiting, _FIRST_PASS):
                values = to_rgb(frame, self._facts.alpha)
                made = runner.finish(frame_picture(values[:, :, :3], self.depth), ends)
                if made is not None and self._facts.alpha:
                    made = np.concatenate([made, values[:, :, 3:]], axis=2)
                yield frame, made
        if waiting or number + 1 != timeline.frames:
            raise PictureError(self._path, _CHANGED)

    def _run(self, number: int, frame: Any, runner: KeyFrameRunner) -> None:
        height, width = scene_size(frame.height, frame.width)
        whole = (height, width) == (frame.height, frame.width)
        small = None if whole else reduce_frame(frame, width, height)
        runner.run(number, frame_picture(to_rgb(frame), self.depth), small, quarter_turns(frame))
