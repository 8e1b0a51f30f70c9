"""Frames of a clip: which of them the network sees, and what the others get from those.

The network runs on key frames only. Each gives local colour maps (`full_resolution`); a frame between two key frames
gets maps between theirs, so the light changes evenly. A cut ends this: the frame after it is a key frame, and nothing
passes from one shot to the next. A flash of a few frames has a key frame of its own, and the shot goes on behind it.
All key frames of a clip have the same noise. They are chosen by a first pass over thumbnails (`Surveyor`).

Within a shot the light of the result changes as much as that of the clip and little more (`KeyFrame`): a network's
decision that a scene is now bright enough takes effect over many frames. Frames that fade to black keep the last maps.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lumen_cli.engine.carrier import Carrier, on_device_or_cpu
from lumen_cli.engine.colour_maps import Tone, fit_maps, tone_for
from lumen_cli.engine.full_resolution import FullResolution, plan
from lumen_cli.engine.light import STRUCTURE, structure
from lumen_cli.engine.scene import Floats, Scene, gain_for, multiply_light, reader_of, render
from lumen_cli.imaging.colour.convert import to_linear
from lumen_cli.imaging.picture import Picture
from lumen_cli.networks.base import as_tensor

THUMBNAIL = 64, 36
"""Columns and rows of the picture on which frames are compared."""
LONGEST = 24
"""Frames from one key frame to the next, at most."""
_HELD_BYTES = 256 << 20
"""Bytes of frames that may wait for the next key frame. Fixed, so that key frames are the same on every machine."""
_MOVED = 0.06
"""Change since the last key frame that asks for another, see `_change`."""
_CUT = 0.1
"""Change from one frame to the next that is a cut or a flash."""
_ALWAYS = 1e-3
"""Added to the change of light from one frame to the next, so that a clip whose light stays goes on evenly."""
_FLASH = 3
"""Frames that a flash lasts at most."""
_TARGET, _LARGEST_GAIN = 0.5, 16.0
"""Mean of a thumbnail through the tone for comparisons, and the greatest gain of that."""
_STEPS = 2
"""Gains of tones that lie between one and its double, so that neighbouring key frames mostly share a tone."""
_DRIFT = 0.002
"""Share by which the light of a result may change from frame to frame beyond the clip's own change."""
_FAINTEST = 1e-6
_BLENDED = ("maps", "energies", "deviation", "stops")
"""What changes evenly from one key frame to the next."""


@dataclass(frozen=True)
class Span:
    """Frames from `start` to before `stop`, and the key frames between which they lie.

    last: None for a shot's last frames, which have `first` alone; shares: how much of `last` each frame gets, 0 to 1.
    """

    start: int
    stop: int
    first: int
    last: int | None = None
    shares: tuple[float, ...] = ()

    def share(self, index: int) -> float:
        """How much of the last key frame a frame gets, 0 to 1."""
        return self.shares[index - self.start] if self.shares else 0.0


@dataclass(frozen=True)
class Timeline:
    """What a first pass found. spans: all frames in order; light: mean linear light of the clip, 0 to 1."""

    spans: tuple[Span, ...]
    light: float

    @property
    def frames(self) -> int:
        """How many frames there are."""
        return self.spans[-1].stop if self.spans else 0

    @cached_property
    def keys(self) -> frozenset[int]:
        """The numbers of the key frames."""
        return frozenset(key for span in self.spans for key in (span.first, span.last) if key is not None)

    def span_of(self, index: int) -> Span:
        """The span of a frame."""
        return self.spans[bisect_right(self.spans, index, key=lambda span: span.start) - 1]

    def before(self, key: int) -> int | None:
        """The key frame before one in the same shot."""
        return next((span.first for span in self.spans if span.last == key), None)

    def segments(self, least: int) -> list[tuple[int, int]]:
        """Start and end of parts of at least so many frames, each of which needs no key frame before its first."""
        starts, needed = [], self.frames
        for span in reversed(self.spans):
            needed = min(needed, span.first)
            if needed == span.start:
                starts.append(span.start)
        cuts = [0]
        for start in reversed(starts):
            cuts += [start] if start - cuts[-1] >= least else []
        return list(zip(cuts, [*cuts[1:], self.frames], strict=True))

    @cached_property
    def last_uses(self) -> dict[int, int]:
        """For each key frame the last frame that gets something of it."""
        return {key: span.stop - 1 for span in self.spans for key in (span.first, span.last) if key is not None}


class Surveyor:
    """Chooses the key frames of a clip from thumbnails of all its frames.

    Args:
        frame_bytes: of a frame while it waits; large frames get key frames more often.
    """

    def __init__(self, frame_bytes: int) -> None:
        self._longest = max(2, min(LONGEST, _HELD_BYTES // max(1, frame_bytes)))
        self._spans: list[Span] = []
        self._open: list[Span] = []
        """Those since the last key frame."""
        self.count, self._light = 0, 0.0
        self._start = self._key = 0
        self._key_seen: Floats | None = None
        self._before: Floats | None = None
        self._sudden: list[Floats] = []
        self._path: list[float] = []
        """How far the light has changed from the last key frame to each frame."""

    def add(self, thumbnail: Floats) -> None:
        """Take the next frame, h×w×3 sRGB values in [0, 1]."""
        self._light += _mean_light(thumbnail)
        self._take(thumbnail, self.count)
        self.count += 1

    def timeline(self) -> Timeline:
        """What was found, after the last frame."""
        while self._sudden:
            self._settle_cut(self.count - len(self._sudden))
        self._close(self.count)
        return Timeline(tuple(self._spans), self._light / max(1, self.count))

    def _take(self, seen: Floats, index: int) -> None:
        if self._before is None:
            self._begin(seen, index)
        elif self._sudden:
            start = index - len(self._sudden)
            if _change(seen, self._before) < _CUT:
                self._flash(start, index)
                self._follow(seen, index)
            else:
                self._sudden.append(seen)
                if len(self._sudden) > _FLASH:
                    self._settle_cut(start)
        elif _change(seen, self._before) >= _CUT:
            self._sudden.append(seen)
        else:
            self._follow(seen, index)

    def _begin(self, seen: Floats, index: int) -> None:
        """A new shot."""
        self._start = self._key = index
        self._key_seen = self._before = seen
        self._path = [0.0]

    def _follow(self, seen: Floats, index: int) -> None:
        """The next frame of a shot."""
        assert self._key_seen is not None
        assert self._before is not None
        lights = (max(_mean_light(each), _FAINTEST) for each in (seen, self._before))
        self._path.append(self._path[-1] + abs(math.log(next(lights) / next(lights))) + _ALWAYS)
        self._before = seen
        if index - self._key >= self._longest or _change(seen, self._key_seen) >= _MOVED:
            self._pause(index)
            self._spans += [self._complete(span, index) if span.first == self._key else span for span in self._open]
            self._open = []
            self._path = [0.0]
            self._start = self._key = index
            self._key_seen = seen

    def _complete(self, span: Span, key: int) -> Span:
        """A span, now that its last key frame is known: frames get of it as the clip's light has changed."""
        whole = self._path[-1]
        part = self._path[span.start - span.first : span.stop - span.first]
        return replace(span, last=key, shares=tuple(round(length / whole, 4) for length in part))

    def _pause(self, index: int) -> None:
        """The shot's frames up to this one are a span."""
        if index > self._start:
            self._open.append(Span(self._start, index, self._key))

    def _close(self, index: int) -> None:
        """The shot ends before this frame."""
        self._pause(index)
        self._spans += self._open
        self._open = []

    def _settle_cut(self, index: int) -> None:
        """The sudden frames stay: they begin a shot at `index`."""
        self._close(index)
        first, *more = self._sudden
        self._sudden = []
        self._begin(first, index)
        for number, seen in enumerate(more, start=index + 1):
            self._take(seen, number)

    def _flash(self, start: int, stop: int) -> None:
        """The sudden frames were a flash; the shot goes on behind it."""
        self._pause(start)
        self._open.append(Span(start, stop, start))
        self._sudden = []
        self._start = stop
        self._path += [self._path[-1]] * (stop - start)


def _change(one: Floats, other: Floats) -> float:
    """How much two thumbnails differ, 0 to 1: the mean difference as it looks once the darker one is brightened."""
    mean = max(min(float(one.mean()), float(other.mean())), _TARGET / _LARGEST_GAIN)
    tone = Tone(max(_TARGET / mean, 1.0))
    return float(np.abs(tone(one) - tone(other)).mean())


def is_empty(small: Floats) -> bool:
    """Whether a frame shows too little for a network to decide about, as at the end of a fade."""
    return structure(as_tensor(small)) < STRUCTURE[1]


@dataclass(frozen=True)
class Light:
    """Mean linear light, 0 to 1, of what the network saw of a key frame, and of what it made of that."""

    given: float
    made: float

    def follow(self, result: Floats, given: float, distance: int) -> Floats:
        """A later result of the same shot, its light between this key frame's and one that changed as the clip did.

        Args:
            result: of the network.
            given: mean linear light of what it saw.
            distance: frames since this key frame.
        """
        moved = math.log(max(given, _FAINTEST) / max(self.given, _FAINTEST))
        wanted = math.log(max(_mean_light(result), _FAINTEST) / max(self.made, _FAINTEST))
        least, most = min(0.0, moved) - _DRIFT * distance, max(0.0, moved) + _DRIFT * distance
        excess = wanted - min(max(wanted, least), most)
        if excess == 0.0:
            return result
        steady: Floats = np.clip(multiply_light(result, math.exp(-excess)), 0, 1)
        return steady


class KeyFrame:
    """What the network made of one frame, ready for that frame and its neighbours.

    Args:
        scene: the frame, and what the network saw of it.
        result: of the network, h×w×3 in [0, 1].
        before: of the key frame before it in the same shot; `distance`: how many frames before.
        keep_ratio: as in `scene.finish`.
    """

    def __init__(
        self, scene: Scene, result: Floats, before: Light | None = None, distance: int = 0, keep_ratio: bool = False
    ) -> None:
        small = scene.seen.pixels
        given = _mean_light(small)
        if before is not None:
            result = before.follow(result, given, distance)
        self.light = Light(given, _mean_light(result))
        self.unchanged = np.array_equal(small, result)
        self.gain = tone_for(small, result).gain
        self._scene, self._small, self._result, self._keep_ratio = scene, small, result, keep_ratio
        self._plans: dict[float, tuple[FullResolution, float]] = {}

    def plan(self, gain: float, carrier: Carrier | None = None) -> tuple[FullResolution, float]:
        """The way to full size through a tone of this gain, and a factor on the light of what it gives."""
        if gain not in self._plans:
            picture = self._scene.picture
            size = picture.height, picture.width
            fit = fit_maps if carrier is None else carrier.fit
            full = plan(reader_of(picture), self._small, self._result, size, tone=Tone(gain), fit=fit)
            factor = gain_for(self._scene, self._result, full, carrier) if self._keep_ratio else 1.0
            self._plans[gain] = full, factor
        return self._plans[gain]


def finish_frame(
    frame: Picture,
    first: KeyFrame,
    last: KeyFrame | None,
    share: float,
    strength: float = 1.0,
    carrier: Carrier | None = None,
    warn: Callable[[str], None] = lambda line: None,
) -> NDArray[Any] | None:
    """The full-size result for a frame between two key frames; None where the frame stays as it is.

    Args:
        frame: any frame of the shot.
        first: the key frame before, or the frame itself.
        last: the one behind it; None for a frame that has none in its shot.
        share: how much of `last` it gets, 0 to 1.
        strength: as in `scene.finish`.
        carrier: as in `scene.finish`.
        warn: as in `scene.finish`.

    Returns:
        H×W×3 of the frame's size, integers of its kind.
    """
    ends = [first] if last is None else [first, last]
    if strength == 0.0 or all(key.unchanged for key in ends):
        return None

    def carry(carrier: Carrier | None) -> NDArray[Any]:
        gain = _on_ladder([key.gain for key in ends])
        plans = [key.plan(gain, carrier) for key in ends]
        full, factor = plans[0]
        if len(plans) > 1 and share > 0.0:
            other, after = plans[1]
            weight = np.float32(share)
            blended = {
                name: getattr(full, name) + weight * (getattr(other, name) - getattr(full, name)) for name in _BLENDED
            }
            full, factor = replace(full, **blended), factor ** (1 - share) * after**share
        full = replace(full, read=reader_of(frame))
        return render(full, frame, strength=strength, gain=factor, carrier=carrier)

    return on_device_or_cpu(carrier, carry, warn)


def _on_ladder(gains: Sequence[float]) -> float:
    """The geometric mean of gains, rounded to a step."""
    mean = math.exp(sum(math.log(gain) for gain in gains) / len(gains))
    return float(2 ** (round(_STEPS * math.log2(mean)) / _STEPS))


def _mean_light(pixels: Floats) -> float:
    """Mean linear light of sRGB values."""
    return float(to_linear(torch.from_numpy(pixels).clamp(0, 1)).mean(dtype=torch.float64))
