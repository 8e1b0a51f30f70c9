"""One clip of a run: a first pass chooses key frames, a second brightens."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import av
import numpy as np

from lumen_cli.engine.scene import scene_size
from lumen_cli.engine.video import THUMBNAIL, Surveyor, Timeline, finish_frame
from lumen_cli.errors import PictureError
from lumen_cli.imaging.formats.format import UnreadableError
from lumen_cli.imaging.video import ClipReader, open_clip, quarter_turns, reduce_frame, to_rgb
from lumen_cli.imaging.video_writer import ClipWriter, create_clip
from lumen_cli.run.moving import Looker, frame_picture
from lumen_cli.run.operation import Settings

_LOOKING = 0.05
"""Part of the progress that the first pass counts as."""


class Video:
    """A clip, as `run.moving` makes it. proceed: called with the part that is done."""

    def __init__(self, path: Path, settings: Settings, max_pixels: int, proceed: Callable[[float], None]) -> None:
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
            for item in reader.content(every=False):
                self._proceed(_LOOKING * min(1.0, surveyor.count / estimate))
                if isinstance(item, av.Packet):
                    hashed.update(item)
                else:
                    surveyor.add(reduce_frame(item, *THUMBNAIL))
        return surveyor.timeline(), hashed.digest()

    def write(self, timeline: Timeline, looker: Looker, target: Path) -> None:
        """As in `Moving`."""
        reader, _ = open_clip(self._path, self._max_pixels)
        with closing(reader):
            writer = create_clip(target, reader)
            try:
                self._fill(reader, writer, timeline, looker)
                writer.close()
            except BaseException as error:
                writer.abandon()
                if isinstance(error, av.FFmpegError) and not isinstance(error, OSError):
                    raise UnreadableError(f"cannot be encoded ({error})") from None
                raise
        self.notices = tuple(dict.fromkeys(writer.notices))

    def _fill(self, reader: ClipReader, writer: ClipWriter, timeline: Timeline, looker: Looker) -> None:
        early: list[Any] = []
        begun = False
        for item in self._brighten(reader, timeline, looker):
            if not begun and isinstance(item, av.Packet):
                early.append(item)
                continue
            if not begun:
                writer.begin(reader, self._facts, self._settings.quality, self._settings.tags.metadata == "keep")
                begun = True
                for packet in early:
                    writer.copy_packet(packet)
            if isinstance(item, av.Packet):
                writer.copy_packet(item)
            else:
                writer.add_frame(*item)

    def _brighten(self, reader: ClipReader, timeline: Timeline, looker: Looker) -> Iterator[Any]:
        """Each frame in order with its new values, None where it stays, and other streams' packets as they come."""
        waiting: deque[tuple[int, Any]] = deque()
        keys, number = timeline.keys, 0
        for item in reader.content():
            if isinstance(item, av.Packet):
                yield item
                continue
            if number in keys:
                self._look(number, item, looker)
            waiting.append((number, item))
            number += 1
            for frame, ends in looker.ready(waiting, _LOOKING):
                values = to_rgb(frame, self._facts.alpha)
                made = finish_frame(frame_picture(values[:, :, :3], self.depth), *ends, looker.strength)
                if made is not None and self._facts.alpha:
                    made = np.concatenate([made, values[:, :, 3:]], axis=2)
                yield frame, made
        if waiting or number != timeline.frames:
            raise PictureError(self._path, "changed while lumen worked on it; run again for the new version")

    def _look(self, number: int, frame: Any, looker: Looker) -> None:
        height, width = scene_size(frame.height, frame.width)
        whole = (height, width) == (frame.height, frame.width)
        small = None if whole else reduce_frame(frame, width, height)
        looker.look(number, frame_picture(to_rgb(frame), self.depth), small, quarter_turns(frame))
