"""The way to full size on a CUDA device: what `colour_maps`, `full_resolution` and `refine` do on a CPU, in PyTorch.

At 8 bits the results are within 1/255 of the CPU's. A picture goes through the device in strips of whole rows, so the
memory there depends on its width alone. One picture at a time does so, on a stream beside that of the network.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lumen_cli.engine import refine
from lumen_cli.engine.colour_maps import Grid, Tone
from lumen_cli.engine.device import DevicePolicy, dtype_of
from lumen_cli.engine.full_resolution import FullResolution
from lumen_cli.engine.memory import out_of_memory
from lumen_cli.engine.refine import Refining
from lumen_cli.engine.scene import DEFAULTS, Floats, Settings
from lumen_cli.imaging.colour.convert import to_linear
from lumen_cli.imaging.picture import Picture

_STRIP_PIXELS = 1 << 21
"""Of a strip without its margins; a pixel takes about 160 bytes on the device."""
_FEWEST_ROWS = 16
"""Of a strip, however wide the picture is."""
_log = logging.getLogger("lumen")
Made = TypeVar("Made")


@cache
def carrier_of(policy: DevicePolicy) -> Carrier | None:
    """The carrier of a policy's first device, one for each; None where pictures reach their size on the CPU.

    That is the case on Apple's chips too: PyTorch's process ends there where two threads compute at the same time
    (pytorch/pytorch#197805), and the network runs in one of its own.
    """
    return Carrier(policy) if policy.overlaps else None


def on_device_or_cpu(
    carrier: Carrier | None, work: Callable[[Carrier | None], Made], warn: Callable[[str], None]
) -> Made:
    """`work` with the carrier; without it where there is none, or its device is full or lost.

    warn: called with a line about a device that failed.
    """
    if carrier is not None:
        try:
            return work(carrier)
        except RuntimeError as error:
            why = carrier.failed(error)
            if why is None:
                raise
        warn(f"brought to full size on the CPU: {why}")
        _log.info("a picture was brought to full size on the CPU: %s", why)
    return work(None)


@dataclass(frozen=True, eq=False)
class _Change:
    """A `FullResolution` with its maps on the device. noise: deviations and stops; energies: None where all are 0."""

    maps: Tensor
    energies: Tensor | None
    noise: Tensor
    grid: Grid
    tone: Tone
    refining: Refining | None


class Carrier:
    """Brings pictures to full size on one device. Its methods may be called in any thread."""

    def __init__(self, policy: DevicePolicy) -> None:
        self._policy, self._turn = policy, Lock()
        self._stream: Any = None
        self._refining: dict[tuple[Refining, torch.dtype], Refining] = {}
        if policy.overlaps:
            from lumen_cli.engine.acceleration import Copies

            self._stream, self._copies = torch.cuda.Stream(policy.device), Copies(policy.device)

    def failed(self, error: RuntimeError) -> str | None:
        """Why the device cannot do what raised this error, as a phrase; None where that is no fault of the device."""
        if out_of_memory(error):
            torch.cuda.empty_cache()
            return f"{self._policy.device} has too little memory"
        return None if self._policy.works() else f"{self._policy.device} no longer computes"

    def fit(self, guide: Floats, result: Floats, grid: Grid, settings: Settings = DEFAULTS) -> Floats:
        """As `colour_maps.fit_maps`."""
        with self._computing():
            low, bright = (each.permute(2, 0, 1) for each in self._upload(guide, result))
            maps: Floats = self._fetch(_fit_maps(low, bright, grid, settings))().numpy()
            return maps

    def light(self, full: FullResolution, picture: Picture, top: int, bottom: int) -> float:
        """The sum of linear light of rows of the full-size result."""
        with self._computing():
            strip, _ = self._strip(self._change(full, picture), picture, top, bottom)
            return float(self._fetch(to_linear(strip.clamp(0, 1)).sum(dtype=torch.float64))())

    def render(
        self, full: FullResolution, picture: Picture, *, strength: float = 1.0, gain: float = 1.0
    ) -> NDArray[Any]:
        """As `scene.render`."""
        height, width = full.grid.size
        values = np.empty((height, width, 3), np.float32 if picture.native is not None else picture.samples.dtype)
        rows = max(_FEWEST_ROWS, _STRIP_PIXELS // width)
        waiting: Callable[[], None] | None = None
        with self._computing():
            change = self._change(full, picture)
            for top in range(0, height, rows):
                bottom = min(top + rows, height)
                strip, low = self._strip(change, picture, top, bottom)
                if gain != 1.0:
                    strip = _multiply_light(strip, gain)
                if strength < 1.0:
                    strip = torch.lerp(low, strip, strength)
                launched = self._store(strip, values[top:bottom])
                if waiting is not None:
                    waiting()
                waiting = launched
            if waiting is not None:
                waiting()
        return values

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """Alone on this stream, in single precision."""
        stream = nullcontext() if self._stream is None else torch.cuda.stream(self._stream)
        with self._turn, stream, self._policy.running("fp32"):
            yield

    def _upload(self, *arrays: NDArray[Any]) -> list[Tensor]:
        staged = [self._policy.stage(torch.from_numpy(np.require(each, requirements=["C", "W"]))) for each in arrays]
        return self._policy.upload(staged) if self._stream is None else self._copies.upload(staged)

    def _fetch(self, tensor: Tensor) -> Callable[[], Tensor]:
        """Begin to copy a tensor to the CPU; the function waits."""
        wait = self._policy.fetch([tensor]) if self._stream is None else self._copies.fetch([tensor])
        return lambda: wait()[0]

    def _change(self, full: FullResolution, picture: Picture) -> _Change:
        noise = np.concatenate([full.deviation, full.stops[None]])
        maps, energies, noise_maps = self._upload(full.maps, full.energies, noise)
        refining = None
        if full.refining is not None:
            dtype = dtype_of(self._policy.precision_for(picture.bit_depth))
            key = full.refining, dtype
            if key not in self._refining:
                self._refining[key] = full.refining.moved(torch.device(self._policy.device), dtype)
            refining = self._refining[key]
        return _Change(maps, energies if full.energies.any() else None, noise_maps, full.grid, full.tone, refining)

    def _strip(self, change: _Change, picture: Picture, top: int, bottom: int) -> tuple[Tensor, Tensor]:
        """Rows of the result and of the picture, 3×(bottom - top)×W float32; those of the result may leave [0, 1]."""
        height, width = change.grid.size
        rows = (top, bottom) if change.refining is None else change.refining.extent(top, bottom, height)
        edge = 0 if change.energies is None else refine.margin(len(change.energies) // 3)
        down = max(0, rows[0] - edge), min(height, rows[1] + edge)
        low = self._read(picture, slice(*down))
        planes = _apply(change, _tone(low, change.tone), down)
        removed = torch.zeros_like(planes)
        if change.energies is not None:
            removed = _shrink(planes, _interpolate(change.energies, change.grid, down, (0, width)))
        inner = slice(top - rows[0], bottom - rows[0])
        part = slice(rows[0] - down[0], rows[1] - down[0])
        planes, removed = planes[:, part], removed[:, part]
        if change.refining is not None:
            planes = change.refining.correct(
                planes, removed, _interpolate(change.noise, change.grid, rows, (0, width), refine.SQUARE)
            )
        return _to_rgb(planes[:, inner]), low[:, top - down[0] : bottom - down[0]]

    def _read(self, picture: Picture, rows: slice) -> Tensor:
        """Rows of the picture, 3×h×W float32 in [0, 1] on the device. Integers in sRGB travel as they are."""
        values = picture.values
        if values is None or values.dtype.kind == "f":
            (floats,) = self._upload(picture.rows(rows))
            return floats.permute(2, 0, 1).contiguous()
        part = np.ascontiguousarray(values[rows], values.dtype.newbyteorder("="))
        # PyTorch computes little with uint16.
        (integers,) = self._upload(part if part.dtype == np.uint8 else part.view(np.int16))
        if part.dtype != np.uint8:
            integers = integers.int().bitwise_and(0xFFFF)
        return integers.permute(2, 0, 1).contiguous().float() / float(256**part.dtype.itemsize - 1)

    def _store(self, strip: Tensor, values: NDArray[Any]) -> Callable[[], None]:
        """Begin to copy 3×h×W floats to H×W×3, rounded to integers or clamped; the function waits and stores them."""
        pixels = strip.permute(1, 2, 0)
        if values.dtype.kind == "f":
            pixels = pixels.clamp(0.0, 1.0)
        else:
            maximum = float(256**values.dtype.itemsize - 1)
            pixels = (pixels * maximum).round_().clamp_(0.0, maximum)
            # int16 has the bits of uint16.
            pixels = pixels.to(torch.uint8) if values.dtype == np.uint8 else pixels.int().to(torch.int16)
        fetch = self._fetch(pixels.contiguous())

        def store() -> None:
            values[...] = fetch().numpy().view(values.dtype)

        return store


def _fit_maps(guide: Tensor, result: Tensor, grid: Grid, settings: Settings) -> Tensor:
    """As `colour_maps.fit_maps`; guide and result are 3×h×w."""
    maps = _fit_windows(guide, result, grid, settings.radius, settings.regularisation, ratio=True)
    if not settings.fine_radius:
        return maps
    planes = maps.flatten(2).permute(2, 0, 1)[None]
    dense = F.interpolate(planes, guide.shape[1:], mode="bilinear", align_corners=False)[0].unflatten(0, (3, 4))
    rest = result - (dense[:, :3] * guide).sum(dim=1) - dense[:, 3]
    side = 2 * settings.fine_radius + 1
    around = _reflect(rest.square().mean(dim=0)[None], settings.fine_radius)
    energy = F.avg_pool2d(F.avg_pool2d(around, (side, 1), 1), (1, side), 1)
    rest = rest * (energy / (energy + settings.misfit**2))
    return maps + _fit_windows(guide, rest, grid, settings.fine_radius, settings.fine_regularisation, ratio=False)


def _fit_windows(guide: Tensor, result: Tensor, grid: Grid, radius: int, epsilon: float, *, ratio: bool) -> Tensor:
    """As `colour_maps.fit_windows`; guide and result are 3×h×w."""
    guide, result = guide.double(), result.double()
    products = [(each[:, None] * guide).flatten(0, 1) for each in (guide, result)]
    means = _window_means(torch.cat([guide, result, *products]), grid, radius)
    mean_guide, mean_result = means[..., :3], means[..., 3:6]
    pairs, crossed = (means[..., start : start + 9].unflatten(-1, (3, 3)) for start in (6, 15))
    covariance = pairs - mean_guide[..., :, None] * mean_guide[..., None, :]
    shared = crossed - mean_result[..., :, None] * mean_guide[..., None, :]
    identity = torch.eye(3, dtype=torch.float64, device=guide.device)
    aim = (mean_result + 0.02) / (mean_guide + 0.02) if ratio else torch.zeros_like(mean_result)
    inverse = _invert(covariance + epsilon * identity)
    slopes = ((shared + epsilon * aim[..., None] * identity)[..., None] * inverse[..., None, :, :]).sum(dim=-2)
    offsets = mean_result - (slopes * mean_guide[..., None, :]).sum(dim=-1)
    maps = torch.cat([slopes, offsets[..., None]], dim=-1).flatten(2).permute(2, 0, 1)
    coarse = Grid(grid.shape, grid.shape, 1)
    averaged = _window_means(maps, coarse, max(1, round(radius * grid.factor / grid.step)))
    return averaged.unflatten(-1, (3, 4)).float()


def _invert(symmetric: Tensor) -> Tensor:
    """The inverses of …×3×3 symmetric matrices."""
    # Not `torch.linalg.solve`: CUDA's library for it is loaded by the first call, and two threads at once raise.
    first, second, third = symmetric.unbind(-2)
    crosses = [torch.linalg.cross(*pair) for pair in ((second, third), (third, first), (first, second))]
    return torch.stack(crosses, dim=-1) / (first * crosses[0]).sum(dim=-1)[..., None, None]


def _window_means(planes: Tensor, grid: Grid, radius: int) -> Tensor:
    """As `colour_maps.WindowMeans`: C×h×w → rows×columns×C."""
    counted = torch.cat([planes, torch.ones_like(planes[:1])])
    for dim, kernel, padding in ((1, (2 * radius + 1, 1), (radius, 0)), (2, (1, 2 * radius + 1), (0, radius))):
        sums = F.avg_pool2d(counted, kernel, 1, padding, divisor_override=1)
        counted = sums.index_select(dim, torch.from_numpy(grid.nearest(dim - 1)).to(planes.device))
    return (counted[:-1] / counted[-1]).permute(1, 2, 0)


def _reflect(planes: Tensor, border: int, dims: tuple[int, ...] = (1, 2)) -> Tensor:
    """C×h×w with its rows and columns mirrored at the outermost ones, as OpenCV does even for a single one."""
    for dim in dims:
        last = planes.shape[dim] - 1
        at = torch.arange(-border, last + 1 + border, device=planes.device)
        at = at.remainder(max(1, 2 * last))
        planes = planes.index_select(dim, torch.minimum(at, 2 * last - at) if last else at)
    return planes


def _tone(values: Tensor, tone: Tone) -> Tensor:
    scaled = values * tone.gain
    return scaled * (1.0 + scaled / tone.gain**2) / (1.0 + scaled)


def _interpolate(
    planes: Tensor, grid: Grid, rows: tuple[int, int], columns: tuple[int, int], square: int = 1
) -> Tensor:
    """As `Grid.interpolate`."""
    for dim, (first, last) in ((1, rows), (2, columns)):
        count = grid.shape[dim - 1]
        centres = torch.arange(first, last, square, dtype=torch.float32, device=planes.device) + square / 2
        at = (centres / grid.step - 0.5).clamp(0, count - 1)
        before = at.long()
        start = planes.index_select(dim, before)
        end = planes.index_select(dim, (before + 1).clamp(max=count - 1))
        planes = torch.lerp(start, end, (at - before).view(-1, *(1,) * (2 - dim)))
    return planes


def _apply(change: _Change, guide: Tensor, rows: tuple[int, int]) -> Tensor:
    """Y, Cb and Cr: the slopes times the guide, and the offset."""
    columns = 0, change.grid.size[1]
    planes = []
    for own in change.maps.split(4):  # one channel after the other takes a third of the memory
        *slopes, total = _interpolate(own, change.grid, rows, columns)
        for slope, plane in zip(slopes, guide, strict=True):
            total.addcmul_(slope, plane)
        planes.append(total)
    return torch.stack(planes)


def _shrink(planes: Tensor, energies: Tensor) -> Tensor:
    """As `refine.shrink`, for three planes: removes noise in place, and returns the removed part."""
    height, width = planes.shape[1:]
    removed, smooth = torch.zeros_like(planes), planes
    for level, noise in enumerate(energies.unflatten(0, (3, -1)).unbind(1)):
        coarser = smooth
        for dim, length in ((1, height), (2, width)):
            around, taps = _reflect(coarser, 2 * 2**level, (dim,)), refine.SPLINE.tolist()
            parts = [around.narrow(dim, tap * 2**level, length) for tap in range(len(taps))]
            coarser = parts[0] * taps[0]
            for part, weight in zip(parts[1:], taps[1:], strict=True):
                coarser.add_(part, alpha=weight)
        band = smooth - coarser
        energy = F.avg_pool2d(_reflect(band.square(), refine.ENERGY // 2), refine.ENERGY, 1).add_(refine.TINY)
        removed.add_((noise / energy).clamp_(max=1.0).mul_(band))
        smooth = coarser
    planes.sub_(removed)
    return removed


def _to_rgb(planes: Tensor) -> Tensor:
    light, blue, red = planes
    return torch.stack([light + 1.402 * red, light - 0.344136 * blue - 0.714136 * red, light + 1.772 * blue])


def _multiply_light(values: Tensor, gain: float) -> Tensor:
    """As `scene.multiply_light`."""
    power = gain ** (1 / 2.4)
    return torch.where(values > 0.04045, values * power + 0.055 * (power - 1), values * gain)
