"""One clip of a run: a first pass chooses key frames, a second brightens. Its encoded pictures become segments.

Segments outlive an interrupted run: a folder of files beside the output. `NUMBER.nut` (or `.mov`) has the packets of a
segment and plays. `NUMBER.json` completes it: the exact times of its packets, and what the next segment needs to
continue. At the end the packets go into the container of the output.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from lumen_cli.atomic import TEMPORARY_PREFIX, atomic_file
from lumen_cli.engine.scene import scene_size
from lumen_cli.engine.video import THUMBNAIL, Surveyor, Timeline
from lumen_cli.errors import PictureError
from lumen_cli.imaging.formats.format import UnreadableError
from lumen_cli.imaging.video import ClipReader, open_clip, quarter_turns, reduce_frame, to_rgb
from lumen_cli.imaging.video_writer import ClipWriter, SegmentWriter, create_clip, create_segment
from lumen_cli.run.moving import KeyFrameRunner, frame_picture
from lumen_cli.run.operation import Settings

_NOT_IN_NUT = ("prores", "qtrle")
"""Codecs that NUT, which takes all others, does not hold."""
_LONGEST_NAME = 200
"""Bytes of an output's name that the name of the folder can have; file systems take 255."""


@dataclass(frozen=True)
class Segment:
    """A complete one: frames from `start` to before `stop`; state: what the next one needs, as JSON has it."""

    start: int
    stop: int
    state: Mapping[str, Any]


class Segments:
    """The segments of one clip.

    Args:
        folder: for their files; it is made when the first one is begun.
        key: stands for the source and the settings. Segments of another key are removed.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._folder, self._key = folder, key

    def finished(self, wanted: Sequence[tuple[int, int]]) -> list[Segment]:
        """The complete segments from the first on, of these starts and ends; all other files are removed."""
        found: list[Segment] = []
        for start, stop in wanted:
            record = self._read(len(found))
            if record is None or (record["start"], record["stop"]) != (start, stop):
                break
            found.append(Segment(start, stop, record["state"]))
        kept = {self._record(number).stem for number in range(len(found))}
        for path in self._folder.iterdir() if self._folder.is_dir() else ():
            if path.stem not in kept:
                path.unlink()
        return found

    def path(self, number: int, codec: str) -> Path:
        """The file for the packets of a segment that is begun."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self._record(number).with_suffix(".mov" if codec in _NOT_IN_NUT else ".nut")

    def keep(self, number: int, segment: Segment, packets: Path, writer: SegmentWriter) -> None:
        """Complete a segment, whose file of packets is closed."""
        descriptor = os.open(packets, os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        record = {
            "key": self._key,
            "start": segment.start,
            "stop": segment.stop,
            "file": packets.name,
            "bytes": packets.stat().st_size,
            "state": segment.state,
            "ticks": str(writer.ticks),
            "times": writer.times,
        }
        with atomic_file(self._record(number)) as temporary:
            temporary.write_text(json.dumps(record), encoding="utf-8")

    def packets(self, number: int) -> Iterator[Any]:
        """The packets of the first so many segments, all complete, with times of the clip."""
        last: list[int] = []
        delay = None
        for index in range(number):
            record = self._read(index)
            if record is None:
                raise UnreadableError(f"a segment is gone from {self._folder}; run again")
            times = record["times"]
            shown = sorted(pts for pts, _, _ in times)
            if delay is None:
                delay = sum(dts < shown[0] for _, dts, _ in times)
                decoded = [dts for _, dts, _ in times]
            else:
                # An encoder begins each segment as if nothing came before; as one stream, a packet is decoded when
                # the picture is shown that lies `delay` before it.
                decoded = (last + shown)[: len(times)]
            last = shown[len(shown) - delay :] if len(shown) >= delay else (last + shown)[-delay:]
            ticks = Fraction(record["ticks"])
            with av.open(os.fspath(self._folder / record["file"])) as container:
                packets = (packet for packet in container.demux(video=0) if packet.size)
                for packet, (pts, _, duration), dts in zip(packets, times, decoded, strict=True):
                    packet.pts, packet.dts, packet.duration, packet.time_base = pts, dts, duration, ticks
                    yield packet

    def discard(self, unless_finished: bool = False) -> None:
        """Remove the folder. unless_finished: keep it where a segment in it is complete."""
        if unless_finished and self._read(0) is not None:
            return
        shutil.rmtree(self._folder, ignore_errors=True)

    def number(self) -> int:
        """How many are complete, from the first on."""
        return next(index for index in count() if self._read(index) is None)

    def _record(self, number: int) -> Path:
        return self._folder / f"{number:05}.json"

    def _read(self, number: int) -> dict[str, Any] | None:
        """The record of a complete segment of this key."""
        try:
            record: dict[str, Any] = json.loads(self._record(number).read_text(encoding="utf-8"))
            size = (self._folder / record["file"]).stat().st_size
            whole = record["key"] == self._key and record["bytes"] == size
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return record if whole else None


def segments_beside(target: Path) -> Path:
    """The folder for the segments of an output: hidden, and the same in every run."""
    name = os.fsencode(target.name)
    short = target.name if len(name) <= _LONGEST_NAME else hashlib.blake2b(name, digest_size=16).hexdigest()
    return target.with_name(f"{TEMPORARY_PREFIX}segments-{short}")


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
