"""Every metric by its name: what it needs, which way is better, and who computes it. Importing this stays cheap."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from lumen_cli.errors import UsageError
from lumen_cli.text import did_you_mean, nearest

if TYPE_CHECKING:
    from torch import Tensor

ENTRY_POINTS = "lumen.metrics"
"""Entry point group by which an installed package adds metrics: name → "module:VALUE", the value a `Metric`."""

Need = Literal["reference", "input"]


@dataclass(frozen=True)
class Metric:
    """A figure of one picture.

    name: what a user types; title: a column's heading; unit: "dB" or ""; better: "higher", "lower" or "" where neither
    is; digits: after the point in a table; needs: what it takes beside the output, of "reference" and "input";
    source: "module:function", a function of the output and, by their names, of `needs`, each a 3×H×W float32 in
    [0, 1], that returns a float; library: who computes it; bounds: the values it can take; check: "" or
    "module:function", which takes the name and returns why the metric cannot be computed here, in one line, or None;
    problem: what is wrong with a plug-in, else "".
    """

    name: str
    title: str
    unit: str
    better: Literal["higher", "lower", ""]
    digits: int
    needs: frozenset[Need]
    source: str
    library: str
    bounds: tuple[float, float] = (-math.inf, math.inf)
    check: str = ""
    problem: str = ""

    def unavailable(self) -> str | None:
        """Why it cannot be computed here, in one line that says what to do; None where it can. Loads no weights."""
        if self.problem:
            return f"{self.name} cannot be computed: {self.problem}"
        try:
            if self.check:
                reason: str | None = _imported(self.check)(self.name)
                return reason
            if not self.source.startswith(_HOUSE):
                _imported(self.source)
        except (ImportError, AttributeError) as error:
            return f"{self.name} cannot be computed: {' '.join(str(error).split())}"
        return None

    def lacks(self, *, reference: bool, input: bool) -> list[Need]:
        """What it needs and is not there."""
        given: dict[Need, bool] = {"reference": reference, "input": input}
        return [need for need, there in given.items() if need in self.needs and not there]


_REFERENCE: frozenset[Need] = frozenset({"reference"})
_INPUT: frozenset[Need] = frozenset({"input"})
_ALONE: frozenset[Need] = frozenset()
_HOUSE = "lumen_cli.metrics"
_INF = math.inf
_OWN = "lumen"
_TORCHMETRICS = "torchmetrics"
_OPENCV = "OpenCV"
_WEIGHTS = f"{_HOUSE}.weights:missing"
_DB = (0.0, _INF)
_SIMILARITY = (-1.0, 1.0)

_BUILT_IN = (
    Metric("psnr", "PSNR", "dB", "higher", 2, _REFERENCE, f"{_HOUSE}.fidelity:psnr", _OWN, _DB),
    Metric("ssim", "SSIM", "", "higher", 4, _REFERENCE, f"{_HOUSE}.fidelity:ssim", _TORCHMETRICS, _SIMILARITY),
    Metric("psnr_y", "PSNR-Y", "dB", "higher", 2, _REFERENCE, f"{_HOUSE}.fidelity:psnr_y", _OWN, _DB),
    Metric("ssim_y", "SSIM-Y", "", "higher", 4, _REFERENCE, f"{_HOUSE}.fidelity:ssim_y", _TORCHMETRICS, _SIMILARITY),
    Metric("psnr_gt_mean", "GT-mean PSNR", "dB", "higher", 2, _REFERENCE, f"{_HOUSE}.fidelity:psnr_gt_mean", _OWN, _DB),
    Metric(
        "ssim_gt_mean", "GT-mean SSIM", "", "higher", 4, _REFERENCE, f"{_HOUSE}.fidelity:ssim_gt_mean", _TORCHMETRICS,
        _SIMILARITY,
    ),
    Metric(
        "lpips_alex", "LPIPS (Alex)", "", "lower", 4, _REFERENCE, f"{_HOUSE}.perceptual:lpips_alex", _TORCHMETRICS,
        (0.0, _INF), _WEIGHTS,
    ),
    Metric(
        "lpips_vgg", "LPIPS (VGG)", "", "lower", 4, _REFERENCE, f"{_HOUSE}.perceptual:lpips_vgg", _TORCHMETRICS,
        (0.0, _INF), _WEIGHTS,
    ),
    Metric(
        "dists", "DISTS", "", "lower", 4, _REFERENCE, f"{_HOUSE}.perceptual:dists", _TORCHMETRICS, (0.0, _INF), _WEIGHTS
    ),
    Metric("delta_e", "ΔE2000", "", "lower", 2, _REFERENCE, f"{_HOUSE}.fidelity:delta_e", _OWN, (0.0, _INF)),
    Metric("niqe", "NIQE (own fit)", "", "lower", 3, _ALONE, f"{_HOUSE}.niqe:niqe", _OWN, (0.0, _INF)),
    Metric(
        "niqe_original", "NIQE", "", "lower", 3, _ALONE, f"{_HOUSE}.niqe:niqe_original", _OWN, (0.0, _INF),
        _WEIGHTS,
    ),
    Metric(
        "brisque", "BRISQUE", "", "lower", 2, _ALONE, f"{_HOUSE}.brisque:brisque", _OPENCV, (0.0, 100.0),
        _WEIGHTS,
    ),
    Metric("loe", "LOE", "", "lower", 1, _INPUT, f"{_HOUSE}.light:loe", _OWN, (0.0, _INF)),
    Metric("loe_100", "LOE (100×100)", "", "lower", 1, _INPUT, f"{_HOUSE}.light:loe_100", _OWN, (0.0, 10000.0)),
    Metric("brightness", "Brightness", "", "", 3, _ALONE, f"{_HOUSE}.light:brightness", _OWN, (0.0, 1.0)),
)  # fmt: skip

METRICS: dict[str, Metric] = {metric.name: metric for metric in _BUILT_IN}
"""The metrics that come with lumen, in the order of a table's columns."""

DEFAULT_METRICS = ("psnr", "ssim", "psnr_gt_mean", "ssim_gt_mean", "niqe", "loe")
"""What is measured where nothing else is asked for: all that can be computed on any machine."""


def all_metrics() -> dict[str, Metric]:
    """`METRICS` and those of installed packages (entry points "lumen.metrics"); ours win by name.

    An entry point that cannot be imported is there as a metric whose `unavailable()` says why.
    """
    from importlib.metadata import entry_points

    found = dict(METRICS)
    for point in entry_points(group=ENTRY_POINTS):
        if point.name not in found:
            found[point.name] = _plugged(point.name, point.value)
    return found


def find_metrics(names: Iterable[str]) -> list[Metric]:
    """The metrics of these names, in this order, each once.

    Raises:
        UsageError: there is none of a name (with the nearest one and the list).
    """
    known = all_metrics()
    found: dict[str, Metric] = {}
    for name in names:
        wanted = name.strip().lower().replace("-", "_")
        if wanted not in known:
            hint = did_you_mean(nearest(wanted, known))
            raise UsageError(f"unknown metric {name!r}.{hint} Known metrics: {', '.join(known)}")
        found[wanted] = known[wanted]
    return list(found.values())


def measure(
    metric: Metric, output: Tensor, reference: Tensor | None = None, input: Tensor | None = None
) -> list[float]:
    """One value per picture, computed picture by picture on the tensors' device.

    Args:
        metric: from `find_metrics` or `METRICS`.
        output: B×3×H×W float32 in [0, 1], what is judged.
        reference: the same, what it should be; for metrics that need one.
        input: the same, the dark picture it was made from; for metrics that need one.

    Returns:
        NaN where a metric is undefined (a picture smaller than its window, values that are not finite).

    Raises:
        UsageError: reference or input is needed and not there, of another size, or the metric is not available.
    """
    import torch

    given = {"reference": reference, "input": input}
    _check(metric, output, given)
    function = _imported(metric.source)
    values = []
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    try:  # TF32 keeps 10 bits: too few for the difference of squares in SSIM
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        with torch.inference_mode():
            for index in range(len(output)):
                pictures = [output[index].float()]
                others = {need: other[index].float() for need, other in given.items() if other is not None}
                others = {need: other for need, other in others.items() if need in metric.needs}
                finite = all(math.isfinite(float(picture.sum())) for picture in (*pictures, *others.values()))
                values.append(float(function(*pictures, **others)) if finite else math.nan)
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
    return values


def _check(metric: Metric, output: Tensor, given: dict[str, Tensor | None]) -> None:
    if output.ndim != 4 or output.shape[1] != 3:
        raise ValueError(f"expected B×3×H×W, found {'×'.join(map(str, output.shape))}")
    for need in sorted(metric.needs):
        other = given[need]
        if other is None:
            article = "an" if need == "input" else "a"
            raise UsageError(f"{metric.name} compares with {article} {need} picture, and there is none")
        if other.shape != output.shape:
            sizes = [f"{tensor.shape[-1]}×{tensor.shape[-2]}" for tensor in (output, other)]
            raise UsageError(f"{metric.name}: the output is {sizes[0]}, the {need} {sizes[1]} pixels")
    reason = metric.unavailable()
    if reason is not None:
        raise UsageError(reason)


def _plugged(name: str, value: str) -> Metric:
    """An installed package's metric; where there is something wrong with it, one that is not available."""
    try:
        metric = _imported(value)
    except Exception as error:  # a third party's module may raise anything
        problem = f"{value} cannot be imported: {' '.join(str(error).split())}"
    else:
        if isinstance(metric, Metric) and metric.name == name:
            return metric
        problem = f"{value} is no Metric of that name"
    return Metric(name, name, "", "", 3, _ALONE, value, value, problem=problem)


def _imported(target: str) -> Any:
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)
