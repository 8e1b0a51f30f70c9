"""Times one row of the speed table in its own process: a `SpeedCase` as JSON on stdin, a `SpeedResult` on stdout.

    python -m lumen_cli.benchmark.worker < case.json

A new process, so that peak memory belongs to this case alone and a crash costs one row. A folder of pictures goes from
disk to disk by the run that `lumen enhance` uses.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lumen_cli.benchmark.paper_baseline import paper_network
from lumen_cli.benchmark.speed_request import Pipeline, Plain, SpeedCase, SpeedResult, Spread
from lumen_cli.engine.batch import enhance_batch
from lumen_cli.engine.device import DevicePolicy, choose_device
from lumen_cli.engine.memory import out_of_memory, peak_resident
from lumen_cli.engine.parts import NetworkError
from lumen_cli.engine.scene import scene_size
from lumen_cli.errors import LumenError
from lumen_cli.files.find import find_pictures
from lumen_cli.imaging.colour.convert import to_integers
from lumen_cli.imaging.picture import Picture
from lumen_cli.networks.base import as_pixels
from lumen_cli.registry.architectures import network_class
from lumen_cli.registry.card import PRECISIONS, read_card
from lumen_cli.registry.load import load
from lumen_cli.run.operation import Enhance, Settings
from lumen_cli.run.run import Run, RunOptions
from lumen_cli.text import with_options

if TYPE_CHECKING:
    from lumen_cli.networks.base import LowLightModel


_GRAIN = 8.0


class Busy:
    """Seconds of a network's calls: on a CUDA device by its events, elsewhere by the clock of the calling thread."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._spans: list[tuple[Any, Any]] = []

    @contextmanager
    def watch(self, network: nn.Module) -> Iterator[Busy]:
        """Count the calls of a network, which is called in one thread at a time, within the block."""
        begun: list[Any] = []
        before = network.register_forward_pre_hook(lambda *_: begun.append(self._now()))
        after = network.register_forward_hook(lambda *_: self._spans.append((begun[-1], self._now())))
        try:
            yield self
        finally:
            before.remove()
            after.remove()

    @property
    def seconds(self) -> float:
        """The sum so far; waits for the device. On a device that waits for its thread the gaps within a call count."""
        if not self._device.startswith("cuda"):
            return float(sum(end - begin for begin, end in self._spans))
        torch.cuda.synchronize(self._device)
        return sum(begin.elapsed_time(end) for begin, end in self._spans) / 1000

    def _now(self) -> Any:
        if not self._device.startswith("cuda"):
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event


def time_folder(
    case: SpeedCase, network: LowLightModel, policy: DevicePolicy, steps: int | None, alone: float
) -> Pipeline:
    """Enhance `case.request.pictures` generated JPEGs of the case's size, in a folder that is removed afterwards.

    Args:
        case: the row of the table.
        network: on the policy's device, warm.
        policy: its batch size is the case's.
        steps: sampling steps.
        alone: seconds a picture of the network alone.

    Raises:
        LumenError: a picture failed.
    """
    settings = Settings(case.architecture, {}, "", steps=steps, precision=policy.precision, detail=case.request.detail)
    with tempfile.TemporaryDirectory(prefix="lumen-speed-") as place:
        source, target = Path(place, "dark"), Path(place, "bright")
        write_pictures(source, case.request.pictures, case.width, case.height)
        with (
            Busy(policy.device).watch(network) as busy,
            Run(None, policy, Enhance(settings), RunOptions(f"{target}{os.sep}"), network=network) as run,
        ):
            started = time.perf_counter()
            results = list(run.results(run.plan(find_pictures([str(source)]))))
            wall = time.perf_counter() - started
    failed = [result for result in results if result.status != "done"]
    if failed or len(results) != case.request.pictures:
        raise LumenError(f"the folder's pictures failed: {failed[0].reason if failed else 'some are missing'}")
    return Pipeline(case.request.pictures, wall, busy.seconds / wall, alone * case.request.pictures / wall)


def write_pictures(folder: Path, count: int, width: int, height: int) -> None:
    """Write dark JPEGs with a camera's grain and tags, all different, into `folder`."""
    from PIL import ExifTags, Image

    folder.mkdir()
    generator = np.random.default_rng(0)
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Model] = "lumen", "benchmark"
    exif.get_ifd(ExifTags.IFD.Exif).update(
        {ExifTags.Base.DateTimeOriginal: "2026:01:31 21:45:00", ExifTags.Base.ISOSpeedRatings: 6400}
    )
    exif.get_ifd(ExifTags.IFD.GPSInfo).update(
        {ExifTags.GPS.GPSLatitudeRef: "N", ExifTags.GPS.GPSLatitude: (52.0, 31.0, 12.0)}
    )
    ramp = np.linspace(5.0, 60.0, width)[None, :, None] * np.linspace(0.3, 1.0, height)[:, None, None]
    for number in range(count):
        grain = generator.normal(0.0, _GRAIN, (height, width, 3))
        pixels = np.clip(ramp * generator.uniform(0.5, 1.0, 3) + grain, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:04d}.jpg", quality=92, exif=exif)


Returned = TypeVar("Returned")

_ATTENTIONS = (
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_fused_attention_overrideable",
    "_scaled_dot_product_attention_math_for_mps",
)
"""Fused attentions that torch's own counter does not count."""


def count_operations(run: Callable[[], Returned]) -> tuple[Returned, int]:
    """Call `run` and return its result with the floating-point operations of its products.

    Convolutions, matrix products and attention, fused or not; a multiplication and an addition are two. Sums, norms and
    activations are not counted, as usual in this field.
    """
    with FlopCounterMode(display=False, custom_mapping=_fused()) as counter:
        returned = run()
    return returned, int(counter.get_total_flops())


def attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Operations of softmax(QKᵀ)V from the shapes B×H×N×C, B×H×M×C and B×H×M×D: the two products."""
    batch, heads, positions, channels = query
    return 2 * batch * heads * positions * key[-2] * (channels + value[-1])


def _fused() -> dict[Any, Any]:
    found = (getattr(torch.ops.aten, name, None) for name in _ATTENTIONS)
    return {operator: attention_flops for operator in found if operator is not None}


Call = Callable[[], Tensor]


@dataclass(frozen=True)
class Subject:
    """The network to time. steps: sampling steps, None for a network that does not sample."""

    network: LowLightModel
    policy: DevicePolicy
    steps: int | None


def main() -> None:
    """Measure the case on stdin; the last line of stdout is the result, or the reason why there is none."""
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries may print, and their text must not mix with the result
    case = SpeedCase.of(json.load(sys.stdin))
    try:
        result = measure(case)
    except Exception as error:  # any error becomes a row of the table
        result = case.failed(reason(error))
    print(json.dumps(dataclasses.asdict(result)), file=answer, flush=True)


def measure(case: SpeedCase) -> SpeedResult:
    """Time the case in this process. Errors of any kind are raised."""
    request = case.request
    if request.threads is not None:
        torch.set_num_threads(request.threads)
    subject = prepare(case)
    network, policy = subject.network, subject.policy
    low, noise = example(network, case.width, case.height)
    many = low.expand(case.batch, -1, -1, -1).to(policy.device).contiguous(memory_format=torch.channels_last)
    noises = None if noise is None else noise.expand(case.batch, -1, -1, -1).to(policy.device).contiguous()

    def whole() -> Tensor:
        with policy.running(policy.precision):
            return network(many, noise=noises, steps=subject.steps)

    carried = request.detail != "whole" and scene_size(case.height, case.width) != (case.height, case.width)
    if carried and request.plain:
        raise LumenError("the reference implementation runs at full size only", remedy="detail=whole")
    ours = full_size_run(case, subject, low) if carried else whole
    cuda = policy.device.startswith("cuda")
    if cuda:
        torch.cuda.reset_peak_memory_stats(policy.device)
    for _ in range(request.warmup):
        bright = ours()
    synchronise(policy.device)
    device_memory = torch.cuda.max_memory_allocated(policy.device) if cuda else None
    host_memory = peak_resident()
    _, operations = count_operations(ours)  # last, because the counter loads further libraries

    plain, plain_error, seconds = None, None, None
    if request.plain:
        try:
            seconds, plain = compare_with_paper(case, subject, ours, bright[:1], low, noise)
        except Exception as error:  # it needs more memory than ours, whose figures remain
            plain_error = reason(error)
    if seconds is None:
        (seconds,) = alternate([ours], request.repeat, policy.device)
    spread = Spread.of([value / case.batch for value in seconds])
    return SpeedResult(
        model=case.model,
        architecture=case.architecture,
        published=case.folder is None,
        width=case.width,
        height=case.height,
        precision=policy.precision,
        batch=case.batch,
        steps=subject.steps,
        device=policy.device,
        device_name=policy.device_name,
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        repeat=request.repeat,
        warmup=request.warmup,
        seconds=spread,
        device_memory=device_memory,
        host_memory=host_memory,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        gflops=operations / case.batch / 1e9,
        detail=request.detail if carried else "whole",
        plain=plain,
        plain_error=plain_error,
        pipeline=time_folder(case, network, policy, subject.steps, spread.median) if request.pipeline else None,
    )


def prepare(case: SpeedCase) -> Subject:
    """The case's network on its device: a model's, or the published one with random weights."""
    device, steps = case.request.device, case.request.steps
    if case.folder is None:
        torch.manual_seed(0)
        network = published_network(case.architecture)
        policy = choose_device(device, case.precision, precisions=PRECISIONS, batch_size=case.batch)
    else:
        card = read_card(Path(case.folder))
        asked = card.precision_for(case.precision)
        policy = choose_device(device, asked, precisions=card.precisions, batch_size=case.batch, model=card.name)
        network = load(card)
        steps = None if card.steps_range is None else card.steps_for(steps)
    if network.steps_range() is None and network.noise_shape(case.height, case.width) is None:
        steps = None
    elif steps is None:
        steps = getattr(network, "steps", None)
    return Subject(policy.prepare(network), policy, steps)


def published_network(architecture: str) -> LowLightModel:
    """An architecture at its paper's size (the defaults of its class), with random weights."""
    return network_class(architecture)().requires_grad_(False).eval()


def example(network: LowLightModel, width: int, height: int) -> tuple[Tensor, Tensor | None]:
    """A dark picture 1×3×H×W in [0, 1] and its noise; always the same."""
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(1, 3, height, width, generator=generator) * 0.25
    shape = network.noise_shape(height, width)
    return low, None if shape is None else torch.randn(1, *shape, generator=generator)


def full_size_run(case: SpeedCase, subject: Subject, low: Tensor) -> Call:
    """The work of `lumen enhance` between decoding and encoding: reduce, run the network, carry its result."""
    pixels = to_integers(as_pixels(low), 8)
    pictures = [Picture(pixels, None, 8, False, "png", None, None)] * case.batch
    digests = [bytes(16)] * case.batch

    def run() -> Tensor:
        results = enhance_batch(
            subject.network, pictures, subject.policy, detail=case.request.detail, digests=digests, steps=subject.steps
        )
        for result in results:
            if isinstance(result, NetworkError):
                raise result
        return torch.from_numpy(np.stack(results))  # type: ignore[arg-type]

    return run


def compare_with_paper(
    case: SpeedCase, subject: Subject, ours: Call, bright: Tensor, low: Tensor, noise: Tensor | None
) -> tuple[list[float], Plain]:
    """Time our network and the reference implementation alternately, so that a slow machine slows both.

    Both run in the same fp32 (no TF32). Returns our seconds per call, and the reference implementation's figures.
    """
    paper, policy = paper_network(subject.network, case.architecture), subject.policy
    low, noise = low.to(policy.device), None if noise is None else noise.to(policy.device)

    def theirs() -> Tensor:
        with policy.running("fp32"):
            return paper.enhance(low, noise, subject.steps)

    as_published, operations = count_operations(theirs)
    for _ in range(case.request.warmup - 1):
        theirs()
    difference = float((as_published.float() - bright.float()).abs().max())
    seconds, plain_seconds = alternate([ours, theirs], case.request.repeat, policy.device)
    shown = difference if math.isfinite(difference) else None
    return seconds, Plain(Spread.of(plain_seconds), operations / 1e9, shown, paper.baseline.redundant)


def alternate(runs: list[Call], repeat: int, device: str) -> list[list[float]]:
    """Seconds of each of `runs`, called alternately (A B A B …) `repeat` times, with the device synchronised."""
    seconds: list[list[float]] = [[] for _ in runs]
    for _ in range(repeat):
        for run, own in zip(runs, seconds, strict=True):
            synchronise(device)
            started = time.perf_counter()
            run()
            synchronise(device)
            own.append(time.perf_counter() - started)
    return seconds


def synchronise(device: str) -> None:
    """Wait until the device has finished."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    elif device == "mps":
        torch.mps.synchronize()


def reason(error: Exception) -> str:
    """The error on one line."""
    if isinstance(error, LumenError):
        return with_options(error.message, error.remedy)
    text = " ".join(str(error).split())
    if out_of_memory(error):
        return "too little memory"
    return f"{type(error).__name__}: {text[:200]}"


if __name__ == "__main__":
    main()
