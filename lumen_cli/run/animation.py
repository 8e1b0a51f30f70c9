"""One animated picture of a run, from key frames as a clip is."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from lumen_cli.engine.scene import scene_of
from lumen_cli.engine.video import THUMBNAIL, Surveyor, Timeline, finish_frame
from lumen_cli.imaging.animation import AnimationWriter, read_facts, read_frames
from lumen_cli.imaging.colour.convert import to_unit
from lumen_cli.run.moving import Looker, frame_picture
from lumen_cli.run.operation import Settings

_LOOKING = 0.1
"""Part of the progress that the first pass counts as."""


class Animation:
    """An animation, as `run.moving` makes it. proceed: called with the part that is done."""

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
            self._proceed(_LOOKING * surveyor.count / self._facts.frames)
            hashed.update(values.data)
            whole += milliseconds
            small = cv2.resize(to_unit(values[:, :, :3]), THUMBNAIL, interpolation=cv2.INTER_AREA)
            surveyor.add(np.ascontiguousarray(small))
        self.fps = round(1000 * surveyor.count / whole, 6) if whole else None
        return surveyor.timeline(), hashed.digest()

    def write(self, timeline: Timeline, looker: Looker, target: Path) -> None:
        """As in `Moving`."""
        writer = AnimationWriter(target, self._facts, self._settings.quality, self._settings.tags.metadata == "keep")
        waiting: deque[tuple[int, tuple[np.ndarray, float]]] = deque()
        for number, (values, milliseconds) in enumerate(read_frames(self._path)):
            if number in timeline.keys:
                picture = frame_picture(values[:, :, :3], self.depth)
                scene = scene_of(picture)
                looker.look(number, picture, None if scene.whole else scene.seen.pixels)
            waiting.append((number, (values, milliseconds)))
            for (frame, length), ends in looker.ready(waiting, _LOOKING):
                made = finish_frame(frame_picture(frame[:, :, :3], self.depth), *ends, looker.strength)
                writer.add(frame if made is None else np.dstack([made, frame[:, :, 3]]), length)
        writer.close()
