"""A clip of a run: a first pass chooses key frames, a second brightens; complete on the disk, or not at all."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np

from lumen_cli.engine.batch import NetworkError, enhance_scenes
from lumen_cli.engine.memory import TilePlan
from lumen_cli.engine.scene import Scene, scene_size
from lumen_cli.engine.video import THUMBNAIL, KeyFrame, Surveyor, Timeline, finish_frame, is_empty
from lumen_cli.errors import PictureError
from lumen_cli.files.contents import Arrived
from lumen_cli.imaging.formats.format import UnreadableError
from lumen_cli.imaging.picture import Picture
from lumen_cli.imaging.video import (
    ClipFacts,
    ClipReader,
    ClipWriter,
    create_clip,
    open_clip,
    quarter_turns,
    reduce_frame,
    to_rgb,
)
from lumen_cli.run.manifest import Manifest
from lumen_cli.run.operation import Enhance
from lumen_cli.run.save import Renaming, record_files, record_of, save_files
from lumen_cli.run.task import Clip, Result, Task, Timings, failure

if TYPE_CHECKING:
    from lumen_cli.engine.device import DevicePolicy
    from lumen_cli.imaging.tags.writer import TagWriter
    from lumen_cli.networks.base import LowLightModel
    from lumen_cli.run.run import RunOptions

_LOOKING = 0.05
"""Part of the progress that the first pass counts as."""


class _StoppedError(Exception):
    """The run ends; the clip is not finished."""


@dataclass(frozen=True)
class ClipMaker:
    """Makes the clips of a run, one after the other.

    network: called when the first clip needs it; stop: once set, the clip under way is given up; share: called with the
    part of the clip that is done, 0 to 1.
    """

    operation: Enhance
    policy: DevicePolicy
    options: RunOptions
    tags: TagWriter
    network: Callable[[], LowLightModel]
    stop: threading.Event
    now: Callable[[str], None]
    share: Callable[[float], None]

    def make(self, task: Task, manifest: Manifest | None, arrived: Arrived, placing: Renaming) -> Result | None:
        """Make one clip; None where the run ended before it was finished."""
        path = task.job.source.path
        try:
            return self._make(task, manifest, arrived, placing)
        except _StoppedError:
            return None
        except UnreadableError as error:
            return failure(task, PictureError(path, " ".join(str(error).split()), remedy=error.remedy))
        except av.FFmpegError as error:
            return failure(task, PictureError(path, f"cannot be encoded ({' '.join(str(error).split())})"))
        except Exception as error:
            return failure(task, error)

    def _make(self, task: Task, manifest: Manifest | None, arrived: Arrived, placing: Renaming) -> Result:
        path = arrived.path
        if arrived.error is not None:
            raise arrived.error
        if not path.is_file():
            raise PictureError(path, "is no longer there")
        times = arrived.times() if self.options.preserve_times else None
        self.now(f"looking at {path.name}")
        started = time.perf_counter()
        original = arrived.original()
        timeline, content, facts = self._survey(path)
        timings = Timings(read=time.perf_counter() - started)
        threshold = self.options.darker_than
        if threshold is not None and timeline.light >= threshold:
            reason = f"bright enough: its mean light is {timeline.light:.2f}, the threshold {threshold:g}"
            return Result(task, "skipped", reason, facts.width, facts.height, timings=timings)
        self.now(f"{self.operation.doing} {path.name}")
        making = _Making(self, path, facts, timeline, content)
        record = record_of(task, original, content.hex(), self.operation.settings.fingerprint())
        begun = time.perf_counter()
        saved = save_files(
            [(task.job.target, making.write)],
            path,
            self.tags,
            times=times,
            recording=partial(record_files, task, record, original, manifest),
            placing=placing,
        )
        seconds = time.perf_counter() - begun
        clip = Clip(
            timeline.frames,
            len(timeline.keys),
            None if facts.rate is None else round(float(facts.rate), 6),
            round(timeline.frames / (time.perf_counter() - started), 3),
        )
        told = f"{clip.frames} frames, {clip.key_frames} of them through the network; {clip.speed:.1f} frames/s"
        return Result(
            task,
            "done",
            width=facts.width,
            height=facts.height,
            size=saved.size,
            timings=replace(timings, run=making.running, write=seconds - making.running),
            notices=(told, *making.notices),
            seen=making.seen,
            precision=self.policy.precision_for(facts.depth),
            clip=clip,
        )

    def _survey(self, path: Path) -> tuple[Timeline, bytes, ClipFacts]:
        """The first pass: key frames, and 16 bytes that stand for the pictures."""
        reader, facts = open_clip(path, self.options.max_pixels)
        with closing(reader):
            surveyor = Surveyor(facts.frame_bytes)
            hashed = hashlib.blake2b(digest_size=16)
            estimate = max(1, reader.stream.frames or round((facts.duration or 0) * float(facts.rate or 25)))
            for item in reader.content(every=False):
                if self.stop.is_set():
                    raise _StoppedError
                if isinstance(item, av.Packet):
                    hashed.update(item)
                    continue
                surveyor.add(reduce_frame(item, *THUMBNAIL))
                self.share(_LOOKING * min(1.0, surveyor.count / estimate))
        timeline = surveyor.timeline()
        if not timeline.frames:
            raise UnreadableError("it has no pictures that can be decoded")
        return timeline, hashed.digest(), facts


class _Making:
    """The second pass over one clip."""

    def __init__(self, maker: ClipMaker, path: Path, facts: ClipFacts, timeline: Timeline, content: bytes) -> None:
        self.maker, self.path, self.facts, self.timeline, self.content = maker, path, facts, timeline, content
        self.running = 0.0
        """Seconds in the network."""
        self.seen: tuple[int, int] | None = None
        self.notices: tuple[str, ...] = ()
        self._keys: dict[int, KeyFrame] = {}

    def write(self, target: Path) -> None:
        """Brighten the clip into a new file."""
        reader, _ = open_clip(self.path, self.maker.options.max_pixels)
        with closing(reader):
            writer = create_clip(target)
            try:
                self._fill(reader, writer)
            except BaseException:
                writer.abandon()
                raise
            writer.close()
        self.notices = tuple(dict.fromkeys(writer.notices))

    def _fill(self, reader: ClipReader, writer: ClipWriter) -> None:
        settings = self.maker.operation.settings
        early: list[Any] = []
        begun = False
        for item in self._brighten(reader):
            if not begun and isinstance(item, av.Packet):
                early.append(item)
                continue
            if not begun:
                writer.begin(reader, self.facts, settings.quality, settings.tags.metadata == "keep")
                begun = True
                for packet in early:
                    writer.copy_packet(packet)
            if isinstance(item, av.Packet):
                writer.copy_packet(item)
            else:
                writer.add_frame(*item)

    def _brighten(self, reader: ClipReader) -> Iterator[Any]:
        """Each frame in order with its new values, None where it stays, and other streams' packets as they come."""
        waiting: deque[tuple[int, Any]] = deque()
        keys, uses = self.timeline.keys, self.timeline.last_uses()
        number = 0
        for item in reader.content():
            if self.maker.stop.is_set():
                raise _StoppedError
            if isinstance(item, av.Packet):
                yield item
                continue
            if number in keys:
                self._keys[number] = self._look(number, item)
            waiting.append((number, item))
            number += 1
            while waiting and self._is_ready(waiting[0][0]):
                index, frame = waiting.popleft()
                yield frame, self._finish(index, frame)
                for key in [key for key in self._keys if uses[key] <= index]:
                    del self._keys[key]
                self.maker.share(_LOOKING + (1 - _LOOKING) * (index + 1) / self.timeline.frames)
        if waiting or number != self.timeline.frames:
            raise PictureError(self.path, "changed while lumen worked on it; run again for the new version")

    def _is_ready(self, index: int) -> bool:
        span = self.timeline.span_of(index)
        return span.first in self._keys and (span.last is None or span.last in self._keys)

    def _look(self, number: int, frame: Any) -> KeyFrame:
        """Run the network on a frame."""
        settings = self.maker.operation.settings
        depth = self.facts.depth
        picture = _picture(to_rgb(frame), depth)
        height, width = scene_size(picture.height, picture.width)
        turns = quarter_turns(frame)
        small = picture.values if (height, width) == (frame.height, frame.width) else reduce_frame(frame, width, height)
        assert small is not None
        upright = picture if small is picture.values else _picture(small, depth)
        turned = _picture(np.rot90(small, turns), depth) if turns else upright
        self.seen = turned.width, turned.height
        before = self.timeline.before(number)
        if before is not None and is_empty(turned.pixels):
            return self._keys[before]
        begun = time.perf_counter()
        (computed,) = enhance_scenes(
            self.maker.network(),
            [Scene(turned if upright is picture else picture, turned)],
            self.maker.policy,
            digests=[self.content],
            seed=settings.seed,
            steps=settings.steps,
            brightness=settings.brightness,
            illumination_ratio=settings.illumination_ratio,
            plan=TilePlan(),
        )
        self.running += time.perf_counter() - begun
        if isinstance(computed.value, NetworkError):
            raise computed.value
        result = np.ascontiguousarray(np.rot90(computed.value, -turns))
        scene = Scene(picture, upright)
        if before is None:
            return KeyFrame(scene, result, keep_ratio=settings.brightness is not None)
        return KeyFrame(scene, result, self._keys[before], number - before, settings.brightness is not None)

    def _finish(self, index: int, frame: Any) -> np.ndarray | None:
        span = self.timeline.span_of(index)
        values = to_rgb(frame, self.facts.alpha)
        result = finish_frame(
            _picture(values[:, :, :3], self.facts.depth),
            self._keys[span.first],
            None if span.last is None else self._keys[span.last],
            span.share(index),
            self.maker.operation.settings.strength,
        )
        if result is None or not self.facts.alpha:
            return result
        return np.concatenate([result, values[:, :, 3:]], axis=2)


def _picture(values: np.ndarray, depth: int) -> Picture:
    """A frame as the value that the engine works on. depth: 8 or 16, which decides what it is computed in."""
    return Picture(np.ascontiguousarray(values), None, depth, False, "clip", None, None)
