"""The examples a grading is fitted to: a model's results on training pictures, and the bright pictures they aim at.

The network runs once per example; the stored results are small, so that many gradings can be fitted to them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from lumen_cli.datasets import Pair, TrainingFiles
from lumen_cli.datasets.darken import darken, draw_camera, draw_shade, expose
from lumen_cli.networks.base import LowLightModel
from lumen_cli.networks.grading import GRID, measure
from lumen_cli.training.data import load_bytes, named_generator
from lumen_cli.training.loop import Report, count_examples
from lumen_cli.training.run import enhance_bytes

SIDE = 320
"""Of the square crops, at most."""
LONGEST = 1280
"""Of a pair's sides: larger ones are reduced, as the network takes the picture whole."""
POOL = 4
VARIANTS = 3
UNEVEN = 1.0 / 3.0
"""Of the darkened pictures, those that are shaded."""
UNSEEN, MOST_UNSEEN = 10, 3000
"""Unseen examples of a bright picture, and of all."""


@dataclass(frozen=True)
class Example:
    """A model's result and the picture it aims at.

    Attributes:
        kind: "pair", a real pair; "relit", a crop of a pair whose dark side is exposed again; "dark", a bright
            picture that a camera model darkens; "shaded", the same with lit places left as they are; "exposed", a
            bright picture as input; "unseen", a darkened picture without a model's result: `made` is the bright
            picture.
        light: what `measure` returns for the dark picture, 3×GRID×GRID in float16.
        made, bright: 3×h×w in [0, 1], reduced by `POOL`, in float16; held-out ones at full size as bytes.
    """

    kind: str
    light: Tensor
    made: Tensor
    bright: Tensor


def values(picture: Tensor) -> Tensor:
    """Bytes or float16 → float32 in [0, 1]."""
    return picture.float() / 255.0 if picture.dtype == torch.uint8 else picture.float()


def keyed_generator(seed: int, name: str, number: int) -> torch.Generator:
    """The random generator of one example or step; it is on the CPU, so every device gets the same numbers."""
    return named_generator(f"{seed}/{name}/{number}", torch.device("cpu"))


class Sources:
    """Numbered dark pictures for a model and their bright counterparts; the same for the same seed.

    Every pair occurs twice, whole and as a relit crop; every bright picture `variants` times darkened and once as it
    is.
    """

    def __init__(self, files: TrainingFiles, seed: int, variants: int = VARIANTS) -> None:
        files.require_some()
        self.seed = seed
        self._entries: list[tuple[str, Pair | Path]] = [
            *((kind, pair) for kind in ("pair", "relit") for pair in files.pairs),
            *(("dark", path) for _ in range(variants) for path in files.bright),
            *(("exposed", path) for path in files.bright),
        ]

    def __len__(self) -> int:
        return len(self._entries)

    def draw(self, number: int) -> tuple[str, Tensor, Tensor]:
        """Kind, dark picture as bytes 3×h×w, bright picture 3×h×w in [0, 1]."""
        kind, source = self._entries[number]
        generator = keyed_generator(self.seed, "example", number)
        if isinstance(source, Pair):
            low, bright = load_pair(source)
            both = torch.stack([values(low), values(bright)])
            both = _relit_crop(both, generator) if kind == "relit" else _reduce(both, LONGEST)
            dark, bright = both.unbind()
        else:
            bright = dark = _photograph(source, generator)
            if kind == "dark":
                uneven = float(torch.rand(1, generator=generator)) < UNEVEN
                kind, dark = "shaded" if uneven else "dark", _darken(bright, generator, uneven)
        return kind, to_bytes(dark), bright


def load_pair(pair: Pair) -> tuple[Tensor, Tensor]:
    """Dark and bright picture of a pair as bytes, 3×H×W; UsageError if their sizes differ."""
    low, high = load_bytes(pair.low), load_bytes(pair.high)
    pair.require_one_size(low.shape, high.shape)
    return low, high


def to_bytes(picture: Tensor) -> Tensor:
    """A picture in [0, 1] as uint8, rounded as a file would be."""
    return (picture * 255.0).round().clamp(0.0, 255.0).to(torch.uint8)


def _relit_crop(both: Tensor, generator: torch.Generator) -> Tensor:
    """Dark and bright picture 2×3×H×W → a square crop whose dark side has up to ±0.7 EV more."""
    dark, bright = _crop(both, min(SIDE, *both.shape[-2:]), generator).unbind()
    stops = torch.rand(1, generator=generator) * 1.4 - 0.7
    return torch.stack([expose(dark[None], stops)[0], bright])


def _photograph(path: Path, generator: torch.Generator) -> Tensor:
    """A square crop of 0.6…1 of the shorter side, reduced to `SIDE` where it is larger."""
    whole = values(load_bytes(path))[None]
    share = 0.6 + 0.4 * float(torch.rand(1, generator=generator))
    return _reduce(_crop(whole, max(1, int(share * min(whole.shape[-2:]))), generator), SIDE)[0]


def _darken(bright: Tensor, generator: torch.Generator, uneven: bool = False) -> Tensor:
    camera = draw_camera(1, generator)
    shade = draw_shade(1, bright.shape[-1], generator) if uneven else None
    return darken(bright[None], camera, generator, shade=shade)[0]


def _crop(pictures: Tensor, side: int, generator: torch.Generator) -> Tensor:
    top, left = (
        int(torch.randint(length - side + 1, (1,), generator=generator)) for length in tuple(pictures.shape[-2:])
    )
    return pictures[..., top : top + side, left : left + side]


def _reduce(pictures: Tensor, longest: int) -> Tensor:
    height, width = pictures.shape[-2:]
    scale = longest / max(height, width)
    if scale >= 1.0:
        return pictures
    size = max(1, round(height * scale)), max(1, round(width * scale))
    return F.interpolate(pictures, size, mode="area").clamp(0.0, 1.0)


def make_example(
    model: LowLightModel, kind: str, low: Tensor, bright: Tensor, device: torch.device, dtype: torch.dtype
) -> Example:
    """Run a model without its grading on a dark picture, bytes 3×H×W; `bright` is 3×H×W in [0, 1].

    The example holds reduced pictures, or whole ones if `kind` is "held-out".
    """
    made = enhance_bytes(model, low, device, dtype).cpu()
    light = _light(values(low))
    if kind == "held-out":
        return Example(kind, light, to_bytes(made), to_bytes(bright))
    small, aim = (F.avg_pool2d(picture, POOL, ceil_mode=True).half() for picture in (made, bright))
    return Example(kind, light, small, aim)


def unseen_examples(
    files: TrainingFiles, seed: int, watch: Callable[[Report], None] = lambda report: None
) -> list[Example]:
    """Darkened photographs that need no model: the same for the same seed, at most `MOST_UNSEEN`.

    They train the parts of a grading that read the dark picture, and would memorise the few examples of a model.
    """
    examples: list[Example] = []
    count = min(len(files.bright) * UNSEEN, MOST_UNSEEN)
    report = count_examples(watch, "unseen", count)
    for number in range(count):
        generator = keyed_generator(seed, "unseen", number)
        bright = _photograph(files.bright[number % len(files.bright)], generator)
        light = _light(values(to_bytes(_darken(bright, generator))))
        small = on_grid(bright).half()
        examples.append(Example("unseen", light, small, small))
        report(len(examples))
    return examples


def _light(low: Tensor) -> Tensor:
    return measure(low[None])[0].half()


def on_grid(picture: Tensor) -> Tensor:
    """A picture of any shape, 3×H×W → 3×GRID×GRID."""
    return F.interpolate(picture[None], (GRID, GRID), mode="bilinear", antialias=True, align_corners=False)[0]


def collect(
    path: Path,
    count: int,
    make: Callable[[int], Example],
    watch: Callable[[Report], None] = lambda report: None,
    save_every: float = 3.0,
) -> list[Example]:
    """Return the examples 0 … count - 1: read those in `path`, make the others, save them now and then and at the end.

    Args:
        path: a file of `save_examples`; reports carry its name.
        count: number of examples.
        make: makes the example of a number.
        watch: receives the reports.
        save_every: minutes between two saves.
    """
    examples = load_examples(path) if path.is_file() else []
    found = written = len(examples)
    report = count_examples(watch, path.stem, count, found)
    saved = time.monotonic()
    try:
        for number in range(found, count):
            examples.append(make(number))
            done = number + 1
            report(done)
            if time.monotonic() - saved > 60.0 * save_every:
                save_examples(examples, path)
                written, saved = done, time.monotonic()
    finally:
        if len(examples) > written:
            save_examples(examples, path)
    return examples


def save_examples(examples: Sequence[Example], path: Path) -> None:
    """Write a list of the examples' fields with torch.save; an interrupted write leaves the earlier file intact."""
    beside = path.with_suffix(".tmp")
    torch.save([vars(example) for example in examples], beside)
    beside.replace(path)


def load_examples(path: Path) -> list[Example]:
    """Read a file of `save_examples`; only tensors and texts are unpickled."""
    return [Example(**fields) for fields in torch.load(path, map_location="cpu", weights_only=True)]
