"""A quality benchmark on a Ray cluster: models × pictures are divided among workers, and figures come back.

A part that is lost with its worker or its node is measured again; a picture whose workers end each time fails alone.
"""

from __future__ import annotations

import dataclasses
import threading
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lumen_cli.benchmark.entrants import Entrant, Runner
from lumen_cli.benchmark.quality import Save, Score, fail, score_pictures
from lumen_cli.errors import explain
from lumen_cli.metrics.registry import Metric, find_metrics

if TYPE_CHECKING:
    from lumen_cli.benchmark.samples import Sample, Samples
    from lumen_cli.run.cluster.join import Cluster

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
