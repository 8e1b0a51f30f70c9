"""Trains the refiner (`networks/refiner.py`): makes example files, then fits the network.

Examples are dark pictures brightened as in `engine/full_resolution.py`. No enhancing network runs. Its result is
replaced by the bright picture, reduced by area, slightly blurred and blotched, and changed in tone and tint. The target
is the full-size bright picture with the same tone and tint, and with the coarse light and colour of the carried
picture. So the refiner learns to remove noise and to restore detail, but nothing about exposure or colour.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from torch import Tensor

from lumen_cli.datasets import Pair, TrainingFiles
from lumen_cli.datasets.darken import Camera, darken, draw_camera, draw_shade
from lumen_cli.engine import full_resolution
from lumen_cli.imaging.colour.convert import to_unit
from lumen_cli.networks.base import as_pixels, as_tensor
from lumen_cli.networks.refiner import SQUARE, Refiner, see, share_of
from lumen_cli.training.checkpoint import Checkpoint, export_part
from lumen_cli.training.data import load_bytes, named_generator
from lumen_cli.training.loop import FitSettings, Watch, autocast, count_examples, descend, learning_rate, run_steps
from lumen_cli.training.recipes import structure
from lumen_cli.training.run import record

Floats = NDArray[np.float32]

PAIRED, PHOTOGRAPHED = 2, 5
SIDE, KEPT = 640, 384
"""Greatest side of the part of a photograph that is darkened, and of the part of it that is stored."""
COARSE = 12.0
"""Deviation, in full-size pixels, of the Gaussian that separates light and colour from detail."""
LEAST_SCENE = 80
"""Smallest shorter side of the small picture."""
FACTORS = (1.25, 7.0)
"""Range of the ratio of full-size to small sides."""
EXPOSURE = (-5.5, -0.7)
NOISE = (8e-5, 3e-3)
COMPRESSED, UNEVEN, ENLARGED, CHROMA_SMOOTHED = 0.5, 0.15, 0.15, 0.2
"""Shares of the darkened photographs."""


@dataclass(frozen=True)
class Example:
    """The refiner's input for one picture, and its target.

    planes: 9×H×W float16, Y, Cb and Cr of the shrunk picture, of what shrinkage removed and of the target; maps:
    (3·LEVELS + 1)×H/4×W/4 float16, deviations of the noise and the gain in stops.
    """

    planes: NDArray[np.float16]
    maps: NDArray[np.float16]

    def save(self, path: Path) -> None:
        """Write a safetensors file atomically."""
        beside = path.with_suffix(".tmp")
        save_file({"planes": self.planes, "maps": self.maps}, beside)
        beside.replace(path)

    @classmethod
    def load(cls, path: Path) -> Example:
        """Read what `save` wrote."""
        return cls(**load_file(path))


class Sources:
    """Dark pictures and their bright ones by number; the same for the same seed.

    Each photograph is darkened by `photographed` cameras; each pair is reduced to `paired` sizes. Pairs come first;
    `pairs` is the number of their examples.
    """

    def __init__(self, files: TrainingFiles, seed: int, paired: int = PAIRED, photographed: int = PHOTOGRAPHED) -> None:
        files.require_some()
        self.seed = seed
        self.pairs = paired * len(files.pairs)
        self.entries: list[Pair | Path] = [*paired * files.pairs, *photographed * files.bright]

    def __len__(self) -> int:
        return len(self.entries)

    def example(self, number: int) -> Example:
        """The example with this number; reads one or two files."""
        entry = self.entries[number]
        generator = named_generator(f"{self.seed}/refiner/{number}", torch.device("cpu"))
        draw = Draw(generator)
        if isinstance(entry, Pair):
            low, high = load_bytes(entry.low), load_bytes(entry.high)
            entry.require_one_size(low.shape, high.shape)
            dark, bright = as_pixels(low), _as_floats(high)
        else:
            bright = _part(_as_floats(load_bytes(entry)), draw)
            dark, bright = _take_photograph(bright, draw)
        return make_example(np.ascontiguousarray(dark), bright, draw)


class Draw:
    """Random numbers from one generator."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def uniform(self, low: float, high: float) -> float:
        """A number between two bounds."""
        return low + (high - low) * float(torch.rand(1, generator=self.generator))

    def chance(self, share: float) -> bool:
        """True with this probability."""
        return self.uniform(0, 1) < share

    def normal(self, *shape: int) -> Floats:
        """Standard normal numbers."""
        numbers: Floats = torch.randn(*shape, generator=self.generator).numpy()
        return numbers


def make_example(dark: NDArray[np.uint8], bright: Floats, draw: Draw) -> Example:
    """Brighten a dark picture, H×W×3, to the light of its bright one, H×W×3 in [0, 1]."""
    height, width = (length // (2 * SQUARE) * (2 * SQUARE) for length in dark.shape[:2])
    dark = np.ascontiguousarray(dark[:height, :width])
    aim = _bend(bright[:height, :width], draw)
    largest = max(FACTORS[0], min(FACTORS[1], min(height, width) / LEAST_SCENE))
    factor = math.exp(draw.uniform(math.log(FACTORS[0]), math.log(largest)))
    scene = max(1, round(height / factor)), max(1, round(width / factor))
    small = _resize(to_unit(dark), scene, cv2.INTER_AREA)
    result = _degrade(_resize(aim, scene, cv2.INTER_AREA), draw)
    plan = full_resolution.plan(lambda rows, columns: dark[rows, columns], small, result, (height, width))
    where = (0, height), (0, width)
    planes, removed = plan.carry(*where, plan.tone.table())
    carried = [plane + taken for plane, taken in zip(planes, removed, strict=True)]
    wanted = [
        plane + _blur(noisy - plane, COARSE)
        for plane, noisy in zip(cv2.split(full_resolution.to_ycc(aim)), carried, strict=True)
    ]
    stacked, maps = np.stack([*planes, *removed, *wanted]), plan.noise_maps(*where)
    top, left = (int(draw.uniform(0, 1) * max(0, length - KEPT)) // 8 * 8 for length in (height, width))
    fine = stacked[:, top : top + KEPT, left : left + KEPT]
    top, left, kept = top // SQUARE, left // SQUARE, KEPT // SQUARE
    return Example(fine.astype(np.float16), maps[:, top : top + kept, left : left + kept].astype(np.float16))


def _take_photograph(bright: Floats, draw: Draw) -> tuple[NDArray[np.uint8], Floats]:
    """The dark photograph of a bright picture, and the bright picture at the same size."""
    camera = _draw_camera(draw.generator)
    picture = as_tensor(np.ascontiguousarray(bright))
    height, width = bright.shape[:2]
    shade = draw_shade(1, max(height, width), draw.generator)[..., :height, :width] if draw.chance(UNEVEN) else None
    dark = as_pixels(darken(picture, camera, draw.generator, shade=shade))
    if draw.chance(CHROMA_SMOOTHED):
        planes = full_resolution.to_ycc(dark)
        planes[:, :, 1:] = _blur(np.ascontiguousarray(planes[:, :, 1:]), draw.uniform(1.0, 3.0))
        dark = full_resolution.to_rgb(planes)
    if draw.chance(ENLARGED):
        factor = draw.uniform(1.2, 1.8)
        size = round(height * factor), round(width * factor)
        top, left = (
            int(draw.uniform(0, 1) * (now - then)) // 8 * 8 for now, then in zip(size, (height, width), strict=True)
        )
        dark, bright = (
            np.clip(_resize(each, size, cv2.INTER_CUBIC)[top : top + height, left : left + width], 0, 1)
            for each in (dark, bright)
        )
    return np.rint(np.clip(dark, 0, 1) * 255).astype(np.uint8), np.ascontiguousarray(bright, np.float32)


def _draw_camera(generator: torch.Generator) -> Camera:
    camera = draw_camera(1, generator, exposure=EXPOSURE, noise=NOISE, uncompressed=1.0 - COMPRESSED)
    louder = torch.exp(torch.empty(1).uniform_(-0.5, 1.2, generator=generator))
    return Camera(**{**vars(camera), "read": camera.read * louder, "row": camera.row * louder})


def _part(bright: Floats, draw: Draw) -> Floats:
    """A part of a photograph with sides of at most `SIDE`, turned and mirrored; sometimes reduced, to be sharp."""
    if draw.chance(0.4):
        scale = draw.uniform(0.6, 1.0)
        bright = _resize(bright, (round(bright.shape[0] * scale), round(bright.shape[1] * scale)), cv2.INTER_AREA)
    top, left = (int(draw.uniform(0, 1) * max(0, length - SIDE)) for length in bright.shape[:2])
    part = bright[top : top + SIDE, left : left + SIDE]
    part = np.rot90(part, int(draw.uniform(0, 4)))
    return np.ascontiguousarray(part[:, ::-1] if draw.chance(0.5) else part)


def _bend(picture: Floats, draw: Draw) -> Floats:
    """A picture with another gamma, contrast and tint, as networks differ in them."""
    gamma, contrast = math.exp(draw.uniform(-0.3, 0.3)), draw.uniform(-0.2, 0.4)
    bent = np.clip(picture, 0, 1) ** np.float32(gamma)
    bent += np.float32(contrast) * (bent * bent * (3 - 2 * bent) - bent)
    tint = (1 + 0.05 * draw.normal(3)).astype(np.float32)
    bent = np.clip(bent * tint, 0, 1)
    return np.ascontiguousarray(bent, np.float32)


def _degrade(result: Floats, draw: Draw) -> Floats:
    """A result like a network's: slightly less sharp, with faint blotches of colour."""
    if draw.chance(0.7):
        result = _blur(result, draw.uniform(0.3, 1.2))
    blotches = _resize(draw.normal(8, 8, 3), result.shape[:2], cv2.INTER_CUBIC)
    result = result * (1 + np.float32(draw.uniform(0, 0.03)) * blotches)
    return np.clip(result, 0, 1).astype(np.float32)


def _resize(picture: Floats, size: tuple[int, ...], interpolation: int) -> Floats:
    resized: Any = cv2.resize(picture, (size[1], size[0]), interpolation=interpolation)
    return np.asarray(resized, np.float32)


def _blur(values: Floats, deviation: float) -> Floats:
    blurred: Any = cv2.GaussianBlur(values, (0, 0), deviation)
    return np.asarray(blurred, np.float32)


def _as_floats(picture: Tensor) -> Floats:
    return as_pixels(picture).astype(np.float32) / np.float32(255)


def collect(folder: Path, sources: Sources, tell: Callable[[int], None]) -> list[Path]:
    """Make the examples whose files are missing in `folder`; returns all files in the order of their numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{number:06d}.safetensors" for number in range(len(sources))]
    for number, path in enumerate(files):
        if not path.is_file():
            sources.example(number).save(path)
        tell(number + 1)
    return files


STAGE = "refine"
COARSE_SQUARE = 16
"""Side of the squares whose mean light and colour the loss keeps."""


@dataclass(frozen=True)
class Fitting(FitSettings):
    """Settings of the fit.

    paired: share of real pairs in a batch, where there are both kinds; structure, light: weights of `losses`.
    """

    steps: int = 30_000
    batch: int = 4
    crop: int = 192
    rate: float = 1e-3
    paired: float = 0.25
    structure: float = 0.1
    light: float = 2.0


@dataclass(frozen=True)
class RefinerRun:
    """The refiner's data: folders as the user typed them, their files, held-out files."""

    data: tuple[str, ...]
    files: TrainingFiles
    held_out: TrainingFiles | None
    fitting: Fitting


def train_refiner(run: RefinerRun, out: Path, watch: Watch) -> Path:
    """Make the examples, fit the network and write the folder `out/model`.

    Resumes an interrupted training in `out`; UsageError if that training has other settings.
    """
    recipe = {"architecture": "refiner", **run.fitting.recipe()}
    record(out, run.fitting.device, run.data, run.files, run.fitting.dtype, recipe=recipe)
    sources = Sources(run.files, run.fitting.seed)
    examples = collect(out / "examples", sources, count_examples(watch, "examples", len(sources)))
    held_out: list[Path] = []
    if run.held_out is not None:
        others = Sources(run.held_out, run.fitting.seed, paired=1, photographed=1)
        held_out = collect(out / "held-out", others, count_examples(watch, "held-out", len(others)))
    torch.manual_seed(run.fitting.seed)
    model = Refiner().to(run.fitting.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    batches = Batches(examples, sources.pairs, run.fitting)
    fit(model, batches, held_out, run.fitting, out, watch)
    return export_part(model, "refiner", run.data, out / "model")


class Batches:
    """Draws the batch of a step from the files of examples; the same seed and step give the same batch."""

    def __init__(self, examples: Sequence[Path], pairs: int, fitting: Fitting) -> None:
        self._examples, self._pairs, self._fitting = examples, pairs, fitting

    def draw(self, step: int) -> tuple[Tensor, Tensor]:
        """Planes batch×9×crop×crop and maps batch×7×crop/4×crop/4, float32 on the device; see `Example`."""
        generator = named_generator(f"{self._fitting.seed}/refiner/step/{step}", torch.device("cpu"))
        drawn = [self._crop(generator) for _ in range(self._fitting.batch)]
        planes, maps = (torch.stack(each).to(self._fitting.device).float() for each in zip(*drawn, strict=True))
        return planes, maps

    def _crop(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        first, last = 0, len(self._examples)
        if 0 < self._pairs < last:
            paired = float(torch.rand(1, generator=generator)) < self._fitting.paired
            first, last = (0, self._pairs) if paired else (self._pairs, last)
        number, down, across, *turns = torch.randint(1 << 30, (6,), generator=generator).tolist()
        with safe_open(self._examples[first + number % (last - first)], "pt") as file:
            planes, maps = file.get_slice("planes"), file.get_slice("maps")
            _, height, width = maps.get_shape()
            side = min(self._fitting.crop // SQUARE, height, width)
            top, left = down % (height - side + 1), across % (width - side + 1)
            fine = planes[:, SQUARE * top : SQUARE * (top + side), SQUARE * left : SQUARE * (left + side)]
            coarse = maps[:, top : top + side, left : left + side]
        turn = (lambda x: x.transpose(1, 2)) if turns[0] % 2 else (lambda x: x)
        flips = [axis + 1 for axis in range(2) if turns[axis + 1] % 2]
        missing = self._fitting.crop // SQUARE - side
        padded = (
            F.pad(each, (0, count * missing, 0, count * missing), mode="replicate")
            for each, count in ((turn(fine).flip(flips), SQUARE), (turn(coarse).flip(flips), 1))
        )
        fine, coarse = padded
        return fine, coarse


def refine(model: Refiner, planes: Tensor, maps: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The refined picture and its aim, B×3×H×W in Y, Cb and Cr, of `Batches.draw`'s tensors."""
    shrunk, removed, aim = planes.split(3, dim=1)
    deviation, stops = maps[:, :-1], maps[:, -1:]
    seen = see(shrunk, removed, deviation, stops, dtype)
    with autocast(seen.device, dtype):
        change = model(seen, share_of(deviation, stops))
    return shrunk + change, aim


def losses(model: Refiner, planes: Tensor, maps: Tensor, fitting: Fitting) -> dict[str, Tensor]:
    """L1, the structural dissimilarity of Y, and L1 of means over squares, which keeps light and colour."""
    refined, aim = refine(model, planes, maps, fitting.dtype)
    return {
        "picture": F.l1_loss(refined, aim),
        "structure": fitting.structure * structure(refined[:, :1], aim[:, :1], window=8, stride=4),
        "light": fitting.light * F.avg_pool2d(refined - aim, COARSE_SQUARE).abs().mean(),
    }


def fit(
    model: Refiner,
    batches: Batches,
    held_out: Sequence[Path],
    fitting: Fitting,
    out: Path,
    watch: Watch,
    report_every: int = 100,
) -> None:
    """Fit, from the checkpoint in `out` if there is one; at the end `model` has the averaged parameters."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=fitting.rate, betas=(0.9, 0.99), weight_decay=1e-4)
    state = Checkpoint(out / f"{STAGE}.pt", STAGE, model, optimizer, fitting.decay, fitting.device)

    def step(number: int, fraction: float) -> dict[str, float] | None:
        terms = losses(model, *batches.draw(number), fitting)
        return descend(optimizer, terms, fitting.rate * learning_rate(fraction), fitting.clip)

    run_steps(
        state,
        step,
        steps=fitting.steps,
        minutes=fitting.minutes,
        batch=fitting.batch,
        watch=watch,
        report_every=report_every,
        save_every=fitting.save_every,
        validate=(lambda: validate(model, held_out, fitting)) if held_out else None,
        validate_every=fitting.validate_every,
    )


@torch.inference_mode()
def validate(model: Refiner, examples: Sequence[Path], fitting: Fitting) -> dict[str, float]:
    """Mean PSNR in dB and SSIM of Y over examples, and their gains over the shrunk picture."""
    totals = torch.zeros(4, dtype=torch.float64)
    for path in examples:
        with safe_open(path, "pt") as file:
            planes, maps = (file.get_tensor(name)[None].to(fitting.device).float() for name in ("planes", "maps"))
        refined, aim = refine(model, planes, maps, fitting.dtype)
        both = [
            (
                -10.0 * math.log10(float(F.mse_loss(each[:, :1], aim[:, :1])) + 1e-10),
                1.0 - float(structure(each[:, :1], aim[:, :1])),
            )
            for each in (refined, planes[:, :3])
        ]
        totals += torch.tensor([*both[0], both[0][0] - both[1][0], both[0][1] - both[1][1]], dtype=torch.float64)
    psnr, ssim, gained, likened = (totals / len(examples)).tolist()
    return {"psnr": psnr, "ssim": ssim, "psnr_gain": gained, "ssim_gain": likened}
