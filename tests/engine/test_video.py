"""Key frames: where they lie, and light that changes evenly between them."""

from __future__ import annotations

import numpy as np
import pytest

from lumen_cli.api import picture_from_array
from lumen_cli.engine.scene import Scene
from lumen_cli.engine.video import LONGEST, KeyFrame, Surveyor, Timeline, finish_frame, is_empty
from tests.clips import dark_frames


def thumbnail(level: float, seed: int = 0) -> np.ndarray:
    """A scene of its own for each seed, of this mean value."""
    return (level * np.random.default_rng(seed).uniform(0.2, 1.8, (36, 64, 3))).astype(np.float32)


def survey(frames: list[np.ndarray], frame_bytes: int = 1) -> Timeline:
    surveyor = Surveyor(frame_bytes)
    for frame in frames:
        surveyor.add(frame)
    return surveyor.timeline()


def shape(timeline: Timeline) -> list[tuple[int, int, int, int | None]]:
    return [(span.start, span.stop, span.first, span.last) for span in timeline.spans]


def test_a_scene_that_stands_still_has_a_key_frame_every_so_many_frames() -> None:
    timeline = survey([thumbnail(0.1)] * 60)
    assert shape(timeline) == [(0, LONGEST, 0, LONGEST), (LONGEST, 48, LONGEST, 48), (48, 60, 48, None)]
    assert [timeline.span_of(6).share(index) for index in (0, 6, 12)] == pytest.approx([0, 0.25, 0.5], abs=1e-3)
    assert survey([thumbnail(0.1)] * 60, 64 << 20).spans[0].stop == 4  # frames of 64 MiB: few of them wait


def test_a_cut_separates_shots() -> None:
    timeline = survey([thumbnail(0.1)] * 10 + [thumbnail(0.1, 1)] * 10)
    assert shape(timeline) == [(0, 10, 0, None), (10, 20, 10, None)]
    assert timeline.before(10) is None


@pytest.mark.parametrize("length", [1, 3])
def test_a_flash_is_passed_over(length: int) -> None:
    timeline = survey([thumbnail(0.1)] * 10 + [thumbnail(0.5)] * length + [thumbnail(0.1)] * 30)
    after = 10 + length
    assert shape(timeline)[:3] == [(0, 10, 0, 24), (10, after, 10, None), (after, 24, 0, 24)]
    assert timeline.span_of(after).share(after) > timeline.span_of(9).share(9)


def test_a_flash_that_ends_the_clip_and_a_long_one_are_shots() -> None:
    assert shape(survey([thumbnail(0.1)] * 5 + [thumbnail(0.5)] * 2)) == [(0, 5, 0, None), (5, 7, 5, None)]
    assert shape(survey([thumbnail(0.1)] * 5 + [thumbnail(0.5)] * 4 + [thumbnail(0.1)] * 3))[-1] == (9, 12, 9, None)


def test_segments_need_nothing_before_them() -> None:
    steady = survey([thumbnail(0.1)] * 200)
    assert steady.segments(50) == [(0, 72), (72, 144), (144, 200)]
    assert steady.segments(1000) == [(0, 200)]
    shots = survey([thumbnail(0.1)] * 30 + [thumbnail(0.1, 1)] * 5 + [thumbnail(0.1, 2)] * 40)
    assert shots.segments(30) == [(0, 30), (30, 75)]
    flash = survey([thumbnail(0.1)] * 30 + [thumbnail(0.5)] * 2 + [thumbnail(0.1)] * 30)
    assert flash.segments(25) == [(0, 48), (48, 62)]  # frames behind the flash need the key frame before it


def test_light_that_changes_asks_for_key_frames_and_shares_follow_it() -> None:
    steady, fading = [thumbnail(0.2)] * 10, [thumbnail(0.2 * 0.97**index) for index in range(1, 20)]
    timeline = survey(steady + fading)
    first = timeline.spans[0]
    assert first.last is not None
    assert 10 < first.last < LONGEST
    assert first.share(9) < 0.4
    assert survey([]).frames == 0


def key(value: float, made: float, before: KeyFrame | None = None, distance: int = 0) -> KeyFrame:
    picture = picture_from_array(np.full((64, 64, 3), value, np.float32))
    return KeyFrame(Scene(picture, picture), np.full((64, 64, 3), made, np.float32), before and before.light, distance)


@pytest.mark.parametrize(("given", "made", "least", "most"), [(0.1, 0.6, 1.0, 1.0201), (0.2, 0.1, 0.98, 1.0)])
def test_the_light_of_a_shot_changes_with_the_clip_and_little_more(
    given: float, made: float, least: float, most: float
) -> None:
    first = key(0.1, 0.4)
    later = key(given, made, first, 10)
    assert least <= later.light.made / first.light.made <= most * 1.001


def test_a_frame_between_two_key_frames_lies_between_their_results() -> None:
    first, last = key(0.1, 0.4), key(0.1, 0.5)
    frame = picture_from_array(np.full((64, 64, 3), 26, np.uint8))
    results = [finish_frame(frame, first, last, share) for share in (0.0, 0.25, 1.0)]
    means = [result.mean() / 255 for result in results if result is not None]
    assert means[1] == pytest.approx(0.75 * means[0] + 0.25 * means[2], abs=0.004)
    assert means[0] + 0.08 < means[2]
    assert finish_frame(frame, key(0.1, 0.1), None, 0.0) is None
    assert finish_frame(frame, first, last, 0.5, strength=0.0) is None


def test_a_black_frame_is_empty_and_a_dark_one_is_not() -> None:
    assert is_empty(np.zeros((96, 128, 3), np.float32))
    assert not is_empty(dark_frames(1, 96, 128)[0].astype(np.float32) / 255)
