"""Videos do not flicker: the light of the result changes from frame to frame as that of the video, within 0.3 %."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

import lumen_cli
from tests.clips import Recipe, excess, lights, linear, shoot, write_clip
from tests.conftest import Finished

Lumen = Callable[..., Finished]
SAMPLES = Path(__file__).parents[2] / "sample_images"
HEIGHT, WIDTH, COUNT = 144, 256, 36
ALLOWED = 0.003


def scene(name: str) -> np.ndarray:
    """Linear light of a sample, larger than a frame."""
    picture = cv2.imread(str(SAMPLES / name))[:, :, ::-1]
    return linear(cv2.resize(picture, (WIDTH * 2, HEIGHT * 2), interpolation=cv2.INTER_AREA) / 255.0)


def window(light: np.ndarray, left: int, top: int = 20) -> np.ndarray:
    return light[top : top + HEIGHT, left : left + WIDTH]


def frames_of(name: str) -> list[np.ndarray]:
    """One of the clips: noisy exposures of samples, of which one is dark itself."""
    generator = np.random.default_rng(7)
    street, person = scene("palace-well-exposed.jpg"), scene("astronaut.jpg")
    rising = street * 2.0 ** np.linspace(-5, 0, 2 * WIDTH)[None, :, None]
    makers: dict[str, Callable[[int], np.ndarray]] = {
        "still": lambda index: window(person, 90),
        "pan": lambda index: window(street, 3 * index) / 8,
        "cut": lambda index: window(person, 90) if index < COUNT // 2 else window(street, index) / 8,
        "dark to light": lambda index: window(rising, 6 * index),
        "flash": lambda index: window(person, 90) * (8 if index in (20, 21) else 1),
        "fade": lambda index: window(person, 90) * 1.5 * min(1.0, max(0.0, 1 - (index - 6) / 24)),
    }
    return [shoot(makers[name](index), 0, generator) for index in range(COUNT)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["still", "pan", "cut", "dark to light", "flash", "fade"])
def test_light_changes_with_the_video_and_no_further(lumen: Lumen, tmp_path: Path, name: str) -> None:
    source = write_clip(tmp_path / "a.mp4", Recipe(frames_of(name), sound=None))
    # In fp32: bf16 differs between processors by a tenth of what is allowed.
    command = ("enhance", source, "-o", tmp_path / "b.mp4", "--device", "cpu", "--precision", "fp32", "-q")
    assert lumen(*command).code == 0
    given, made = lights(source), lights(tmp_path / "b.mp4")
    seen = given > 0.002  # of a frame that is nearly black, the codec's rounding is a large part
    beyond = excess(given, made)[seen[1:]]
    print(f"{name}: light {given.mean():.4f} → {made.mean():.4f}, beyond the video's change {100 * beyond.max():.3f} %")
    assert made.mean() > 1.2 * given.mean()
    assert beyond.max() <= ALLOWED


@pytest.mark.slow
def test_runs_of_single_frames_flicker_more(lumen: Lumen, tmp_path: Path) -> None:
    frames = frames_of("still")[:10]
    source = write_clip(tmp_path / "a.mp4", Recipe(frames, sound=None))
    assert lumen("enhance", source, "-o", tmp_path / "b.mp4", "--device", "cpu", "-q").code == 0
    network = lumen_cli.load_model(device="cpu")
    alone = [linear(lumen_cli.enhance(frame, network=network, device="cpu") / 255.0).mean() for frame in frames]
    given = np.array([linear(frame / 255.0).mean() for frame in frames])
    single, tied = excess(given, np.array(alone)).max(), excess(lights(source), lights(tmp_path / "b.mp4")).max()
    print(f"frames alone {100 * single:.3f} %, as a video {100 * tied:.3f} %")
    assert tied < single / 2
