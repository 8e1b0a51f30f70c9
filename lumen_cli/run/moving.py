"""Clips and animations of a run, one after the other; complete on the disk, or not at all."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from lumen_cli.engine.batch import enhance_scenes
from lumen_cli.engine.carrier import carrier_of
from lumen_cli.engine.memory import TilePlan
from lumen_cli.engine.parts import NetworkError
from lumen_cli.engine.scene import Floats, Scene, scene_of
from lumen_cli.engine.video import THUMBNAIL, KeyFrame, Light, Surveyor, Timeline, finish_frame, is_empty
from lumen_cli.errors import PictureError
from lumen_cli.files.contents import Arrived
from lumen_cli.files.places import ObjectPath
from lumen_cli.imaging.animation import AnimationWriter, read_facts, read_frames
from lumen_cli.imaging.colour.convert import to_unit
from lumen_cli.imaging.formats import is_clip_name
from lumen_cli.imaging.formats.format import UnreadableError
from lumen_cli.imaging.picture import Picture
from lumen_cli.run import Caller, Clip, Result, Task, Timings, failure
from lumen_cli.run.manifest import Manifest
from lumen_cli.run.operation import Enhance, Settings
from lumen_cli.run.save import Publisher, StorageWatch, Transport, record_files, record_of, save_files

if TYPE_CHECKING:
    from lumen_cli.run.run import Run


Ends = tuple[KeyFrame, KeyFrame | None, float]
"""The key frames around a frame, and its share of the second."""
Frame = TypeVar("Frame")


_FIRST_PASS = 0.1
"""Part of an animation's progress that the first pass counts as."""


@dataclass(frozen=True)
class Origin:
    """How a key frame came about. frame: the one that the network saw, itself or an earlier one, of which it is a copy.

    before: of the key frame before that one in its shot.
    """

    frame: int
    before: Light | None = None


class StoppedError(Exception):
    """The run ends; what is under way is not finished."""


class Moving(Protocol):
    """A clip or an animation. width, height, depth: of its frames; fps: its mean rate, None where that is not known."""

    width: int
    height: int
    depth: int
    fps: float | None
    notices: tuple[str, ...]

    def survey(self) -> tuple[Timeline, bytes]:
        """Read it once: its key frames, and 16 bytes that stand for its pictures."""

    def write(self, timeline: Timeline, runner: KeyFrameRunner, target: Path) -> None:
        """Brighten it into a file."""


def frame_picture(values: np.ndarray, depth: int) -> Picture:
    """A frame as the value that the engine works on. depth: 8 or 16, which decides what it is computed in."""
    return Picture(np.ascontiguousarray(values), None, depth, False, "clip", None, None)


class KeyFrameRunner:
    """Runs the network on the key frames of one clip.

    content: stands for the clip's pictures, and with the seed decides about its noise; running: seconds that took;
    seen: width and height of what the network saw; notes: how frames were made, where that is worth a line.
    """

    def __init__(self, maker: MovingMaker, timeline: Timeline, content: bytes) -> None:
        self._maker, self._timeline, self._content = maker, timeline, content
        self.running = 0.0
        self.seen: tuple[int, int] | None = None
        self.notes: list[str] = []
        self.keys: dict[int, KeyFrame] = {}
        self._origins: dict[int, Origin] = {}
        self._resumed: Light | None = None

    def origin(self, key: int) -> Origin:
        """What `resume` needs to continue at this key frame, whose predecessors are complete."""
        return self._origins.get(key, Origin(key))

    def resume(self, state: Mapping[str, Any]) -> int:
        """Continue behind key frames that are gone; the frame that comes next. state: an `origin`, as JSON."""
        self._resumed = Light(**state["before"]) if state["before"] else None
        return int(state["frame"])

    @property
    def key(self) -> str:
        """Stands for the clip's pictures and the settings."""
        return f"{self._content.hex()}-{self._maker.operation.settings.fingerprint()}"

    def finish(self, frame: Picture, ends: Ends) -> NDArray[Any] | None:
        """See `finish_frame`."""
        strength = self._maker.operation.settings.strength
        return finish_frame(frame, *ends, strength, carrier_of(self._maker.run.policy), self._note)

    def _note(self, line: str) -> None:
        if line not in self.notes:
            self.notes.append(line)

    def run(self, number: int, picture: Picture, small: Floats | None, turns: int = 0) -> None:
        """Run the network on a key frame.

        Args:
            number: of the frame.
            picture: the frame.
            small: the frame reduced; None where the network sees it whole.
            turns: quarter turns to the left that make it upright.
        """
        settings = self._maker.operation.settings
        seen = picture if small is None else frame_picture(small, picture.bit_depth)
        turned = frame_picture(np.rot90(seen.samples, turns), picture.bit_depth) if turns else seen
        self.seen = turned.width, turned.height
        before = self._timeline.before(number)
        last = None if before is None else self._light(before)
        if before in self.keys and is_empty(turned.pixels):
            self.keys[number], self._origins[number] = self.keys[before], self._origins[before]
            return
        begun = time.perf_counter()
        (computed,) = enhance_scenes(
            self._maker.run.network(self._maker.caller.now),
            [Scene(turned if small is None else picture, turned)],
            self._maker.run.policy,
            digests=[self._content],
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
        distance = 0 if before is None else number - before
        self.keys[number] = KeyFrame(Scene(picture, seen), result, last, distance, settings.brightness is not None)
        self._origins[number] = Origin(number, last)

    def copy(self, number: int, key: int) -> None:
        """A key frame is the one of another number, as in the run that went before."""
        self.keys[key], self._origins[key] = self.keys[number], self._origins[number]

    def _light(self, key: int) -> Light | None:
        """Of a key frame, which may lie before the point where the clip was resumed."""
        return self.keys[key].light if key in self.keys else self._resumed

    def ends(self, index: int) -> Ends | None:
        """The key frames around a frame, and its share of the second; None where they are not known yet."""
        span = self._timeline.span_of(index)
        if span.first not in self.keys or (span.last is not None and span.last not in self.keys):
            return None
        return self.keys[span.first], None if span.last is None else self.keys[span.last], span.share(index)

    def ready(self, waiting: deque[tuple[int, Frame]], first_pass: float) -> Iterator[tuple[Frame, Ends]]:
        """Take the frames from a queue whose key frames are known by now, with their `ends`, and show the progress.

        Args:
            waiting: frames with their numbers, in order.
            first_pass: part of the progress that the first pass counts as.

        Raises:
            StoppedError: the run ends.
        """
        while waiting and (ends := self.ends(waiting[0][0])) is not None:
            index, frame = waiting.popleft()
            yield frame, ends
            for key in [key for key in self.keys if self._timeline.last_uses[key] <= index]:
                del self.keys[key], self._origins[key]  # no frame after this one needs it
            self._maker.proceed(first_pass + (1 - first_pass) * (index + 1) / self._timeline.frames)


class Animation:
    """An animation. proceed: called with the part that is done."""

    depth = 8

    def __init__(self, path: Path, settings: Settings, max_pixels: int, proceed: Callable[[float], None]) -> None:
        self._path, self._settings, self._proceed = path, settings, proceed
        self._facts = read_facts(path, max_pixels)
        self.width, self.height = self._facts.width, self._facts.height
        self.fps: float | None = None
        self.notices: tuple[str, ...] = ()

    def survey(self) -> tuple[Timeline, bytes]:
        """As in `Moving`."""
        surveyor = Surveyor(self.width * self.height * 4)
        hashed = hashlib.blake2b(digest_size=16)
        whole = 0.0
        for values, milliseconds in read_frames(self._path):
            self._proceed(_FIRST_PASS * surveyor.count / self._facts.frames)
            hashed.update(values.data)
            whole += milliseconds
            small = cv2.resize(to_unit(values[:, :, :3]), THUMBNAIL, interpolation=cv2.INTER_AREA)
            surveyor.add(np.ascontiguousarray(small))
        self.fps = round(1000 * surveyor.count / whole, 6) if whole else None
        return surveyor.timeline(), hashed.digest()

    def write(self, timeline: Timeline, runner: KeyFrameRunner, target: Path) -> None:
        """As in `Moving`."""
        writer = AnimationWriter(target, self._facts, self._settings.quality, self._settings.tags.metadata == "keep")
        waiting: deque[tuple[int, tuple[np.ndarray, float]]] = deque()
        for number, (values, milliseconds) in enumerate(read_frames(self._path)):
            if number in timeline.keys:
                picture = frame_picture(values[:, :, :3], self.depth)
                scene = scene_of(picture)
                runner.run(number, picture, None if scene.whole else scene.seen.pixels)
            waiting.append((number, (values, milliseconds)))
            for (frame, length), ends in runner.ready(waiting, _FIRST_PASS):
                made = runner.finish(frame_picture(frame[:, :, :3], self.depth), ends)
                writer.add(frame if made is None else np.dstack([made, frame[:, :, 3]]), length)
        writer.close()


@dataclass(frozen=True)
class MovingMaker:
    """Makes the clips and animations of a run. caller: where it stops the run, the clip under way is given up."""

    run: Run
    operation: Enhance
    caller: Caller
    storage: StorageWatch = field(default_factory=StorageWatch)

    def proceed(self, part: float) -> None:
        """Show the part of the clip that is done, 0 to 1; StoppedError where the run ends."""
        if self.caller.stop.is_set():
            raise StoppedError
        self.caller.share(part)

    def results(self, transport: Transport, manifests: Mapping[Path, Manifest]) -> Iterator[Result]:
        """Make one after the other, until all are made, the run ends, or there is no room for another.

        manifests: by the folder of outputs; those that record.
        """
        with closing(transport.arrivals()) as arrivals:
            for task, arrived in arrivals:
                publisher = transport.publisher(task, arrived, self.run.tags.rules.metadata == "keep")
                result = self.make(task, manifests.get(task.root), arrived, publisher)
                if result is None:
                    return
                yield result
                if self.storage.trouble:
                    return

    def make(self, task: Task, manifest: Manifest | None, arrived: Arrived, publisher: Publisher) -> Result | None:
        """Make one; None where the run ended before it was finished."""
        path = task.job.source.path
        try:
            return self._make(task, manifest, arrived, publisher)
        except StoppedError:
            return None
        except UnreadableError as error:
            return failure(task, PictureError(path, " ".join(str(error).split()), remedy=error.remedy))
        except Exception as error:
            self.storage.failed(error, task.job.target.parent)
            return failure(task, error)

    def _make(self, task: Task, manifest: Manifest | None, arrived: Arrived, publisher: Publisher) -> Result:
        path = arrived.path
        if arrived.error is not None:
            raise arrived.error
        if not path.is_file():
            raise PictureError(path, "is no longer there")
        times = arrived.times() if self.run.options.preserve_times else None
        self.caller.now(f"looking at {path.name}")
        started = time.perf_counter()
        original = arrived.original()
        moving = self._open(path, task.job.target)
        timeline, content = moving.survey()
        if not timeline.frames:
            raise UnreadableError("it has no pictures that can be decoded")
        timings = Timings(read=time.perf_counter() - started)
        threshold = self.run.options.darker_than
        if threshold is not None and timeline.light >= threshold:
            reason = f"bright enough: its mean light is {timeline.light:.2f}, the threshold {threshold:g}"
            return Result(task, "skipped", reason, moving.width, moving.height, timings=timings)
        self.caller.now(f"{self.operation.doing} {path.name}")
        runner = KeyFrameRunner(self, timeline, content)
        record = record_of(task, original, content.hex(), self.operation.settings.fingerprint())
        begun = time.perf_counter()
        saved = save_files(
            [(task.job.target, partial(moving.write, timeline, runner))],
            path,
            self.run.tags,
            times=times,
            recording=partial(record_files, task, record, original, manifest),
            publisher=publisher,
        )
        self.storage.written()
        write, speed = time.perf_counter() - begun - runner.running, timeline.frames / (time.perf_counter() - started)
        keys = len(timeline.keys)
        through = f"{timeline.frames} frames, {keys} of them through the network; {speed:.1f} frames/s"
        return Result(
            task,
            "done",
            width=moving.width,
            height=moving.height,
            size=saved.size,
            timings=replace(timings, run=runner.running, write=write),
            notices=(through, *moving.notices, *runner.notes),
            seen=runner.seen,
            precision=self.run.policy.precision_for(moving.depth),
            clip=Clip(timeline.frames, keys, moving.fps, round(speed, 3)),
        )

    def _open(self, path: Path, target: Path) -> Moving:
        settings = self.operation.settings
        if not is_clip_name(path.name):
            return Animation(path, settings, self.run.options.max_pixels, self.proceed)
        from lumen_cli.run.video import Video, segments_beside

        kept = None if isinstance(target, ObjectPath) else segments_beside(target)
        return Video(path, settings, self.run.options.max_pixels, self.proceed, kept)
