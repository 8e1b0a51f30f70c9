"""Clips for tests: dark scenes that pan, cut, flash and fade, with sound, chapters and names; and what a clip holds."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

av = pytest.importorskip("av", reason="needs PyAV")

TIME_BASE = Fraction(1, 12800)
STEP = 512
"""Ticks of a frame, for 25 frames a second."""
SECOND = Fraction(1)


def linear(values: np.ndarray) -> np.ndarray:
    """sRGB values in [0, 1] → linear light."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def encoded(light: np.ndarray) -> np.ndarray:
    """Linear light → sRGB values in [0, 1]."""
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def shoot(scene: np.ndarray, stops: float, generator: np.random.Generator) -> np.ndarray:
    """A noisy exposure of linear light, H×W×3 uint8."""
    light = scene * 2.0**stops
    light = light + generator.normal(0, 1, light.shape) * np.sqrt(4e-5 * np.clip(light, 0, 1) + 2e-6)
    return (encoded(light) * 255 + 0.5).astype(np.uint8)


def dark_frames(count: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """A dark ramp that moves a little, with noise."""
    generator = np.random.default_rng(3)
    columns = np.arange(width)[None, :, None]
    ramps = [0.05 + 0.25 * ((columns + 2 * index) % width) / width for index in range(count)]
    scene = np.array([1.0, 0.8, 0.6]) * np.linspace(0.5, 1, height)[:, None, None]
    return [shoot(ramp * scene, -2, generator) for ramp in ramps]


@dataclass
class Recipe:
    """What a clip is made with; stamps: in ticks of `time_base`."""

    frames: Sequence[np.ndarray]
    stamps: Sequence[int] | None = None
    time_base: Fraction = TIME_BASE
    codec: str = "libx264"
    pixels: str = "yuv420p"
    sound: str | None = "aac"
    turned: int = 0
    colours: int = 1
    transfer: int | None = None
    options: dict[str, str] = field(default_factory=lambda: {"crf": "10"})
    chapters: bool = True
    names: dict[str, str] = field(default_factory=dict)
    """Further names of the container, as telephones write them."""
    timecode: str = ""
    cover: bool = False
    texts: str = ""
    """The codec of subtitles; none where empty."""


def write_clip(path: Path, recipe: Recipe) -> Path:
    """A clip with a tone of 440 Hz, two chapters and a title."""
    height, width = recipe.frames[0].shape[:2]
    stamps = recipe.stamps or [STEP * index for index in range(len(recipe.frames))]
    flags = {"movflags": "use_metadata_tags"} if recipe.names else {}
    with av.open(str(path), "w", options=flags) as container:
        video = container.add_stream(recipe.codec, rate=25)
        video.width, video.height, video.pix_fmt = width, height, recipe.pixels
        video.codec_context.time_base = video.time_base = recipe.time_base
        video.options = recipe.options
        context = video.codec_context
        context.colorspace = context.color_primaries = context.color_trc = recipe.colours
        context.color_trc = recipe.transfer or recipe.colours
        context.color_range = 1
        if recipe.turned:
            video.set_display_rotation(recipe.turned)
        sound = None
        if recipe.sound:
            sound = container.add_stream(recipe.sound, rate=48000)
            sound.layout = "stereo"
        if recipe.timecode:
            video.metadata["timecode"] = recipe.timecode
        cover = container.add_mux_stream("mjpeg", width=width, height=height) if recipe.cover else None
        if cover is not None:
            cover.disposition = av.stream.Disposition.attached_pic
        texts = container.add_mux_stream(recipe.texts) if recipe.texts else None
        if texts is not None:
            texts.time_base = Fraction(1, 1000)
            texts.metadata["language"] = "deu"
        container.metadata.update(recipe.names)
        container.metadata.update({"title": "Night walk", "comment": "made by a test"})
        if recipe.chapters:
            names = enumerate(("before", "behind"))
            container.set_chapters(
                [
                    {
                        "id": at,
                        "start": 500 * at,
                        "end": 500 + 500 * at,
                        "time_base": Fraction(1, 1000),
                        "metadata": {"title": name},
                    }
                    for at, name in names
                ]
            )
        for pixels, stamp in zip(recipe.frames, stamps, strict=True):
            kind = "rgba" if pixels.shape[2] == 4 else "rgb24"
            frame = av.VideoFrame.from_ndarray(pixels, kind)
            frame.colorspace = recipe.colours
            frame = frame.reformat(format=recipe.pixels, dst_color_range=1)
            frame.pts, frame.time_base = stamp, recipe.time_base
            container.mux(video.encode(frame))
            if texts is not None and stamp in (stamps[2], stamps[6]):
                container.mux(_text(texts, recipe.texts, round(1000 * stamp * recipe.time_base)))
        container.mux(video.encode(None))
        if cover is not None:
            container.mux(_cover(cover, recipe.frames[0]))
        if sound is not None:
            _add_sound(container, sound, float(stamps[-1] * recipe.time_base))
    return path


def _cover(stream: Any, pixels: np.ndarray) -> Any:
    """A JPEG as the packet of a cover picture."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    packet = av.Packet(buffer.getvalue())
    packet.stream, packet.time_base, packet.pts, packet.dts, packet.is_keyframe = stream, TIME_BASE, 0, 0, True
    return packet


def _text(stream: Any, codec: str, milliseconds: int) -> Any:
    """A subtitle of a tenth of a second."""
    text = f"at {milliseconds} ms".encode()
    packet = av.Packet(len(text).to_bytes(2, "big") + text if codec == "mov_text" else text)
    packet.stream, packet.time_base = stream, Fraction(1, 1000)
    packet.pts = packet.dts = milliseconds
    packet.duration = 100
    return packet


def _add_sound(container: Any, sound: Any, seconds: float) -> None:
    for start in range(0, int(48000 * seconds), 1024):
        wave = (np.sin(np.arange(start, start + 1024) * 440 * 2 * np.pi / 48000) * 8000).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(np.repeat(wave, 2)[None], "s16", "stereo")
        frame.rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
        container.mux(sound.encode(frame))
    container.mux(sound.encode(None))


@dataclass(frozen=True)
class Held:
    """What a clip holds: streams: kind, codec, pixel format or sample rate, colours, names; packets: of each stream."""

    texts: dict[str, str]
    chapters: list[tuple[Fraction, Fraction, str]]
    streams: list[tuple[Any, ...]]
    packets: dict[int, list[tuple[Any, ...]]]
    turned: int

    def times(self, stream: int) -> list[Fraction]:
        """Seconds at which a stream's packets are presented, in that order."""
        return sorted(packet[0] for packet in self.packets[stream])


def hold(path: Path) -> Held:
    """Read a clip packet by packet."""
    with av.open(str(path)) as container:
        packets: dict[int, list[tuple[Any, ...]]] = {}
        for packet in container.demux():
            if packet.size:
                times = [
                    None if each is None else each * packet.time_base
                    for each in (packet.pts, packet.dts, packet.duration)
                ]
                packets.setdefault(packet.stream.index, []).append((*times, bytes(packet)))
        chapters = [
            (each["start"] * each["time_base"], each["end"] * each["time_base"], each["metadata"]["title"])
            for each in container.chapters()
        ]
        streams = [_describe(stream) for stream in container.streams]
        texts = {name.lower(): text for name, text in container.metadata.items() if name.lower() != "encoder"}
    with av.open(str(path)) as container:
        turned = next(container.decode(video=0)).rotation if container.streams.video else 0
    return Held(texts, chapters, streams, packets, turned)


def _describe(stream: Any) -> tuple[Any, ...]:
    context = stream.codec_context
    if stream.type != "video":
        return stream.type, context and context.name, dict(stream.metadata)
    colours = context.color_primaries, context.color_trc, context.colorspace, context.color_range
    return stream.type, context.name, stream.format.name, context.width, context.height, colours, stream.time_base


def lights(path: Path) -> np.ndarray:
    """Mean linear light of each frame."""
    with av.open(str(path)) as container:
        return np.array(
            [linear(frame.to_ndarray(format="rgb24") / 255.0).mean() for frame in container.decode(video=0)]
        )


def excess(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Relative change of mean light from frame to frame, beyond that of the source."""
    given, made = (np.abs(np.diff(each)) / np.maximum(each[1:], each[:-1]) for each in (before, after))
    return made - given
