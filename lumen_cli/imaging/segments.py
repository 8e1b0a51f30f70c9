"""A clip's encoded pictures in segments, which outlive an interrupted run: a folder of files beside the output.

`NUMBER.nut` (or `.mov`) has the packets of a segment and plays. `NUMBER.json` completes it: the exact times of its
packets, and what the next segment needs to continue. At the end the packets go into the container of the output.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Any

import av

from lumen_cli.atomic import TEMPORARY_PREFIX, atomic_file
from lumen_cli.imaging.formats.format import UnreadableError
from lumen_cli.imaging.video_writer import SegmentWriter

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
