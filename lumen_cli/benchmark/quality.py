"""Runs every entrant on every picture and every metric on every result, on this machine or on a Ray cluster.

On a cluster, models × pictures are divided among workers, and figures come back. A part that is lost with its worker or
its node is measured again; a picture whose workers end each time fails alone.
"""

from __future__ import annotations

import dataclasses
import math
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lumen_cli.benchmark.entrants import Entrant, Runner
from lumen_cli.benchmark.samples import Sample, Samples, Scene
from lumen_cli.engine.parts import NetworkError, Shape
from lumen_cli.errors import LumenError, explain
from lumen_cli.imaging.colour.convert import convert_depth, to_unit
from lumen_cli.imaging.picture import Picture
from lumen_cli.metrics import Metric, find_metrics, measure
from lumen_cli.networks.base import as_tensor

if TYPE_CHECKING:
    from torch import Tensor

    from lumen_cli.run.cluster import Cluster


RESAMPLES = 10_000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Mean:
    """The mean of some values with its bootstrap interval.

    value: NaN for no values; lower, upper: None for fewer than two values or for infinite ones.
    """

    value: float
    lower: float | None
    upper: float | None
    count: int


def bootstrap_mean(values: Sequence[float], *, seed: int = 0) -> Mean:
    """Mean with its 95 % percentile bootstrap interval (Efron & Tibshirani, 1993, chapter 13): 10,000 resamples.

    Args:
        values: one per picture; NaN is left out.
        seed: of the resampling; the same values and seed give the same interval.
    """
    known = np.array([value for value in values if not math.isnan(value)], np.float64)
    if not len(known):
        return Mean(math.nan, None, None, 0)
    mean = float(known.mean())
    if len(known) < 2 or not np.isfinite(known).all():
        return Mean(mean, None, None, len(known))
    generator = np.random.default_rng(seed)
    # In parts, so that a set of thousands of pictures does not take gigabytes.
    rows = max(1, (1 << 22) // len(known))
    means = np.concatenate(
        [
            known[generator.integers(len(known), size=(min(rows, RESAMPLES - start), len(known)))].mean(axis=1)
            for start in range(0, RESAMPLES, rows)
        ]
    )
    tail = 100 * (1 - CONFIDENCE) / 2
    lower, upper = np.percentile(means, [tail, 100 - tail])
    return Mean(mean, float(lower), float(upper), len(known))


_AHEAD = 2
"""Pictures read ahead while the network is busy."""

Save = Callable[[str, str, Picture], None]
"""Saves a result: name of the row, name of the picture, picture."""


@dataclass(frozen=True)
class Score:
    """One picture's figures for one entrant.

    values: by metric, NaN where it is undefined; seconds: in the network, a batch's time divided evenly; reason: why
    there are no values, on one line.
    """

    name: str
    values: dict[str, float]
    seconds: float = 0.0
    width: int = 0
    height: int = 0
    reason: str | None = None


@dataclass(frozen=True)
class Row:
    """One entrant's figures for the whole set. means: by metric, over the pictures that have a value."""

    entrant: Entrant
    scores: tuple[Score, ...]
    means: dict[str, Mean]

    @property
    def count(self) -> int:
        """Pictures with figures."""
        return sum(score.reason is None for score in self.scores)


Scorer = Callable[["Samples", Entrant, Sequence[Metric], threading.Event, "Save | None"], Iterator[Score]]
"""Has the form of `score_pictures`."""


def run_quality(
    samples: Samples,
    entrants: Sequence[Entrant],
    metrics: Sequence[Metric],
    *,
    stop: threading.Event | None = None,
    advance: Callable[[str, Score], None] | None = None,
    save: Save | None = None,
    score: Scorer | None = None,
) -> Iterator[Row]:
    """Measure the entrants one after the other. A picture that fails becomes a score with a reason.

    Results are rounded to the picture's 8 or 16 bits before they are measured, as in a file.

    Args:
        samples: the pictures.
        entrants: in the table's order; only one is loaded at a time.
        metrics: those that can be computed here for these samples.
        stop: once set, no further picture is started; the unfinished row is left out, because a mean over some of the
            pictures would mislead.
        advance: called with every score.
        save: called with every result.
        score: where pictures are scored, by default in this process by `score_pictures`.
    """
    stop, score = stop or threading.Event(), score or score_pictures
    for entrant in entrants:
        if stop.is_set():
            return
        scores: list[Score] = []
        for each in score(samples, entrant, metrics, stop, save):
            scores.append(each)
            if advance is not None:
                advance(entrant.name, each)
        if stop.is_set() and len(scores) < len(samples.items):
            return
        order = {sample.name: place for place, sample in enumerate(samples.items)}
        scores.sort(key=lambda each: order[each.name])
        means = {metric.name: bootstrap_mean([each.values[metric.name] for each in scores]) for metric in metrics}
        yield Row(entrant, tuple(scores), means)


def score_pictures(
    samples: Samples, entrant: Entrant, metrics: Sequence[Metric], stop: threading.Event, save: Save | None
) -> Iterator[Score]:
    """Load an entrant and score its results in this process; see `run_quality`."""
    try:
        runner = entrant.prepare()
    except LumenError as error:  # a damaged model costs its own row only
        yield from (fail(sample, metrics, explain(error)) for sample in samples.items)
        return
    device = str(entrant.settings.get("device", "cpu"))
    waiting: list[tuple[Sample, Scene]] = []
    shape: Shape | None = None

    def flush() -> Iterator[Score]:
        if not waiting or stop.is_set():
            return
        started = time.perf_counter()
        try:
            outcomes = runner.run([scene.low for _, scene in waiting])
        except Exception as error:  # a fault in the network must not end a long run
            outcomes = [NetworkError(explain(error))] * len(waiting)
        seconds = (time.perf_counter() - started) / len(waiting)
        for (sample, scene), outcome in zip(waiting, outcomes, strict=True):
            if isinstance(outcome, NetworkError):
                yield fail(sample, metrics, str(outcome))
                continue
            try:
                rounded = to_unit(convert_depth(outcome, scene.low.bit_depth))
                if save is not None:
                    save(entrant.name, sample.name, dataclasses.replace(scene.low, values=rounded))
                values = measure_scene(metrics, rounded, scene, device)
            except LumenError as error:
                yield fail(sample, metrics, explain(error))
            else:
                yield Score(sample.name, values, seconds, scene.low.width, scene.low.height)
        waiting.clear()

    for sample, loaded in _read_ahead(samples.items, stop):
        try:
            scene = loaded.result()
        except Exception as error:
            yield fail(sample, metrics, explain(error))
            continue
        own = runner.shape_of(scene.low)
        if waiting and own != shape:
            yield from flush()
        shape = own
        waiting.append((sample, scene))
        if own is None or len(waiting) >= runner.batch(own):
            yield from flush()
    yield from flush()


def measure_scene(
    metrics: Sequence[Metric], result: NDArray[np.float32], scene: Scene, device: str = "cpu"
) -> dict[str, float]:
    """Every metric's value for one result, H×W×3 float32 in [0, 1]; NaN where it is undefined."""
    place = device if device.startswith("cuda") else "cpu"
    pictures = [result, scene.low.pixels, *([] if scene.high is None else [scene.high])]
    output, low, *high = (as_tensor(np.ascontiguousarray(each)).contiguous().to(place) for each in pictures)
    return {metric.name: _value(metric, output, high[0] if high else None, low) for metric in metrics}


def _value(metric: Metric, output: Tensor, high: Tensor | None, low: Tensor) -> float:
    try:
        return measure(metric, output, reference=high, input=low)[0]
    except LumenError:
        raise
    except Exception as error:  # a third party's metric may raise anything
        raise LumenError(f"{metric.name}: {explain(error)}") from error


def _read_ahead(items: Sequence[Sample], stop: threading.Event) -> Iterator[tuple[Sample, Future[Scene]]]:
    """Pictures in order, reading the next ones in the background; ends early once `stop` is set."""
    with ThreadPoolExecutor(1, "lumen-read") as pool:
        waiting: list[tuple[Sample, Future[Scene]]] = []
        rest = iter(items)
        try:
            while not stop.is_set():
                while len(waiting) < _AHEAD and (sample := next(rest, None)) is not None:
                    waiting.append((sample, pool.submit(sample.load)))
                if not waiting:
                    return
                yield waiting.pop(0)
        finally:
            pool.shutdown(cancel_futures=True)


def fail(sample: Sample, metrics: Sequence[Metric], reason: str) -> Score:
    """The score of a picture without figures."""
    return Score(sample.name, {metric.name: math.nan for metric in metrics}, reason=reason)


_POLL = 0.3
_LARGEST_PART = 64
_PARTS_EACH = 4
"""Parts that a worker gets at least, where there are enough pictures: the last ones end at about one time."""
_RETRIES = 2


class ClusterScores:
    """Scores pictures on a cluster; called as `score_pictures` is."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._run = uuid.uuid4().hex

    def __call__(
        self,
        samples: Samples,
        entrant: Entrant,
        metrics: Sequence[Metric],
        stop: threading.Event,
        save: Save | None,
    ) -> Iterator[Score]:
        """Scores in the order in which parts are finished; none after `stop` is set."""
        ray, share = self._cluster.ray, self._cluster.share
        options = {"num_cpus": share.processors, "num_gpus": share.gpus, "max_retries": _RETRIES}
        measure = ray.remote(score_part).options(**options)
        names = [metric.name for metric in metrics]
        size = max(1, min(_LARGEST_PART, len(samples.items) // (share.workers * _PARTS_EACH)))
        starts = range(0, len(samples.items), size)
        waiting = deque(samples.items[start : start + size] for start in starts)
        begun: dict[Any, tuple[Sample, ...]] = {}
        try:
            while (waiting or begun) and not stop.is_set():
                while waiting and len(begun) < share.workers:
                    part = dataclasses.replace(samples, items=waiting.popleft(), files=frozenset(), problems=())
                    begun[measure.remote(self._run, entrant, part, names, save, share.threads)] = part.items
                for reference in ray.wait(list(begun), timeout=_POLL)[0]:
                    items = begun.pop(reference)
                    try:
                        scores = ray.get(reference)
                    except ray.exceptions.RayTaskError as error:
                        scores = [fail(each, metrics, explain(error.cause)) for each in items]
                    except ray.exceptions.RayError:
                        if len(items) > 1:
                            waiting.extend((each,) for each in items)
                            continue
                        reason = "its worker ended each time while it was measured, perhaps for lack of memory"
                        scores = [fail(items[0], metrics, reason)]
                    yield from scores
        finally:
            for reference in begun:
                ray.cancel(reference, force=True)


_loaded: dict[tuple[str, str], Runner] = {}
"""The entrant that this worker measured last, by run and name."""


def score_part(
    run: str, entrant: Entrant, samples: Samples, metrics: Sequence[str], save: Save | None, threads: int
) -> list[Score]:
    """Score pictures in a worker, which keeps the entrant for the next part.

    Args:
        run: tells one benchmark's entrants from those of another.
        entrant: as in `score_pictures`.
        samples: the same.
        metrics: names.
        save: as in `score_pictures`.
        threads: of PyTorch.
    """
    import torch

    torch.set_num_threads(threads)
    key = run, entrant.name

    def prepare() -> Runner:
        if key not in _loaded:
            _loaded.clear()
            _loaded[key] = entrant.prepare()
        return _loaded[key]

    own = dataclasses.replace(entrant, prepare=prepare)
    return list(score_pictures(samples, own, find_metrics(metrics), threading.Event(), save))
